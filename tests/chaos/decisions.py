"""What the checker asks of steps with conditions: each has come to what its input, or what came first, decides."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tests.chaos.checker import Streams, Verdict
from tests.chaos.plan import DECIDES, decided, doze

STATUS = {"run": "succeeded", "skip": "skipped", "cancel": "cancelled"}
"""How a step ends that was decided so."""

CLOCKS_DIFFER = 0.05
"""Seconds."""

AT_ONCE = {1: 1.0, 3: 15.0}
"""Seconds, by replicas, about a time in which what comes may be seen late: an election holds up what has its time."""

TIDES = ".chaos.tide"


def check_decisions(verdict: Verdict, streams: Streams, cancelled: Set[str]) -> None:
    """Compare the steps of runs that have ended, of which nobody has ``cancelled`` the root."""
    for run, task in streams.runs.items():
        if task.workflow != DECIDES or run in cancelled or run in verdict.not_permitted or run not in streams.ended:
            continue
        expected = decided(task.input["seed"])
        if "tell" not in expected and streams.steps.get((run, "tell")):
            verdict.doubled.append(f"step tell of run {run} of {DECIDES} has an outcome beside its run's")
        first = _race(verdict, streams, run, task.input["seed"])
        if first is not None:
            expected |= {"race": first, "follow": first}
        for step, status in expected.items():
            _check_step(verdict, streams, run, step, status)
        _check_rest(verdict, streams, run, task.input["seed"])


def _check_step(verdict: Verdict, streams: Streams, run: str, step: str, status: str) -> None:
    stored = [one.outcome for one in streams.steps.get((run, step), [])]
    if len(stored) != 1:
        (verdict.doubled if stored else verdict.stuck).append(f"step {step} of run {run} ended {len(stored)} times")
        return
    if stored[0]["status"] != status:
        verdict.wrong.append(f"step {step} of run {run} of {DECIDES} ended as {stored[0]}, and {status} is right")
    if stored[0]["status"] != "succeeded" and stored[0].get("attempt") != 0:
        verdict.wrong.append(f"step {step} of run {run} of {DECIDES} was run, and ended as {stored[0]}")
    decision = streams.once.get((run, step, "_decided"))
    if decision is None:
        if step not in ("measure", "follow", "tell"):
            verdict.wrong.append(f"what step {step} of run {run} of {DECIDES} was decided to do is not recorded")
        return
    verdict.decisions[decision["verdict"]] += 1
    if STATUS[decision["verdict"]] != stored[0]["status"]:
        verdict.wrong.append(f"step {step} of run {run} of {DECIDES} was decided as {decision}, and is {stored[0]}")


def _race(verdict: Verdict, streams: Streams, run: str, seed: int) -> str | None:
    """Return how the step ends that a time skips and an event lets run; None where they came at about one time."""
    armed = _armed(verdict, streams, run, "race")
    if armed is None:
        return None
    (time_,), (event,) = armed["skip"][0], armed["run"][0]
    until, since = time_["until"], event["event"]["since"]
    if abs(until - armed["at"] - doze(seed, 2)) > CLOCKS_DIFFER:
        verdict.wrong.append(f"step race of run {run} of {DECIDES} is skipped at {until}, and began at {armed['at']}")
    tides = [at for subject, at in streams.events if subject.endswith(TIDES) and at >= since - CLOCKS_DIFFER]
    came = min(tides, default=None)
    if came is not None and (
        abs(came - until) < AT_ONCE.get(streams.replicas, 15.0) or abs(came - since) < CLOCKS_DIFFER
    ):
        ended = streams.steps.get((run, "race"), [])
        return ended[0].outcome["status"] if ended else None
    return "succeeded" if came is not None and came < until else "skipped"


def _check_rest(verdict: Verdict, streams: Streams, run: str, seed: int) -> None:
    armed, ended = _armed(verdict, streams, run, "rest"), streams.steps.get((run, "rest"), [])
    if armed is None or not ended:
        return
    until = armed["at"] + doze(seed, 1)
    if ended[0].outcome["started"] < until - CLOCKS_DIFFER:
        verdict.early.append(f"step rest of run {run} of {DECIDES} began before {until}: {ended[0].outcome}")


def _armed(verdict: Verdict, streams: Streams, run: str, step: str) -> dict[str, Any] | None:
    """Return the conditions of a step as they were recorded; they begin when the step before it had ended."""
    armed, before = streams.once.get((run, step, "_armed")), streams.steps.get((run, "measure"), [])
    if armed is None or not before:
        verdict.wrong.append(f"the conditions of step {step} of run {run} of {DECIDES} are not recorded")
        return None
    if abs(armed["at"] - before[0].time) > CLOCKS_DIFFER:
        verdict.wrong.append(
            f"the conditions of step {step} of run {run} of {DECIDES} begin at {armed['at']}, and the step before it "
            f"had ended at {before[0].time}"
        )
    return armed
