"""Batched direct gets: one request to whatever replica is near, many messages in answer, and a status behind them.

Answers of all of them come on one subscription. An answer is put where its reader waits, without a task or a queue for
each message: tens of thousands come in a second where many steps are woken.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from jetflow.broker.connection import API_TIMEOUT, Connection, Message
from jetflow.errors import BrokerTimeout, JetStreamUnavailable, PermissionDenied

_END_OF_PAGE: Final = frozenset({"204", "404"})
_SUBJECT: Final = b"\r\nNats-Subject: "
_SEQUENCE: Final = b"\r\nNats-Sequence: "
_NOTHING: Final = "No Results"


class TooMany(JetStreamUnavailable):
    """The server does not list so many messages at once."""


class _Page:
    """What has come in answer to one request; ``ended`` is given the status behind it, or None if that is lost."""

    __slots__ = ("asked", "ended", "messages")

    def __init__(self, asked: str) -> None:
        self.asked = asked
        self.messages: list[Message] = []
        self.ended: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()


class BatchedReads:
    """Asks for many messages at once on one connection. `start` it before use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._next = 0
        self._pages: dict[int, _Page] = {}

    async def start(self) -> None:
        """Begin to listen for answers."""
        await self._connection.subscribe(f"{self._inbox}.*", self._on_reply)
        self._connection.on_reconnect(self._on_reconnect)
        self._connection.on_denied(self._on_denied)

    async def read(self, stream: str, request: dict[str, Any]) -> tuple[list[Message], int]:
        """Return the messages of one batch, and how many are left behind them.

        Raises:
            PermissionDenied: this user may not read the stream so.
            JetStreamUnavailable: it was refused; `TooMany`, for there is too much.
            BrokerTimeout: no answer in time.
        """
        body = orjson.dumps(request)
        try:
            async with asyncio.timeout(API_TIMEOUT):
                while True:
                    answer = await self._ask(stream, body, at_once="multi_last" in request)
                    if answer is not None:
                        return answer
        except TimeoutError:
            raise BrokerTimeout(f"a batched read of {stream} was not answered within {API_TIMEOUT:g} s") from None

    async def _ask(self, stream: str, body: bytes, *, at_once: bool) -> tuple[list[Message], int] | None:
        """Ask for one batch; None if the connection broke before all of it was there.

        A server that looks up all of it ``at_once``, and then finds one of them removed, sends none of those behind it.
        """
        self._next += 1
        token, subject = self._next, self._connection.api_subject(f"DIRECT.GET.{stream}")
        self._pages[token] = page = _Page(subject)
        self._connection.send(subject, body, reply=f"{self._inbox}.{token}")
        try:
            status = await page.ended
        finally:
            del self._pages[token]
        if status is None or (at_once and _is_cut_off(status)):
            return None
        return page.messages, _left_behind(stream, status)

    def _on_reconnect(self) -> None:
        for page in self._pages.values():
            if not page.ended.done():
                page.ended.set_result(None)

    def _on_denied(self, subject: str) -> None:
        for page in self._pages.values():
            if page.asked.lower() == subject and not page.ended.done():
                page.ended.set_exception(PermissionDenied(page.asked))

    def _on_reply(self, message: Message) -> None:
        # The answers keep the subject they were stored on in a header; the inbox is the subject they come on.
        page = self._pages.get(int(message.subject.rpartition(".")[2]))
        if page is None or page.ended.done():
            return
        if message.data or not is_status(message):
            page.messages.append(message)
        else:
            page.ended.set_result(message)


def is_status(message: Message) -> bool:
    """Tell whether an answer is no stored message."""
    # A stored message, too, may have a header of this name: that one has a sequence.
    headers = message.headers or {}
    return not message.data and "Status" in headers and "Nats-Sequence" not in headers


def subject_of(message: Message) -> str:
    """Return where a message is stored that came in answer, without reading its other headers."""
    return _own_header(message, _SUBJECT)


def sequence_of(message: Message) -> int:
    """Return the sequence of a message that came in answer, without reading its other headers."""
    return int(_own_header(message, _SEQUENCE) or 0)


def _own_header(message: Message, name: bytes) -> str:
    headers = message.raw_headers or b""
    begin = headers.rfind(name)  # the server's own stand at the end
    if begin < 0:
        return ""
    begin += len(name)
    return headers[begin : headers.index(b"\r\n", begin)].decode()


def _is_cut_off(status: Message) -> bool:
    return status.headers.get("Status") == "404" and status.headers.get("Description") != _NOTHING


def _left_behind(stream: str, status: Message) -> int:
    """Return how many messages are left behind a batch that ends with ``status``.

    Raises:
        JetStreamUnavailable: it did not end, but was refused.
    """
    headers = status.headers or {}
    if headers["Status"] not in _END_OF_PAGE:
        reason = headers.get("Description") or "nobody answers for the stream"
        kind = TooMany if headers["Status"] == "413" else JetStreamUnavailable
        raise kind(f"a batched read of {stream} was refused: {headers['Status']} {reason}")
    return int(headers.get("Nats-Num-Pending", "0"))
