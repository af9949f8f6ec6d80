"""Counts that somebody looks at: kept by the broker from a size on from which counting anew would cost.

From 20,000 messages on an ephemeral consumer counts them: the server adds to what such a consumer has before it as
messages are stored, and telling that costs it 0.2 ms, whatever it comes to. Where none may be made, and in the streams
that are left out, all is counted anew; ``spent`` says how long that holds up writers, for whoever asks again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from jetflow.broker.connection import Connection
from jetflow.broker.store import Store
from jetflow.broker.times import SECOND
from jetflow.errors import BrokerRefused, PermissionDenied

MANY: Final = 20_000
"""Messages from which on a consumer counts them."""

COUNTING_TAKES: Final = 1e-7
"""Seconds in which the server counts one message, about."""

FORGOTTEN_AFTER: Final = 60
"""Seconds after which the server drops a consumer that nobody asks about."""


class LiveCounts:
    """Counts of filters, for all who look at the same. Consumers count in ``streams``. `let_go` when nobody looks."""

    def __init__(self, connection: Connection, store: Store, streams: Collection[str]) -> None:
        self._connection = connection
        self._store = store
        self._streams = set(streams)
        self._consumers: dict[tuple[str, str], str] = {}
        self.spent: float = 0.0

    async def count(self, stream: str, subject: str) -> int:
        """Return how many messages a filter holds."""
        consumer = self._consumers.get((stream, subject))
        told = None if consumer is None else await self._told(stream, consumer)
        if told is not None:
            return told
        value = await self._store.count(stream, subject)
        self.spent += value * COUNTING_TAKES
        if value < MANY or stream not in self._streams:
            self._consumers.pop((stream, subject), None)
            return value
        return await self._begin(stream, subject)

    async def let_go(self) -> None:
        """Have the server forget all counts."""
        consumers, self._consumers = self._consumers, {}
        for (stream, _), consumer in consumers.items():
            delete = self._connection.api_subject(f"CONSUMER.DELETE.{stream}.{consumer}")
            self._connection.send(delete, reply=self._connection.new_inbox())

    async def _told(self, stream: str, consumer: str) -> int | None:
        """Return what a consumer has counted; None if it is gone."""
        try:
            info = await self._connection.api(f"CONSUMER.INFO.{stream}.{consumer}")
        except BrokerRefused as error:
            if error.code != 404:
                raise
            return None
        return int(info["num_pending"])

    async def _begin(self, stream: str, subject: str) -> int:
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
            self._streams.discard(stream)
            return await self._store.count(stream, subject)
        self._consumers[stream, subject] = answer["name"]
        return int(answer.get("num_pending", 0))
