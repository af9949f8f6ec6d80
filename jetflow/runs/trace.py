"""What is told of a run: where it and its steps stand, their attempts, its children. `describing` fills it in."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from jetflow.engine.tasks import Failure, Status

State = Literal[
    "pending", "queued", "running", "waiting", "retrying", "succeeded", "failed", "cancelled", "timed_out", "skipped"
]


LOST = "WorkerLost"
"""The type of the error that stands for an attempt whose worker was lost, and could record nothing."""


class LargeValue(msgspec.Struct, frozen=True):
    """An input or an output that is too large for its record. ``size`` is bytes of JSON; 0 if it is gone."""

    reference: str
    size: int


class AttemptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that ended without an outcome. Times are seconds since the epoch.

    Of one whose worker was lost nothing is known but that it was: its error is of the type ``WorkerLost``.
    """

    attempt: int
    worker: str = ""
    started: float | None = None
    ended: float | None = None
    error: Failure | None = None


class StepTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one step stands. Times are seconds since the epoch.

    ``waiting`` means that its function has returned or was parked, and children are still open; ``retrying`` that it
    has failed, and is tried again at ``again``. ``turns`` counts how often it was begun, parked turns included;
    ``failures`` are the attempts that failed, or were lost with their workers, and were tried again. An output that is
    too large for its record is told by its ``large_output``, and not read. An ``unattended`` one has been queued for
    five seconds and more, and no worker runs it.
    """

    name: str
    status: State
    after: tuple[str, ...] = ()
    turns: int = 0
    attempts: int = 0
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None
    output: Any = None
    large_output: LargeValue | None = None
    again: float | None = None
    unattended: bool = False
    failures: tuple[AttemptTrace, ...] = ()


class ChildTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one child run stands. Times are seconds since the epoch.

    An ``unattended`` one has been open for five seconds and more, and no worker runs its workflow.
    """

    id: str
    workflow: str
    step: str
    status: Literal["open"] | Status
    key: str | None = None
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None
    unattended: bool = False


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a run has, by status. ``removed`` were spawned, and cancelled before they could end."""

    spawned: int = 0
    open: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    removed: int = 0


class RunTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one run stands. Times are seconds since the epoch.

    ``children`` is one page; give ``next_page`` to the next call to go on. ``totals`` counts all children. ``errors``
    holds the errors of all steps that failed, and ``error`` the first of them. An input that is too large for its task
    is told by ``large_input``, and not read. A step ``on_failure`` is among ``steps`` once it was started.
    ``unattended`` are the workflows that its queued steps, and the children of this page, wait for in vain.
    """

    id: str
    workflow: str
    status: Literal["queued", "running"] | Status
    root: str
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    key: str | None = None
    metadata: Any = None
    version: str = ""
    triggered: float | None = None
    ended: float | None = None
    input: Any = None
    large_input: LargeValue | None = None
    output: Any = None
    error: Failure | None = None
    errors: tuple[Failure, ...] = ()
    steps: tuple[StepTrace, ...] = ()
    totals: Totals = Totals()
    children: tuple[ChildTrace, ...] = ()
    next_page: str | None = None
    unattended: tuple[str, ...] = ()
