"""Waking steps that wait for events: each event is given to one worker, which wakes all that wait for such.

Where nobody has ever waited for an event there is no consumer, and nothing is asked for but once, when a worker starts
or has connected again. Whoever waits first makes it, and tells all workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from time import time
from typing import Final

import msgspec

from jetflow.broker.connection import Listening
from jetflow.broker.optional import CLOCKS_DIFFER, ensure_waits_consumer
from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.broker.topology import Consumer, found
from jetflow.errors import BrokerError, BrokerRefused, InvalidDeclaration, MalformedRecord
from jetflow.runs import points
from jetflow.runs.awaiting import matching_of
from jetflow.runs.performer import Performer
from jetflow.wire.events import EventNames, PublishedEvent, read_event
from jetflow.worker.answers import ACK, Answers, Impossible
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.errands import Errands
from jetflow.worker.wakes import AT_ONCE, Parked, Wakes

WINDOW: Final = 64
"""Events that one worker handles at once."""

OVERLAPPING: Final = 4
"""Parts of those who wait for one event that are woken at once."""

REMOVED_ONE_BY_ONE: Final = 50
"""Waits up to which each is removed by its subject."""

_log = logging.getLogger("jetflow.worker")


class Expecting:
    """Pulls events as soon as somebody in the namespace waits for any. `start` and `stop` it."""

    def __init__(
        self, session: Session, deliveries: Deliveries, performer: Performer, counts: Counts, ack_wait: float
    ) -> None:
        self._session = session
        self._names = EventNames(session.names)
        self._ack_wait = ack_wait
        self._was_made = False
        self._looking: asyncio.Task[None] | None = None
        self._listening: Listening | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        self._begun = False
        names = self._names
        handle = Waker(session, performer, counts).handle
        self.errands: Errands = Errands(
            session, deliveries, names.stream, names.waits_consumer, self._ensure, handle, window=WINDOW
        )

    async def start(self) -> None:
        """Pull events if somebody has waited for any; else when somebody does."""
        connection = self._session.connection
        self._listening = await connection.subscribe(self._names.notice, lambda _: self._look_soon())
        self._forget_reconnect = connection.on_reconnect(self._look_soon)
        await self._look()

    async def stop(self) -> None:
        """Pull no more events. What is being handled goes on. Safe to call twice."""
        self._forget_reconnect()
        self._forget_reconnect = lambda: None
        listening, self._listening = self._listening, None
        if listening is not None:
            await self._session.connection.unsubscribe(listening)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._begun:
            await self.errands.stop()

    def _look_soon(self) -> None:
        if not self._begun and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(lambda _: setattr(self, "_looking", None))

    async def _look(self) -> None:
        """Begin to pull if there is a consumer."""
        try:
            consumer = f"{self._names.stream}.{self._names.waits_consumer}"
            if not self._begun and await found(self._session.connection, f"CONSUMER.INFO.{consumer}") is not None:
                self._begun = True
                await self.errands.start()
        except BrokerRefused as error:
            _log.warning("whether steps wait for events is not known: %s", error)
        except BrokerError as error:
            _log.info("whether steps wait for events is asked again later: %s", error)

    async def _ensure(self) -> Consumer:
        """Have the consumer there; one that is lost begins from the oldest event, for some may have come meanwhile."""
        again, self._was_made = self._was_made, True
        connection, names = self._session.connection, self._session.names
        since = None if again else time() - CLOCKS_DIFFER
        return await ensure_waits_consumer(connection, names, ack_wait=self._ack_wait, since=since)


class Waker:
    """Handles events: wakes the steps that wait for them."""

    def __init__(self, session: Session, performer: Performer, counts: Counts) -> None:
        self._session = session
        self._names = EventNames(session.names)
        self._wakes = Wakes(session, performer)
        self._answers = Answers(counts, "an event")

    async def handle(self, delivery: Delivery) -> None:
        """Wake all that wait for an event, and acknowledge it."""
        points.before("expected")
        try:
            await self._wake_all(self._event(delivery), delivery.subject)
            answer = ACK
        except Exception as error:  # whatever it is, steps may wait for this event
            answer = self._answers.to(delivery, error)
        points.after("expected")
        points.before("expected_ack")
        self._session.connection.send(delivery.reply, answer)
        points.after("expected_ack")

    def _event(self, delivery: Delivery) -> PublishedEvent:
        headers = delivery.headers or {}
        try:
            return read_event(self._names, delivery.subject, delivery.sequence, delivery.time, headers, delivery.body)
        except MalformedRecord as error:
            raise Impossible(f"it wakes nobody: {error}") from error

    async def _wake_all(self, event: PublishedEvent, subject: str) -> None:
        for waits in self._names.waits_for(event.topic, self._names.key_of(subject)):
            await self._wake(event, waits)

    async def _wake(self, event: PublishedEvent, subject: str) -> None:
        """Wake those of one filter of waits. They are removed behind that."""
        stream = self._names.waits_stream
        last, waits = await self._session.store.leader_listed(stream, subject)
        if not waits:
            return
        ended = await self._those_that_fit(event, waits)
        parked = [one for one in map(self._parked, ended) if one is not None]
        parts = iter([parked[at : at + AT_ONCE] for at in range(0, len(parked), AT_ONCE)])
        await asyncio.gather(*(self._wake_some(parts) for _ in range(OVERLAPPING)))
        points.before("remove_waits")
        if len(ended) == len(waits) and len(waits) > REMOVED_ONE_BY_ONE:
            await self._purge(subject, last + 1)
        else:
            for wait in ended:
                await self._purge(wait, last + 1)
        points.after("remove_waits")

    async def _wake_some(self, parts: Iterator[list[Parked]]) -> None:
        """Wake one part after the other, each once: while one is stored, others are read beside it."""
        for part in parts:
            await self._wakes.all(part)

    async def _those_that_fit(self, event: PublishedEvent, waits: list[str]) -> list[str]:
        """Leave out those whose conditions do not hold, or that look behind the event. In doubt one is woken."""
        conditional = [wait for wait in waits if self._names.is_conditional(wait)]
        fitting = set(waits)
        async for page in self._session.store.many(self._names.waits_stream, conditional):
            for stored in page:
                try:
                    awaited = self._names.read_wait(stored.body)
                    if event.sequence <= awaited.after or not matching_of(awaited.if_).fits(event.payload):
                        fitting.discard(stored.subject)
                except (msgspec.DecodeError, InvalidDeclaration):
                    _log.warning("what a wait on %r says cannot be read: it is woken", stored.subject)
        return [wait for wait in waits if wait in fitting]

    def _parked(self, wait: str) -> Parked | None:
        """Return the turn that a wait is of."""
        task = self._names.task_of_wait(wait)
        return None if task is None else Parked(task, timed=self._names.is_timed(wait))

    async def _purge(self, subject: str, before: int) -> None:
        stream = self._names.waits_stream
        await self._session.connection.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": before})
