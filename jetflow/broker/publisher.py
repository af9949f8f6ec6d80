"""Publishing with acknowledgements, pipelined: thousands may be under way, none waits for another.

A publish that is not acknowledged, because the connection broke or the answer was lost, is sent again until it is;
every message here is write-once or a counter that may be counted twice, so sending again is always right. Only what has
left is sent again: a server that stands still would fill the memory with copies. Answers arrive on one subscription and
go to callbacks, in the order in which the server gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from jetflow.broker.connection import Connection, Message
from jetflow.engine.joins import SEAL
from jetflow.engine.refusals import Refusal, refusal_of
from jetflow.errors import BrokerError, BrokerRefused, BrokerTimeout, PayloadTooLarge, PermissionDenied
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block

RESEND_AFTER: Final = 5.0
"""Seconds without an answer after which a publish is sent again."""

BUSY_DELAY: Final = 0.25
"""Seconds before a publish that the server could not take just now is sent again."""

_log = logging.getLogger("jetflow.broker")


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Error | None = None
    seq: int = 0
    duplicate: bool = False
    val: str | None = None


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of one publish.

    ``stored`` is false if the message was there already. ``value`` is a counter's new value.
    """

    stored: bool
    sequence: int = 0
    value: int | None = None
    error: BrokerError | None = None


Done: TypeAlias = Callable[[Receipt], None]

_decode = msgspec.json.Decoder(_Answer).decode


class _Sent:
    __slots__ = ("at", "body", "deadline", "done", "headers", "reason", "subject")

    def __init__(
        self, subject: str, body: bytes, headers: bytes, done: Done, at: float, deadline: float | None
    ) -> None:
        self.subject = subject
        self.reason = ""
        self.body = body
        self.headers = headers
        self.done = done
        self.at = at
        self.deadline = deadline


class _Count:
    """What is to be added to one counter, and who waits for that."""

    __slots__ = ("by", "waiting")

    def __init__(self) -> None:
        self.by = 0
        self.waiting: list[Done] = []


class Publisher:
    """Publishes on one connection. `start` it before use, `stop` it before the connection is closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._next = 0
        self._sent: dict[int, _Sent] = {}
        self._counts: dict[str, _Count] = {}
        self._loop = asyncio.get_running_loop()
        self._checker: asyncio.TimerHandle | None = None
        self._stopped = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._forget_reconnect: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Begin to listen for acknowledgements."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_answer)
        self._forget_reconnect = self._connection.on_reconnect(self._resend_all)
        self._connection.on_denied(self._on_denied)
        self._connection.on_ended(self._on_ended)

    async def stop(self, *, timeout: float = 5.0) -> None:
        """Wait until everything is acknowledged, ``timeout`` seconds at most. Safe to call twice.

        What is not acknowledged then, or while the server is away, is given up with an error.
        """
        if self._stopped:
            return
        if self._connection.is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
        if self._sent:
            _log.warning("gave up waiting for %d publishes to be acknowledged", len(self._sent))
        self._stopped = True
        self._forget_reconnect()
        if self._checker is not None:
            self._checker.cancel()
        for sent in list(self._sent.values()):
            sent.done(Receipt(stored=False, error=_too_late(sent.subject)))
        self._sent.clear()

    def publish(self, subject: str, body: bytes, headers: bytes, done: Done, *, timeout: float | None = None) -> None:
        """Publish, and call ``done`` with what became of it. Without ``timeout`` (seconds) it is tried for ever."""
        size = len(body) + len(headers)
        if size > self._connection.max_payload:
            too_large = PayloadTooLarge(f"the message on {subject}", size, self._connection.max_payload)
            self._loop.call_soon(done, Receipt(stored=False, error=_as_broker_error(too_large)))
            return
        if self._stopped:
            error = self._connection.ended or _too_late(subject)
            self._loop.call_soon(done, Receipt(stored=False, error=error))
            return
        now = self._loop.time()
        self._next += 1
        self._sent[self._next] = _Sent(subject, body, headers, done, now, None if timeout is None else now + timeout)
        self._connection.send(subject, body, reply=f"{self._inbox}.{self._next}", headers=headers)
        self._idle.clear()
        if self._checker is None:
            self._checker = self._loop.call_later(1.0, self._check)

    async def store(self, subject: str, body: bytes, headers: bytes = b"", *, timeout: float | None = None) -> Receipt:
        """Publish, and return what became of it. ``timeout`` is seconds.

        Raises:
            BrokerRefused: the server does not take the message.
            BrokerTimeout: no acknowledgement in time.
            PayloadTooLarge: the message is larger than the server accepts.
        """
        waiting: asyncio.Future[Receipt] = self._loop.create_future()

        def done(receipt: Receipt) -> None:
            if not waiting.done():
                waiting.set_result(receipt)

        self.publish(subject, body, headers, done, timeout=timeout)
        receipt = await waiting
        if receipt.error is not None:
            raise receipt.error.__cause__ or receipt.error
        return receipt

    def count(self, subject: str, by: int, done: Done) -> None:
        """Add to a counter. What is added to one counter in the same pass of the loop leaves as one message.

        The first of those is given the new value; the others are given None where it may ask for a look at a join.
        """
        if not self._counts:
            self._connection.before_flush(self._send_counts)
        count = self._counts.get(subject)
        if count is None:
            self._counts[subject] = count = _Count()
        count.by += by
        count.waiting.append(done)

    def _send_counts(self) -> None:
        counts, self._counts = self._counts, {}
        for subject, count in counts.items():
            self.publish(subject, b"", header_block({Header.INCREMENT: f"{count.by:+d}"}), _counted(count.waiting))

    def _on_denied(self, subject: str) -> None:
        for token, sent in list(self._sent.items()):
            if sent.subject.lower() == subject:
                error = PermissionDenied(sent.subject)
                self._settle(token, Receipt(stored=False, error=error))

    def _on_ended(self, error: BrokerError) -> None:
        self._stopped = True
        if self._checker is not None:
            self._checker.cancel()
        for token in list(self._sent):
            self._settle(token, Receipt(stored=False, error=error))

    # --- answers

    def _on_answer(self, message: Message) -> None:
        token = int(message.subject.rpartition(".")[2])
        if not message.data:  # nobody listens on the subject: the stream has no leader at this moment
            self._again(token, "no stream answers")
            return
        answer = _decode(message.data)
        error = answer.error
        if error is None:
            value = None if answer.val is None else int(answer.val)
            self._settle(token, Receipt(stored=not answer.duplicate, sequence=answer.seq, value=value))
            return
        refusal = refusal_of(error.code, error.err_code, error.description)
        if refusal is Refusal.TAKEN:
            self._settle(token, Receipt(stored=False))
        elif refusal is Refusal.PASSING:
            self._again(token, error.description)
        else:
            sent = self._sent.get(token)
            subject = "" if sent is None else sent.subject
            refused = BrokerRefused(f"publish on {subject}", error.code, error.err_code, error.description)
            self._settle(token, Receipt(stored=False, error=refused))

    def _settle(self, token: int, receipt: Receipt) -> None:
        sent = self._sent.pop(token, None)
        if sent is not None:
            sent.done(receipt)
        if not self._sent:
            self._idle.set()

    def _again(self, token: int, reason: str) -> None:
        sent = self._sent.get(token)
        if sent is not None:
            if sent.reason != reason:
                _log.warning("publish on %s is sent again until it is taken: %s", sent.subject, reason)
            sent.reason = reason
            sent.at = self._loop.time() + BUSY_DELAY - RESEND_AFTER

    def _check(self) -> None:
        self._checker = None
        if not self._sent:
            return
        now = self._loop.time()
        may_send = self._connection.may_send_again
        for token, sent in list(self._sent.items()):
            if sent.deadline is not None and now > sent.deadline:
                reason = f" ({sent.reason})" if sent.reason else ""
                error = BrokerTimeout(f"the server did not take the message on {sent.subject} in time{reason}")
                self._settle(token, Receipt(stored=False, error=error))
            elif may_send and now - sent.at >= RESEND_AFTER:
                self._send_again(token, sent, now)
        self._checker = self._loop.call_later(BUSY_DELAY, self._check)

    def _resend_all(self) -> None:
        now = self._loop.time()
        for token, sent in self._sent.items():
            self._send_again(token, sent, now)

    def _send_again(self, token: int, sent: _Sent, now: float) -> None:
        sent.at = now
        self._connection.send(sent.subject, sent.body, reply=f"{self._inbox}.{token}", headers=sent.headers)


def _too_late(subject: str) -> BrokerTimeout:
    return BrokerTimeout(f"no acknowledgement for {subject} before the end")


def _counted(waiting: list[Done]) -> Done:
    def done(receipt: Receipt) -> None:
        waiting[0](receipt)
        value = receipt.value if receipt.value is not None and receipt.value < SEAL else None
        others = Receipt(stored=receipt.stored, value=value, error=receipt.error)
        for other in waiting[1:]:
            other(others)

    return done


def _as_broker_error(error: PayloadTooLarge) -> BrokerError:
    wrapped = BrokerError(str(error))
    wrapped.__cause__ = error
    return wrapped
