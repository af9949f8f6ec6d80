"""Reading a stream as it grows: the headers of what is stored from now on, or from behind a sequence on.

It goes by a consumer of its own that is gone a minute after the reader. Where this user may not make one, the stream is
read every two seconds instead. Pulls bound what is on its way, so that a slow reader holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from jetflow.broker.connection import Connection, Message
from jetflow.broker.puller import Delivery
from jetflow.broker.store import Store
from jetflow.broker.times import SECOND
from jetflow.errors import PermissionDenied

BATCH: Final = 500
"""Messages in one pull."""

PULL_FOR: Final = 30.0
"""Seconds that one pull waits."""

FORGOTTEN_AFTER: Final = 60
"""Seconds after which the server drops the consumer of a reader that died."""

READ_EVERY: Final = 2.0
"""Seconds between two reads where no consumer may be made."""


class Seen(NamedTuple):
    """That a message was stored: on which subject, and its sequence."""

    subject: str
    sequence: int


class Tail:
    """Reads what is stored under some filters of one stream."""

    def __init__(self, connection: Connection, store: Store, stream: str, filters: Sequence[str]) -> None:
        self._connection = connection
        self._store = store
        self._stream = stream
        self._filters = list(filters)
        self._consumer = ""
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()

    async def seen(self, after: int) -> AsyncGenerator[Seen]:
        """Yield what is stored behind sequence ``after``, in the order of the stream, for ever."""
        inbox = self._connection.new_inbox()
        subscription = await self._connection.subscribe(inbox, self._arrived.put_nowait)
        forget_reconnect = self._connection.on_reconnect(lambda: self._arrived.put_nowait(None))
        try:
            while True:
                try:
                    await self._make_consumer(after)
                except PermissionDenied:
                    break
                async for one in self._pulled(inbox):
                    after = one.sequence
                    yield one
        finally:
            forget_reconnect()
            await self._connection.unsubscribe(subscription)
            if self._consumer:
                delete = self._connection.api_subject(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
                self._connection.send(delete, reply=inbox)
        while True:  # this user may only read
            for one in await self._read(after):
                after = one.sequence
                yield one
            await asyncio.sleep(READ_EVERY)

    async def _make_consumer(self, after: int) -> None:
        config: dict[str, Any] = {
            "filter_subjects": self._filters,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN_AFTER * SECOND,
        }
        request = {"stream_name": self._stream, "config": config}
        answer = await self._connection.api(f"CONSUMER.CREATE.{self._stream}", request)
        self._consumer = answer["name"]

    async def _pulled(self, inbox: str) -> AsyncGenerator[Seen]:
        """Yield what the consumer gives, until it is gone or the connection was lost."""
        pull = orjson.dumps({"batch": BATCH, "expires": int(PULL_FOR * SECOND)})
        subject = self._connection.api_subject(f"CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}")
        while True:
            self._connection.send(subject, pull, reply=inbox)
            left = BATCH
            while left:
                try:
                    async with asyncio.timeout(PULL_FOR + 5.0):
                        message = await self._arrived.get()
                except TimeoutError:
                    return
                if message is None:
                    return
                if message.reply.startswith("$JS.ACK."):
                    if f".{self._consumer}." in message.reply:
                        left -= 1
                        yield Seen(message.subject, Delivery(message).sequence)
                elif message.headers.get("Status") in ("404", "408"):
                    break  # the pull is over, and nothing is wrong
                else:
                    return

    async def _read(self, after: int) -> list[Seen]:
        found: set[Seen] = set()
        for subject in self._filters:
            page, _ = await self._store.page(self._stream, subject, after=after)
            found.update(Seen(message.subject, message.sequence) for message in page)
        return sorted(found, key=lambda one: one.sequence)
