"""The effects that the rules ask for: what each does, and what the rule that asked is given as its result."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, TypeAlias

import msgspec

from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place
from jetflow.engine.rates import Rate
from jetflow.engine.tasks import Attempt, Outcome, StepAddress, Task


class StoreRun(msgspec.Struct, frozen=True, gc=False):
    """Store how a run ended, write-once. Result: the outcome that is stored."""

    task: Task
    outcome: Outcome


class StoreMark(msgspec.Struct, frozen=True, gc=False):
    """Store that a run ended other than well, before its outcome. A hint, never the truth. Result: None."""

    task: Task
    outcome: Outcome


class StoreStep(msgspec.Struct, frozen=True, gc=False):
    """Store how a step ended, write-once. Result: the outcome that is stored."""

    task: Task
    outcome: Outcome


class StoreAttempt(msgspec.Struct, frozen=True, gc=False):
    """Store how one delivery of a task ended without an outcome, write-once. Result: None."""

    task: Task
    delivery: int
    attempt: Attempt


class StoreJoin(msgspec.Struct, frozen=True, gc=False):
    """Store a join record, write-once for its turn. Result: the record that is stored."""

    task: Task
    record: JoinRecord


class Count(msgspec.Struct, frozen=True, gc=False):
    """Add to a counter. Result: the new value, or None when another procedure of this batch was given it."""

    address: StepAddress
    kind: Literal["join", "gate"]
    by: int


class Look(msgspec.Struct, frozen=True, gc=False):
    """Read a join and its outcomes from the leader. ``value`` is the counter value that asks for it.

    Where a child's failure asks for it (``failure``), only a join that one failure may decide is worth it.

    Result: a JoinView, or None when nothing is sealed, the look cannot be worth it, or outcomes are missing; a Broken
    when no look can ever decide it.
    """

    join: StepAddress
    value: int | None
    failure: bool = False


class JoinView(msgspec.Struct, frozen=True):
    """A join that is decided: its record, its step's task, its run's graph, and the children that did not end well.

    ``met`` tells how its policy was decided; ``rest`` says that children may be open that it does not need.
    """

    record: JoinRecord
    task: Task
    graph: Graph
    failed: tuple[tuple[str, Outcome], ...] = ()
    met: bool = True
    rest: bool = False


class Broken(msgspec.Struct, frozen=True):
    """A join that nobody decides any more, for its record or its graph is lost, or its run is cancelled.

    ``outcome`` is how its run ends, or has ended. ``task`` is of the run; ``graph`` is None if it is what is lost.
    """

    task: Task
    outcome: Outcome
    graph: Graph | None = None


class Arm(msgspec.Struct, frozen=True, gc=False):
    """Have the next turn of a parked step published at the time that its record names.

    Result: False once a timer of the broker is armed; True when the time has come already.
    """

    task: Task
    record: JoinRecord


class Stand(msgspec.Struct, frozen=True, gc=False):
    """Store the waits of a parked step for events, then look whether one of them is stored.

    Result: True if one is, so that the step need not wait for it.
    """

    task: Task
    record: JoinRecord


class Disarm(msgspec.Struct, frozen=True, gc=False):
    """Remove the timer of a turn that was woken before. Result: None."""

    task: Task


class CancelRun(msgspec.Struct, frozen=True, gc=False):
    """Cancel what the steps of a run that has ended have left open, and what they have spawned. Result: None.

    The step that runs after a failure, ``spared``, and what it spawns go on.
    """

    task: Task
    steps: tuple[str, ...]
    spared: str | None = None


class CancelRest(msgspec.Struct, frozen=True, gc=False):
    """Cancel the children of a decided join that are still open. Result: None."""

    join: StepAddress
    record: JoinRecord


class ReadEnded(msgspec.Struct, frozen=True, gc=False):
    """Read what a redelivered task has already led to. Result: an Ended.

    A ``sequel`` runs when its run has ended: then the join record of its turn is read all the same.
    """

    task: Task
    sequel: bool = False


class Ended(msgspec.Struct, frozen=True):
    """What a task has already led to: the outcomes of its run and of its step, the join record of its turn.

    That record is read where it decides how to go on: if its step has ended, it is told that it is ``joined``.
    """

    run: Outcome | None = None
    step: Outcome | None = None
    join: JoinRecord | None = None
    joined: bool = False


class ReadSteps(msgspec.Struct, frozen=True, gc=False):
    """Read from the leader how the steps of a run have ended. Result: a dict of outcomes by step name.

    With ``outputs`` those that were too large for their records are read as well.
    """

    task: Task
    outputs: bool = False


class Start(msgspec.Struct, frozen=True, gc=False):
    """Publish a task of the same run, write-once; it counts ``tried`` attempts as made. Result: None."""

    task: Task
    step: str
    turn: int
    tried: int = 0


class Enter(msgspec.Struct, frozen=True, gc=False):
    """Store that a run, or a ``step`` of it, stands at a gate, write-once, unless it has gone.

    Result: False if it has gone, and nothing is stored.
    """

    task: Task
    place: Place
    step: str | None = None


class LookAtGate(msgspec.Struct, frozen=True, gc=False):
    """Read from the leader who stands at a gate, and wake those that are parked there and may begin.

    Result: a Standing: how ``run`` stands there, if one is named (`jetflow.engine.limits.stander`).
    """

    place: Place
    run: str = ""


class TakeTurn(msgspec.Struct, frozen=True, gc=False):
    """Take a run's turn at its rate limits, or have it given a time. It may have been given one before (``booked``).

    Result: a Turn. If it begins, that is stored, and was so a moment ago.
    """

    rates: tuple[Rate, ...]
    booked: float | None = None


class EndRuns(msgspec.Struct, frozen=True, gc=False):
    """Cancel runs that have to make room at a gate. Result: None."""

    place: Place
    runs: tuple[str, ...]


class ReadOver(msgspec.Struct, frozen=True, gc=False):
    """Read from the leader whether a run has ended, or is cancelled with its parent or its tree. Result: whether."""

    task: Task


class ReadPlaces(msgspec.Struct, frozen=True, gc=False):
    """Read which places a run, or a ``step`` of it, has asked for.

    Result: a tuple of Places; empty if it has not come so far.
    """

    task: Task
    step: str | None = None


class WakeParked(msgspec.Struct, frozen=True, gc=False):
    """Publish the next turn of a run, or of a ``step``, that is parked at a gate, whichever. Result: None."""

    task: Task
    step: str | None = None


class ClearBelow(msgspec.Struct, frozen=True, gc=False):
    """Have the runs below one that is cancelled with them leave all gates, and wake those that are parked there.

    Those that have children are marked as cancelled before. Result: None.
    """

    task: Task


class StoreGone(msgspec.Struct, frozen=True, gc=False):
    """Store that a run, or a ``step``, has gone, write-once: nobody enters a gate for it any more. Result: None."""

    task: Task
    step: str | None = None


class RemoveEntry(msgspec.Struct, frozen=True, gc=False):
    """Remove what says that a run, or a ``step`` of it, stands at a gate. Result: None."""

    task: Task
    place: Place
    step: str | None = None


Effect: TypeAlias = (
    StoreRun
    | StoreMark
    | StoreStep
    | StoreAttempt
    | StoreJoin
    | Arm
    | Disarm
    | Stand
    | Count
    | Look
    | CancelRun
    | CancelRest
    | ReadEnded
    | ReadSteps
    | Start
    | Enter
    | LookAtGate
    | TakeTurn
    | EndRuns
    | ReadOver
    | ReadPlaces
    | WakeParked
    | ClearBelow
    | StoreGone
    | RemoveEntry
)
Procedure: TypeAlias = Generator[Effect, Any, None]
"""Yields effects, receives their results."""
