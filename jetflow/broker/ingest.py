"""Bulk publishing by fast ingest (ADR-50): one acknowledgement for a whole batch of messages.

Every message is write-once by its subject. A batch that the server lost track of (a restart, a lost answer, a gap) is
sent again as a whole: what was stored the first time is then reported as existing, or recognised by its message id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from jetflow.broker.atomic import AtomicBatches
from jetflow.broker.connection import Connection, Message
from jetflow.broker.item import Item, written
from jetflow.broker.publisher import BUSY_DELAY, RESEND_AFTER
from jetflow.engine.refusals import Refusal, refusal_of
from jetflow.errors import BrokerError, BrokerRefused, BrokerTimeout, PermissionDenied

BATCH: Final = 500
"""Messages in one batch, at most."""

_START, _APPEND, _COMMIT = 0, 1, 2
_LOST: Final = frozenset({10206, 10208})  # the batch is not, or no longer, known to the server

_log = logging.getLogger("jetflow.broker")


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    type: str = ""
    seq: int = 0
    batch: str = ""
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class _Batch:
    __slots__ = ("at", "done", "existing", "items", "lost", "reason", "refused")

    def __init__(self, items: list[Item], done: asyncio.Future[list[int]], at: float) -> None:
        self.items = items
        self.done = done
        self.at = at
        self.existing: list[int] = []
        self.lost = False
        self.reason = ""
        self.refused: BrokerError | None = None


class Ingest:
    """Publishes batches on one connection. `start` it before use, `stop` it before the connection is closed."""

    def __init__(self, connection: Connection, atomic: AtomicBatches | None = None) -> None:
        self._connection = connection
        self._atomic = atomic
        self._inbox = connection.new_inbox()
        self._inbox_tokens = self._inbox.count(".") + 1
        self._name = self._inbox[-10:]  # unique: the part of a NUID that counts, from a random number on
        self._next = 0
        self._open: dict[int, _Batch] = {}
        self._loop = asyncio.get_running_loop()
        self._checker: asyncio.TimerHandle | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None

    @property
    def durable(self) -> bool:
        """Whether batches are atomic where they can be, for a server that flushes before it acknowledges."""
        return self._atomic is not None

    async def start(self) -> None:
        """Begin to listen for acknowledgements."""
        await self._connection.subscribe(f"{self._inbox}.>", self._on_answer)
        self._forget_reconnect = self._connection.on_reconnect(self._resend_all)
        self._connection.on_denied(self._on_denied)
        self._connection.on_ended(self._on_ended)

    async def stop(self) -> None:
        """Give up what is not acknowledged. Safe to call twice."""
        self._forget_reconnect()
        self._forget_reconnect = lambda: None
        if self._checker is not None:
            self._checker.cancel()
        for batch in self._open.values():
            if not batch.done.done():
                batch.done.set_exception(BrokerTimeout("no acknowledgement for a bulk publish before the end"))
        self._open.clear()

    def publish(self, items: list[Item]) -> asyncio.Future[list[int]]:
        """Publish at most ``BATCH`` messages; the future gives the indexes of those that existed already.

        It fails with BrokerRefused if the server does not take a message.
        """
        batch = _Batch(items, self._loop.create_future(), self._loop.time())
        if self._connection.ended is not None:
            batch.done.set_exception(self._connection.ended)
        elif self._atomic is None or len(items) == 1:
            self._begin(batch)
        else:
            self._atomic.publish(items).add_done_callback(lambda stored: self._on_atomic(batch, stored.result()))
        return batch.done

    def _on_atomic(self, batch: _Batch, stored: bool) -> None:
        """End a batch that was stored as a whole, or go on with one that was refused: some of it may exist."""
        if not stored:
            self._begin(batch)
        elif not batch.done.done():
            batch.done.set_result([])

    def _begin(self, batch: _Batch) -> None:
        self._send(batch)
        if self._checker is None:
            self._checker = self._loop.call_later(1.0, self._check)

    def _send(self, batch: _Batch) -> None:
        self._next += 1
        self._open[self._next] = batch
        batch.at = self._loop.time()
        batch.existing.clear()
        batch.lost = False
        last = len(batch.items)
        # The server knows a batch by this one token, whoever sends it: it must be unique in the whole stream.
        before = f"{self._inbox}.{self._name}-{self._next}.{BATCH}.ok."
        replies = [f"{before}{sequence}.{_APPEND}.$FI" for sequence in range(1, last)]
        replies[:1] = [f"{before}1.{_START}.$FI"] * (last > 1)
        self._connection.send_written(written(batch.items, [*replies, f"{before}{last}.{_COMMIT}.$FI"]))

    def _on_answer(self, message: Message) -> None:
        batch_id = message.subject.split(".", self._inbox_tokens + 1)[self._inbox_tokens]
        number = int(batch_id.rpartition("-")[2])
        batch = self._open.get(number)
        if batch is None:
            return
        if not message.data:  # nobody listens on the subject: the stream has no leader at this moment
            batch.at = self._loop.time() + BUSY_DELAY - RESEND_AFTER
            return
        answer = _decode(message.data)
        error = answer.error
        if answer.type == "err" and error is not None:
            if refusal_of(error.code, error.err_code, error.description) is Refusal.TAKEN:
                batch.existing.append(answer.seq - 1)
            else:
                self._on_error(batch, error)
        elif answer.type == "gap" or (error is not None and error.err_code in _LOST):
            batch.lost = True
            batch.at = min(batch.at, self._loop.time() + BUSY_DELAY - RESEND_AFTER)
        elif error is not None:
            self._on_error(batch, error)
            self._close(number, batch)
        elif answer.batch:
            self._close(number, batch)

    def _on_denied(self, subject: str) -> None:
        for number, batch in list(self._open.items()):
            denied = next((item.subject for item in batch.items if item.subject.lower() == subject), None)
            if denied is not None:
                batch.refused = PermissionDenied(denied)
                self._close(number, batch)

    def _on_ended(self, error: BrokerError) -> None:
        for number, batch in list(self._open.items()):
            batch.refused = error
            self._close(number, batch)

    def _on_error(self, batch: _Batch, error: _Error) -> None:
        if refusal_of(error.code, error.err_code, error.description) is Refusal.PASSING:
            batch.lost = True
            if batch.reason != error.description:
                _log.warning(
                    "a bulk publish of %d messages is sent again until it is taken: %s",
                    len(batch.items),
                    error.description,
                )
            batch.reason = error.description
        else:
            batch.refused = BrokerRefused("bulk publish", error.code, error.err_code, error.description)

    def _close(self, number: int, batch: _Batch) -> None:
        if batch.refused is None and batch.lost:
            batch.at = self._loop.time() + BUSY_DELAY - RESEND_AFTER
            return
        del self._open[number]
        if batch.done.done():
            return
        if batch.refused is not None:
            batch.done.set_exception(batch.refused)
        else:
            batch.done.set_result(batch.existing)

    def _check(self) -> None:
        self._checker = None
        now = self._loop.time()
        if self._connection.may_send_again:
            for number, batch in list(self._open.items()):
                if now - batch.at >= RESEND_AFTER:
                    self._send_again(number, batch)
        if self._open:
            self._checker = self._loop.call_later(BUSY_DELAY, self._check)

    def _resend_all(self) -> None:
        for number, batch in list(self._open.items()):
            self._send_again(number, batch)

    def _send_again(self, number: int, batch: _Batch) -> None:
        if not batch.reason:
            _log.warning("a bulk publish of %d messages is sent again", len(batch.items))
        del self._open[number]
        self._send(batch)
