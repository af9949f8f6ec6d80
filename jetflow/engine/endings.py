"""How the steps of a run end, and what that means for the steps behind them and for the run.

Every step of a run ends with an outcome, also one that is not run. Steps beside one that failed go on, and the run ends
when all its last steps have ended; then it tells every error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from jetflow.engine.graph import Graph
from jetflow.engine.tasks import Failure, Outcome, Status, Task

Verdict: TypeAlias = Literal["run", "cancel", "skip"]

FAILED: Final = ("failed", "timed_out")
"""How a step ends that was tried in vain."""

_NOT_WELL: Final[frozenset[Status]] = frozenset({*FAILED, "cancelled"})

NOT_RUN: Final = "Cancelled"
"""The type of the error of a step that is not run because one before it did not end well."""

TEXT_OF_ERRORS: Final = 100_000
"""Characters of messages, and of tracebacks, that the outcome of a run keeps of all its errors together."""


def decide(before: Iterable[Status], *, conditional: bool = False) -> Verdict:
    """Return what becomes of a step, by how the steps before it have ended: the rule of every gate.

    What did not end well cancels what stands behind it. A skipped step is no failure: what comes after it runs, unless
    all before it were skipped. A ``conditional`` one has its task then, too: its own conditions may say otherwise.
    """
    ended = set(before)
    if ended == {"succeeded"}:
        return "run"
    if ended & _NOT_WELL:
        return "cancel"
    return "skip" if ended == {"skipped"} and not conditional else "run"


def left_out(task: Task, step: str, verdict: Verdict, before: Mapping[str, Outcome]) -> Outcome:
    """Return the outcome of a step that is not run. ``before`` holds the outcomes of the steps before it."""
    ended = max(outcome.ended for outcome in before.values())
    outcome = Outcome(
        status="skipped", workflow=task.workflow, step=step, key=task.key, attempt=0, started=ended, ended=ended
    )
    if verdict == "skip":
        return outcome
    reasons = " and ".join(
        f"step {name!r} {_ENDED[ended.status]}" for name, ended in before.items() if ended.status in _ENDED
    )
    return msgspec.structs.replace(outcome, status="cancelled", error=Failure(NOT_RUN, f"not run: {reasons}", step))


def decided_against(task: Task, verdict: Verdict, reason: str, at: float, worker: str) -> Outcome:
    """Return the outcome of a step that its conditions have skipped or cancelled."""
    outcome = Outcome(
        status="skipped",
        workflow=task.workflow,
        step=task.step,
        key=task.key,
        attempt=0,
        started=at,
        ended=at,
        worker=worker,
    )
    if verdict == "skip":
        return outcome
    said = f"cancelled by its condition: {reason}"
    return msgspec.structs.replace(outcome, status="cancelled", error=Failure(NOT_RUN, said, task.step))


_ENDED: Final[dict[Status, str]] = {"failed": "failed", "timed_out": "timed out", "cancelled": "was cancelled"}


def ending(task: Task, graph: Graph, outcomes: Mapping[str, Outcome]) -> Outcome:
    """Return how a run ends, by how its steps have ended: with an object of the outputs of its last steps by name.

    Those that were skipped have none. Where there is only one, and it was, there is no output.
    Failed if any failed, timed out if that is all that happened, cancelled if any was. It tells the errors of all of
    these, in the order of the graph.
    """
    last = {name: outcomes[name] for name in graph.sinks if name in outcomes}
    made = Outcome(
        status="succeeded",
        workflow=task.workflow,
        key=task.key,
        started=min(outcome.started for outcome in (last or outcomes).values()),
        ended=max(outcome.ended for outcome in (last or outcomes).values()),
        worker=next(reversed(last.values())).worker if last else "",
    )
    in_order = [(node.name, outcomes[node.name]) for node in graph.nodes if node.name in outcomes]
    for status, told in _WORST_FIRST:
        if any(outcome.status == status for _, outcome in in_order):
            bad = [(step, outcome) for step, outcome in in_order if outcome.status in told]
            errors = shortened(tuple(error for _, outcome in bad for error in outcome.failures))
            first, outcome = bad[0]
            return msgspec.structs.replace(
                made,
                status=status,
                step=first,
                attempt=outcome.attempt,
                worker=outcome.worker,
                error=errors[0] if errors else None,
                errors=errors if len(errors) > 1 else (),
            )
    if len(graph.sinks) == 1:
        return made
    outputs = {name: outcome.output for name, outcome in last.items() if outcome.status != "skipped"}
    return msgspec.structs.replace(made, output=msgspec.Raw(msgspec.json.encode(outputs)))


_WORST_FIRST: Final[tuple[tuple[Status, tuple[Status, ...]], ...]] = (
    ("failed", ("failed", "timed_out")),
    ("timed_out", ("timed_out",)),
    ("cancelled", ("cancelled",)),
)


def shortened(errors: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """Return errors that fit into one record: each has its share of the text, the end of its traceback included."""
    if len(errors) < 2:
        return errors
    share = TEXT_OF_ERRORS // len(errors)
    return tuple(
        msgspec.structs.replace(error, message=error.message[:share], traceback=error.traceback[-share:])
        for error in errors
    )
