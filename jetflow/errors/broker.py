"""Errors of the connection to the NATS server, and of what it refuses."""

from __future__ import annotations

from jetflow.errors.root import JetflowError


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
