"""What the checker asks of runs of several steps, and of steps that wait for a time.

Each step of such a run has one stored outcome, the one that its input decides; what stands behind a step that failed
was never begun; the run tells every error, and ended after its steps. What waits for a time goes on after it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tests.chaos.plan import GRAPHS, Node, last_steps, statuses

if TYPE_CHECKING:
    from tests.chaos.checker import Ended, Streams, Task, Verdict

CLOCKS_DIFFER = 1.0
"""Seconds."""

ON_FAILURE = {"several": "mend", "hasty": "give_up"}
FAILED = ("failed", "timed_out")


def check_steps(verdict: Verdict, streams: Streams, run: str, task: Task, ended: Ended) -> None:
    """Compare the steps of a run that nobody has cancelled with the model."""
    kind = task.workflow
    expected = statuses(kind, msgspec.convert(task.input, Node))
    if kind == "hasty" and ended.outcome["status"] == "failed":
        _check_failed_fast(verdict, streams, run, expected, ended.outcome)
    else:
        _check_each(verdict, streams, run, kind, expected)
        _check_errors(verdict, run, kind, expected, ended.outcome)
        for step in last_steps(kind):
            if any(one.sequence > ended.sequence for one in streams.steps.get((run, step), [])):
                verdict.early.append(f"run {run} of {kind} ended before its step {step}")
    _check_begun(verdict, streams, run, kind)
    _check_on_failure(verdict, streams, run, kind, ended.outcome)


def _check_each(verdict: Verdict, streams: Streams, run: str, kind: str, expected: dict[str, str]) -> None:
    only = last_steps(kind)
    for step, status in expected.items():
        stored = streams.steps.get((run, step), [])
        if only == [step] and status != "cancelled":  # its outcome is the run's
            if stored:
                verdict.doubled.append(f"step {step} of run {run} of {kind} has an outcome beside its run's")
            continue
        if not stored:
            verdict.stuck.append(f"step {step} of run {run} of {kind} has no outcome, and {status} is right")
        elif len(stored) > 1:
            verdict.doubled.append(f"step {step} of run {run} of {kind} has {len(stored)} outcomes")
        elif stored[0].outcome["status"] != status:
            verdict.wrong.append(
                f"step {step} of run {run} of {kind} ended as {json.dumps(stored[0].outcome)[:500]}, "
                f"and {status} is right"
            )
        if status == "cancelled" and streams.turns(run, step):
            verdict.wrong.append(f"step {step} of run {run} of {kind} was begun behind a step that failed")


def _check_errors(verdict: Verdict, run: str, kind: str, expected: dict[str, str], outcome: dict[str, Any]) -> None:
    right = [step for step, status in expected.items() if status in FAILED]
    if (got := _told(outcome)) != right:
        verdict.wrong.append(f"run {run} of {kind} tells errors of {got}, and {right} is right")


def _told(outcome: dict[str, Any]) -> list[str]:
    error = outcome.get("error")
    return [one.get("step", "") for one in outcome.get("errors") or ([error] if error else [])]


def _check_failed_fast(
    verdict: Verdict, streams: Streams, run: str, expected: dict[str, str], outcome: dict[str, Any]
) -> None:
    """Whichever step failed first has ended it; nothing waits for the others."""
    got = _told(outcome)
    if len(got) != 1 or expected.get(got[0]) != "failed":
        verdict.wrong.append(f"run {run} of hasty tells errors of {got}, and one step of {expected} is right")
    for step, status in expected.items():
        if status == "cancelled" and streams.turns(run, step):
            verdict.wrong.append(f"step {step} of run {run} of hasty was begun behind a step that failed")


def _check_begun(verdict: Verdict, streams: Streams, run: str, kind: str) -> None:
    """No step may have been asked for before those before it had ended."""
    for step, before in GRAPHS[kind].items():
        begun = min((task.time for task in streams.turns(run, step)), default=None)
        if begun is None:
            continue
        for one in before:
            ended = min((stored.time for stored in streams.steps.get((run, one), [])), default=None)
            if ended is None or ended > begun + CLOCKS_DIFFER:
                verdict.early.append(f"step {step} of run {run} of {kind} was begun before step {one} had ended")


def _check_on_failure(verdict: Verdict, streams: Streams, run: str, kind: str, outcome: dict[str, Any]) -> None:
    step = ON_FAILURE.get(kind)
    if step is None:
        return
    stored = streams.steps.get((run, step), [])
    if outcome["status"] not in FAILED:
        if stored or streams.turns(run, step):
            verdict.wrong.append(f"step {step} of run {run} of {kind} was begun, though the run has not failed")
        return
    if len(stored) != 1:
        (verdict.doubled if stored else verdict.stuck).append(f"step {step} of run {run} ended {len(stored)} times")
    elif (output := stored[0].outcome.get("output")) != sorted(_told(outcome)):
        verdict.wrong.append(f"step {step} of run {run} of {kind} was told {output}, not {sorted(_told(outcome))}")


def check_times(verdict: Verdict, streams: Streams, restarts: Sequence[float]) -> None:
    """No step that waits for a time alone may have gone on before it.

    Counts the waits, those across a restart, and those for events.
    """
    for (run, step, turn), (_, record) in streams.joins.items():
        until = record.get("until")
        verdict.expecting += bool(record.get("waits"))
        if until is None:
            continue
        verdict.timed += 1
        verdict.across_restarts += any(record.get("ended", until) <= moment <= until for moment in restarts)
        following = streams.tasks.get((run, step, turn + 1))
        is_alone = record["needed"] == 0 and not record.get("waits")
        if is_alone and following is not None and following.time < until - CLOCKS_DIFFER:
            verdict.early.append(
                f"turn {turn + 1} of step {step} of run {run} began {until - following.time:.1f} s before its time"
            )
