"""Publishing with a PubAck, pipelined: one reply inbox and a table of what is not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

MOST_UNDER_WAY: Final = 4000
"""Messages without a PubAck above which a bulk sender waits."""


class _PubAck(msgspec.Struct):
    error: msgspec.Raw | None = None


_decode = msgspec.json.Decoder(_PubAck).decode

Stored = Callable[[], Awaitable[None]]


class BarePublisher:
    """Publishes on one connection. `start` it before use."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._next = 0
        self._under_way: dict[str, Stored | None] = {}
        self._room = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen for PubAcks."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_ack, pending_msgs_limit=0, pending_bytes_limit=0)

    async def publish(
        self,
        subject: str,
        body: bytes,
        message_id: str | None,
        stored: Stored | None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish, and call ``stored`` when the PubAck is there. ``headers`` stand in for the message id."""
        self._next += 1
        reply = f"{self._inbox}.{self._next}"
        self._under_way[reply] = stored
        if message_id is not None:
            headers = {"Nats-Msg-Id": message_id}
        await self._client.publish(subject, body, reply, headers)

    async def room(self, most: int = MOST_UNDER_WAY) -> None:
        """Wait until no more than ``most`` messages are without a PubAck, and let others run."""
        await asyncio.sleep(0)
        while len(self._under_way) > most:
            self._room.clear()
            await self._room.wait()

    async def _on_ack(self, message: Msg) -> None:
        stored = self._under_way.pop(message.subject)
        answer = _decode(message.data)
        if answer.error is not None:
            raise RuntimeError(f"a publish was refused: {bytes(answer.error).decode()}")
        self._room.set()
        if stored is not None:
            await stored()
