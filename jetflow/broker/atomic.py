"""Atomic batches (ADR-50): many messages of one stream that are stored together, with one flush to the disk.

Where the server flushes before it acknowledges (``sync_interval: always``), a message for itself costs a flush, and a
batch of hundreds a few. A batch is refused as a whole if one of its subjects is taken, or is lost with its server;
then the caller publishes its messages one by one, which finds out about each.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jetflow.broker.connection import Connection
from jetflow.broker.item import Item
from jetflow.broker.parser import Message

LARGEST: Final = 500
"""Messages in one batch; the server takes 1000."""

GIVE_UP_AFTER: Final = 5.0
"""Seconds without an answer after which a batch counts as refused."""

_NO_HEADERS: Final = b"NATS/1.0\r\n\r\n"


class _Answer(msgspec.Struct):
    error: dict[str, int | str] | None = None
    count: int = 0


_decode = msgspec.json.Decoder(_Answer).decode


class AtomicBatches:
    """Publishes atomic batches on one connection. `start` it before use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._name = self._inbox.rpartition(".")[2]
        self._next = 0
        self._open: dict[int, asyncio.Future[bool]] = {}
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Begin to listen for acknowledgements."""
        await self._connection.subscribe(f"{self._inbox}.*", self._on_answer)
        self._connection.on_reconnect(self._give_up_all)

    def publish(self, items: list[Item]) -> asyncio.Future[bool]:
        """Publish at most ``LARGEST`` messages of one stream; the future tells whether all were stored."""
        self._next += 1
        number, last = self._next, len(items)
        stored: asyncio.Future[bool] = self._loop.create_future()
        self._open[number] = stored
        timer = self._loop.call_later(GIVE_UP_AFTER, self._settle, number, False)
        stored.add_done_callback(lambda _: timer.cancel())
        before = f"Nats-Batch-Id: {self._name}-{number}\r\nNats-Batch-Sequence: ".encode()
        for sequence, item in enumerate(items, 1):
            end = b"\r\nNats-Batch-Commit: 1\r\n\r\n" if sequence == last else b"\r\n\r\n"
            block = b"".join(((item.headers or _NO_HEADERS)[:-2], before, str(sequence).encode(), end))
            reply = f"{self._inbox}.{number}" if sequence in (1, last) else ""
            self._connection.send(item.subject, item.body, reply=reply, headers=block)
        return stored

    def _on_answer(self, message: Message) -> None:
        if message.data:  # the answer to the first message of a batch is empty, unless it is an error
            answer = _decode(message.data)
            self._settle(int(message.subject.rpartition(".")[2]), answer.error is None)
        elif message.headers.get("Status") == "503":
            self._settle(int(message.subject.rpartition(".")[2]), stored=False)

    def _settle(self, number: int, stored: bool) -> None:
        waiting = self._open.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(stored)

    def _give_up_all(self) -> None:
        for number in list(self._open):
            self._settle(number, stored=False)
