"""Connecting a NATS client, and what is said when that fails; and listening to a client that was handed over.

nats-py tries for ever. Here each failed attempt is judged as it comes: who is refused, or whom no server takes, is told
so at once; only what may pass by itself is tried until the time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

import nats.errors
from nats.aio.client import Client
from nats.aio.client import Server as PoolServer

from jetflow import forks
from jetflow.broker.access import Access
from jetflow.errors import AccessDenied, BrokerError, ClientClosed, InvalidConnection, ServerUnreachable, WrongEventLoop

RECONNECT_FIRST: Final = 0.05
RECONNECT_LAST: Final = 2.0
"""Seconds before the first and, doubling, before the last of many attempts to reconnect, shortened at random."""

_REFUSALS: Final = (
    "authorization violation",
    "authentication expired",
    "authentication revoked",
    "authentication timeout",
)
"""Words of the server for who may not connect, in lower case."""

_SILENT: Final = "expecting INFO"
"""nats-py's words for somebody who accepts a connection, and does not begin as a NATS server does."""

_ABANDONED_WITHIN: Final = 0.2
"""Seconds that the end of a connection that never was may take."""

_log = logging.getLogger("jetflow.broker")


class Listener(Protocol):
    """Who wants to know what becomes of a client's connection."""

    def on_error(self, error: Exception) -> None:
        """An error was reported."""
        ...

    def on_connected_again(self) -> None:
        """It is connected again."""
        ...

    def on_disconnected(self) -> None:
        """The connection was lost, or has ended."""
        ...

    def on_closed(self) -> None:
        """It has ended for good."""
        ...


class _GivenUp(Exception):
    """Ends nats-py's attempts from inside its error callback."""

    def __init__(self, reason: BrokerError) -> None:
        super().__init__()
        self.reason = reason


async def dial(client: Client, access: Access, listener: Listener, *, timeout: float, name: str, patient: bool) -> None:
    """Connect. ``timeout`` is seconds.

    Raises:
        InvalidConnection, MissingExtra: files do not exist, or say nothing.
        AccessDenied, ServerUnreachable: see `Connection.open`.
    """
    options = access.options()
    forks.in_child(client, _leave_socket)
    attempts = _Attempts(client, access, timeout, patient=patient)

    async def on_error(error: Exception) -> None:
        if attempts.over:
            listener.on_error(error)
        elif not client.is_closed:
            attempts.failed(error)

    async def on_reconnect() -> None:
        listener.on_connected_again()

    async def on_disconnect() -> None:
        if attempts.over:
            listener.on_disconnected()

    async def on_closed() -> None:
        if attempts.over:
            listener.on_closed()

    try:
        async with asyncio.timeout(timeout):
            await client.connect(
                list(access.servers),
                name=name,
                error_cb=on_error,
                reconnected_cb=on_reconnect,
                disconnected_cb=on_disconnect,
                closed_cb=on_closed,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                connect_timeout=max(1, int(timeout)),
                pending_size=256 * 1024 * 1024,
                ping_interval=20,
                reconnect_to_server_handler=_next_server,
                **options,
            )
    except asyncio.CancelledError:
        await _abandon(client)
        raise
    except _GivenUp as given_up:
        await _abandon(client)
        raise given_up.reason from None
    except (OSError, nats.errors.Error, TimeoutError) as error:
        await _abandon(client)
        raise attempts.unreachable(error) from None
    attempts.over = True


def is_refusal(error: Exception) -> bool:
    """Return whether the server says by this error that who connects may not."""
    said = str(error).lower()
    return isinstance(error, nats.errors.AuthorizationError) or any(word in said for word in _REFUSALS)


def why_ended(client: Client) -> BrokerError:
    """Return why a client has ended its connection for good: nats-py does so at most errors that a server tells."""
    error = client.last_error
    if error is None:
        return ClientClosed("the NATS client that was handed over has been closed")
    said = str(error).removeprefix("nats: ").strip("'")
    if is_refusal(error):
        return AccessDenied(f"the NATS server does not let this user go on ({said}): check the credentials")
    return BrokerError(f"the NATS server has ended the connection for good ({said})")


async def _abandon(client: Client) -> None:
    """Close a client that has not connected. nats-py waits for ever for the end of a TLS handshake that failed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ABANDONED_WITHIN):
            await client.close()


class _Attempts:
    """The attempts to connect for the first time, and how each that failed is judged."""

    def __init__(self, client: Client, access: Access, timeout: float, *, patient: bool) -> None:
        self.over = False
        self._client: Any = client
        self._access = access
        self._timeout = timeout
        self._patient = patient
        self._failed = 0
        self._last: Exception | None = None

    def failed(self, error: Exception) -> None:
        """Note a failed attempt.

        Raises:
            _GivenUp: no other attempt can do better.
        """
        self._last = error
        self._failed += 1
        final = self._final(error)
        if final is not None:
            raise _GivenUp(final)
        if isinstance(error, TimeoutError):  # it was waited for
            return
        if not self._patient and self._failed >= len(self._access.servers):
            raise _GivenUp(ServerUnreachable(self._nobody(error, "")))
        if self._patient and self._failed == 1:
            _log.warning("no NATS server answers at %s (%s): trying on", self._access.shown, error)

    def _final(self, error: Exception) -> BrokerError | None:
        shown, auth = self._access.shown, self._access.auth
        if is_refusal(error):
            said = str(error).removeprefix("nats: ").strip("'")
            way = auth.way if not self._access.copied else "the credentials of the client"
            return AccessDenied(f"the NATS server at {shown} refused {way} ({said}): check the credentials")
        if self._lacks_certificate(error):
            return AccessDenied(f"the NATS server at {shown} wants a certificate of the client: Auth(tls_cert=...)")
        if isinstance(error, ssl.SSLError):
            return ServerUnreachable(
                f"TLS with the NATS server at {shown} failed ({error}): name the authority that has signed its "
                "certificate, Auth(tls_ca=...), and give a certificate of your own if it wants one"
            )
        if isinstance(error, ImportError):  # websockets
            return InvalidConnection(f"{shown} cannot be used: {error}")
        return None

    def _lacks_certificate(self, error: Exception) -> bool:
        """Return whether the server hung up, with an alert or without, on a client that has shown no certificate."""
        wanted = self._client._server_info.get("tls_verify")  # noqa: SLF001
        hung_up = isinstance(error, ConnectionError | ssl.SSLError)
        is_ours = isinstance(error, ssl.SSLCertVerificationError)
        return bool(wanted) and not self._access.auth.tls_cert and hung_up and not is_ours

    def unreachable(self, error: Exception) -> ServerUnreachable:
        """Return what is said when the time is over."""
        return ServerUnreachable(self._nobody(self._last or error, f" within {self._timeout:g} s"))

    def _nobody(self, error: Exception, how_long: str) -> str:
        reason = str(error) or type(error).__name__
        advice = "start one (`jetflow dev` does), or set NATS_URL"
        if _SILENT in reason and not self._access.auth.tls_first:
            advice = "if it is one that begins with TLS, say so: Auth(tls_first=True), or --tls-first"
        return f"no NATS server answers at {self._access.shown}{how_long} ({reason}): {advice}"


def _next_server(servers: list[PoolServer], _: dict[str, Any]) -> tuple[PoolServer, float]:
    """Choose the server that was tried least, and how long to wait before: longer each time, and never in step."""
    server = min(servers, key=lambda one: one.reconnects)
    delay = min(RECONNECT_FIRST * 2.0 ** min(server.reconnects, 16), RECONNECT_LAST)
    return server, delay * random.uniform(0.5, 1.0)


class _Loan:
    """The callbacks of a client that was handed over: its owner's, and after them those of all who use it."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self.listeners: list[Listener] = []
        untyped = self._client
        self._owners = (  # nats-py takes callbacks only when it connects
            untyped._error_cb,  # noqa: SLF001
            untyped._reconnected_cb,  # noqa: SLF001
            untyped._disconnected_cb,  # noqa: SLF001
            untyped._closed_cb,  # noqa: SLF001
        )
        untyped._error_cb = self._on_error  # noqa: SLF001
        untyped._reconnected_cb = self._on_reconnect  # noqa: SLF001
        untyped._disconnected_cb = self._on_disconnect  # noqa: SLF001
        untyped._closed_cb = self._on_closed  # noqa: SLF001

    def end(self) -> None:
        """Put back the owner's callbacks."""
        untyped = self._client
        (
            untyped._error_cb,  # noqa: SLF001
            untyped._reconnected_cb,  # noqa: SLF001
            untyped._disconnected_cb,  # noqa: SLF001
            untyped._closed_cb,  # noqa: SLF001
        ) = self._owners

    async def _on_error(self, error: Exception) -> None:
        for listener in list(self.listeners):
            listener.on_error(error)
        if self._owners[0] is not None:
            await self._owners[0](error)

    async def _on_reconnect(self) -> None:
        for listener in list(self.listeners):
            listener.on_connected_again()
        if self._owners[1] is not None:
            await self._owners[1]()

    async def _on_disconnect(self) -> None:
        for listener in list(self.listeners):
            listener.on_disconnected()
        if self._owners[2] is not None:
            await self._owners[2]()

    async def _on_closed(self) -> None:
        for listener in list(self.listeners):
            listener.on_closed()
        if self._owners[3] is not None:
            await self._owners[3]()


def _leave_socket(client: Client) -> None:
    """Close a client's socket in a child that was forked: what it says would stand amid what its parent says."""
    transport = cast(Any, client)._transport  # noqa: SLF001
    for name in ("_bare_io_writer", "_ws"):
        writer = getattr(transport, name, None)
        connected = None if writer is None else writer.get_extra_info("socket")
        if connected is not None and connected.fileno() >= 0:
            forks.close_here(connected.fileno())


_loans: WeakKeyDictionary[Client, _Loan] = WeakKeyDictionary()


def borrow(client: Client, listener: Listener) -> None:
    """Tell ``listener`` what becomes of a client's connection, beside its owner, until `give_back`.

    Raises:
        ClientClosed, WrongEventLoop: the client cannot be used, or not here.
    """
    if client.is_closed or not (client.is_connected or client.is_reconnecting):
        raise ClientClosed("the NATS client that was handed over is not connected: connect it first")
    untyped: Any = client
    reading = untyped._reading_task  # noqa: SLF001 - the only thing that knows its event loop
    if reading is not None and reading.get_loop() is not asyncio.get_running_loop():
        raise WrongEventLoop("the NATS client that was handed over belongs to another event loop: connect one here")
    loan = _loans.get(client)
    if loan is None:
        loan = _loans[client] = _Loan(client)
    loan.listeners.append(listener)
    forks.in_child(client, _leave_socket)


def give_back(client: Client, listener: Listener) -> None:
    """End `borrow`. Safe to call twice."""
    loan = _loans.get(client)
    if loan is not None and listener in loan.listeners:
        loan.listeners.remove(listener)
        if not loan.listeners:
            del _loans[client]
            loan.end()
