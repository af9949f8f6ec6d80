"""Having those leave the gates of limits who cannot do it themselves: the descendants of a run that is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from jetflow.broker.session import Session
from jetflow.engine.effects import Procedure
from jetflow.engine.gates import let_through, send_away
from jetflow.engine.graph import ADMIT
from jetflow.engine.tasks import NONE, StepAddress, Task
from jetflow.errors import MalformedRecord, PermissionDenied
from jetflow.runs import points
from jetflow.runs.tasks import task_of
from jetflow.wire.limits import LimitNames
from jetflow.wire.records import decode_join

AT_ONCE: Final = 64
"""Runs that leave at once."""

_log = logging.getLogger("jetflow.worker")

Drive: TypeAlias = Callable[[Procedure], Awaitable[Any]]


async def leave_below(session: Session, drive: Drive, root: str, parents: Iterable[str] | None = None) -> None:
    """Have the descendants of a root run, or the children of some runs, leave all gates, with their steps.

    They are cancelled.
    """
    names = LimitNames(session.names)
    try:
        if not await session.optional.is_there(names.gates_stream):
            return
    except PermissionDenied as error:  # of before there were limits; the net of a worker finds who stands there
        _log.warning("whether runs below %s stand at the gates of limits is not known: %s", root, error)
        return
    filters = [names.entries_below(root)] if parents is None else [names.entries_below(root, one) for one in parents]
    standing_there = dict[tuple[str, str | None], list[str]]()
    families = dict[str, str]()
    for one in filters:
        async for page in session.store.leader_subjects(names.gates_stream, one):
            for subject in page:
                stands = names.parse_entry(subject)
                if stands is not None and stands.run != root:  # a root run leaves behind its outcome
                    standing_there.setdefault((stands.run, stands.step), []).append(stands.place.written)
                    families[stands.run] = stands.parent
    room = asyncio.Semaphore(AT_ONCE)

    async def go(run: str, step: str | None, places: list[str]) -> None:
        async with room:
            points.before("leave_below")
            await drive(send_away(skeleton(root, families[run], run, " ".join(places)), step))
            points.after("leave_below")

    await asyncio.gather(*(go(*who, places) for who, places in standing_there.items()))


async def wake_parked(
    session: Session, drive: Drive, root: str, run: str, gate: str | None = None, *, step: str | None = None
) -> bool:
    """Have a run, or a step, go on that is parked at a gate: at that one, if one is told. Returns False if it is not.

    One that has left its gate is given its next turn, and nothing begins.
    """
    names, store = session.names, session.store
    stored = await store.leader_last(names.records_stream, names.joins_of_step(StepAddress(root, run, step or ADMIT)))
    try:
        record = None if stored is None else decode_join(stored.body)
    except MalformedRecord:
        record = None
    if record is None or record.gate is None or gate not in (None, record.gate):
        return False  # it is being admitted, and looks for itself; or it waits elsewhere
    stored = await store.leader_last(names.tasks_stream, record.task)
    task = None if stored is None else task_of(stored)
    if task is None:
        return False
    graph = session.registry.cached_graph(task.workflow, task.version)
    await drive(let_through(task, record, graph if gate is not None else None))
    return True


def skeleton(root: str, parent: str, run: str, places: str) -> Task:
    """Return as much of a task as it takes to leave."""
    return Task(
        workflow="",
        step=ADMIT,
        root=root,
        parent=parent,
        run=run,
        turn=0,
        parent_step=NONE,
        version="",
        depth=0,
        digest="",
        input=b"",
        places=places,
    )
