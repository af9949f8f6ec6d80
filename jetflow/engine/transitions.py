"""What follows what: every rule by which a run moves on.

Each rule is a *procedure*: a generator that yields one effect at a time, receives its result, and so reads aloud in
the order in which things must become durable. The shell performs the effects and acknowledges the task when the
procedure has ended; a crash between any two effects leads to a redelivery, which begins at `redelivered`. All records
are write-once, so repeating a procedure, or running two of them at once, ends in the same state.

The order is the proof (``docs/wire.md``, section Join): an outcome is stored before it is counted, counted before its
task is acknowledged, and whoever counts last sees everything. A step that waits for a time is parked before its timer
is armed, and its task is acknowledged after that: a timer that fires finds the record always.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from jetflow.engine.effects import (
    Arm,
    Broken,
    CancelRest,
    CancelRun,
    ClearBelow,
    Count,
    Disarm,
    Effect,
    Ended,
    JoinView,
    Look,
    Procedure,
    ReadEnded,
    ReadSteps,
    Stand,
    Start,
    StoreAttempt,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.engine.endings import FAILED, Verdict, decide, ending, left_out
from jetflow.engine.gates import leave, leave_step, leave_steps, may_hold_places, stand_at
from jetflow.engine.graph import END, START, Graph
from jetflow.engine.joins import SEAL, JoinRecord
from jetflow.engine.levels import at_level
from jetflow.engine.tasks import LONGEST_CAUSE, NULL, Attempt, Failure, Outcome, StepAddress, Task


def conclude(task: Task, outcome: Outcome, graph: Graph | None = None) -> Procedure:
    """End a run: the one way in which any run ends. ``graph`` tells what follows a failure."""
    if outcome.status != "succeeded":
        yield StoreMark(task, outcome)
    stored: Outcome = yield StoreRun(task, outcome)
    yield from count_up(task, well=stored.status == "succeeded")
    if may_hold_places(task):
        yield from leave(task)
    if graph is not None:
        if graph.limited:
            yield from leave_steps(task, graph)
        if stored.status in FAILED:
            yield from after_failure(task, graph)
        elif graph.on_success is not None and stored.status == "succeeded":
            yield from after_success(task, graph.on_success)


def conclude_cancelled(task: Task, outcome: Outcome, graph: Graph | None = None, of: Graph | None = None) -> Procedure:
    """End a run that is cancelled, by itself or from above.

    If it holds places of limits, others may have cancelled it to have them, and may have died: once it has ended nobody
    asks for that again. So those below it leave their gates before.
    """
    if task.places is not None:
        yield ClearBelow(task)
    yield from conclude(task, outcome, graph)
    yield from leave_steps(task, of)


def conclude_from_outside(task: Task, outcome: Outcome, of: Graph | None) -> Procedure:
    """End a run that is cancelled by who does not run it; the graph is that ``of`` the run, if its steps have limits.

    Those below it were sent away before; its own steps leave behind its outcome.
    """
    yield from conclude(task, outcome)
    yield from leave_steps(task, of)


def conclude_below(task: Task, outcome: Outcome, of: Graph | None) -> Procedure:
    """End a run that is cancelled from above, and marked so: a repetition passes over it once it has an outcome.

    So its steps leave before; one that comes to a gate later finds the mark, and leaves by itself.
    """
    yield from leave_steps(task, of)
    yield from conclude(task, outcome)


def after_failure(task: Task, graph: Graph) -> Procedure:
    """Do what a workflow has declared for its failures. The run's deadline, which may have passed, is not for it."""
    if graph.fail_fast and len(graph.nodes) > 1:
        yield CancelRun(task, tuple(graph.upstream), graph.on_failure)
    if graph.on_failure is not None:
        yield Start(msgspec.structs.replace(at_level(task, graph), deadline=None), graph.on_failure, 0)


def after_success(task: Task, step: str) -> Procedure:
    """Do what a workflow has declared for its successes."""
    yield Start(msgspec.structs.replace(task, deadline=None), step, 0)


def repeat_end(task: Task, graph: Graph | None, ended: Outcome) -> Procedure:
    """Repeat what follows the end of a run that is stored, for whoever ended it may have died before it was done."""
    yield from count_up(task)
    yield from leave(task)
    if graph is not None:
        yield from leave_steps(task, graph)
        if ended.status in FAILED:
            yield from after_failure(task, graph)
        elif graph.on_success is not None and ended.status == "succeeded":
            yield from after_success(task, graph.on_success)


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
        rule = conclude_cancelled if view.outcome.status == "cancelled" else conclude
        yield from rule(view.task, view.outcome, view.graph)
        return
    record = view.record
    if record.kind == "parked":
        yield from wake(view.task, record.tried)
        if record.until is not None:
            yield Disarm(view.task)
        return
    outcome = Outcome(
        status=record.status,
        error=record.error,
        output=record.output,
        value=record.value,
        workflow=view.task.workflow,
        step=join.step,
        key=view.task.key,
        attempt=record.attempt,
        started=record.started,
        ended=record.ended,
        worker=record.worker,
        adopted=record.adopted,
    )
    if not view.met:
        error = children_failed(join.step, record.total, view.failed)
        outcome = msgspec.structs.replace(outcome, status="failed", output=NULL, value=None, error=error)
    yield from finish(view.task, view.graph, outcome, spawned=True, woken=woken)
    if view.rest and record.policy.cancel_rest:
        yield CancelRest(join, record)


def begin(task: Task, graph: Graph) -> Procedure:
    """Start the first steps of a run, where there are several, or where it has a level."""
    for step in graph.downstream[START]:
        yield Start(at_level(task, graph), step, 0)


def seal(task: Task, record: JoinRecord) -> Procedure:
    """Seal or park a step: store what it waits for, then see to it that somebody goes on with it."""
    stored: JoinRecord = yield StoreJoin(task, record)
    yield from await_wakers(task, stored)


def postpone(task: Task, delivery: int, tried: Attempt, record: JoinRecord) -> Procedure:
    """Park a step whose attempt failed until it is tried again."""
    yield StoreAttempt(task, delivery, tried)
    yield from seal(task, record)


def await_wakers(task: Task, record: JoinRecord, graph: Graph | None = None) -> Procedure:
    """Arm the timer of a step whose join record is stored, store its waits, and count its children."""
    due = record.until is not None and (yield Arm(task, record))
    if due or (record.waits and (yield Stand(task, record))):
        yield from wake(task, record.tried)
        if record.until is not None and not due:
            yield Disarm(task)
    elif record.gate is not None:
        yield from stand_at(task, record, graph)
    elif record.counted:
        yield from count_seal(task, record)


def wake(task: Task, tried: int) -> Procedure:
    """Publish the next turn of a parked step. Whoever wakes proves nothing: once too often costs a turn."""
    yield Start(task, task.step, task.turn + 1, tried)


def wake_early(task: Task, tried: int) -> Procedure:
    """Publish the next turn of a parked step that has a timer, before it fires."""
    yield from wake(task, tried)
    yield from disarm(task)


def disarm(task: Task) -> Procedure:
    """Take back the timer of a parked step that needs it no more."""
    yield Disarm(task)


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
    """End a step that waits for nothing more, however it ended. The end of the only last one is the run's."""
    if task.step in graph.sequels:
        yield StoreStep(task, outcome)
    elif graph.sinks == (task.step,):
        yield from conclude(task, outcome, graph)
    else:
        stored: Outcome = yield StoreStep(task, outcome)
        yield from advance(task, graph, task.step, stored)
        if task.step in graph.limited:
            yield from leave_step(task, task.step)
        if spawned:
            yield from wake_beside(task, graph, woken)


def leave_out(task: Task, graph: Graph, outcome: Outcome) -> Procedure:
    """End a step that its conditions have decided against. It is the run's end only by what follows, as at a gate."""
    stored: Outcome = yield StoreStep(task, outcome)
    yield from advance(task, graph, task.step, stored)


def advance(task: Task, graph: Graph, step: str, ended: Outcome) -> Procedure:
    """Go on behind a step of a task's run whose outcome is stored: run, or leave out, what comes after it."""
    if graph.fail_fast and ended.status in FAILED:
        yield from conclude(task, ending(task, graph, {step: ended}), graph)
        return
    for following in graph.downstream[step]:
        upstream = graph.upstream[following]
        before = {step: ended} if len(upstream) == 1 else (yield from _gathered(task, upstream, following))
        if before is None:
            continue
        conditional = following in graph.conditional
        verdict: Verdict = decide((outcome.status for outcome in before.values()), conditional=conditional)
        if verdict == "run":
            yield Start(task, following, 0)
        else:
            not_run = msgspec.structs.replace(task, step=following)
            stored: Outcome = yield StoreStep(not_run, left_out(task, following, verdict, before))
            yield from advance(task, graph, following, stored)
    if step in graph.sinks and (yield from _may_pass(task, graph.sinks, END)):
        steps: dict[str, Outcome] = yield ReadSteps(task, outputs=True)
        if steps.keys() >= set(graph.sinks):
            yield from conclude(task, ending(task, graph, steps), graph)


def _gathered(task: Task, upstream: tuple[str, ...], gate: str) -> Generator[Effect, Any, dict[str, Outcome] | None]:
    """Come to a gate behind several steps; return how they have ended, if all have."""
    if not (yield from _may_pass(task, upstream, gate)):
        return None
    steps: dict[str, Outcome] = yield ReadSteps(task)
    return {name: steps[name] for name in upstream} if steps.keys() >= set(upstream) else None


def _may_pass(task: Task, upstream: tuple[str, ...], gate: str) -> Generator[Effect, Any, bool]:
    """Come to a gate. Behind several steps a counter says when to look, and the outcomes that are stored decide."""
    if len(upstream) == 1:
        return True
    value: int | None = yield Count(StepAddress(task.root, task.run, gate), "gate", 1)
    return value is None or value >= len(upstream)


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
    is_sequel = task.step in graph.sequels
    ended: Ended = yield ReadEnded(task, is_sequel)
    if ended.run is not None and not is_sequel:
        yield from repeat_end(task, graph, ended.run)
    elif ended.step is not None:
        if not is_sequel:
            if ended.joined:  # a look of somebody else may have ended it before its record was counted
                yield Count(task.join, "join", SEAL)
            yield from advance(task, graph, task.step, ended.step)
            if task.step in graph.limited:
                yield from leave_step(task, task.step)
            yield from wake_beside(task, graph)
    elif ended.join is not None:
        yield from await_wakers(task, ended.join, graph)
    else:
        return False
    return True


# --- outcomes made of others -----------------------------------------------------------------------------------


def children_failed(step: str, total: int, failed: tuple[tuple[str, Outcome], ...]) -> Failure:
    """Return the failure of a step whose children did not all end well."""
    if not failed:
        return Failure(type="ChildrenFailed", message=f"too few of {total} children succeeded in time", step=step)
    child, outcome = failed[0]
    error = outcome.error or Failure("Cancelled", "cancelled")
    key = "" if outcome.key is None else f" (key {outcome.key!r})"
    return Failure(
        type="ChildrenFailed",
        message=f"{len(failed)} of {total} children failed, first run {child} of {outcome.workflow!r}{key}: "
        f"{error.type}: {error.message[:LONGEST_CAUSE]}",
        step=step,
    )
