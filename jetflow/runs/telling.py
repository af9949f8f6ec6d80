"""Telling parents that may be waiting how their children have ended.

Nothing depends on it: what is told is stored, and a parent that was not told looks. A parent that runs in this process
is told directly; others by a message to whoever listens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from jetflow.broker.connection import Connection
from jetflow.broker.item import Item
from jetflow.engine.joins import SEAL
from jetflow.engine.tasks import NONE, StepAddress, Task
from jetflow.wire.subjects import Subjects

STEPS_KEPT: Final = 10_000
"""Steps remembered that do not listen."""

LISTENING_BELOW: Final = 1000
"""Open children from which on nobody needs to be told how each ends, if their step does not run any more."""

Told: TypeAlias = Callable[[bytes, bytes], None]
"""Takes the id of a child and the record of its outcome."""


class Telling:
    """Tells of outcomes on one connection."""

    def __init__(self, connection: Connection, names: Subjects) -> None:
        self._connection = connection
        self._names = names
        self._here: dict[tuple[str, str], Told] = {}
        self._silent: set[tuple[str, str]] = set()

    def tell(self, task: Task, child: bytes, outcome: Item) -> None:
        """Tell the parent of a run how it has ended. Of root runs the server tells."""
        step = task.parent, task.parent_step
        here = self._here.get(step)
        if here is not None:
            here(child, outcome.body)
        elif task.parent != NONE and step not in self._silent:
            self._connection.send(self._names.live_run(outcome.subject), outcome.body)

    def begin(self, step: StepAddress, told: Told) -> None:
        """Note that a step runs in this process, and that no other can wait for its children meanwhile."""
        self._here[step.run, step.step] = told

    def end(self, step: StepAddress, told: Told) -> None:
        """Note that it does not run any more. Safe to call for one that did not."""
        if self._here.get((step.run, step.step)) == told:
            del self._here[step.run, step.step]

    def note(self, join: StepAddress, value: int) -> None:
        """Note what a counter says: a step with a record and many open children has returned, or is parked."""
        step = join.run, join.step
        if SEAL // 2 < value < SEAL - LISTENING_BELOW:
            if step not in self._silent:
                if len(self._silent) == STEPS_KEPT:
                    self._silent.clear()
                self._silent.add(step)
        elif self._silent:
            self._silent.discard(step)
