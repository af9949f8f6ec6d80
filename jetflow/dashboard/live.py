"""What changes, told to all who look: one producer a topic, however many listen, and the newest wins.

A topic is made by who listens to it first, and ends a moment after the last one has left. It tells whole states, so
that whoever comes late, or reads slowly, misses nothing: a state that was not sent yet is replaced by the next one.
Where it cannot ask the broker, it says so once, and asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.client import Client
from jetflow.dashboard.bulk import Jobs
from jetflow.dashboard.problems import problem_of
from jetflow.dashboard.topics import Source, merged, source_of, whole

EVERY: Final = 0.25
"""Seconds between two events of a topic, at least."""

LINGERS: Final = 5.0
"""Seconds for which a topic goes on when nobody listens: pages are left for one another."""

AGAIN: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds before a broker that is away is asked again, from time to time."""

PING: Final = 15.0
"""Seconds after which a stream without events says that it lives."""

GetClient: TypeAlias = Callable[[], Awaitable[Client]]


class Event(msgspec.Struct, frozen=True):
    """What a listener is sent: its name, the value as JSON, encoded once for all, and the topic that it is of."""

    name: str
    value: Any
    data: bytes
    topic: str = ""


class Listener:
    """One stream of events. What it has not read yet is kept once for each topic."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Event] = {}
        self._news = asyncio.Event()
        self._closed = False

    def tell(self, event: Event) -> None:
        """Have an event sent, in the place of one of the same name and topic that is not sent yet."""
        before = self._waiting.pop((event.name, event.topic), None)
        self._waiting[event.name, event.topic] = event if before is None else _both(before, event)
        self._news.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._news.set()

    async def events(self) -> AsyncGenerator[Event | None]:
        """Yield what there is to send, and None where nothing was for a while; until it is closed."""
        while not self._closed:
            try:
                await asyncio.wait_for(self._news.wait(), PING)
            except TimeoutError:
                yield None
                continue
            self._news.clear()
            waiting, self._waiting = self._waiting, {}
            for event in waiting.values():
                yield event


class _Topic:
    def __init__(self, name: str, source: Source, client: GetClient) -> None:
        self.listeners: set[Listener] = set()
        self.left_at: float = monotonic()
        self._name = name
        self._source = source
        self._client = client
        self._newest: Event | None = None
        self._trouble: Event | None = None
        self._unsent: Any = None
        self._told_at = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._task = asyncio.get_running_loop().create_task(self._produce(), name=f"jetflow topic {name}")

    def join(self, listener: Listener) -> None:
        self.listeners.add(listener)
        if self._newest is not None:
            value = whole(self._newest.value)
            listener.tell(Event(self._name, value, msgspec.json.encode(value), self._name))
        if self._trouble is not None:
            listener.tell(self._trouble)

    async def stop(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _produce(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._source(await self._client())) as values:
                    async for value in values:
                        failures = 0
                        self._take(value)
                return  # nothing will change any more
            except Exception as error:
                problem = problem_of(error)
                told = msgspec.json.encode({"topic": self._name, **problem.body()})
                self._trouble = Event("problem", None, told, self._name)
                self._send(self._trouble)
                if problem.status < 500:
                    return
            await asyncio.sleep(AGAIN[min(failures, len(AGAIN) - 1)])
            failures += 1

    def _take(self, value: Any) -> None:
        self._unsent = merged(self._unsent, value)
        if self._telling is None:
            pause = max(0.0, self._told_at + EVERY - monotonic())
            self._telling = asyncio.get_running_loop().call_later(pause, self._tell)

    def _tell(self) -> None:
        self._telling, self._told_at = None, monotonic()
        value, self._unsent = self._unsent, None
        event = Event(self._name, value, msgspec.json.encode(value), self._name)
        self._newest, self._trouble = event, None
        self._send(event)

    def _send(self, event: Event) -> None:
        for listener in self.listeners:
            listener.tell(event)


def _both(before: Event, after: Event) -> Event:
    value = merged(before.value, after.value)
    return after if value is after.value else Event(after.name, value, msgspec.json.encode(value), after.topic)


class Hub:
    """The topics that somebody listens to."""

    def __init__(self, client: GetClient, jobs: Jobs) -> None:
        self._client = client
        self._jobs = jobs
        self._topics: dict[str, _Topic] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def check(self, names: Sequence[str]) -> None:
        """Refuse what is no topic.

        Raises:
            Problem: one of them is none.
        """
        for name in names:
            self._source_of(name)

    def _source_of(self, name: str) -> Source:
        kind, _, job_id = name.partition(":")
        return self._jobs.find(job_id).states if kind == "bulk" else source_of(name)

    async def listen(self, names: Sequence[str]) -> AsyncGenerator[Event | None]:
        """Yield the events of some topics, the state of each first; None where nothing was for a while.

        Raises:
            Problem: one of them is none.
        """
        sources = {name: self._source_of(name) for name in names}
        listener, topics = Listener(), list[_Topic]()
        for name, source in sources.items():
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = _Topic(name, source, self._client)
            topic.join(listener)
            topics.append(topic)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="jetflow topics")
        try:
            async with aclosing(listener.events()) as events:
                async for event in events:
                    yield event
        finally:
            for topic in topics:
                topic.listeners.discard(listener)
                topic.left_at = monotonic()

    async def _sweep(self) -> None:
        """Stop the topics that nobody has listened to for a while."""
        while True:
            await asyncio.sleep(1.0)
            for name, topic in list(self._topics.items()):
                if not topic.listeners and monotonic() - topic.left_at > LINGERS:
                    del self._topics[name]
                    await topic.stop()

    async def close(self) -> None:
        """Stop all topics and end all streams. Safe to call twice."""
        topics, self._topics = list(self._topics.values()), {}
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
        for topic in topics:
            for listener in list(topic.listeners):
                listener.close()
            await topic.stop()
