"""The search through all states of a configuration, and the shortest way to a violation."""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from tests.model.checks import Violation
from tests.model.description import describe
from tests.model.model import Model, Rules, Step, Successor
from tests.model.scenario import Configuration
from tests.model.state import State

S = TypeVar("S", bound=Hashable)


class TooManyStates(Exception):
    """A configuration is larger than its bound."""


@dataclass
class Report:
    """What a search has found. ``trace`` is the shortest way to the first violation."""

    name: str
    states: int = 0
    transitions: int = 0
    finals: int = 0
    seconds: float = 0.0
    violations: int = 0
    first: str = ""
    trace: list[str] = field(default_factory=list)


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def explore(
    configuration: Configuration,
    rules: Rules | None = None,
    *,
    stop_at_first: bool = False,
    bound: int = 3_000_000,
) -> Report:
    """Explore a configuration breadth first, so that the first violation is a nearest one.

    Raises:
        TooManyStates: there are more than ``bound``.
    """
    began = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        report = search(Model(configuration, rules), stop_at_first=stop_at_first, bound=bound)
    finally:
        if collecting:
            gc.enable()
    report.seconds = time.perf_counter() - began
    return report


def search(model: Model, *, stop_at_first: bool = False, bound: int = 3_000_000) -> Report:
    """Explore all states of a model."""
    report = Report(model.configuration.name)
    start = model.canonical(model.initial())
    before: dict[State, State | None] = {start: None}
    queue = deque([start])
    canonical = model.canonical
    while queue:
        state = queue.popleft()
        over = model.checks.over(state)
        moves = _few(model, state, over=over)
        alone = moves is not None
        if moves is None:
            moves = list(model.progress(state))
        if not moves:
            report.finals += 1
            stuck = model.checks.final(state)
            if stuck is not None:
                _note(report, model, before, state, stuck)
        if any(state.faults) and not alone and not over:
            moves += model.faults(state)
        report.transitions += len(moves)
        for step, after in moves:
            if isinstance(after, Violation):
                _note(report, model, before, state, str(after), step)
                continue
            found = canonical(after)
            if found not in before:
                before[found] = state
                queue.append(found)
        if report.violations and stop_at_first:
            break
        if len(before) > bound:
            raise TooManyStates(f"{model.configuration.name} has more than {bound} states")
    report.states = len(before)
    return report


class Seen(NamedTuple, Generic[S]):
    """What is seen of one state of a small model: what may follow, what is wrong with it, whether it may be the end."""

    after: Sequence[S]
    wrong: str
    is_final: bool


def walk(name: str, starts: Iterable[S], look: Callable[[S], Seen[S]], *, stop_at_first: bool = False) -> Report:
    """Explore all states of a small model, each with what ``look`` sees of it."""
    began, report = time.perf_counter(), Report(name)
    ahead = list(dict.fromkeys(starts))
    known = set(ahead)
    while ahead and not (stop_at_first and report.violations):
        after, wrong, is_final = look(ahead.pop())
        report.finals += is_final
        report.violations += bool(wrong)
        report.first = report.first or wrong
        report.transitions += len(after)
        new = dict.fromkeys(one for one in after if one not in known)
        known.update(new)
        ahead += new
    report.states = len(known)
    report.trace = [report.first] if report.first else []
    report.seconds = time.perf_counter() - began
    return report


def _few(model: Model, state: State, *, over: bool) -> list[Successor] | None:
    """Return the one transition that stands for all, if there is one."""
    eager = model.eager(state)
    if eager is not None:
        return [eager]
    return list(islice(model.progress(state), 1)) if over else None


def _note(
    report: Report,
    model: Model,
    before: dict[State, State | None],
    state: State,
    message: str,
    last: Step | None = None,
) -> None:
    report.violations += 1
    if report.violations > 1:
        return
    path: list[State] = []
    at: State | None = state
    while at is not None:
        path.append(at)
        at = before[at]
    report.first = message
    report.trace = [*_replay(model, path[::-1]), *([describe(model, last)] if last else []), message]


def _replay(model: Model, path: list[State]) -> list[str]:
    """Describe a way through canonical states, with workers that keep their names."""
    lines: list[str] = []
    state = model.initial()
    for wanted in path[1:]:
        for step, after in (*model.progress(state), *model.faults(state)):
            if isinstance(after, State) and model.canonical(after) == wanted:
                lines.append(describe(model, step))
                state = after
                break
        else:
            raise AssertionError("a state of the path has no such successor")
    return lines
