"""The ASGI application of webhooks: an authenticated request becomes an event, and is answered when that is stored.

What it answers: 200, 400 (no JSON, or what fits no event), 401 (nothing says who sends it), 403 (what says it is
wrong), 404 (no such webhook), 405, 413 (too large), and 503 where the broker does not take it: whoever sends webhooks
sends those again. A request that is refused has made no event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from jetflow.broker.access import Server
from jetflow.broker.auth import Auth
from jetflow.client import Client, connect
from jetflow.errors import BrokerError, InvalidDeclaration, InvalidInput, JetflowError, PayloadTooLarge
from jetflow.webhooks.authentication import Basic, Slack
from jetflow.webhooks.webhook import Mapped, Webhook

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

AGAIN_AFTER: Final = "10"
"""Seconds after which a sender may try again where the broker did not take it."""

_log = logging.getLogger("jetflow.webhooks")


class _Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Webhooks:
    """Answers ``POST /<name>`` for some webhooks; mount it below any path of another application.

    ``client`` is one that is connected; else it connects by itself, at its start or at the first request, with
    ``server``, ``namespace`` and ``auth`` as `jetflow.connect` takes them: then let it see the lifespan, or `close` it.

    Raises:
        InvalidDeclaration: two webhooks have one name.
    """

    def __init__(
        self,
        webhooks: Iterable[Webhook],
        *,
        client: Client | None = None,
        server: Server = None,
        namespace: str | None = None,
        auth: Auth | None = None,
    ) -> None:
        declared = list(webhooks)
        self._webhooks = {webhook.name: webhook for webhook in declared}
        if len(self._webhooks) < len(declared):
            raise InvalidDeclaration("two webhooks have one name")
        self._given = client
        self._client = client
        self._connecting = asyncio.Lock()
        self._connect = lambda: connect(server, namespace=namespace, auth=auth)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open and close with the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            answer = await self._answer(scope, receive)
            body = msgspec.json.encode(answer.body)
            length = (b"content-length", str(len(body)).encode())
            headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), length, *answer.headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def close(self) -> None:
        """Close the client, unless it was given. Safe to call twice."""
        client, self._client = self._client, self._given
        if client is not None and client is not self._given:
            await client.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._connected()
        except JetflowError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    # --- one request

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        path: str = scope["path"]
        name = path.removeprefix(scope.get("root_path", "")).strip("/")
        webhook = self._webhooks.get(name)
        if webhook is None:
            return _refused(404, "there is no such webhook")
        if scope["method"] != "POST":
            return _refused(405, "webhooks are sent by POST", (b"allow", b"POST"))
        headers = _read(cast(list[tuple[bytes, bytes]], scope["headers"]))
        body = await _body(headers, receive, webhook.largest)
        if body is None:
            return _refused(413, f"the body has more than {webhook.largest} bytes")
        return _unauthenticated(webhook, headers, body) or await self._taken(webhook, headers, body)

    async def _taken(self, webhook: Webhook, headers: dict[str, str], body: bytes) -> _Answer:
        """Make an event of an authenticated request."""
        try:
            value = webhook.read(headers, body)
        except InvalidInput as error:
            return _refused(400, str(error))
        challenge = _challenge(webhook, value)
        if challenge is not None:
            return _Answer(200, {"challenge": challenge})
        try:
            mapped = webhook.mapped(value, headers)
            if mapped is None:
                return _Answer(200, {"message": "ok", "event": None})
            return await self._published(webhook, mapped)
        except Exception as error:  # the functions are the user's code, and the body is a stranger's
            _log.warning("a request to webhook %r fits no event: %s: %s", webhook.name, type(error).__name__, error)
            return _refused(400, "the request fits no event")

    async def _published(self, webhook: Webhook, mapped: Mapped) -> _Answer:
        try:
            client = await self._connected()
            event = await client.publish(
                mapped.topic, mapped.payload, key=mapped.key, id=mapped.id, metadata={"webhook": webhook.name}
            )
        except PayloadTooLarge:
            return _refused(413, "the body is larger than an event may be")
        except BrokerError as error:
            _log.error("a request to webhook %r could not be stored: %s", webhook.name, error)
            return _refused(503, "it could not be stored: send it again", (b"retry-after", AGAIN_AFTER.encode()))
        return _Answer(200, {"message": "ok", "event": {"id": event.id, "topic": event.topic}})


def _unauthenticated(webhook: Webhook, headers: dict[str, str], body: bytes) -> _Answer | None:
    """Return what is answered to whoever may not send it."""
    verdict = "ok" if webhook.auth is None else webhook.auth.verdict(headers, body)
    if verdict == "ok":
        return None
    _log.warning("a request to webhook %r is refused: what authenticates it is %s", webhook.name, verdict)
    if verdict == "missing":
        scheme = b'Basic realm="webhook"' if isinstance(webhook.auth, Basic) else b"Signature"
        return _refused(401, "nothing says who sends it", (b"www-authenticate", scheme))
    return _refused(403, "what says who sends it is wrong")


def _challenge(webhook: Webhook, value: Any) -> str | None:
    """Return what Slack wants to hear before it sends anything."""
    if not isinstance(webhook.auth, Slack) or not isinstance(value, dict):
        return None
    told = cast(dict[str, Any], value)
    challenge = told.get("challenge")
    return challenge if told.get("type") == "url_verification" and isinstance(challenge, str) else None


def _refused(status: int, why: str, *headers: tuple[bytes, bytes]) -> _Answer:
    return _Answer(status, {"message": why}, headers)


def _read(given: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name; of one that is there twice, all values with commas between them, as HTTP has it."""
    headers: dict[str, str] = {}
    for raw, value in given:
        name = raw.decode("latin-1").lower()
        said = value.decode("latin-1")
        headers[name] = f"{headers[name]},{said}" if name in headers else said
    return headers


async def _body(headers: dict[str, str], receive: Receive, largest: int) -> bytes | None:
    """Return the body; None if it is too large, of which no more is kept than may be."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and int(length) > largest:
        return None
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(pieces)
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > largest:
            return None
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
