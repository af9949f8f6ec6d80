"""How a run has ended, as a line of the log: an error for one that failed, with its traceback once; else a word.

The end of a child run that ended well is a word for debugging only: a fan-out has a hundred thousand of them.
"""

from __future__ import annotations

import logging
from typing import Final

from jetflow.engine.tasks import NONE, Failure, Outcome, Task

SHOWN: Final = 500
"""Characters of an error's message that a line of the log has."""

LONGEST: Final = 40 * 86400.0
"""Seconds that no run takes: its records are not kept for so long."""

_log = logging.getLogger("jetflow.worker")


def announce_end(task: Task, outcome: Outcome) -> None:
    """Log how a run has ended."""
    if outcome.status in ("failed", "timed_out"):
        error = outcome.error or Failure("", "")
        more = f" (and {len(outcome.errors) - 1} more)" if len(outcome.errors) > 1 else ""
        step = error.step or outcome.step
        told_below = error.type in ("ChildFailed", "ChildrenFailed")  # the child has told where it failed
        _log.error(
            "run %s of %r %s after %.3f s%s: %s: %s%s%s",
            task.run,
            task.workflow,
            outcome.status.replace("_", " "),
            _seconds(task, outcome),
            f" in step {step!r}" if step else "",
            error.type,
            one_line(error.message),
            more,
            f"\n{error.traceback.rstrip()}" if error.traceback and not told_below else "",
        )
        return
    level = logging.INFO if task.parent == NONE else logging.DEBUG
    if _log.isEnabledFor(level):
        _log.log(
            level, "run %s of %r %s after %.3f s", task.run, task.workflow, outcome.status, _seconds(task, outcome)
        )


def one_line(text: str) -> str:
    """Return a text as it may stand in a line of the log."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _seconds(task: Task, outcome: Outcome) -> float:
    """Return for how long a run has taken: since its trigger where its id tells that (a UUIDv7), else its last step."""
    if task.parent == NONE and task.key is None:
        taken = outcome.ended - int(task.run[:12], 16) / 1000
        if 0 <= taken < LONGEST:
            return taken
    return max(0.0, outcome.ended - outcome.started)
