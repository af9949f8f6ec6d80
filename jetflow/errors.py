"""Every error that jetflow raises, under one root.

Each error is mixed with the built-in that a caller would expect, keeps its data on attributes, and says what
happened, to what, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class JetflowError(Exception):
    """The root of all errors raised by jetflow."""


# --- declaring -------------------------------------------------------------------------------------------------


class InvalidDeclaration(JetflowError, ValueError):
    """A workflow or step was declared wrongly: a bad name, a cycle, an unknown upstream step, a bad type."""


class InvalidName(InvalidDeclaration):
    """A name does not fit the token rule ``[A-Za-z0-9][A-Za-z0-9_-]{0,63}``."""

    def __init__(self, what: str, name: object) -> None:
        shown = repr(name)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        super().__init__(
            f"{what} {shown} is not a valid name: use 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit"
        )
        self.what = what
        self.name = name


# --- values ----------------------------------------------------------------------------------------------------


class InvalidInput(JetflowError, ValueError):
    """A value does not fit the declared input type; the message names the path inside the value."""


class InvalidQuery(JetflowError, ValueError):
    """A question about what is stored makes no sense: a filter, an order, a cursor or a limit."""


class InvalidOutput(JetflowError, ValueError):
    """A step's output cannot be encoded as JSON, or does not fit the type that is asked for."""


class PayloadTooLarge(JetflowError, ValueError):
    """A value is larger than it may be. ``size`` and ``limit`` are bytes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} takes {size:,} bytes as JSON, and at most {limit:,} bytes are taken: pass a reference to it"
        )
        self.size = size
        self.limit = limit


# --- identity --------------------------------------------------------------------------------------------------


class UnknownWorkflow(JetflowError, LookupError):
    """Nobody has declared a workflow of this name in the namespace. ``near`` holds similar names.

    ``declared`` is how many workflows are; None if that is not known.
    """

    def __init__(self, name: str, near: Sequence[str] = (), declared: int | None = None) -> None:
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        if declared == 0:
            hint = ", nor is any other: is it the right server and namespace?"
        super().__init__(
            f"no workflow named {name!r} is declared in this namespace{hint} "
            "(a worker declares its workflows when it starts)"
        )
        self.name = name
        self.near: tuple[str, ...] = tuple(near)


class UnknownRun(JetflowError, LookupError):
    """No run with this id is stored in the namespace."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r} is stored in this namespace")
        self.run_id = run_id


class KeyConflict(JetflowError, ValueError):
    """The same key was used again with a different input; the first run stands, nothing was started."""

    def __init__(self, workflow: str, key: str, run_id: str, stored: str, given: str) -> None:
        super().__init__(
            f"key {key!r} of workflow {workflow!r} is taken by run {run_id} with another input "
            f"(stored digest {stored}, given digest {given}): use another key, or the same input"
        )
        self.workflow = workflow
        self.key = key
        self.run_id = run_id
        self.stored_digest = stored
        self.given_digest = given


class RecentlyDeleted(JetflowError, ValueError):
    """The key names a run that was deleted, and what may still be under way of it is refused for an hour."""

    def __init__(self, workflow: str, key: str, run_id: str) -> None:
        super().__init__(
            f"key {key!r} of workflow {workflow!r} names run {run_id}, which was deleted less than an hour ago: "
            "use another key, or wait"
        )
        self.workflow = workflow
        self.key = key
        self.run_id = run_id


class DepthExceeded(JetflowError, RecursionError):
    """A spawn would nest runs deeper than the namespace's limit."""

    def __init__(self, workflow: str, depth: int, limit: int) -> None:
        super().__init__(
            f"spawning {workflow!r} would nest runs {depth} deep, past the limit of {limit}: "
            "end the recursion, or raise WorkerOptions(max_depth=...)"
        )
        self.depth = depth
        self.limit = limit


# --- outcomes --------------------------------------------------------------------------------------------------


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


# --- the broker ------------------------------------------------------------------------------------------------


class BrokerError(JetflowError):
    """The NATS server refused an operation, or could not be asked."""


class ServerUnreachable(BrokerError, ConnectionError):
    """No NATS server answered within the connect timeout."""


class AccessDenied(BrokerError, PermissionError):
    """The NATS server answered, and refused who connects."""


class InvalidConnection(BrokerError, ValueError):
    """What was said of how to connect makes no sense: a URL, a file, a context, or two things that contradict."""


class InvalidSetting(JetflowError, ValueError):
    """A variable of the environment or a file says what a setting cannot be. ``where`` names it."""

    def __init__(self, where: str, value: object, rule: str) -> None:
        said = where if value is None else f"{where} is {value!r}"
        super().__init__(f"{said}: {rule}")
        self.where = where


class MissingExtra(JetflowError, ImportError):
    """Something that was asked for needs a package that is not installed; the message says which extra brings it."""


class ClientClosed(BrokerError):
    """A client was used after the end of its block."""


class WrongEventLoop(JetflowError, RuntimeError):
    """A client was used from another event loop than that in which it was made."""


class ForkedProcess(JetflowError, RuntimeError):
    """A client, or a step's context, was used in a process that was forked from the one that it belongs to."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} belongs to the process that has forked this one: {instead}")


class ServerTooOld(BrokerError):
    """The NATS server is older than jetflow needs."""


class JetStreamUnavailable(BrokerError):
    """The NATS server runs without JetStream, or this account may not use it."""


class UnknownNamespace(BrokerError, LookupError):
    """A namespace is to be read, and nothing was ever made of it."""

    def __init__(self, namespace: str, stream: str) -> None:
        super().__init__(
            f"there is no namespace {namespace!r} on this server (it has no stream {stream}): start a worker there, "
            "trigger a run, or name another one"
        )
        self.namespace: str = namespace


class BrokerTimeout(BrokerError, TimeoutError):
    """The NATS server did not answer a request in time (seconds)."""


class PermissionDenied(BrokerError, PermissionError):
    """This user may not publish on ``subject``, or subscribe to it. ``needed`` says what for, if that is not plain."""

    def __init__(self, subject: str, action: str = "publish on", *, needed: str = "") -> None:
        lead = f"{needed}, and " if needed else ""
        advice = "let a user who may start the same once" if needed else "use another namespace or user"
        super().__init__(f"{lead}this NATS user may not {action} {subject}: grant it, or {advice}")
        self.subject = subject


class TreeTooLarge(JetflowError, ValueError):
    """A root run has more descendants than the namespace's limit."""

    def __init__(self, root: str, limit: int) -> None:
        super().__init__(
            f"the tree of root run {root} would have more than {limit:,} descendants: "
            "split the work over several root runs, or raise WorkerOptions(max_descendants=...)"
        )
        self.root = root
        self.limit = limit


class BrokerRefused(BrokerError):
    """The JetStream API answered with an error. ``code`` and ``err_code`` are the server's."""

    def __init__(self, operation: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{operation}: {description} (code {code}, err_code {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description
