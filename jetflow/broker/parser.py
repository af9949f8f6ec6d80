"""Reading the NATS protocol: messages go from the read buffer straight to the callback of their subscription.

nats-py builds a message object, parses every header and passes it through a queue to a task; for the four messages
that each child costs, that is most of what a worker does. This parser takes over messages of jetflow's own
subscriptions and leaves everything else (other subscriptions, PING, INFO, errors) to nats-py's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

_log = logging.getLogger("jetflow.broker")

_STATUS_LINE: Final = len(b"NATS/1.0")


class Message(msgspec.Struct, eq=False, gc=False):
    """One message. Its headers are parsed when they are asked for."""

    subject: str
    reply: str
    data: bytes
    raw_headers: bytes | None = None
    parsed: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers; of a status message, ``Status`` and ``Description`` too."""
        if self.parsed is None:
            self.parsed = {} if self.raw_headers is None else parse_headers(self.raw_headers)
        return self.parsed


Deliver: TypeAlias = Callable[[Message], None]


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of a header block."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    if len(first) > _STATUS_LINE:
        status, _, description = first[_STATUS_LINE:].strip().partition(" ")
        headers["Status"] = status
        headers["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


def number_of(subscription: Subscription) -> int:
    """Return the number that the protocol knows a subscription by."""
    untyped: Any = subscription
    return int(untyped._id)  # noqa: SLF001 - nats-py tells it in no other way


class DirectParser(Parser):
    """nats-py's parser, but for the messages of subscriptions that are in ``direct``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType] - nats-py's is not annotated
        self._others: Any = client
        self.direct: dict[int, Deliver] = {}

    @classmethod
    def install(cls, client: Client) -> DirectParser:
        """Put a parser in the place of a connected client's own, between two reads."""
        parser = cls(client)
        untyped: Any = client
        parser._keep(bytes(untyped._ps.buf))  # noqa: SLF001 - there is no other place to put one
        untyped._ps = parser  # noqa: SLF001
        return parser

    def _keep(self, unread: bytes) -> None:
        """Begin with what another parser has read and not taken."""
        if unread:
            self._parts.append(unread)
            self._size = len(unread)

    async def parse(self, data: bytes = b"") -> None:
        """Take one read from the socket."""
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._needed:  # still inside a message that is larger than a read: nothing to look at yet
            return
        buffer = b"".join(self._parts) if len(self._parts) > 1 else data
        self._parts.clear()
        at = await self._take_messages(buffer)
        rest = buffer[at:]
        self._size = len(rest)
        self._needed = max(self._needed - at, 0) if rest else 0
        if rest:
            self._parts.append(rest)

    def reset(self) -> None:
        """Forget what was read of a connection that is gone."""
        super().reset()
        self._parts: list[bytes] = []
        self._size = self._needed = 0

    async def _take_messages(self, buffer: bytes) -> int:
        """Take all messages that are whole, note how much the next one needs, and return where it begins."""
        at, end = 0, len(buffer)
        self._needed = 0
        while at < end:
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                break
            # Anybody may publish on a subject that is not UTF-8.
            words = buffer[at:line_end].decode("utf-8", "replace").split(" ")
            kind = words[0]
            if kind == "HMSG":
                header_size, size = int(words[-2]), int(words[-1])
                has_reply = len(words) == 6
            elif kind == "MSG":
                header_size, size = 0, int(words[-1])
                has_reply = len(words) == 5
            else:
                await super().parse(buffer[at : line_end + 2])
                at = line_end + 2
                continue
            body = line_end + 2
            if body + size + 2 > end:
                self._needed = body + size + 2
                break
            sid, reply = int(words[2]), words[3] if has_reply else ""
            headers = buffer[body : body + header_size] if header_size else None
            payload = buffer[body + header_size : body + size]
            deliver = self.direct.get(sid)
            if deliver is None:
                await self._leave(sid, buffer[at:line_end], payload, headers, has_reply=has_reply)
            else:
                try:
                    deliver(Message(words[1], reply, payload, headers))
                except Exception:  # that of one message must not end all reading
                    _log.exception("a message on %s could not be handled", words[1])
            at = body + size + 2
        return at

    async def _leave(self, sid: int, line: bytes, payload: bytes, headers: bytes | None, *, has_reply: bool) -> None:
        """Leave a message to nats-py, and drop it if that cannot read it: an error here would end all reading."""
        words = line.split(b" ")
        subject, reply = words[1], words[3] if has_reply else b""
        try:
            await self._others._process_msg(sid, subject, reply, payload, headers)  # noqa: SLF001
        except (ValueError, LookupError) as error:
            _log.error("a message on %r cannot be read, and is dropped: %s", subject, error)
