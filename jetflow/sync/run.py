"""A run, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from jetflow import client
from jetflow.sync.portal import Portal
from jetflow.triggering import RunStatus
from jetflow.wire.events import PublishedEvent
from jetflow.wire.output import Chunk, LogLine, Progress

O_co = TypeVar("O_co", covariant=True)


class Run(Generic[O_co]):
    """A root run, or any run by its id. ``created`` is that of `jetflow.Run`."""

    def __init__(self, portal: Portal[client.Client], run: client.Run[O_co]) -> None:
        self._portal = portal
        self._run = run
        self.id: str = run.id
        self.created: bool | None = run.created

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def status(self) -> RunStatus:
        """Return where the run stands.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        return self._portal.call(lambda here: self._run.through(here).status())

    def result(self, timeout: float | None = None) -> O_co:
        """Wait for the run to end, and return its output; see `jetflow.Run.result`. ``timeout`` is seconds.

        Raises:
            UnknownRun: no run with this id is stored, or it was deleted meanwhile.
            RunFailed: the run ended without an output: a group of the errors of its steps.
            InvalidOutput: its output does not fit the type that is asked for.
            ResultTimeout: it has not ended in time; it goes on.
            BrokerTimeout: the broker does not answer.
        """
        return self._portal.call(lambda here: self._run.through(here).result(timeout))

    def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> PublishedEvent:
        """Send a signal to the run; see `jetflow.Run.signal`.

        Raises:
            InvalidInput: the name is none, or the payload cannot be written as JSON.
            BrokerTimeout: the broker did not take it in time.
        """
        return self._portal.call(lambda here: self._run.through(here).signal(name, payload, id=id))

    def stream(self, *, step: str | None = None, after: int = 0, follow: bool = True) -> Iterator[Chunk]:
        """Yield what the run's steps stream, from the beginning, until the run has ended; see `jetflow.Run.stream`.

        Raises:
            UnknownRun: no run with this id is stored, or it was deleted meanwhile.
            BrokerTimeout: the broker does not answer.
        """
        return self._portal.each(lambda here: self._run.through(here).stream(step=step, after=after, follow=follow))

    def logs(self, *, follow: bool = False, step: str | None = None, after: int = 0) -> Iterator[LogLine]:
        """Yield the lines that the run's steps have logged; see `jetflow.Run.logs`.

        Raises:
            The same as `stream`.
        """
        return self._portal.each(lambda here: self._run.through(here).logs(follow=follow, step=step, after=after))

    def progress(self) -> dict[str, Progress]:
        """Return how far the run's steps say that they are, by step; see `jetflow.Run.progress`.

        Raises:
            UnknownRun: no run with this id is stored.
            BrokerTimeout: the broker does not answer.
        """
        return self._portal.call(lambda here: self._run.through(here).progress())
