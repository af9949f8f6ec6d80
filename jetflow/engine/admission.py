"""Admission: what comes before the first steps of a run whose workflow has limits.

It is a step of its own, `_admit`, that needs no slot and runs no function of a step. Each of its turns begins from the
top: a place that the run has is found to be its own, the first one that it has not is waited for, parked. When it has
all of them, its first steps begin. Places are taken in the order of their limits' names, by all runs of all workflows:
so no two can wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jetflow.engine.effects import Procedure, Start, StoreJoin
from jetflow.engine.gates import come_to, leave
from jetflow.engine.graph import START, Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, written_places
from jetflow.engine.tasks import Failure, Outcome, Task
from jetflow.engine.transitions import await_wakers, conclude


def admit(
    task: Task, graph: Graph, places: Sequence[Place], subject: str, now: float, until: float | None = None
) -> Procedure:
    """Take the places that a run needs, or park it before the first that is not free, ``until`` a time at most.

    ``subject`` is that of the task.
    """
    for place in places:
        found = yield from come_to(task, place)
        if found is None:  # it has ended, and has left; whoever ends it may not know all its places
            yield from leave(task)
            return
        if found.refused:
            yield from conclude(task, full(task, place, now))
            return
        if not found.admitted:
            record = JoinRecord(
                kind="parked",
                turn=task.turn,
                task=subject,
                needed=0,
                gate=place.written,
                until=until,
                started=now,
                ended=now,
            )
            stored: JoinRecord = yield StoreJoin(task, record)
            yield from await_wakers(task, stored)
            return
    admitted = msgspec.structs.replace(task, places=written_places(places)) if places else task
    for step in graph.downstream[START]:
        yield Start(admitted, step, 0)


def full(task: Task, place: Place, now: float) -> Outcome:
    """Return the outcome of a run that finds no place, and may not wait for one."""
    return Outcome(
        status="cancelled",
        error=Failure("LimitReached", f"limit {place.limit!r} has no place for another run of this key"),
        workflow=task.workflow,
        step=task.step,
        key=task.key,
        started=now,
        ended=now,
    )
