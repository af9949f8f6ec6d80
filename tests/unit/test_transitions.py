"""What follows what: the procedures, driven by hand. Each test reads as the sequence of what becomes durable."""

from collections.abc import Callable, Generator, Mapping
from typing import Any

import msgspec
import pytest

from jetflow.engine.effects import (
    Arm,
    CancelRest,
    CancelRun,
    Count,
    Disarm,
    Effect,
    Ended,
    JoinView,
    Look,
    ReadEnded,
    ReadSteps,
    Start,
    StoreAttempt,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.engine.graph import END, START, Graph, Node
from jetflow.engine.joins import SEAL, Borrowed, JoinRecord
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import NONE, Attempt, Failure, Outcome, Status, StepAddress, Task
from jetflow.engine.transitions import (
    begin,
    conclude,
    count_up,
    finish,
    postpone,
    redelivered,
    seal,
    settle,
    wake_beside,
)

ROOT, PARENT, RUN = "0" * 32, "1" * 32, "2" * 32
PARENT_JOIN = StepAddress(ROOT, PARENT, "scan")
ONE = Graph("w", (Node("run"),))
LINE = Graph("w", (Node("a"), Node("b", ("a",))))
DIAMOND = Graph("w", (Node("a"), Node("b", ("a",)), Node("c", ("a",)), Node("d", ("b", "c"))))
TWO_ENDS = Graph("w", (Node("a"), Node("b", ("a",)), Node("c", ("a",))))
WATCHED = Graph("w", (Node("a"),), "watch")
TWO_STARTS = Graph("w", (Node("a"), Node("b")))

Answers = Mapping[type[Any], Any]


def task(step: str = "run", *, parent: str = PARENT, turn: int = 0) -> Task:
    return Task(
        workflow="w",
        step=step,
        root=RUN if parent == NONE else ROOT,
        parent=parent,
        run=RUN,
        turn=turn,
        parent_step=NONE if parent == NONE else "scan",
        version="v",
        depth=0 if parent == NONE else 1,
        digest="2-d",
        input=b"{}",
        key="k",
    )


def outcome(step: str = "run", output: bytes = b"1", **fields: Any) -> Outcome:
    return Outcome(status="succeeded", output=msgspec.Raw(output), workflow="w", step=step, **fields)


FAILED = Outcome(status="failed", error=Failure("ValueError", "no"), workflow="w", step="run")


def sealed(needed: int = 2, **fields: Any) -> JoinRecord:
    return JoinRecord(kind="sealed", turn=0, task="subject", needed=needed, output=msgspec.Raw(b"7"), **fields)


def parked(turn: int = 0) -> JoinRecord:
    return JoinRecord(kind="parked", turn=turn, task="subject", needed=1)


def drive(procedure: Generator[Effect, Any, Any], answers: Answers | None = None) -> tuple[list[Effect], Any]:
    """Drive a procedure to its end. An answer is a value, or a function of the effect."""
    done: list[Effect] = []
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return done, stop.value
        done.append(effect)
        result = (answers or {}).get(type(effect), effect.outcome if isinstance(effect, StoreRun | StoreStep) else None)
        if isinstance(result, Callable):
            result = result(effect)


def effects(procedure: Generator[Effect, Any, Any], answers: Answers | None = None) -> list[Effect]:
    return drive(procedure, answers)[0]


def kinds(procedure: Generator[Effect, Any, Any], answers: Answers | None = None) -> list[type[Any]]:
    return [type(effect) for effect in effects(procedure, answers)]


# --- a run ends


def test_a_root_run_ends_with_its_outcome() -> None:
    root = task(parent=NONE)
    assert effects(finish(root, ONE, outcome())) == [StoreRun(root, outcome())]


def test_a_child_stores_its_outcome_before_it_is_counted() -> None:
    assert effects(finish(task(), ONE, outcome()), {Count: SEAL - 1}) == [
        StoreRun(task(), outcome()),
        Count(PARENT_JOIN, "join", 1),
    ]


def test_a_failure_is_marked_before_it_is_stored() -> None:
    """Else a join that counts the outcome could take it for a success."""
    assert kinds(conclude(task(), FAILED)) == [StoreMark, StoreRun, Count]


@pytest.mark.parametrize(("value", "looks"), [(SEAL - 1, False), (SEAL, True), (SEAL + 1, True), (None, False)])
def test_whoever_counts_to_seal_looks(value: int | None, looks: bool) -> None:
    expected: list[Effect] = [Count(PARENT_JOIN, "join", 1)]
    if looks:
        expected.append(Look(PARENT_JOIN, value))
    assert effects(count_up(task(), well=True), {Count: value}) == expected


def test_a_failure_looks_at_a_record_that_is_counted() -> None:
    """It may be a parked wait under a policy that one failure decides; before the record is counted there is none."""
    assert effects(count_up(task()), {Count: SEAL - 1})[-1] == Look(PARENT_JOIN, None, failure=True)
    assert kinds(count_up(task()), {Count: 1}) == [Count]


def failed(step: str, **fields: Any) -> Outcome:
    return msgspec.structs.replace(FAILED, step=step, error=Failure("ValueError", f"{step} broke", step), **fields)


def test_what_comes_behind_a_failed_step_is_left_out_down_to_the_end_of_the_run() -> None:
    ended = failed("a", ended=5.0)
    left_out: Outcome | None = None

    def steps(_: Effect) -> dict[str, Outcome]:
        assert left_out is not None
        return {"a": ended, "b": left_out}

    def store(effect: StoreStep) -> Outcome:
        nonlocal left_out
        left_out = effect.outcome
        return effect.outcome

    done = effects(finish(task("a"), LINE, ended), {ReadSteps: steps, StoreStep: store})
    assert [type(effect) for effect in done] == [StoreStep, StoreStep, ReadSteps, StoreMark, StoreRun, Count]
    assert left_out is not None
    assert (left_out.status, left_out.step, left_out.ended) == ("cancelled", "b", 5.0)
    assert left_out.error == Failure("Cancelled", "not run: step 'a' failed", "b")
    [run] = [effect.outcome for effect in done if isinstance(effect, StoreRun)]
    assert (run.status, run.step, run.error, run.errors) == ("failed", "a", ended.error, ())


def test_the_outcome_that_is_stored_decides_what_follows_not_one_that_came_late() -> None:
    """A zombie may have succeeded where a later attempt has failed."""
    done = effects(finish(task("a"), LINE, outcome("a")), {StoreStep: failed("a"), ReadSteps: {"a": failed("a")}})
    assert not any(isinstance(effect, Start) for effect in done)


def test_steps_beside_a_failed_one_are_waited_for() -> None:
    done = effects(finish(task("b"), DIAMOND, failed("b")), {Count: 1})
    assert done == [StoreStep(task("b"), failed("b")), Count(StepAddress(ROOT, RUN, "d"), "gate", 1)]


def test_a_run_that_fails_fast_ends_at_its_first_failure() -> None:
    fast = msgspec.structs.replace(TWO_ENDS, fail_fast=True)
    done = effects(finish(task("b"), fast, failed("b")))
    assert [type(effect) for effect in done] == [StoreStep, StoreMark, StoreRun, Count, CancelRun]
    again, handled = drive(redelivered(task("b"), fast), {ReadEnded: Ended(run=failed("b"))})
    assert handled
    assert again[-1] == CancelRun(task("b"), ("a", "b", "c"), None)


# --- a step waits for a time

TRIED = Attempt(attempt=1, worker="", started=0.0, ended=0.0, again=9.0)
LATER = JoinRecord(kind="parked", turn=0, task="subject", needed=0, until=9.0, tried=1)
BOUNDED = JoinRecord(kind="parked", turn=0, task="subject", needed=2, until=9.0)


def test_an_attempt_that_failed_is_stored_and_parked_before_its_timer_is_armed() -> None:
    done = effects(postpone(task(), 1, TRIED, LATER), {StoreJoin: LATER, Arm: False})
    assert done == [StoreAttempt(task(), 1, TRIED), StoreJoin(task(), LATER), Arm(task(), LATER)]


def test_a_time_that_has_come_starts_the_next_turn_which_knows_the_attempts() -> None:
    done = effects(postpone(task(), 1, TRIED, LATER), {StoreJoin: LATER, Arm: True})
    assert done[-1] == Start(task(), "run", 1, 1)


def test_a_join_with_a_deadline_is_armed_and_counted() -> None:
    done = effects(seal(task(), BOUNDED), {StoreJoin: BOUNDED, Arm: False, Count: 1})
    assert done[1:] == [Arm(task(), BOUNDED), Count(task().join, "join", SEAL - 2)]


def test_the_timer_of_a_join_that_is_complete_is_removed() -> None:
    done = effects(settle(task().join, SEAL), {Look: JoinView(BOUNDED, task(), ONE)})
    assert done[1:] == [Start(task(), "run", 1), Disarm(task())]


def test_a_redelivered_task_of_a_parked_step_arms_its_timer_again() -> None:
    done, handled = drive(redelivered(task(), ONE), {ReadEnded: Ended(join=LATER), Arm: False})
    assert handled
    assert done == [ReadEnded(task()), Arm(task(), LATER)]


def test_a_child_of_an_eager_join_that_failed_looks_at_once() -> None:
    eager = msgspec.structs.replace(task(), eager=True)
    done = effects(conclude(eager, FAILED), {Count: 1})
    assert done[-1] == Look(PARENT_JOIN, None)
    assert kinds(conclude(eager, outcome()), {Count: 1}) == [StoreRun, Count]


@pytest.mark.parametrize(("status", "runs"), [("failed", True), ("timed_out", True), ("cancelled", False)])
def test_on_failure_runs_after_a_failure(status: Status, runs: bool) -> None:
    ended = msgspec.structs.replace(FAILED, status=status)
    done = effects(conclude(task("a"), ended, WATCHED))
    assert (done[-1] == Start(task("a"), "watch", 0)) is runs
    assert Start(task("a"), "watch", 0) not in effects(conclude(task("a"), outcome(), WATCHED))


def test_the_end_of_on_failure_changes_nothing() -> None:
    assert kinds(finish(task("watch"), WATCHED, outcome("watch"))) == [StoreStep]
    assert kinds(finish(task("watch"), WATCHED, FAILED)) == [StoreStep]
    assert drive(redelivered(task("watch"), WATCHED), {ReadEnded: Ended(run=FAILED)})[1] is False
    assert drive(redelivered(task("watch"), WATCHED), {ReadEnded: Ended(run=FAILED, step=FAILED)})[1] is True


def test_on_failure_is_started_again_by_a_redelivery() -> None:
    done, handled = drive(redelivered(task("a"), WATCHED), {ReadEnded: Ended(run=FAILED)})
    assert handled
    assert done[-1] == Start(task("a"), "watch", 0)


def test_on_success_runs_after_a_success_alone() -> None:
    cheered = Graph.checked("w", [Node("a")], on_success="cheer")
    start = Start(task("a"), "cheer", 0)
    assert effects(conclude(task("a"), outcome("a"), cheered))[-1] == start
    for status in ("failed", "timed_out", "cancelled"):
        ended = msgspec.structs.replace(FAILED, status=status)
        assert start not in effects(conclude(task("a"), ended, cheered))
    done, handled = drive(redelivered(task("a"), cheered), {ReadEnded: Ended(run=outcome("a"))})
    assert handled
    assert done[-1] == start
    assert kinds(finish(task("cheer"), cheered, FAILED)) == [StoreStep]
    assert drive(redelivered(task("cheer"), cheered), {ReadEnded: Ended(run=outcome("a"))})[1] is False


# --- a step ends


def test_a_step_starts_the_next_one() -> None:
    assert effects(finish(task("a"), LINE, outcome("a"))) == [
        StoreStep(task("a"), outcome("a")),
        Start(task("a"), "b", 0),
    ]


def test_the_only_last_step_ends_the_run() -> None:
    assert kinds(finish(task("b"), LINE, outcome("b"))) == [StoreRun, Count]


def test_a_step_starts_all_that_come_after() -> None:
    assert [e.step for e in effects(finish(task("a"), DIAMOND, outcome("a"))) if isinstance(e, Start)] == ["b", "c"]


def test_a_closed_gate_is_not_looked_behind() -> None:
    assert effects(finish(task("b"), DIAMOND, outcome("b")), {Count: 1}) == [
        StoreStep(task("b"), outcome("b")),
        Count(StepAddress(ROOT, RUN, "d"), "gate", 1),
    ]


@pytest.mark.parametrize("value", [2, 3, None])
def test_the_stored_outcomes_open_a_gate_not_its_counter(value: int | None) -> None:
    counted_twice = {Count: value, ReadSteps: {"b": outcome("b")}}
    assert kinds(finish(task("b"), DIAMOND, outcome("b")), counted_twice) == [StoreStep, Count, ReadSteps]
    both = {Count: value, ReadSteps: {"a": outcome("a"), "b": outcome("b"), "c": outcome("c")}}
    assert effects(finish(task("b"), DIAMOND, outcome("b")), both)[-1] == Start(task("b"), "d", 0)


def test_several_last_steps_give_an_object_of_their_outputs() -> None:
    outputs = {
        "a": outcome("a", b"0"),
        "b": outcome("b", b"[1]", started=5.0, ended=6.0),
        "c": outcome("c", b'"x"', started=4.0, ended=9.0, worker="z"),
    }
    done = effects(finish(task("c"), TWO_ENDS, outputs["c"]), {Count: 2, ReadSteps: outputs})
    assert [type(effect) for effect in done] == [StoreStep, Count, ReadSteps, StoreRun, Count]
    assert done[1] == Count(StepAddress(ROOT, RUN, END), "gate", 1)
    [stored] = [effect.outcome for effect in done if isinstance(effect, StoreRun)]
    assert msgspec.json.decode(stored.output) == {"b": [1], "c": "x"}
    assert (stored.status, stored.key, stored.started, stored.ended) == ("succeeded", "k", 4.0, 9.0)


def test_the_implied_start_starts_every_first_step() -> None:
    start = task(START)
    assert effects(begin(start, TWO_STARTS)) == [Start(start, "a", 0), Start(start, "b", 0)]


# --- a step is sealed


def test_a_join_is_stored_before_it_is_counted() -> None:
    record = sealed(3)
    assert effects(seal(task(), record), {StoreJoin: record, Count: SEAL - 1}) == [
        StoreJoin(task(), record),
        Count(StepAddress(ROOT, RUN, "run"), "join", SEAL - 3),
    ]


def test_the_record_that_is_stored_counts_not_the_one_that_came_late() -> None:
    done = effects(seal(task(), sealed(3)), {StoreJoin: sealed(5)})
    assert done[1] == Count(StepAddress(ROOT, RUN, "run"), "join", SEAL - 5)


def test_children_that_ended_before_the_seal_are_seen_by_it() -> None:
    assert kinds(seal(task(), sealed()), {StoreJoin: sealed(), Count: SEAL}) == [StoreJoin, Count, Look]


@pytest.mark.parametrize("value", [SEAL - 1, None])
def test_who_borrowed_looks_in_any_case(value: int | None) -> None:
    """The count of a borrowed child goes elsewhere, and may have been made already."""
    record = sealed(2, borrowed=(Borrowed(RUN, "other"),))
    done = effects(seal(task(), record), {StoreJoin: record, Count: value})
    assert done[1:] == [
        Count(StepAddress(ROOT, RUN, "run"), "join", SEAL - 1),
        Look(StepAddress(ROOT, RUN, "run"), None),
    ]


# --- a join is complete


def test_an_incomplete_join_changes_nothing() -> None:
    assert kinds(settle(PARENT_JOIN, SEAL), {Look: None}) == [Look]


def test_a_complete_join_ends_its_step_with_the_sealed_output() -> None:
    record = sealed(attempt=2, started=1.0, ended=2.0, worker="z")
    done = effects(settle(task().join, SEAL), {Look: JoinView(record, task(), ONE)})
    [stored] = [effect.outcome for effect in done if isinstance(effect, StoreRun)]
    assert stored == outcome("run", b"7", key="k", attempt=2, started=1.0, ended=2.0, worker="z")
    assert done[-1] == Count(PARENT_JOIN, "join", 1)


def test_a_failed_child_fails_its_step() -> None:
    view = JoinView(sealed(), task(), ONE, failed=(("c" * 32, FAILED),), met=False)
    done = effects(settle(task().join, SEAL), {Look: view})
    assert [type(effect) for effect in done] == [Look, StoreMark, StoreRun, Count]
    [stored] = [effect.outcome for effect in done if isinstance(effect, StoreRun)]
    assert stored.status == "failed"
    assert stored.output == msgspec.Raw(b"null")
    assert stored.error is not None
    assert stored.error.type == "ChildrenFailed"
    assert "c" * 32 in stored.error.message
    assert "ValueError: no" in stored.error.message


def test_a_parked_step_begins_its_next_turn() -> None:
    waiting = task(turn=3)
    view = JoinView(parked(turn=3), waiting, ONE)
    assert effects(settle(waiting.join, SEAL), {Look: view}) == [Look(waiting.join, SEAL), Start(waiting, "run", 4)]


def test_a_join_that_completes_a_run_goes_on_to_the_join_above() -> None:
    """The last leaf of a tree carries it up, level by level."""
    above = msgspec.structs.replace(task("scan", parent=NONE), run=PARENT, root=ROOT)
    views = {task().join: JoinView(sealed(), task(), ONE), PARENT_JOIN: JoinView(sealed(), above, LINE_OF_SCAN)}
    done = effects(settle(task().join, SEAL), {Look: lambda look: views[look.join], Count: SEAL})
    assert [type(effect) for effect in done] == [Look, StoreRun, Count, Look, StoreRun]


LINE_OF_SCAN = Graph("v", (Node("scan"),))


def test_a_step_that_had_children_wakes_those_that_may_have_borrowed_them() -> None:
    done = effects(finish(task("b"), DIAMOND, outcome("b"), spawned=True), {Count: 1})
    assert done[-2:] == [Look(StepAddress(ROOT, RUN, "c"), None), Look(StepAddress(ROOT, RUN, "d"), None)]
    assert effects(wake_beside(task("d"), DIAMOND)) == []


@pytest.mark.parametrize(
    ("policy", "rest", "cancels"),
    [
        (JoinPolicy.first(), True, True),
        (JoinPolicy.first(), False, False),
        (JoinPolicy.of_quorum(1, cancel_rest=False), True, False),
        (JoinPolicy.all_succeed(), False, False),
    ],
)
def test_the_rest_of_a_decided_join_is_cancelled_last(policy: JoinPolicy, rest: bool, cancels: bool) -> None:
    record = sealed(1, policy=policy, total=2)
    done = effects(settle(task().join, SEAL), {Look: JoinView(record, task(), ONE, rest=rest)})
    assert (done[-1] == CancelRest(task().join, record)) is cancels
    assert StoreRun in [type(effect) for effect in done]


# --- a task is delivered again


def test_a_redelivered_task_of_an_ended_run_repeats_the_count_and_the_look() -> None:
    done, handled = drive(redelivered(task(), ONE), {ReadEnded: Ended(run=outcome()), Count: SEAL})
    assert handled
    assert done == [ReadEnded(task()), Count(PARENT_JOIN, "join", 1), Look(PARENT_JOIN, SEAL)]


def test_a_redelivered_task_of_an_ended_step_starts_what_follows_again() -> None:
    done, handled = drive(redelivered(task("a"), LINE), {ReadEnded: Ended(step=outcome("a"))})
    assert handled
    assert done == [ReadEnded(task("a")), Start(task("a"), "b", 0), Look(StepAddress(ROOT, RUN, "b"), None)]


def test_a_redelivered_task_of_an_ended_step_that_was_sealed_counts_it() -> None:
    """A look of somebody else may have ended it before it was counted: whoever borrowed a child would not be woken."""
    done, _ = drive(redelivered(task("a"), LINE), {ReadEnded: Ended(step=outcome("a"), joined=True), Count: SEAL})
    assert done[:2] == [ReadEnded(task("a")), Count(task("a").join, "join", SEAL)]


def test_a_redelivered_task_of_a_sealed_step_seals_again() -> None:
    done, handled = drive(redelivered(task(), ONE), {ReadEnded: Ended(join=sealed(4)), Count: SEAL})
    assert handled
    assert done[1:] == [Count(task().join, "join", SEAL - 4), Look(task().join, SEAL)]


def test_a_redelivered_task_that_led_to_nothing_runs() -> None:
    done, handled = drive(redelivered(task(), ONE), {ReadEnded: Ended()})
    assert not handled
    assert done == [ReadEnded(task())]
