"""Levels: how urgent a run is, and whose turn it is where tasks of several levels wait for slots.

The tasks of a step with levels stand in queues, one a level: a step's name with its level behind it. The level of a run
is read from its first task alone, which is stored once, and which has no level in its subject. So a run that two have
asked for at two levels has one, and each of its later tasks one subject.

Whoever has free slots takes the most urgent task; one start in `EVERY` is for a less urgent one, and these take turns.
So no level waits for ever, whatever comes on the levels above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from jetflow.engine.graph import IMPLIED, Graph
from jetflow.engine.identity import check_name
from jetflow.engine.tasks import Task
from jetflow.errors import InvalidDeclaration, UnknownLevel

EVERY: Final = 16
"""Of so many tasks that start where several levels wait, one is of a less urgent level."""

MOST: Final = 8
"""Levels of one workflow, at most: each is a consumer of each of its steps."""

BETWEEN: Final = "="
"""Stands between a step and a level. It cannot stand in a name."""


class Levels(msgspec.Struct, frozen=True):
    """The levels of a workflow by their names, the most urgent first, and the one of runs of which nothing is said."""

    names: tuple[str, ...]
    default: str


def checked_levels(of: str, given: Any, default: Any) -> Levels | None:
    """Return the levels of a workflow; None if it declares none. Without a default it is the last one.

    Raises:
        InvalidName: the name of one does not fit the token rule.
        InvalidDeclaration: there are too few or too many, one stands there twice, or the default is none of them.
    """
    if isinstance(given, str):
        raise InvalidDeclaration(f'{of}: levels={given!r} is one text: write levels=("urgent", "normal", "low")')
    names = tuple(check_name("level", name) for name in given)
    if not names:
        if default is not None:
            raise InvalidDeclaration(f"{of}: default_level={default!r}, and no levels: name them in levels=")
        return None
    if not 2 <= len(names) <= MOST or len(set(names)) < len(names):
        raise InvalidDeclaration(f"{of}: levels={names!r}: from 2 to {MOST} different names, the most urgent first")
    if default is not None and default not in names:
        raise InvalidDeclaration(f"{of}: default_level={default!r} is none of {', '.join(map(repr, names))}")
    return Levels(names, names[-1] if default is None else default)


def checked_level(workflow: str, levels: Sequence[str], level: Any) -> str:
    """Return the level that a run is to have.

    Raises:
        UnknownLevel: its workflow does not declare it.
    """
    if level not in levels:
        raise UnknownLevel(workflow, level, levels)
    return level


def at_level(task: Task, graph: Graph) -> Task:
    """Return a run's task as those of its steps have to be: with the level that the run has in its workflow.

    A level that is inherited, and that the workflow does not know, is its default.
    """
    if not graph.levels or task.leveled:
        return task
    level = task.level if task.level in graph.levels else graph.level
    return msgspec.structs.replace(task, level=level, leveled=True)


def queue_of(task: Task, step: str) -> str:
    """Return the queue of a step's tasks: the token that stands in their subjects for the step."""
    return f"{step}{BETWEEN}{task.level}" if task.leveled and step not in IMPLIED else step


def parts_of(queue: str) -> tuple[str, str | None]:
    """Return the step of a queue, and its level, if it has one."""
    step, between, level = queue.partition(BETWEEN)
    return step, level if between else None


def rank_of(level: str | None, levels: Levels | None) -> int:
    """Return how urgent tasks of a queue are: 0 like those of workflows without levels, below that more so.

    What an earlier version of the workflow has had, and this one has not, is not urgent.
    """
    if levels is None or level is None:
        return 0
    at = levels.names.index(level) if level in levels.names else len(levels.names)
    return at - levels.names.index(levels.default)


class Turns:
    """Tells which of the levels that wait is next; ``ranks`` are theirs, the most urgent first."""

    def __init__(self) -> None:
        self._urgent = 0
        self._last = 0

    def next(self, ranks: Sequence[int]) -> int:
        """Return whose task starts next."""
        if len(ranks) == 1:
            return ranks[0]
        if self._urgent < EVERY - 1:
            self._urgent += 1
            return ranks[0]
        self._urgent = 0
        self._last = next((rank for rank in ranks[1:] if rank > self._last), ranks[1])
        return self._last


def to_ask_for(room: int, as_urgent: int, own: int, *, moving: bool = True) -> int:
    """Return how many tasks of a level to ask for: ``room`` is how many can soon start, whatever they are.

    ``as_urgent`` wait that are as urgent or more so, ``own`` of the level itself. While slots come free (``moving``)
    one of each level is always there: else a slot would be taken by what happens to be there, and a level below a busy
    one get no turn. Where steps are long, it would only be held back from other workers.
    """
    return max(room - as_urgent, 1 - own if moving else 0, 0)
