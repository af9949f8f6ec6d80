"""How one run came to where it is: its steps over time, and when its children ended."""

from __future__ import annotations

from time import time
from typing import Final, Literal

import msgspec

from jetflow.dashboard.detail import read_trace
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import Bucket
from jetflow.runs.trace import StepTrace

ENDPOINTS = Endpoints()

PARTS: Final = 60
"""Parts of the time over which the ends of children are counted."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a step's time: it was ``queued``, ran (``run``), or waited for its next attempt (``backoff``).

    Without an end it goes on. The ``run`` of a step that waits for its children is ``waiting``.
    """

    step: str
    kind: Literal["queued", "run", "backoff", "waiting"]
    attempt: int
    since: float = msgspec.field(name="from")
    until: float | None = msgspec.field(name="to", default=None)
    outcome: str | None = None
    worker: str | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A run over time. ``children`` counts how its children ended, in about 60 parts; empty where it has none."""

    since: float = msgspec.field(name="from")
    until: float = msgspec.field(name="to")
    spans: tuple[Span, ...] = ()
    children: tuple[Bucket, ...] = ()


@ENDPOINTS.get("runs/{id}/timeline")
async def timeline(ask: Ask) -> Timeline:
    """Tell when the steps of a run were queued, ran and waited, and when its children ended."""
    trace = await read_trace(ask.client, ask.run)
    spans = [span for step in trace.steps for span in spans_of(step)]
    now = time()
    until = trace.ended or now
    since = min([span.since for span in spans], default=trace.triggered or until)
    since = min(since, trace.triggered or since, until)
    children: list[Bucket] = []
    if until > since:
        children = await ask.client.history(ask.run, since=since, until=until, buckets=PARTS)
    if not any(bucket.ended for bucket in children):
        children = []
    return Timeline(since=since, until=until, spans=tuple(spans), children=tuple(children))


def spans_of(step: StepTrace) -> list[Span]:
    """Return the parts of a step's time, in order, as far as they are known."""
    spans: list[Span] = []
    free_since, kind = step.queued, "queued"
    for failure in step.failures:
        if failure.started is None:
            continue
        _wait(spans, step.name, kind, failure.attempt, free_since, failure.started)
        spans.append(
            Span(
                step=step.name,
                kind="run",
                attempt=failure.attempt,
                since=failure.started,
                until=failure.ended,
                outcome="failed",
                worker=failure.worker or None,
            )
        )
        free_since, kind = failure.ended, "backoff"
    last = max(1, step.attempts)
    if step.status in ("queued", "retrying"):
        _wait(spans, step.name, kind, last, free_since, step.again)
    elif step.started is not None:
        _wait(spans, step.name, kind, last, free_since, step.started)
        is_over = step.ended is not None
        spans.append(
            Span(
                step=step.name,
                kind="waiting" if step.status == "waiting" else "run",
                attempt=last,
                since=step.started,
                until=step.ended,
                outcome=step.status if is_over else None,
                worker=step.worker,
            )
        )
    elif step.status == "running" and free_since is not None:
        spans.append(Span(step=step.name, kind="run", attempt=last, since=free_since))
    return spans


def _wait(spans: list[Span], step: str, kind: str, attempt: int, since: float | None, until: float | None) -> None:
    if since is not None and (until is None or until > since):
        waited: Literal["queued", "backoff"] = "backoff" if kind == "backoff" else "queued"
        spans.append(Span(step=step, kind=waited, attempt=attempt, since=since, until=until))
