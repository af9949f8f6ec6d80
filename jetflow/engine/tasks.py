"""What is asked for and how it ended: tasks, addresses and outcomes."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

NONE: Final = "-"
"""Stands for the parent run and the parent step of a root run."""

Status = Literal["succeeded", "failed", "cancelled", "timed_out", "skipped"]
NULL: Final = msgspec.Raw(b"null")


LONGEST_CAUSE: Final = 1000
"""Characters of what a child says that its parent's error repeats: parents have parents."""


class StepAddress(msgspec.Struct, frozen=True, gc=False):
    """One step of one run: also the address of its join."""

    root: str
    run: str
    step: str


class Task(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The message that asks for one turn of one step of one run.

    ``turn`` is 0 for the first, and grows by one each time that the step was parked. ``depth`` is 0 for a root run.
    ``deadline`` is the time, in seconds since the epoch, after which the run has no more time. An ``eager`` run is
    waited for by a join that may be decided before all have ended. A ``shared`` run is a child that several steps of
    its parent may spawn. ``value`` is the reference of an input that is too large for the message itself. ``tried`` is
    how many attempts were made in the turns before. A run with ``not_before`` (seconds since the epoch) is to begin at
    that time: its first turn parks until then. ``places`` are those of limits that the run has, ``held`` those that the
    runs above it have, as `jetflow.engine.limits.written_places` writes them. Of a rerun, ``elder`` and ``rerun`` are
    as they stand in the headers (see `jetflow.engine.adopting`). ``level`` is how urgent the run is to be; in a
    ``leveled`` task it is that of its queue (see `jetflow.engine.levels`). A ``twin`` runs beside the task that it
    is of (see `jetflow.engine.hedging`).
    """

    workflow: str
    step: str
    root: str
    parent: str
    run: str
    turn: int
    parent_step: str
    version: str
    depth: int
    digest: str
    input: bytes
    key: str | None = None
    metadata: bytes | None = None
    trace: str | None = None
    deadline: float | None = None
    eager: bool = False
    shared: bool = False
    value: str | None = None
    tried: int = 0
    not_before: float | None = None
    places: str | None = None
    held: str | None = None
    elder: str | None = None
    rerun: str | None = None
    level: str | None = None
    leveled: bool = False
    twin: bool = False

    @property
    def join(self) -> StepAddress:
        """The join of this step."""
        return StepAddress(self.root, self.run, self.step)

    @property
    def parent_join(self) -> StepAddress | None:
        """The join that this run is counted in; None for a root run."""
        return None if self.parent == NONE else StepAddress(self.root, self.parent, self.parent_step)


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a run or an attempt failed. ``place`` is the innermost frame of the user's code: ``file.py:function``."""

    type: str
    message: str
    step: str | None = None
    traceback: str = ""
    place: str = ""


CANCELLED: Final = Failure("Cancelled", "the run was cancelled")
"""Why a run is cancelled, where there is no other reason."""


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """How a step or a run ended. ``started`` and ``ended`` are seconds since the epoch.

    ``value`` is the reference of an output that is too large for the record itself. ``errors`` holds every error of a
    run in which several steps failed, and ``error`` the first of them. ``adopted`` is the subject of the outcome that
    a rerun has taken over.
    """

    status: Status
    output: msgspec.Raw = NULL
    error: Failure | None = None
    workflow: str = ""
    step: str = ""
    key: str | None = None
    attempt: int = 1
    started: float = 0.0
    ended: float = 0.0
    worker: str = ""
    value: str | None = None
    errors: tuple[Failure, ...] = ()
    adopted: str = ""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every error that is told."""
        return self.errors or (() if self.error is None else (self.error,))

    def unreadable(self, type: str, message: str) -> Outcome:
        """Return how it has ended for whoever cannot read its output: not well."""
        return msgspec.structs.replace(
            self, status="failed", output=NULL, value=None, error=Failure(type, message, self.step)
        )


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One delivery of a task that ended without an outcome.

    ``returned`` marks a task that was handed back before its function was called; it does not count as an attempt.
    ``again`` is when the next attempt is due. Times are seconds since the epoch.
    """

    attempt: int = 1
    worker: str = ""
    started: float = 0.0
    ended: float = 0.0
    error: Failure | None = None
    returned: bool = False
    again: float | None = None
