"""What is refused, as ``application/problem+json`` (RFC 9457): what happened, to what, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from jetflow.errors import (
    AlreadyRerun,
    BrokerError,
    InputLost,
    InvalidInput,
    InvalidName,
    InvalidQuery,
    JetflowError,
    KeyConflict,
    NothingToRerun,
    PayloadTooLarge,
    PermissionDenied,
    RecentlyDeleted,
    RunNotEnded,
    UnknownNamespace,
    UnknownRun,
    UnknownSchedule,
    UnknownWorkflow,
)
from jetflow.runs.values import LostValue

RETRY_AFTER: Final = 2
"""Seconds after which it is worth to ask again where the broker is away."""

_log = logging.getLogger("jetflow.dashboard")


class Problem(JetflowError):
    """Something that a request asks for is refused. ``hint`` is what to do; ``more`` joins the body."""

    def __init__(self, status: int, kind: str, detail: str, hint: str = "", **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.hint = hint
        self.more: Mapping[str, Any] = more

    def body(self) -> dict[str, Any]:
        """Return it as it travels."""
        title = self.kind.replace("-", " ").capitalize()
        told = {"type": f"urn:jetflow:{self.kind}", "title": title, "status": self.status, "detail": self.detail}
        return told | ({"hint": self.hint} if self.hint else {}) | dict(self.more)

    def response(self) -> Response:
        """Return the answer."""
        headers = {"Retry-After": str(RETRY_AFTER)} if self.status == 503 else {}
        return Response(msgspec.json.encode(self.body()), self.status, headers, "application/problem+json")


_KINDS: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (UnknownRun, 404, "unknown-run", "look the id up in the list of runs: it may have been deleted, or never was"),
    (UnknownWorkflow, 404, "unknown-workflow", "start a worker that has it"),
    (UnknownSchedule, 404, "unknown-schedule", "look its name up in the list of schedules"),
    (InvalidQuery, 400, "invalid-query", "change the parameter that is named"),
    (InvalidName, 400, "invalid-query", "change the name"),
    (PayloadTooLarge, 413, "too-large", "pass a reference to it"),
    (InvalidInput, 422, "invalid-input", "change what is named"),
    (RecentlyDeleted, 409, "recently-deleted", "use another key, or wait"),
    (RunNotEnded, 409, "run-not-ended", "wait for its end, or cancel it"),
    (NothingToRerun, 409, "nothing-to-rerun", "run all of it again, or from a step on"),
    (InputLost, 410, "input-lost", "trigger a new run"),
    (LostValue, 410, "lost-value", "it was deleted with its run, or its stream was changed"),
    (PermissionDenied, 403, "broker-refused", "grant it to the NATS user that the dashboard connects as"),
    (UnknownNamespace, 503, "unknown-namespace", "start a worker there"),
    (BrokerError, 503, "broker-away", "it is asked again by itself; see to the NATS server"),
)


def problem_of(error: Exception) -> Problem:
    """Return an error as a problem. What nobody expects is logged, and told without its text."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, KeyConflict):
        return Problem(
            *(409, "key-conflict", str(error), "use another key, or the same input"),
            run=error.run_id,
            stored_digest=error.stored_digest,
            given_digest=error.given_digest,
        )
    if isinstance(error, AlreadyRerun):
        return Problem(409, "already-rerun", str(error), "run the newest one again", run=error.newest)
    for kind, status, name, hint in _KINDS:
        if isinstance(error, kind):
            return Problem(status, name, str(error), hint)
    _log.error("a request failed", exc_info=error)
    return Problem(500, "unexpected", f"{type(error).__name__}: see the log of the dashboard", "report it")
