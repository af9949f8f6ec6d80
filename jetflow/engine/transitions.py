"""What follows what: every rule by which a run moves on.

Each rule is a *procedure*: a generator that yields one effect at a time, receives its result, and so reads aloud in
the order in which things must become durable. The shell performs the effects and acknowledges the task when the
procedure has ended; a crash between any two effects leads to a redelivery, which begins at `redelivered`. All records
are write-once, so repeating a procedure, or running two of them at once, ends in the same state.

The order is the proof (``docs/wire.md``, section Join): an outcome is stored before it is counted, counted before its
task is acknowledged, and whoever counts last sees everything.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, TypeAlias

import msgspec

from jetflow.engine.graph import END, START, Graph
from jetflow.engine.joins import SEAL, JoinRecord
from jetflow.engine.tasks import NULL, Failure, Outcome, StepAddress, Task

# --- effects ---------------------------------------------------------------------------------------------------


class StoreRun(msgspec.Struct, frozen=True, gc=False):
    """Store how a run ended, write-once. Result: None."""

    task: Task
    outcome: Outcome


class StoreMark(msgspec.Struct, frozen=True, gc=False):
    """Store that a run ended other than well, before its outcome. A hint, never the truth. Result: None."""

    task: Task
    outcome: Outcome


class StoreStep(msgspec.Struct, frozen=True, gc=False):
    """Store how a step ended, write-once. Result: None."""

    task: Task
    outcome: Outcome


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
    """A join that nobody can decide, for its record or its graph is lost: how its run ends, or has ended.

    ``task`` is of the run; ``graph`` is None if it is what is lost.
    """

    task: Task
    outcome: Outcome
    graph: Graph | None = None


class CancelRest(msgspec.Struct, frozen=True, gc=False):
    """Cancel the children of a decided join that are still open. Result: None."""

    join: StepAddress
    record: JoinRecord


class ReadEnded(msgspec.Struct, frozen=True, gc=False):
    """Read what a redelivered task has already led to. Result: an Ended."""

    task: Task


class Ended(msgspec.Struct, frozen=True):
    """What a task has already led to. ``failed`` tells how the run ended, if it has."""

    run: bool = False
    failed: bool = False
    step: bool = False
    join: JoinRecord | None = None


class ReadOutputs(msgspec.Struct, frozen=True, gc=False):
    """Read the outputs of a run's finished steps from the leader. Result: a dict by step name."""

    task: Task


class Start(msgspec.Struct, frozen=True, gc=False):
    """Publish a task of the same run, write-once. Result: None."""

    task: Task
    step: str
    turn: int


Effect: TypeAlias = (
    StoreRun | StoreMark | StoreStep | StoreJoin | Count | Look | CancelRest | ReadEnded | ReadOutputs | Start
)
Procedure: TypeAlias = Generator[Effect, Any, None]
"""Yields effects, receives their results."""

# --- rules -----------------------------------------------------------------------------------------------------


def conclude(task: Task, outcome: Outcome, graph: Graph | None = None) -> Procedure:
    """End a run: the one way in which any run ends. ``graph`` tells what runs after a failure."""
    well = outcome.status == "succeeded"
    if not well:
        yield StoreMark(task, outcome)
    yield StoreRun(task, outcome)
    yield from count_up(task, well=well)
    if graph is not None and outcome.status in ("failed", "timed_out"):
        yield from after_failure(task, graph)


def after_failure(task: Task, graph: Graph) -> Procedure:
    """Start what a workflow has declared for its failures. The run's deadline, which may have passed, is not for it."""
    if graph.on_failure is not None:
        yield Start(msgspec.structs.replace(task, deadline=None), graph.on_failure, 0)


def count_up(task: Task, *, well: bool = False) -> Procedure:
    """Count a run that has ended in its parent's join, and look at the join if it may be decided.

    A join that one failure may decide is looked at whenever a child of it may have failed. Whether it is one is known
    of a step's boundary when the child is spawned, and of a parked wait only by its record, which has then been
    counted: the counter is far above any number of children.
    """
    join = task.parent_join
    if join is None:
        return
    value = yield Count(join, "join", 1)
    if task.eager and not well:
        yield from settle(join)
    elif value is not None and value >= SEAL:
        yield from settle(join, value)
    elif value is not None and value > SEAL // 2 and not well:
        yield from settle(join, failure=True)


def settle(
    join: StepAddress, value: int | None = None, woken: set[str] | None = None, *, failure: bool = False
) -> Procedure:
    """Look whether a join is decided, and move its step on if it is."""
    view: JoinView | Broken | None = yield Look(join, value, failure)
    if view is None:
        return
    if isinstance(view, Broken):
        yield from conclude(view.task, view.outcome, view.graph)
        return
    record = view.record
    if record.kind == "parked":
        yield Start(view.task, join.step, record.turn + 1)
        return
    outcome = Outcome(
        status="succeeded",
        output=record.output,
        value=record.value,
        workflow=view.task.workflow,
        step=join.step,
        key=view.task.key,
        attempt=record.attempt,
        started=record.started,
        ended=record.ended,
        worker=record.worker,
    )
    if not view.met:
        error = children_failed(join.step, record.total, view.failed)
        outcome = msgspec.structs.replace(outcome, status="failed", output=NULL, value=None, error=error)
    yield from finish(view.task, view.graph, outcome, spawned=True, woken=woken)
    if view.rest and record.policy.cancel_rest:
        yield CancelRest(join, record)


def begin(task: Task, graph: Graph) -> Procedure:
    """Start the several first steps of a run."""
    for step in graph.downstream[START]:
        yield Start(task, step, 0)


def seal(task: Task, record: JoinRecord) -> Procedure:
    """Seal or park a step: store which children it needs, then count, then look."""
    stored: JoinRecord = yield StoreJoin(task, record)
    yield from count_seal(task, stored)


def count_seal(task: Task, record: JoinRecord) -> Procedure:
    """Count a stored join record, and look if it may be decided: by a failure, before all are counted."""
    value = yield Count(task.join, "join", record.increment)
    if record.borrowed or record.policy.early:
        yield from settle(task.join)
    elif value is not None and value >= SEAL:
        yield from settle(task.join, value)


def finish(
    task: Task, graph: Graph, outcome: Outcome, *, spawned: bool = False, woken: set[str] | None = None
) -> Procedure:
    """End a step whose children are all done. A failed step, or the only last one, ends the run."""
    if task.step == graph.on_failure:
        yield StoreStep(task, outcome)
    elif outcome.status != "succeeded" or graph.sinks == (task.step,):
        yield from conclude(task, outcome, graph)
    else:
        yield StoreStep(task, outcome)
        yield from advance(task, graph)
        if spawned:
            yield from wake_beside(task, graph, woken)


def advance(task: Task, graph: Graph) -> Procedure:
    """Start what comes after a step whose outcome is stored."""
    following = graph.downstream[task.step]
    for step in following:
        if len(graph.upstream[step]) == 1 or (yield from _passed(task, graph.upstream[step], step)):
            yield Start(task, step, 0)
    if not following:
        outputs = yield from _passed(task, graph.sinks, END)
        if outputs is not None:
            yield from conclude(task, merged(task, graph, outputs))


def _passed(task: Task, upstream: tuple[str, ...], gate: str) -> Generator[Effect, Any, dict[str, Outcome] | None]:
    """Count a step at a gate behind several; the outcomes that are stored decide, and are returned if all are there."""
    value = yield Count(StepAddress(task.root, task.run, gate), "gate", 1)
    if value is not None and value < len(upstream):
        return None
    outcomes: dict[str, Outcome] = yield ReadOutputs(task)
    return outcomes if outcomes.keys() >= set(upstream) else None


def wake_beside(task: Task, graph: Graph, woken: set[str] | None = None) -> Procedure:
    """Look at the joins of steps that may have waited for children of this one.

    A step that ends so may wake others. ``woken`` holds the steps that the chain has been at: once is enough, for a
    look depends on stored outcomes alone, and two steps that woke each other would never stop.
    """
    woken = set() if woken is None else woken
    woken.add(task.step)
    for step in graph.beside[task.step]:
        if step not in woken:
            woken.add(step)
            yield from settle(StepAddress(task.root, task.run, step), woken=woken)


def redelivered(task: Task, graph: Graph) -> Generator[Effect, Any, bool]:
    """Go on from what an earlier delivery of the task has stored. Returns False if it must run (again)."""
    ended: Ended = yield ReadEnded(task)
    if task.step == graph.on_failure:
        return ended.step
    if ended.run:
        yield from count_up(task)
        if ended.failed:
            yield from after_failure(task, graph)
    elif ended.step:
        yield from advance(task, graph)
        yield from wake_beside(task, graph)
    elif ended.join is not None:
        yield from count_seal(task, ended.join)
    return ended.run or ended.step or ended.join is not None


# --- outcomes made of others -----------------------------------------------------------------------------------


def merged(task: Task, graph: Graph, outcomes: dict[str, Outcome]) -> Outcome:
    """Return the outcome of a run with several last steps: an object of their outputs by step name.

    One whose output is lost is a failure, and that of the run.
    """
    last = [outcomes[name] for name in graph.sinks]
    for outcome in last:
        if outcome.status != "succeeded":
            return outcome
    return Outcome(
        status="succeeded",
        output=msgspec.Raw(msgspec.json.encode({outcome.step: outcome.output for outcome in last})),
        workflow=task.workflow,
        key=task.key,
        started=min(outcome.started for outcome in last),
        ended=max(outcome.ended for outcome in last),
        worker=last[-1].worker,
    )


def children_failed(step: str, total: int, failed: tuple[tuple[str, Outcome], ...]) -> Failure:
    """Return the failure of a step whose children did not all end well."""
    if not failed:
        return Failure(type="ChildrenFailed", message=f"too few of {total} children succeeded in time", step=step)
    child, outcome = failed[0]
    error = outcome.error or Failure("Cancelled", "cancelled")
    return Failure(
        type="ChildrenFailed",
        message=f"{len(failed)} of {total} children failed, among them {child} of {outcome.workflow!r}: "
        f"{error.type}: {error.message}",
        step=step,
    )
