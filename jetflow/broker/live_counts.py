"""Counts that somebody looks at: kept by the broker from a size on from which counting anew would cost.

A count of few is read anew every second. From 20,000 messages on an ephemeral consumer counts them: the server adds to
what such a consumer has before it as messages are stored, and telling that costs it 0.2 ms, whatever it comes to.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow.broker.connection import Connection
from jetflow.broker.store import Store
from jetflow.broker.times import SECOND
from jetflow.errors import BrokerRefused, PermissionDenied

MANY: Final = 20_000
"""Messages from which on a consumer counts them."""

FRESH: Final = 0.2
"""Seconds for which what a consumer told is taken as it is."""

FRESH_COUNT: Final = 1.0
"""Seconds for which a count is."""

FORGOTTEN_AFTER: Final = 60
"""Seconds after which the server drops a consumer that nobody asks about."""


class _Count(msgspec.Struct):
    value: int = 0
    at: float = -1.0
    consumer: str = ""
    asking: asyncio.Task[int] | None = None


class LiveCounts:
    """Counts of filters, for all who look at the same. `let_go` when nobody does any more."""

    def __init__(self, connection: Connection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self._counts: dict[tuple[str, str], _Count] = {}
        self._denied: set[str] = set()

    async def count(self, stream: str, subject: str) -> int:
        """Return how many messages a filter holds, as of a moment ago."""
        count = self._counts.setdefault((stream, subject), _Count())
        if monotonic() - count.at < (FRESH if count.consumer else FRESH_COUNT) and count.at >= 0:
            return count.value
        if count.asking is None:
            count.asking = asyncio.get_running_loop().create_task(self._ask(stream, subject, count))
        return await asyncio.shield(count.asking)

    async def let_go(self) -> None:
        """Forget all counts, and have the server do so."""
        counts, self._counts = self._counts, {}
        for (stream, _), count in counts.items():
            if count.asking is not None:
                count.asking.cancel()
                await asyncio.gather(count.asking, return_exceptions=True)
            if count.consumer:
                delete = self._connection.api_subject(f"CONSUMER.DELETE.{stream}.{count.consumer}")
                self._connection.send(delete, reply=self._connection.new_inbox())

    async def _ask(self, stream: str, subject: str, count: _Count) -> int:
        try:
            value = await self._told(stream, count) if count.consumer else None
            if value is None:
                value = await self._store.count(stream, subject)
                if value >= MANY and stream not in self._denied:
                    value = await self._begin(stream, subject, count)
            count.value, count.at = value, monotonic()
            return value
        finally:
            count.asking = None

    async def _told(self, stream: str, count: _Count) -> int | None:
        """Return what a consumer has counted; None if it is gone."""
        try:
            info = await self._connection.api(f"CONSUMER.INFO.{stream}.{count.consumer}")
        except BrokerRefused as error:
            if error.code != 404:
                raise
            count.consumer = ""
            return None
        return int(info["num_pending"])

    async def _begin(self, stream: str, subject: str, count: _Count) -> int:
        config: dict[str, Any] = {
            "filter_subject": subject,
            "ack_policy": "none",
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN_AFTER * SECOND,
        }
        request = {"stream_name": stream, "config": config}
        try:
            answer = await self._connection.api(f"CONSUMER.CREATE.{stream}", request)
        except PermissionDenied:  # a user who may only read: its counts are made anew
            self._denied.add(stream)
            return await self._store.count(stream, subject)
        count.consumer = answer["name"]
        return int(answer.get("num_pending", 0))
