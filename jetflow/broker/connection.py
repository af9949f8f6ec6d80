"""One connection to NATS: connecting, sending without waiting, asking the JetStream API.

`Connection.send` is the hot path: it puts one protocol line into the client's write buffer and returns, so that
everything that is ready in one pass of the event loop leaves in one write. It runs on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

import nats
import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.client import Server as PoolServer
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jetflow.broker.parser import Deliver, DirectParser, Message
from jetflow.errors import (
    BrokerRefused,
    BrokerTimeout,
    JetStreamUnavailable,
    ServerTooOld,
    ServerUnreachable,
)

Listening: TypeAlias = Subscription
Server: TypeAlias = "str | Sequence[str] | Client | None"

OLDEST_SERVER: Final = (2, 14, 3)
"""Earlier servers could corrupt counters, or lack fast ingest."""

API_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer of the JetStream API."""

CLOSED_WITHIN: Final = 5.0
"""Seconds that what was sent last may take to leave when the connection is closed."""

_WRITE_HIGH: Final = 4 * 1024 * 1024
"""Bytes in the write buffer above which bulk senders wait."""

RECONNECT_FIRST: Final = 0.05
RECONNECT_LAST: Final = 2.0
"""Seconds before the first and, doubling, before the last of many attempts to reconnect, shortened at random."""

_DENIED: Final = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)

_log = logging.getLogger("jetflow.broker")


class _Request(NamedTuple):
    subject: str
    body: bytes
    answer: asyncio.Future[Message]


class Connection:
    """A NATS connection that jetflow may use.

    It reconnects for ever. ``server`` is a URL, several, or a connected client, which is used and left open.
    """

    def __init__(self, client: Client, *, owned: bool, servers: Sequence[str] = ()) -> None:
        self.client = client
        self.servers: tuple[str, ...] = tuple(servers)
        self._owned = owned
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []
        self._gathering: list[Callable[[], None]] = []
        self._flushes_soon = False
        self._answers = client.new_inbox()
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0
        self._open_requests: dict[int, _Request] = {}
        self._parser: DirectParser | None = None
        self._subscriptions: set[Subscription] = set()
        self._reconnected: list[Callable[[], None]] = []
        self._denials: list[Callable[[str], None]] = []

    @classmethod
    async def open(cls, server: Server, *, timeout: float = 5.0, name: str = "jetflow") -> Connection:
        """Connect, and check that the server can carry jetflow. ``timeout`` is seconds.

        Raises:
            ServerUnreachable: no server answered in time.
            ServerTooOld: the server is older than jetflow needs.
            JetStreamUnavailable: the server runs without JetStream, or this account may not use it.
        """
        if isinstance(server, Client):
            connection = cls(server, owned=False)
        else:
            connection = await cls._dial([server] if isinstance(server, str) else list(server or ()), timeout, name)
        try:
            await connection.check_server()
        except BaseException:
            await connection.close()
            raise
        return connection

    @classmethod
    async def _dial(cls, servers: list[str], timeout: float, name: str) -> Connection:
        client = Client()
        connection = cls(client, owned=True, servers=servers)
        last_error: list[Exception] = []

        async def on_error(error: Exception) -> None:
            last_error[:] = [error]
            denied = _DENIED.search(str(error))
            if denied is not None:
                for denial in connection._denials:
                    denial(denied[1])
            if client.is_connected:
                _log.warning("NATS reports: %s", error)

        async def on_reconnect() -> None:
            _log.warning("connected to NATS again, at %s", client.connected_url and client.connected_url.netloc)
            connection._ask_again()
            for callback in connection._reconnected:
                callback()

        async def on_disconnect() -> None:
            if not connection.is_closed:
                _log.warning("lost the connection to NATS")

        shown = ", ".join(servers)
        try:
            async with asyncio.timeout(timeout):
                await client.connect(
                    servers,
                    name=name,
                    error_cb=on_error,
                    reconnected_cb=on_reconnect,
                    disconnected_cb=on_disconnect,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    connect_timeout=max(1, int(timeout)),
                    pending_size=256 * 1024 * 1024,
                    ping_interval=20,
                    reconnect_to_server_handler=_next_server,
                )
        except asyncio.CancelledError:
            await client.close()
            raise
        except (OSError, nats.errors.Error, TimeoutError) as error:
            await client.close()
            reason = last_error[0] if last_error else error
            raise ServerUnreachable(
                f"no NATS server answers at {shown} within {timeout:g} s ({reason or type(reason).__name__}): "
                "start one, or set NATS_URL"
            ) from None
        connection._parser = DirectParser.install(client)
        return connection

    async def check_server(self) -> None:
        """Check that the server can carry jetflow.

        Raises:
            ServerTooOld, JetStreamUnavailable: it cannot.
        """
        version = self.client.connected_server_version
        found = (version.major, version.minor, version.patch)
        if found < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise ServerTooOld(f"the NATS server is version {version}, and jetflow needs {oldest} or newer: upgrade it")
        try:
            await self.api("INFO", timeout=5.0)
        except (BrokerRefused, BrokerTimeout, JetStreamUnavailable) as error:
            raise JetStreamUnavailable(
                f"the NATS server does not offer JetStream to this account ({error}): start it with -js"
            ) from None

    async def close(self) -> None:
        """Close the connection, if it is ours. Safe to call twice."""
        self._closed = True
        self._flush()
        if self._owned and not self.client.is_closed:
            try:
                async with asyncio.timeout(CLOSED_WITHIN):
                    await self.client.close()
            except TimeoutError:
                _log.warning("the server did not take what was sent last within %g s", CLOSED_WITHIN)
            except (OSError, RuntimeError) as error:  # RuntimeError is uvloop's
                _log.info("the connection was lost while it was closed: %s", error)
        elif self.client.is_connected:
            for subscription in self._subscriptions:
                await subscription.unsubscribe()
        self._subscriptions.clear()

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Safe to call twice, and after the connection was closed."""
        if subscription in self._subscriptions:
            self._forget(subscription)
            if not self.client.is_closed:
                await subscription.unsubscribe()

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription once everything that is on its way has been delivered."""
        if self.client.is_connected and subscription in self._subscriptions:
            with contextlib.suppress(nats.errors.Error, OSError):  # nothing is on its way on a connection that is lost
                await subscription.drain()
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if self._parser is not None:
            self._parser.direct.pop(_number(subscription), None)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def max_payload(self) -> int:
        """Bytes that the server accepts in one message, headers included."""
        return self.client.max_payload

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed for good."""
        return self._closed or self.client.is_closed

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self.client.is_connected

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after each reconnect. Returns what ends that."""
        self._reconnected.append(callback)
        return lambda: self._reconnected.remove(callback)

    def on_denied(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the subject of each publish that this user is not allowed to make."""
        self._denials.append(callback)

    def send(self, subject: str, body: bytes = b"", *, reply: str = "", headers: bytes = b"") -> None:
        """Send one message with all that is sent in this pass of the event loop.

        Nothing is checked: subjects are built by `Subjects`.
        """
        if headers:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
        else:
            line = f"PUB {subject} {reply} {len(body)}\r\n"
        if not self._flushes_soon:
            self._flush_soon()
        self._outgoing += (line.encode(), headers, body, b"\r\n")

    def before_flush(self, send: Callable[[], None]) -> None:
        """Call ``send`` once, before what was sent in this pass of the event loop leaves: it adds what has gathered."""
        if not self._flushes_soon:
            self._flush_soon()
        self._gathering.append(send)

    def _flush_soon(self) -> None:
        self._flushes_soon = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand what was sent to nats-py's write buffer, as one piece."""
        gathering, self._gathering = self._gathering, []
        try:
            for send in gathering:
                send()
        finally:
            self._flushes_soon = False
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing:
            return
        command = b"".join(outgoing)
        # nats-py's publish() is a coroutine that checks and formats each message for 6 µs; its write buffer is the
        # only way to hand it finished lines.
        client: Any = self.client
        client._pending.append(command)  # noqa: SLF001
        client._pending_data_size += len(command)  # noqa: SLF001
        queue: asyncio.Queue[asyncio.Future[None]] = client._flush_queue  # noqa: SLF001
        if queue.empty() and client.is_connected:
            queue.put_nowait(self._loop.create_future())

    async def drained(self) -> None:
        """Wait until the write buffer has room for more."""
        self._flush()
        while self.client.pending_data_size > _WRITE_HIGH:
            await self.client.flush(timeout=30)

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return self.client.new_inbox()

    async def subscribe(self, subject: str, callback: Deliver) -> Subscription:
        """Call ``callback`` for every message on ``subject``, in order. It must not block or raise."""

        async def deliver(message: Msg) -> None:
            callback(Message(message.subject, message.reply, message.data, headers=message.headers or {}))

        client: Any = self.client  # its annotations are not complete
        subscription: Subscription = await client.subscribe(
            subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._subscriptions.add(subscription)
        if self._parser is not None:
            self._parser.direct[_number(subscription)] = _guarded(callback)
        return subscription

    async def request(self, subject: str, body: bytes = b"", *, timeout: float = API_TIMEOUT) -> Message:
        """Ask, and return the answer. ``timeout`` is seconds. What was lost with a connection is asked again at once.

        Raises:
            BrokerTimeout: no answer in time.
            JetStreamUnavailable: nobody listens on the subject.
        """
        if self._asking is None:
            self._asking = self._loop.create_task(self._listen_for_answers())
        await asyncio.shield(self._asking)
        self._asked += 1
        token = self._asked
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._open_requests[token] = _Request(subject, body, answer)
        self.send(subject, body, reply=f"{self._answers}.{token}")
        try:
            async with asyncio.timeout(timeout):
                message = await answer
        except TimeoutError:
            raise BrokerTimeout(f"no answer on {subject} within {timeout:g} s") from None
        finally:
            del self._open_requests[token]
        if not message.data and message.headers.get("Status") == "503":
            raise JetStreamUnavailable(f"nobody answers on {subject}")
        return message

    async def _listen_for_answers(self) -> None:
        try:
            await self.subscribe(f"{self._answers}.*", self._on_answer)
        except (OSError, nats.errors.Error) as error:
            self._asking = None
            raise BrokerTimeout(f"the connection to NATS cannot be used: {error}") from error

    def _on_answer(self, message: Message) -> None:
        request = self._open_requests.get(int(message.subject.rpartition(".")[2]))
        if request is not None and not request.answer.done():
            request.answer.set_result(message)

    def _ask_again(self) -> None:
        for token, request in self._open_requests.items():
            self.send(request.subject, request.body, reply=f"{self._answers}.{token}")

    async def api(self, operation: str, body: Any = None, *, timeout: float = API_TIMEOUT) -> dict[str, Any]:
        """Ask the JetStream API, and return its answer as a dict. ``timeout`` is seconds.

        Raises:
            BrokerRefused: the answer is an error.
            BrokerTimeout: no answer in time.
            JetStreamUnavailable: JetStream is not there.
        """
        message = await self.request(
            f"$JS.API.{operation}", b"" if body is None else orjson.dumps(body), timeout=timeout
        )
        return answer_of(operation, message.data)


def _number(subscription: Subscription) -> int:
    untyped: Any = subscription
    return int(untyped._id)  # noqa: SLF001 - the number that the protocol knows a subscription by


def _guarded(callback: Deliver) -> Deliver:
    """Keep an error of one message's callback from ending the connection's read loop."""

    def deliver(message: Message) -> None:
        try:
            callback(message)
        except Exception:
            _log.exception("a message on %s could not be handled", message.subject)

    return deliver


def _next_server(servers: list[PoolServer], _: dict[str, Any]) -> tuple[PoolServer, float]:
    """Choose the server that was tried least, and how long to wait before: longer each time, and never in step."""
    server = min(servers, key=lambda one: one.reconnects)
    delay = min(RECONNECT_FIRST * 2.0 ** min(server.reconnects, 16), RECONNECT_LAST)
    return server, delay * random.uniform(0.5, 1.0)


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
