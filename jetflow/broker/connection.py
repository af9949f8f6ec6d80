"""One connection to NATS: connecting, sending without waiting, asking the JetStream API.

`Connection.send` is the hot path: it puts one protocol line into the client's write buffer and returns, so that
everything that is ready in one pass of the event loop leaves in one write. It runs on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jetflow import forks
from jetflow.broker.access import Access, Server, access_of
from jetflow.broker.dialing import borrow, dial, give_back, is_refusal, why_ended
from jetflow.broker.parser import Deliver, DirectParser, Message, number_of
from jetflow.broker.requests import Requests, answer_of
from jetflow.errors import (
    BrokerError,
    BrokerRefused,
    BrokerTimeout,
    ClientClosed,
    ForkedProcess,
    JetStreamUnavailable,
    PermissionDenied,
    ServerTooOld,
    WrongEventLoop,
)

Listening: TypeAlias = Subscription
OLDEST_SERVER: Final = (2, 14, 3)
"""Earlier servers could corrupt counters, or lack fast ingest."""

API_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer of the JetStream API."""

CLOSED_WITHIN: Final = 5.0
"""Seconds that what was sent last may take to leave when the connection is closed."""

REFUSED_FOR: Final = 5.0
"""Seconds for which a server may refuse a user when the connection was lost: it may be starting."""

_SUBJECTS: Final = 4 * 1024
"""Bytes that a message's subject and its reply may take: what the server accepts in a line."""
_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)

_log = logging.getLogger("jetflow.broker")


class Connection:
    """A NATS connection that jetflow may use.

    It reconnects for ever. A connected client that was handed over is used, and left open. ``max_payload`` is how many
    bytes the server accepts in one message, headers included.
    """

    def __init__(self, client: Client, access: Access) -> None:
        self.client = client
        self.access: Access = access
        self.max_payload: int = 0
        self._owned = access.client is None
        self._closed = False
        self._born = forks.generation()
        self._refused_at: float | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes] = []
        self._gathering: list[Callable[[], None]] = []
        self._flushes_soon = False
        self._leaving: asyncio.Future[None] | None = None
        self._requests = Requests(self)
        self._parser: DirectParser | None = None
        self._subscriptions: set[Subscription] = set()
        self._reconnected: list[Callable[[], None]] = []
        self._denials: list[Callable[[str], None]] = []
        self._endings: list[Callable[[BrokerError], None]] = []
        self.ended: BrokerError | None = None

    @classmethod
    async def open(
        cls, server: Server | Access, *, timeout: float = 5.0, name: str = "jetflow", patient: bool = False
    ) -> Connection:
        """Connect, and check that the server can carry jetflow. ``timeout`` is seconds.

        A server that refuses connections is not waited for, unless ``patient``.

        Raises:
            InvalidConnection, MissingExtra: what was said of how to connect makes no sense.
            AccessDenied: the server refused who connects.
            ServerUnreachable: no server answered in time, or all refused.
            ServerTooOld: the server is older than jetflow needs.
            JetStreamUnavailable: the server runs without JetStream, or this account may not use it.
            ClientClosed, WrongEventLoop: a client that was handed over cannot be used, or not here.
        """
        access = access_of(server)
        if access.client is None:
            connection = await cls._dial(access, timeout, name, patient=patient)
        else:
            connection = cls(access.client, access)
            borrow(access.client, connection)
        try:
            await connection.check_server()
        except BaseException:
            await connection.close()
            raise
        return connection

    @classmethod
    async def _dial(cls, access: Access, timeout: float, name: str, *, patient: bool) -> Connection:
        client = Client()
        connection = cls(client, access)
        await dial(client, access, connection, timeout=timeout, name=name, patient=patient)
        connection._parser = DirectParser.install(client)
        return connection

    # --- what nats-py reports

    def on_error(self, error: Exception) -> None:
        """Tell those who asked what this user may not do."""
        denied = _DENIED.search(str(error))
        if denied is not None:
            action, subject = denied[1].lower(), denied[2].lower()  # nats-py hands over errors in lower case only
            self._requests.refuse(subject, action)
            if action == "publish":
                for denial in list(self._denials):
                    denial(subject)
        if self.client.is_connected:
            _log.warning("NATS reports: %s", error)
        elif is_refusal(error):
            self._on_refused(error)

    def _on_refused(self, error: Exception) -> None:
        """End for good if the server goes on refusing this user, as nats-py does when it is refused while connected."""
        untyped: Any = self.client
        if untyped._transport is not None:  # noqa: SLF001 - nats-py forgets that of an attempt that was refused
            untyped._transport.close()  # noqa: SLF001
        if self._refused_at is None:
            self._refused_at = self._loop.time()
            _log.error("the NATS server does not let this user in again (%s)", error)
        elif self._owned and self._ending is None and self._loop.time() - self._refused_at > REFUSED_FOR:
            self._ending = self._loop.create_task(self.client.close())

    def on_connected_again(self) -> None:
        """Ask again what was lost, and tell those who want to know."""
        url = self.client.connected_url
        _log.warning("connected to NATS again, at %s", url and f"{url.hostname}:{url.port}")
        self.max_payload = self.client.max_payload
        self._refused_at = None
        self._leaving = None
        self._requests.ask_again()
        for callback in self._reconnected:
            callback()

    def on_closed(self) -> None:
        """Note that the client has ended the connection for good, and did not do so for us."""
        if self.ended or self._closed:
            return
        self.ended = why_ended(self.client)
        _log.error("%s", self.ended)
        self._requests.fail(self.ended)
        for callback in list(self._endings):
            callback(self.ended)

    def on_disconnected(self) -> None:
        """Say so, unless it is the end."""
        if not self.is_closed:
            _log.warning("lost the connection to NATS")

    async def check_server(self) -> None:
        """Check that the server can carry jetflow.

        Raises:
            ServerTooOld, JetStreamUnavailable: it cannot.
        """
        self.max_payload = self.client.max_payload
        version = self.client.connected_server_version
        found = (version.major, version.minor, version.patch)
        if found < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise ServerTooOld(f"the NATS server is version {version}, and jetflow needs {oldest} or newer: upgrade it")
        try:
            await self.api("INFO", timeout=5.0)
        except PermissionDenied:  # the streams will tell
            _log.info("this user may not ask about the account, which is not needed")
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
        elif not self._owned:
            give_back(self.client, self)
            if self.client.is_connected:
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
            self._parser.direct.pop(number_of(subscription), None)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def largest_message(self) -> int:
        """Bytes that the server counts of the largest message that it delivers: its subjects count, too."""
        return self.max_payload + _SUBJECTS

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed for good."""
        return self._closed or self.client.is_closed

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self.client.is_connected

    @property
    def servers(self) -> tuple[str, ...]:
        """The URLs that were named, without user info."""
        return self.access.servers

    def api_subject(self, operation: str) -> str:
        """Return the subject on which the JetStream API, that of our domain, takes an operation."""
        return f"{self.access.api}.{operation}"

    def check_usable(self) -> None:
        """Check that it is open, and used from the event loop that it belongs to.

        Raises:
            ClientClosed, WrongEventLoop, ForkedProcess: it is not.
            AccessDenied, BrokerError: the server has ended it for good.
        """
        if forks.is_child(self._born):
            raise ForkedProcess("this client", "make one here")
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        if self.is_closed:
            raise ClientClosed("this client was closed: use it inside `async with jetflow.connect()`")
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop("this client belongs to another event loop: make one where it is used")

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after each reconnect. Returns what ends that."""
        self._reconnected.append(callback)
        return lambda: self._reconnected.remove(callback)

    def on_denied(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback`` with the subject, in lower case, of each forbidden publish. Returns what ends that."""
        self._denials.append(callback)
        return lambda: self._denials.remove(callback)

    def on_ended(self, callback: Callable[[BrokerError], None]) -> None:
        """Call ``callback`` with the reason when the connection has ended for good, though nobody here closed it."""
        self._endings.append(callback)

    def send(self, subject: str, body: bytes = b"", *, reply: str = "", headers: bytes = b"") -> None:
        """Send one message with all that is sent in this pass of the event loop.

        Nothing is checked: subjects are built by `Subjects`.
        """
        if not self._flushes_soon:
            self._flush_soon()
        if headers:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
            self._outgoing += (line.encode(), headers, body, b"\r\n")
        else:
            self._outgoing += (f"PUB {subject} {reply} {len(body)}\r\n".encode(), body, b"\r\n")

    def send_written(self, written: list[bytes]) -> None:
        """Send messages that are written as they stand on the wire: see `jetflow.broker.item.written`."""
        if not self._flushes_soon:
            self._flush_soon()
        self._outgoing += written

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
            self._leaving = self._loop.create_future()
            queue.put_nowait(self._leaving)

    @property
    def may_send_again(self) -> bool:
        """Whether it stands, and what was sent has left: a server that does not read is given nothing twice."""
        return self.is_connected and (self._leaving is None or self._leaving.done())

    async def settled(self) -> None:
        """Wait until the server has said of all that was sent so far whether this user may; or until it is lost."""
        self._flush()
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            for _ in range(2):  # nats-py's ping overtakes what is in its write buffer; the next one does not
                await self.client.flush(timeout=5)

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return self.client.new_inbox()

    async def subscribe(self, subject: str, callback: Deliver) -> Subscription:
        """Call ``callback`` for every message on ``subject``, in order. It must not block or raise."""

        async def deliver(message: Msg) -> None:
            callback(Message(message.subject, message.reply, message.data, parsed=message.headers or {}))

        client: Any = self.client  # its annotations are not complete
        subscription: Subscription = await client.subscribe(
            subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._subscriptions.add(subscription)
        if self._parser is not None:
            self._parser.direct[number_of(subscription)] = callback
        return subscription

    async def request(self, subject: str, body: bytes = b"", *, timeout: float = API_TIMEOUT) -> Message:
        """Ask, and return the answer. ``timeout`` is seconds. What was lost with a connection is asked again at once.

        Raises:
            BrokerTimeout: no answer in time.
            JetStreamUnavailable: nobody listens on the subject.
            PermissionDenied: this user may not ask there, or not hear the answer.
        """
        return await self._requests.ask(subject, body, timeout)

    async def api(self, operation: str, body: Any = None, *, timeout: float = API_TIMEOUT) -> dict[str, Any]:
        """Ask the JetStream API, and return its answer as a dict. ``timeout`` is seconds.

        Raises:
            BrokerRefused: the answer is an error.
            BrokerTimeout: no answer in time.
            JetStreamUnavailable: JetStream is not there.
        """
        message = await self.request(
            self.api_subject(operation), b"" if body is None else orjson.dumps(body), timeout=timeout
        )
        return answer_of(operation, message.data)
