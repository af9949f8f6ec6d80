"""Errors that say how steps and runs have ended, and those that a step ends by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from jetflow.errors.root import JetflowError


class StepFailed(JetflowError):
    """Why one step of a run ended without an output, as its worker has recorded it.

    ``step`` is None where the run failed before any step of it could run. ``traceback`` is the worker's, as text.
    """

    def __init__(self, step: str | None, error_type: str, error_message: str, traceback: str = "") -> None:
        where = f"step {step!r}: " if step else ""
        super().__init__(f"{where}{error_type}: {error_message}")
        self.step = step
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class RunFailed(JetflowError, ExceptionGroup[StepFailed]):
    """A run ended without an output: a group with one ``StepFailed`` for each step that failed.

    ``errors`` holds them; ``step``, ``error_type``, ``error_message`` and ``traceback`` are those of the first.
    """

    def __new__(cls, run_id: str, workflow: str, *, status: str, errors: Sequence[StepFailed]) -> Self:
        """Make the group."""
        return super().__new__(cls, cls._told(run_id, workflow, status, errors), errors)

    def __init__(self, run_id: str, workflow: str, *, status: str, errors: Sequence[StepFailed]) -> None:
        super().__init__(self._told(run_id, workflow, status, errors), errors)
        first = errors[0]
        self.errors: tuple[StepFailed, ...] = tuple(errors)
        self.run_id = run_id
        self.workflow = workflow
        self.status = status
        self.step: str | None = first.step
        self.error_type: str = first.error_type
        self.error_message: str = first.error_message
        self.traceback: str = first.traceback

    @staticmethod
    def _told(run_id: str, workflow: str, status: str, errors: Sequence[StepFailed]) -> str:
        what = f"run {run_id} of {workflow!r} {status}"
        if len(errors) > 1:
            return f"{what} in {len(errors)} steps: {'; '.join(map(str, errors))}"
        where = f" in step {errors[0].step!r}" if errors[0].step else ""
        return f"{what}{where}: {errors[0].error_type}: {errors[0].error_message}"

    def __str__(self) -> str:
        return self.message

    def derive(self, excs: Sequence[Any], /) -> ExceptionGroup[Any]:
        """Return a group of the same run with other errors."""
        return RunFailed(self.run_id, self.workflow, status=self.status, errors=excs)


class ChildFailed(RunFailed):
    """A child run ended without an output. Also has the child's ``key``, if it was spawned with one."""

    def __new__(
        cls, run_id: str, workflow: str, *, status: str, errors: Sequence[StepFailed], key: str | None = None
    ) -> Self:
        """Make the group."""
        return super().__new__(cls, run_id, workflow, status=status, errors=errors)

    def __init__(
        self, run_id: str, workflow: str, *, status: str, errors: Sequence[StepFailed], key: str | None = None
    ) -> None:
        super().__init__(run_id, workflow, status=status, errors=errors)
        self.child_id = run_id
        self.key = key

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.key is None else f"{text} (key {self.key!r})"

    def derive(self, excs: Sequence[Any], /) -> ExceptionGroup[Any]:
        """Return a group of the same child with other errors."""
        return ChildFailed(self.run_id, self.workflow, status=self.status, errors=excs, key=self.key)


class ChildrenFailed(JetflowError, ExceptionGroup[ChildFailed]):
    """At least one child of a join failed: a group with one ``ChildFailed`` for each."""

    def derive(self, excs: Sequence[Any], /) -> ChildrenFailed:
        """Return a group of the same kind with other errors."""
        return ChildrenFailed(self.message, excs)


class StepTimeout(JetflowError, TimeoutError):
    """A step's function ran longer than its ``timeout`` (seconds)."""

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(f"step {step!r} ran longer than its timeout of {seconds:g} s")
        self.step = step
        self.seconds = seconds


class RunTimeout(JetflowError, TimeoutError):
    """A run had no more time: its deadline passed, or it was in the queue for too long."""


class NonRetryable(JetflowError):
    """Raise it in a step to let the step fail at once, however many attempts are left."""


class RetryAfter(JetflowError):
    """Raise it in a step to be tried again after ``seconds``, if attempts are left."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"try again after {seconds:g} s")
        self.seconds = seconds


class RunCancelled(JetflowError):
    """The run was cancelled; nothing more can be spawned from it."""


class Poisoned(JetflowError):
    """A task was delivered more often than its attempts allow: it killed or lost its workers."""


class ProcessDied(JetflowError, RuntimeError):
    """The process that ran a step ended before the step did, and not by its worker. It counts as an attempt.

    ``signal`` is the number of the signal that has killed it, ``status`` its exit status if none has. ``out_of_memory``
    says that it was the kernel, for want of memory, as far as that can be told.
    """

    def __init__(
        self,
        what: str,
        *,
        pid: int | None = None,
        signal: int | None = None,
        status: int | None = None,
        out_of_memory: bool = False,
    ) -> None:
        super().__init__(f"the process of the step{'' if pid is None else f' (pid {pid})'} {what}")
        self.pid = pid
        self.signal = signal
        self.status = status
        self.out_of_memory = out_of_memory


class PredicateFailed(JetflowError):
    """The function that decides whether an event starts a run, or a condition of a step, has raised an error."""


class StepSkipped(JetflowError, LookupError):
    """A step whose output is asked for was skipped: it has none. `Context.was_skipped` tells."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step!r} was skipped, and has no output: ask ctx.was_skipped({step!r}) first")
        self.step = step


class WaitTimeout(JetflowError, TimeoutError):
    """What a step waited for has not come in time. ``conditions`` says what that was."""

    def __init__(self, conditions: str, seconds: float | None) -> None:
        told = "in time" if seconds is None else f"within {seconds:g} s"
        super().__init__(f"{conditions} has not come {told}: catch WaitTimeout, or put sleep(...) into any_of(...)")
        self.conditions = conditions
        self.seconds = seconds


class BatchKeyFailed(JetflowError, ValueError):
    """The function that tells with which other inputs one is handled has raised an error, or gave no string."""

    def __init__(self, step: str, what: str) -> None:
        super().__init__(f"the function key= of the batches of step {step!r} {what}")
        self.step = step


class WaitInBatch(JetflowError, RuntimeError):
    """A batch asked to wait for something of one of its runs, which all the others would have to wait for, too."""

    def __init__(self, step: str) -> None:
        super().__init__(
            f"step {step!r} handles many runs in one call, and none of them can wait in it: let it return, and wait in "
            "a step after it (children that it has spawned are waited for before that begins)"
        )
        self.step = step


class NotInOneGo(JetflowError, RuntimeError):
    """A step that is declared idempotent asked for what cannot be done twice at once, or would leave it open."""

    def __init__(self, step: str, what: str) -> None:
        super().__init__(
            f"step {step!r} is declared idempotent=True, for its twin may run beside it, and {what}: leave that to "
            "another step, or declare it otherwise"
        )
        self.step = step


class StepEnded(JetflowError):
    """A step's context was used after the step had ended: what it spawned then would belong to nobody."""

    def __init__(self, step: str, run_id: str) -> None:
        super().__init__(
            f"step {step!r} of run {run_id} has ended, and its ctx with it: await in the step all that uses it"
        )
        self.step = step
        self.run_id = run_id


class UnknownStep(JetflowError, LookupError):
    """A run asks for a step that no declaration at hand has."""


class UnknownVersion(JetflowError, LookupError):
    """A run is pinned to a version of its workflow whose graph is not stored."""

    def __init__(self, workflow: str, version: str) -> None:
        super().__init__(
            f"version {version or 'unknown'} of workflow {workflow!r} is not stored in this namespace: "
            "whoever started the run has to store its graph first"
        )
        self.workflow = workflow
        self.version = version


class MalformedRecord(JetflowError, ValueError):
    """A stored record, declaration or graph is not what ``docs/wire.md`` says; ``what`` names its kind."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the stored {what} cannot be read: {reason}")
        self.what = what
        self.reason = reason


class ResultTimeout(JetflowError, TimeoutError):
    """The run had not ended within the time given (seconds); it goes on, or ``reason`` tells what it waits for."""

    def __init__(self, run_id: str, seconds: float, reason: str = "") -> None:
        super().__init__(f"run {run_id} has not ended within {seconds:g} s; {reason or 'it goes on'}")
        self.run_id = run_id
        self.seconds = seconds
        self.reason = reason
