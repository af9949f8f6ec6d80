"""Group commit: messages that are ready at the same moment leave as one batch, with one acknowledgement.

They are write-once; or such that replace what stands on their subject, as timers do, so that they may be sent again.
A lone message is published by itself at once. While many batches are on their way more gathers behind them, so that
under load a batch is as large as the broker is slow.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from jetflow.broker.connection import Connection
from jetflow.broker.ingest import BATCH, Ingest
from jetflow.broker.item import Item
from jetflow.broker.publisher import Done, Publisher, Receipt

WORTH_A_BATCH: Final = 3
"""Messages from which on a batch is cheaper than an acknowledgement each."""

BATCH_BYTES: Final = 2 * 1024 * 1024
"""Bytes from which on a batch takes no more messages."""

UNDER_WAY: Final = 8
"""Batches of one stream that may wait for their acknowledgement."""

UNDER_WAY_DURABLE: Final = 2
"""The same where the server flushes each batch to the disk: fewer, and so larger ones."""

_STORED: Final = Receipt(stored=True)


class GroupCommit:
    """Publishes the write-once messages of one stream."""

    def __init__(self, stream: str, connection: Connection, publisher: Publisher, ingest: Ingest) -> None:
        self.stream: str = stream
        self._connection = connection
        self._publisher = publisher
        self._ingest = ingest
        self._most = UNDER_WAY_DURABLE if ingest.durable else UNDER_WAY
        self._items: list[Item] = []
        self._dones: list[Done] = []
        self._bytes = 0
        self._under_way = 0

    def publish(self, item: Item, done: Done) -> None:
        """Publish with all that is ready in the same pass of the event loop. See `Publisher.publish`."""
        size = len(item.body) + len(item.headers)
        if size > self._connection.max_payload:
            self._send_alone(item, done)  # which refuses it; in a batch it would cost the connection
            return
        if not self._items:
            self._connection.before_flush(self._send)
        self._bytes += size
        self._items.append(item)
        self._dones.append(done)

    async def store(self, item: Item) -> Receipt:
        """Publish the same way, and return what became of it.

        Raises:
            BrokerRefused: the server does not take the message.
            PayloadTooLarge: it is larger than the server accepts.
        """
        waiting: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def done(receipt: Receipt) -> None:
            if not waiting.done():
                waiting.set_result(receipt)

        self.publish(item, done)
        receipt = await waiting
        if receipt.error is not None:
            raise receipt.error.__cause__ or receipt.error
        return receipt

    def _send(self) -> None:
        while self._items and self._under_way < self._most:
            count, size = self._batch()
            items, self._items = self._items[:count], self._items[count:]
            dones, self._dones = self._dones[:count], self._dones[count:]
            self._bytes -= size
            if len(items) < WORTH_A_BATCH and size < BATCH_BYTES:
                for item, done in zip(items, dones, strict=True):
                    self._send_alone(item, done)
            else:
                self._under_way += 1
                stored = self._ingest.publish(items)
                stored.add_done_callback(partial(self._on_stored, items, dones))

    def _batch(self) -> tuple[int, int]:
        """Return how many messages the next batch has, and how many bytes they are."""
        if self._bytes <= BATCH_BYTES and len(self._items) <= BATCH:
            return len(self._items), self._bytes
        size = count = 0
        for item in self._items[:BATCH]:
            count += 1
            size += len(item.body) + len(item.headers)
            if size >= BATCH_BYTES:
                break
        return count, size

    def _on_stored(self, items: list[Item], dones: list[Done], stored: asyncio.Future[list[int]]) -> None:
        """End a batch. What was there already, or was refused, is published again alone: that finds out about each."""
        self._under_way -= 1
        failed = stored.cancelled() or stored.exception() is not None
        again = range(len(items)) if failed else set(stored.result())
        for at, done in enumerate(dones):
            if at in again:
                self._send_alone(items[at], done)
            else:
                done(_STORED)
        self._send()

    def _send_alone(self, item: Item, done: Done) -> None:
        self._publisher.publish(item.subject, item.body, item.headers, done)
