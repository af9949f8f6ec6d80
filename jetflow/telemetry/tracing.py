"""Spans by OpenTelemetry's API: one trace over a trigger, its run, and all its descendants.

What travels with tasks is a ``traceparent``, with its sampled flag. Children that are spawned in one call share it, so
that there is one span for the call and not one for each child; a span lives as long as what it tells of goes on here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jetflow.hooks import Attempt, Opened

T = TypeVar("T")

TRACEPARENT: Final = "traceparent"

MOST_JOINS: Final = 100
"""Waits for children that have a span at a time, in one process: a step may wait in thousands of places."""

MOST_LINKS: Final = 32
"""Links that a span has at most."""

_NANOSECONDS: Final = 1_000_000_000

_propagator: Final = TraceContextTextMapPropagator()


class SpanTracer:
    """See `jetflow.hooks.Tracer`."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("jetflow", tracer_provider=provider)
        self._joins = 0

    @contextmanager
    def trigger(self, workflow: str) -> Generator[Opened]:
        """Span what triggers runs of a workflow."""
        yield from self._sent(f"trigger {workflow}", {"jetflow.workflow": workflow}, "jetflow.runs")

    @contextmanager
    def spawn(self, workflow: str) -> Generator[Opened]:
        """Span what spawns children."""
        yield from self._sent(f"spawn {workflow}", {"jetflow.workflow": workflow}, "jetflow.children")

    def _sent(self, name: str, attributes: dict[str, str], counted: str) -> Generator[Opened]:
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            opened = Opened(self.current())
            yield opened
            span.set_attribute(counted, opened.children)

    @contextmanager
    def attempt(self, attempt: Attempt) -> Generator[None]:
        """Span an attempt, and the time for which it was queued."""
        task = attempt.task
        above = _extracted(task.trace)
        attributes = {
            "jetflow.workflow": task.workflow,
            "jetflow.step": task.step,
            "jetflow.run": task.run,
            "jetflow.root": task.root,
            "jetflow.attempt": attempt.attempt,
        }
        asked = trace.get_current_span(above).get_span_context()
        links = [Link(asked)] if asked.is_valid else []
        queued = int(attempt.queued_at * _NANOSECONDS)
        name = f"{task.workflow} {task.step}"
        self._tracer.start_span(f"queue {name}", above, SpanKind.INTERNAL, attributes, start_time=queued).end()
        with self._tracer.start_as_current_span(
            name, above, SpanKind.CONSUMER, attributes, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            finally:
                self._end(span, attempt)

    @staticmethod
    def _end(span: Span, attempt: Attempt) -> None:
        span.set_attribute("jetflow.status", attempt.status)
        if attempt.status == "failed" and attempt.error is not None:
            span.record_exception(attempt.error)
            span.set_status(StatusCode.ERROR, f"{type(attempt.error).__name__}: {attempt.error}")

    async def join(self, children: int, spawned: Sequence[str], waiting: Awaitable[T]) -> T:
        """Span a wait for children, with links to the spans in which they were spawned."""
        if self._joins >= MOST_JOINS:
            return await waiting
        links = [Link(trace.get_current_span(_extracted(one)).get_span_context()) for one in spawned[-MOST_LINKS:]]
        self._joins += 1
        try:
            with self._tracer.start_as_current_span("join", attributes={"jetflow.children": children}, links=links):
                return await waiting
        finally:
            self._joins -= 1

    @contextmanager
    def within(self, trace: str) -> Generator[None]:
        """Have what is spanned be below a span of another process."""
        token = contexts.attach(_extracted(trace))
        try:
            yield
        finally:
            contexts.detach(token)

    def current(self) -> str | None:
        """Return the span that is open here, as it travels."""
        carrier: dict[str, Any] = {}
        _propagator.inject(carrier)
        return carrier.get(TRACEPARENT)


def _extracted(trace: str | None) -> Context:
    """Return the context that a ``traceparent`` tells of; an empty one, whatever is open here, if there is none."""
    return Context() if trace is None else _propagator.extract({TRACEPARENT: trace}, Context())
