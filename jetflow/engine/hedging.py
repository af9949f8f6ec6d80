"""Twins of stragglers: when a child that runs is late enough for a second task of it, and what that may lead to.

Theory of operation. A *twin* is a second task of a run whose last step runs and takes far longer than those of its
siblings took. It runs the same function, and would store the same record: the outcome of the run, write-once. So the
first that ends well is the one that counts, and the other is told to stop.

The original stays what the run hangs on. Its task is acknowledged only when the run has an outcome, whoever has stored
it, and is counted; so a twin may be lost at any moment, and is acknowledged without a count where it finds the outcome
stored. And a twin has only good news: it stores nothing but a success. It is no attempt, fails nobody, and is not made
again. What is declared idempotent is therefore the step's function alone; the rules are those for two workers that run
one task at the same time, which the broker may have always.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf, isfinite, nan
from typing import Any, Final

import msgspec

from jetflow.engine.graph import Graph
from jetflow.engine.tasks import Outcome, Task
from jetflow.errors import InvalidInput

MOST_DELIVERIES: Final = 3
"""Times that a twin is delivered before it is dropped: nothing is recorded of it that would bound its bodies."""

ROUNDING: Final = 1e-6
"""Added before a share of children is rounded down: 0.29 of 100 is 28.999… in binary, and means 29."""

SOONEST: Final = 1.0
"""Seconds between two looks at those that are late, at least."""


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """When a join has twins made of its stragglers.

    When the share ``after`` of the children has ended, the others are late whose step has run ``factor`` times as long
    as that of the slowest in that share, and for ``at_least`` seconds.

    Raises:
        InvalidInput: a field is out of range, or no number.
    """

    after: float = 0.95
    factor: float = 1.5
    at_least: float = 1.0

    def __post_init__(self) -> None:
        _check("after", self.after, 0 < _number(self.after) < 1, "a share of the children, above 0 and below 1")
        _check("factor", self.factor, 1 <= _number(self.factor) < inf, "from 1 on")
        _check("at_least", self.at_least, 0 <= _number(self.at_least) < inf, "seconds, from 0 on")

    def enough(self, total: int) -> int:
        """Return how many of so many children have to end before others are late: one at least, and not all."""
        return max(1, min(total - 1, int(self.after * total + ROUNDING)))

    def late_after(self, seconds: Iterable[float], total: int, ended: int) -> float:
        """Return for how many seconds a step has to run before it is late, by those of some of the ended ones."""
        took = sorted(seconds)
        if not took:
            return self.at_least
        share = min(1.0, self.enough(total) / max(1, ended))
        return max(self.at_least, self.factor * took[max(0, ceil(share * len(took)) - 1)])


class Straggler(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the worker that runs a child says of it: for how many seconds its step has run by now.

    ``twin`` says that there is one; ``never`` why there will be none.
    """

    run: str
    seconds: float = 0.0
    twin: bool = False
    never: str = ""


def next_look(told: Sequence[Straggler], asked: int, late_after: float, waited: float) -> float | None:
    """Return after how many seconds to ask again about the children that were late; None if there is no use in it.

    Of ``asked`` children some are ``told`` of. The others run nowhere: they are queued, or wait for something. After
    them is asked ever more seldom: ``waited`` is for how long enough of their siblings have ended.
    """
    soon = [max(0.0, late_after - one.seconds) for one in told if not (one.twin or one.never)]
    if len(told) < asked:
        soon.append(max(late_after, waited))
    return max(SOONEST, min(soon)) if soon else None


def never(task: Task, graph: Graph, *, idempotent: bool) -> str:
    """Return why a run gets no twin by what one step of it is; nothing if it may get one."""
    if not idempotent:
        return f"step {task.step!r} of workflow {task.workflow!r} is not declared idempotent"
    if graph.sinks != (task.step,):
        return f"step {task.step!r} of workflow {task.workflow!r} is not its only last one"
    if task.places is not None or graph.limited:
        return f"workflow {task.workflow!r} has limits, and a twin would be one more"
    return ""


def twin_of(task: Task) -> Task:
    """Return the twin of a task."""
    return msgspec.structs.replace(task, twin=True)


def seconds_of(outcomes: Iterable[Outcome]) -> list[float]:
    """Return for how many seconds the last steps of those runs have run that ended well."""
    return [max(0.0, one.ended - one.started) for one in outcomes if one.status == "succeeded" and one.started]


def _number(given: Any) -> float:
    good = isinstance(given, int | float) and not isinstance(given, bool) and isfinite(given)
    return float(given) if good else nan


def _check(name: str, given: Any, fits: bool, rule: str) -> None:
    if not fits:
        raise InvalidInput(f"Hedge({name}={given!r}): {rule}")
