"""Asking and being answered on one connection: all answers come to one subject, and are told apart by their last token.

What was asked before a connection was lost is asked again when it is back. What this user may not ask, or not hear the
answer of, fails when the server says so, and not when the time is over.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

import nats.errors
import orjson
from nats.aio.subscription import Subscription

from jetflow.broker.parser import Deliver, Message
from jetflow.errors import BrokerError, BrokerRefused, BrokerTimeout, JetStreamUnavailable, PermissionDenied


class Asker(Protocol):
    """What is needed of a connection."""

    def new_inbox(self) -> str:
        """A subject that nobody else uses."""
        ...

    def send(self, subject: str, body: bytes = b"", *, reply: str = "") -> None:
        """Send one message."""
        ...

    async def subscribe(self, subject: str, callback: Deliver) -> Subscription:
        """Call back for each message."""
        ...


class _Request(NamedTuple):
    subject: str
    body: bytes
    answer: asyncio.Future[Message]


class Requests:
    """The open requests of one connection."""

    def __init__(self, connection: Asker) -> None:
        self._connection = connection
        self._answers = ""  # a client knows its inbox prefix only when it has connected
        self._listening: asyncio.Task[None] | None = None
        self._is_deaf = False
        self._failed: BrokerError | None = None
        self._asked = 0
        self._open: dict[int, _Request] = {}

    async def ask(self, subject: str, body: bytes, timeout: float) -> Message:
        """Ask, and return the answer. ``timeout`` is seconds.

        Raises:
            BrokerTimeout, JetStreamUnavailable, PermissionDenied: see `Connection.request`.
        """
        if self._failed is not None:
            raise self._failed.with_traceback(None)
        if self._listening is None:
            self._answers = self._answers or self._connection.new_inbox()
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        await asyncio.shield(self._listening)
        if self._is_deaf:
            raise self._deafness()
        self._asked += 1
        token = self._asked
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[token] = _Request(subject, body, answer)
        self._connection.send(subject, body, reply=f"{self._answers}.{token}")
        try:
            async with asyncio.timeout(timeout):
                message = await answer
        except TimeoutError:
            raise BrokerTimeout(f"no answer on {subject} within {timeout:g} s") from None
        finally:
            del self._open[token]
        if not message.data and message.headers.get("Status") == "503":
            raise JetStreamUnavailable(f"nobody answers on {subject}")
        return message

    def ask_again(self) -> None:
        """Ask all that is open once more. What this user may hear, the server says anew."""
        self._is_deaf = False
        for token, request in self._open.items():
            self._connection.send(request.subject, request.body, reply=f"{self._answers}.{token}")

    def refuse(self, subject: str, action: str) -> None:
        """Fail what is asked on a subject that is denied for publishing, or all if the answers may not be heard.

        ``subject`` is in lower case.
        """
        asked = action == "publish"
        self._is_deaf = self._is_deaf or (not asked and f"{self._answers}.*".lower() == subject)
        for request in self._open.values():
            if not request.answer.done() and (request.subject.lower() == subject if asked else self._is_deaf):
                request.answer.set_exception(PermissionDenied(request.subject) if asked else self._deafness())

    def fail(self, error: BrokerError) -> None:
        """Fail what is asked, and what will be: the connection has ended."""
        self._failed = error
        for request in self._open.values():
            if not request.answer.done():
                request.answer.set_exception(error)

    def _deafness(self) -> PermissionDenied:
        return PermissionDenied(f"{self._answers}.*", "subscribe to")

    async def _listen(self) -> None:
        try:
            await self._connection.subscribe(f"{self._answers}.*", self._on_answer)
        except (OSError, nats.errors.Error) as error:
            self._listening = None
            raise BrokerTimeout(f"the connection to NATS cannot be used: {error}") from error

    def _on_answer(self, message: Message) -> None:
        request = self._open.get(int(message.subject.rpartition(".")[2]))
        if request is not None and not request.answer.done():
            request.answer.set_result(message)


def answer_of(operation: str, data: bytes) -> dict[str, Any]:
    """Return the decoded answer of the JetStream API.

    Raises:
        BrokerRefused: the answer is an error.
    """
    answer: dict[str, Any] = orjson.loads(data)
    error = answer.get("error")
    if error:
        raise BrokerRefused(operation, error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
    return answer
