"""The gates of limits: entering one, standing at it, and leaving it.

Store first, then look, on both sides. A run enters, is parked, and looks; whoever leaves takes the entry away, and
looks. So there is always somebody who sees that a place is free. A look has every parked run woken that may begin; to
wake one too often costs a turn.

A run leaves when its outcome is stored. That it has *gone* is stored for ever, before its entries are removed: a worker
that was slow, and enters for it after that, is refused, or the place would be taken for ever.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from jetflow.engine.effects import (
    Disarm,
    Effect,
    EndRuns,
    Enter,
    LookAtGate,
    Procedure,
    ReadOver,
    ReadPlaces,
    RemoveEntry,
    Start,
    StoreGone,
)
from jetflow.engine.graph import ADMIT, START, Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, Standing, places_of
from jetflow.engine.tasks import Task


def may_hold_places(task: Task) -> bool:
    """Tell whether a task is of a run that may have entered gates."""
    return task.places is not None or task.step == ADMIT


def leave(task: Task) -> Procedure:
    """Give the places of a run back that has ended, if it has any, and let others have them."""
    if not may_hold_places(task):
        return
    places: tuple[Place, ...] = yield ReadPlaces(task)
    if not places:
        return
    yield StoreGone(task)
    for place in places:
        yield RemoveEntry(task, place)
        yield LookAtGate(place)


def go(task: Task) -> Procedure:
    """Have a run enter no gate any more; its entries stay until it leaves."""
    yield StoreGone(task)


def come_to(task: Task, place: Place) -> Generator[Effect, Any, Standing | None]:
    """Enter a gate, and return how the run stands there; None if it has gone, for it has ended."""
    if not (yield Enter(task, place)):
        return None
    return (yield from look(task, place))


def look(task: Task, place: Place) -> Generator[Effect, Any, Standing]:
    """Return how a run stands at a gate, when those have made room that have to."""
    found: Standing = yield LookAtGate(place, task.run)
    if found.doomed:
        yield EndRuns(place, found.doomed)
        found = yield LookAtGate(place, task.run)
    return found


def stand_at(task: Task, record: JoinRecord, graph: Graph | None = None) -> Procedure:
    """Look once more at the gate that a parked run stands at; if it may begin, it does at once.

    Whoever has ended the run meanwhile may not have seen its entry: then it leaves here.
    """
    for place in places_of(record.gate):
        found = yield from look(task, place)
        if found.admitted:
            yield from let_through(task, record, graph)
        elif (yield ReadOver(task)):
            yield from leave(task)


def let_through(task: Task, record: JoinRecord, graph: Graph | None) -> Procedure:
    """Have a run go on that is parked at a gate where there is a place for it.

    Where it needs no other place, and its graph is at hand, its first steps begin. Else its next turn does, which finds
    what the run has.
    """
    if record.admits is None or graph is None:
        yield Start(task, task.step, task.turn + 1, record.tried)
    else:
        yield from begin_admitted(task, graph, record.admits)
    if record.until is not None:
        yield Disarm(task)


def begin_admitted(task: Task, graph: Graph, places: str | None) -> Procedure:
    """Begin the first steps of a run, which has these places."""
    admitted = msgspec.structs.replace(task, places=places)
    for step in graph.downstream[START]:
        yield Start(admitted, step, 0)
