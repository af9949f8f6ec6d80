"""The gates of limits: entering one, standing at it, and leaving it.

Store first, then look, on both sides. A run enters, is parked, and looks; whoever leaves takes the entry away, and
looks. So there is always somebody who sees that a place is free. A look has every parked run woken that may begin; to
wake one too often costs a turn.

A run leaves when its outcome is stored. That it has *gone* is stored for ever, before its entries are removed: a worker
that was slow, and enters for it after that, is refused, or the place would be taken for ever.

A step that has limits of its own stands there by itself (``step``), and leaves when its outcome, or that of its run, is
stored.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from jetflow.engine.effects import (
    Disarm,
    Effect,
    Ended,
    EndRuns,
    Enter,
    LookAtGate,
    Procedure,
    ReadEnded,
    ReadOver,
    ReadPlaces,
    RemoveEntry,
    Start,
    StoreGone,
    WakeParked,
)
from jetflow.engine.graph import ADMIT, START, Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.levels import at_level
from jetflow.engine.limits import Place, Standing, places_of, stander
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
    yield from _remove(task, places)


def leave_step(task: Task, step: str) -> Procedure:
    """Give the places of a step back that has ended, or whose run has, if it has any, and let others have them."""
    places: tuple[Place, ...] = yield ReadPlaces(task, step)
    if places:
        yield StoreGone(task, step)
        yield from _remove(task, places, step)


def leave_steps(task: Task, graph: Graph | None) -> Procedure:
    """Give the places of all steps of a run back that has ended."""
    for step in () if graph is None else graph.limited:
        yield from leave_step(task, step)


def send_away(task: Task, step: str | None = None) -> Procedure:
    """Have a run leave that was cancelled from above and may have no outcome: its next turn, if it is parked, ends it.

    It is woken before its entries are removed: by them it is found again if whoever does this dies in the middle.
    """
    yield StoreGone(task, step)
    yield WakeParked(task, step)
    yield from _remove(task, places_of(task.places), step)


def _remove(task: Task, places: tuple[Place, ...], step: str | None = None) -> Procedure:
    for place in places:
        yield RemoveEntry(task, place, step)
        yield LookAtGate(place)


def come_to(task: Task, place: Place, step: str | None = None) -> Generator[Effect, Any, Standing | None]:
    """Enter a gate, and return how the run, or its step, stands there; None if it has gone, for it has ended."""
    if not (yield Enter(task, place, step)):
        return None
    return (yield from look(task, place, step))


def look(task: Task, place: Place, step: str | None = None) -> Generator[Effect, Any, Standing]:
    """Return how a run, or its step, stands at a gate, when those have made room that have to."""
    found: Standing = yield LookAtGate(place, stander(task.run, step))
    if found.doomed:
        yield EndRuns(place, found.doomed)
        found = yield LookAtGate(place, stander(task.run, step))
    return found


def stand_at(task: Task, record: JoinRecord, graph: Graph | None = None) -> Procedure:
    """Look once more at the gate that a parked run, or step, stands at; if it may begin, it does at once.

    Whoever has ended the run meanwhile may not have seen its entry: then it leaves here. One that is cancelled and has
    no outcome yet is given its next turn, for whoever had to end it may have died.
    """
    step = None if task.step == ADMIT else task.step
    for place in places_of(record.gate):
        found = yield from look(task, place, step)
        if found.admitted:
            yield from let_through(task, record, graph)
        elif (yield ReadOver(task)):
            yield from leave(task) if step is None else leave_step(task, step)
            ended: Ended = yield ReadEnded(task)
            if ended.run is None:
                yield from let_through(task, record, None)


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
    admitted = msgspec.structs.replace(at_level(task, graph), places=places)
    for step in graph.downstream[START]:
        yield Start(admitted, step, 0)
