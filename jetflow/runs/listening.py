"""Reading what the steps of a run say, while it runs or afterwards: in the order of the stream, and without a consumer.

What is stored is read in pages; what comes then is heard as its live copy, which names the message before it on its
subject: where that one was not seen, the stream is read again. So nothing is missed, and who reads slowly holds up
nobody, for copies that pile up are dropped and read from the stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from jetflow.broker.connection import Message
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.broker.times import seconds_of
from jetflow.engine.output import Newest
from jetflow.errors import BrokerTimeout, JetStreamUnavailable
from jetflow.runs.following import CHECK_EVERY
from jetflow.wire.output import OutputNames, place_of
from jetflow.wire.subjects import last_token

HEARD: Final = 1000
"""Live copies that may wait for whoever reads; with more, the stream is read again."""

HEARD_BYTES: Final = 8 * 1024 * 1024
"""Bytes of them."""

PAGE: Final = 500
"""Messages in one page."""

STORED_WITHIN: Final = 10.0
"""Seconds in which a replica must have what the leader has when the run has ended."""


class Listening:
    """Reads the messages of one filter from behind a sequence on, until ``ended`` is over. Use it once."""

    def __init__(self, session: Session, subject: str, after: int) -> None:
        self._session = session
        self._names = OutputNames(session.names)
        self._subject = subject
        self._after = after
        self._heard: deque[Stored] = deque()
        self._heard_bytes = 0
        self._missed = True  # what is stored before it listens
        self._news = asyncio.Event()
        self._last: dict[str, int] = {}
        self._newest = Newest()

    async def messages(self, ended: Callable[[], Awaitable[object]] | None) -> AsyncGenerator[Stored]:
        """Yield messages; without ``ended`` only those that are stored now.

        Raises:
            BrokerTimeout: the broker does not answer, or not with all that it has.
            Whatever ``ended`` raises.
        """
        if ended is None:
            async for one in self._stored():
                yield one
            return
        connection = self._session.connection
        subscription = await connection.subscribe(self._names.live(self._subject), self._on_live)
        forget_reconnect = connection.on_reconnect(self._on_gap)
        end = asyncio.ensure_future(ended())
        end.add_done_callback(lambda _: self._news.set())
        try:
            while not end.done():
                async for one in self._those_there():
                    yield one
                await self._wait()
            end.result()
            async for one in self._rest():
                yield one
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)
            forget_reconnect()
            await connection.unsubscribe(subscription)

    async def _wait(self) -> None:
        if not self._heard and not self._missed:
            try:
                async with asyncio.timeout(CHECK_EVERY):
                    await self._news.wait()
            except TimeoutError:
                self._missed = True  # its copy may have been lost, and no other come
        self._news.clear()

    async def _those_there(self) -> AsyncGenerator[Stored]:
        while self._missed or self._heard:
            if self._missed:
                self._missed = False
                async for one in self._stored():
                    yield one
            elif self._is_next(one := self._take()):
                for taken in self._taken(one):
                    yield taken

    def _take(self) -> Stored:
        one = self._heard.popleft()
        self._heard_bytes -= len(one.body)
        return one

    def _is_next(self, one: Stored) -> bool:
        """Tell whether a live copy is news, and nothing lies between it and what was read of its subject."""
        if one.sequence <= self._after:
            return False
        if int(one.headers.get("Nats-Last-Sequence", "0")) > max(self._after, self._last.get(one.subject, 0)):
            self._missed = True
            return False
        return True

    async def _stored(self) -> AsyncGenerator[Stored]:
        if not await self._session.optional.is_there(self._names.stream):
            return
        while True:
            try:
                page, left = await self._session.store.page(
                    self._names.stream, self._subject, after=self._after, size=PAGE
                )
            except JetStreamUnavailable:  # it has no leader at this moment, or was deleted
                self._session.optional.forget(self._names.stream)
                return
            for one in page:
                for taken in self._taken(one):
                    yield taken
            if not page or not left:
                return

    def _taken(self, one: Stored) -> list[Stored]:
        self._after = one.sequence
        self._last[one.subject] = one.sequence
        return [one] if self._newest.takes(last_token(one.subject), place_of(one.headers).writing) else []

    async def _rest(self) -> AsyncGenerator[Stored]:
        """Yield what is left when the run has ended, all of it: a replica may be late."""
        if not await self._session.optional.is_there(self._names.stream):
            return
        newest = await self._session.store.leader_last(self._names.stream, self._subject)
        last = 0 if newest is None else newest.sequence
        try:
            async with asyncio.timeout(STORED_WITHIN):
                while True:
                    async for one in self._stored():
                        yield one
                    if self._after >= last:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise BrokerTimeout(f"no replica had all of {self._subject} within {STORED_WITHIN:g} s") from None

    def _on_live(self, message: Message) -> None:
        if len(self._heard) >= HEARD or self._heard_bytes >= HEARD_BYTES:
            self._heard.clear()
            self._heard_bytes = 0
            self._missed = True
        if not self._missed:
            self._heard.append(_heard(message))
            self._heard_bytes += len(message.data)
        self._news.set()

    def _on_gap(self) -> None:
        self._missed = True
        self._news.set()


def _heard(message: Message) -> Stored:
    """Return what a live copy tells that was stored."""
    headers = message.headers or {}
    return Stored(
        subject=headers.get("Nats-Subject", ""),
        sequence=int(headers.get("Nats-Sequence", "0")),
        headers=headers,
        body=message.data,
        time=seconds_of(headers.get("Nats-Time-Stamp", "")),
    )
