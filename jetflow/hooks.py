"""Where telemetry is told what happens. Nothing is called while nobody asks to be told; see `jetflow.telemetry`.

What looks at ``tracer`` and ``meters`` does so each time: they may be set and taken away while workers run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakSet

from jetflow.engine.tasks import Task

T = TypeVar("T")


class Opened:
    """A span for what is sent from here: ``trace`` is what travels with it, ``children`` how many it was."""

    __slots__ = ("children", "trace")

    def __init__(self, trace: str | None) -> None:
        self.trace: str | None = trace
        self.children: int = 0


class Attempt(Protocol):
    """One attempt of a step, as it is told of: ``status`` is known behind it."""

    @property
    def task(self) -> Task:
        """The task."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1."""
        ...

    @property
    def queued_at(self) -> float:
        """When its task was stored, in seconds since the epoch."""
        ...

    @property
    def status(self) -> str:
        """How it has ended: succeeded, failed, parked or cancelled."""
        ...

    @property
    def error(self) -> BaseException | None:
        """Why it has failed."""
        ...


class Tracer(Protocol):
    """Makes spans."""

    def trigger(self, workflow: str) -> AbstractContextManager[Opened]:
        """Span what triggers runs of a workflow."""
        ...

    def spawn(self, workflow: str) -> AbstractContextManager[Opened]:
        """Span what spawns children."""
        ...

    def attempt(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Span an attempt, and the time for which it was queued."""
        ...

    async def join(self, children: int, spawned: Sequence[str], waiting: Awaitable[T]) -> T:
        """Span a wait for children, which were spawned in the spans that are told."""
        ...

    def within(self, trace: str) -> AbstractContextManager[None]:
        """Have what is spanned be below a span of another process."""
        ...

    def current(self) -> str | None:
        """Return the span that is open here, as it travels."""
        ...


class Meter(Protocol):
    """Takes measures. The names are those of `jetflow.telemetry.catalogue`."""

    def add(self, name: str, number: int, labels: dict[str, str]) -> None:
        """Add to a counter."""
        ...

    def observe(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Add a value to a histogram."""
        ...


class Running(Protocol):
    """A worker that runs, as it is looked at when somebody collects measures."""

    def measures(self) -> list[tuple[str, dict[str, str], float]]:
        """Return what it has done and holds at this moment: names, labels and values."""
        ...


tracer: Tracer | None = None
meters: tuple[Meter, ...] = ()
running: Final[WeakSet[Any]] = WeakSet()
"""The workers that run in this process: each is a `Running`."""

_NOTHING: Final = nullcontext(Opened(None))


def totals(name: str) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    """Return a live measure of all workers of this process together: its labels, and its value."""
    summed: dict[tuple[tuple[str, str], ...], float] = {}
    for worker in list(running):
        for measured, labels, value in worker.measures():
            if measured == name:
                summed[tuple(labels.items())] = summed.get(tuple(labels.items()), 0.0) + value
    return list(summed.items())


def triggering(workflow: str) -> AbstractContextManager[Opened]:
    """Return the span of a trigger, or nothing."""
    return _NOTHING if tracer is None else tracer.trigger(workflow)


def spawning(workflow: str) -> AbstractContextManager[Opened]:
    """Return the span of a spawn, or nothing."""
    return _NOTHING if tracer is None else tracer.spawn(workflow)


def add(name: str, number: int, labels: dict[str, str]) -> None:
    """Add to a counter, wherever there are some."""
    for meter in meters:
        meter.add(name, number, labels)


def observe(name: str, value: float, labels: dict[str, str]) -> None:
    """Add a value to a histogram, wherever there are some."""
    for meter in meters:
        meter.observe(name, value, labels)
