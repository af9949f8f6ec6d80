"""Group commit: write-once messages that are ready at the same moment leave as one batch, with one acknowledgement.

A lone message is published by itself at once. While many batches are on their way more gathers behind them, so that
under load a batch is as large as the broker is slow.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, NamedTuple

from jetflow.broker.atomic import Item
from jetflow.broker.connection import Connection
from jetflow.broker.ingest import BATCH, Ingest
from jetflow.broker.publisher import Done, Publisher, Receipt

WORTH_A_BATCH: Final = 3
"""Messages from which on a batch is cheaper than an acknowledgement each."""

UNDER_WAY: Final = 8
"""Batches of one stream that may wait for their acknowledgement."""

UNDER_WAY_DURABLE: Final = 2
"""The same where the server flushes each batch to the disk: fewer, and so larger ones."""

_STORED: Final = Receipt(stored=True)


class _Pending(NamedTuple):
    item: Item
    done: Done


class GroupCommit:
    """Publishes the write-once messages of one stream."""

    def __init__(self, connection: Connection, publisher: Publisher, ingest: Ingest) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ingest = ingest
        self._most = UNDER_WAY_DURABLE if ingest.durable else UNDER_WAY
        self._waiting: list[_Pending] = []
        self._under_way = 0

    def publish(self, subject: str, body: bytes, headers: bytes, done: Done) -> None:
        """Publish with all that is ready in the same pass of the event loop. See `Publisher.publish`."""
        if not self._waiting:
            self._connection.before_flush(self._send)
        self._waiting.append(_Pending(Item(subject, headers, body), done))

    def _send(self) -> None:
        while self._waiting and self._under_way < self._most:
            group, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if len(group) < WORTH_A_BATCH:
                self._send_alone(group)
                return
            self._under_way += 1
            existing = self._ingest.publish([pending.item for pending in group])
            existing.add_done_callback(partial(self._on_stored, group))

    def _on_stored(self, group: list[_Pending], stored: asyncio.Future[list[int]]) -> None:
        """End a batch. What was there already, or was refused, is published again alone: that finds out about each."""
        self._under_way -= 1
        if stored.cancelled() or stored.exception() is not None:
            self._send_alone(group)
        else:
            existing = set(stored.result())
            self._send_alone([pending for at, pending in enumerate(group) if at in existing] if existing else [])
            for at, pending in enumerate(group):
                if at not in existing:
                    pending.done(_STORED)
        self._send()

    def _send_alone(self, group: list[_Pending]) -> None:
        for item, done in group:
            self._publisher.publish(item.subject, item.body, item.headers, done)
