"""One state of the model: tuples of small integers, so that it can be hashed and compared."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeAlias

from jetflow.engine.joins import LookLedger
from tests.model.scenario import Faults

UNPUBLISHED = 0
SETTLED = -1
"""A task that is acknowledged for good: no fault is left that could lose the ack."""

READY, HELD, DONE = 1, 2, 3

LedgerState: TypeAlias = tuple[tuple[Hashable, int], ...]


class WorkerState(NamedTuple):
    """What one worker remembers (its look ledger) and what it is doing (numbers of running deliveries, sorted)."""

    ledger: LedgerState = ()
    running: tuple[int, ...] = ()


class State(NamedTuple):
    """Everything that the future depends on."""

    tasks: tuple[int, ...]
    records: tuple[int, ...]
    counters: tuple[int, ...]
    workers: tuple[WorkerState, ...]
    faults: Faults


def task_code(deliveries: int, status: int) -> int:
    """Return a published task as one number."""
    return deliveries * 4 + status


def task_status(code: int) -> tuple[int, int]:
    """Return a task's deliveries and its status."""
    return code >> 2, code & 3


class Draft:
    """A state that is being changed by one transition, as one worker sees it."""

    __slots__ = ("counters", "ledger", "records", "tasks")

    def __init__(self, state: State, ledger: LedgerState = ()) -> None:
        self.tasks = list(state.tasks)
        self.records = list(state.records)
        self.counters = list(state.counters)
        self.ledger = ledger

    def publish(self, number: int) -> bool:
        """Publish a task, write-once. Returns whether it is new."""
        if self.tasks[number] != UNPUBLISHED:
            return False
        self.tasks[number] = task_code(0, READY)
        return True

    def store(self, slot: int, value: int) -> bool:
        """Store a record, write-once. Returns whether it is new."""
        if self.records[slot]:
            return False
        self.records[slot] = value
        return True

    def end_delivery(self, number: int, status: int) -> None:
        """Acknowledge a task, or hand it back."""
        code = self.tasks[number]
        if code != SETTLED:
            self.tasks[number] = task_code(task_status(code)[0], status)


class Ledgers:
    """Look ledgers as values: each operation restores a real ledger, performs, and takes its entries again."""

    def __init__(self, kind: type[LookLedger]) -> None:
        self._kind = kind

    def restore(self, state: LedgerState) -> LookLedger:
        ledger = self._kind()
        ledger._worth_at.update(state)  # type: ignore[arg-type]  a mutant may use other keys
        return ledger

    @staticmethod
    def freeze(ledger: LookLedger) -> LedgerState:
        return tuple(sorted(ledger._worth_at.items(), key=repr))
