"""Reruns: a new run in the place of one that has ended, which takes over what went well in that one.

The old run, its *elder*, is left as it is. The new run has an id of its own, and its elder's children are found by
computing: a child of an elder is derived from the elder as a child of the new run is derived from that. What
succeeded there is *adopted*: its outcome is stored once more, as that of the new run, and counted as any other. So
every rule of joins stands as it is, and an old worker that wakes up late changes nothing in the new run.

The spawning step adopts the outcomes of its children, and counts them before it seals: with its own redelivery the
counting is repeated. Where several steps may share a child only the task's subject says whose it is: there it is
spawned, and adopts itself. The records of a rerun always name their members, for a child that was adopted has no task
by which it would be found.
"""

from __future__ import annotations

from jetflow.engine.effects import Count, Procedure
from jetflow.engine.graph import Graph
from jetflow.engine.joins import SEAL, JoinRecord
from jetflow.engine.tasks import Outcome, StepAddress, Task
from jetflow.engine.transitions import finish, seal, settle


def adopt(task: Task, graph: Graph, subject: str, outcome: Outcome, members: bytes) -> Procedure:
    """End a step as its elder has ended: ``members`` are its children that count, whose outcomes are stored.

    ``subject`` is that of the task. It needs none of them, and is sealed all the same: later steps read which they
    are, and a step beside may wait for one that another attempt has spawned.
    """
    if len(graph.nodes) == 1:
        yield from finish(task, graph, outcome)
    else:
        yield from seal(task, adopted_join(subject, task.turn, outcome, members))


def adopted_join(task: str, turn: int, outcome: Outcome, members: bytes) -> JoinRecord:
    """Return the join record of a step that ends as its elder has ended, and waits for none of its children."""
    return JoinRecord(
        kind="sealed",
        turn=turn,
        task=task,
        needed=0,
        members=members,
        status=outcome.status,
        output=outcome.output,
        value=outcome.value,
        attempt=outcome.attempt,
        started=outcome.started,
        ended=outcome.ended,
        worker=outcome.worker,
        adopted=outcome.adopted,
    )


def count_adopted(join: StepAddress, number: int) -> Procedure:
    """Count children whose outcomes their parent has stored, before it seals; and look, if another attempt has sealed.

    All of them, also those that an earlier attempt has stored: it may have died before it counted them.
    """
    value = yield Count(join, "join", number)
    if value is not None and value >= SEAL:
        yield from settle(join, value)
