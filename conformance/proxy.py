"""The proxy between the tested process and the server: it sees, and can hold, every message on the way.

What is tested gets the proxy's address for a server. The proxy reads the protocol of NATS in both directions, message
by message, and writes each down before it passes it on. So the log has the order in which the process sent, over all
its connections; nothing has to subscribe to what it says, which would be interest in what is somebody else's; and a
case can stop the process *between* two messages: a hook sees each before the server does.

The proxy can make one thing up: that a task was delivered before, to a worker that was lost with it (`lost`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from conformance.wire import Event, Names

Hook: TypeAlias = Callable[[Event], Awaitable[bool]]
"""Sees a message before it goes on; False drops it."""

ACKS: Final = {b"+ACK": "ack", b"-NAK": "nak", b"+TERM": "term", b"+WPI": "wpi"}

LINE: Final = 4 * 1024 * 1024
"""Bytes that a line of the protocol may have: the server's INFO is one."""


class Proxy:
    """Stands before one server. `start` and `stop` it; ``log`` grows, and ``grown`` is notified."""

    def __init__(self, server: str, names: Names) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 4222
        self._names = names
        self._listening: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._delivered: dict[str, Event] = {}
        self.url = ""
        self.closed = False
        self.log: list[Event] = []
        self.grown = asyncio.Condition()
        self.sent_hooks: list[Hook] = []
        self.delivered_hooks: list[Hook] = []
        self.lost: dict[str, int] = {}
        """By part of a subject: how often tasks on it were delivered before, to workers that are gone."""

    async def start(self) -> None:
        """Begin to listen."""
        self._listening = await asyncio.start_server(self._link, "127.0.0.1", 0, limit=LINE)
        self.url = f"nats://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """End all connections."""
        self.closed = True
        if self._listening is not None:
            self._listening.close()
        await self.cut()

    async def cut(self) -> None:
        """Break all connections; the process may connect again unless ``closed``."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.close()
            return
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=LINE)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer, self._on_sent))
                pumps.create_task(self._pump(far_reader, writer, self._on_delivered))
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            pass  # a connection that breaks on one side is broken on the other
        finally:
            self._links.discard(link)
            for end in (writer, far_writer):
                if end is not None:
                    end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handle: Callable[[bytes, bytes], Awaitable[bytes]],
    ) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\r\n")
                if line[:4].upper() in (b"PUB ", b"HPUB", b"MSG ", b"HMSG"):
                    payload = await reader.readexactly(int(line.split()[-1]) + 2)
                    data = await handle(line, payload)
                else:
                    data = line
            except asyncio.IncompleteReadError:
                raise ConnectionResetError from None
            if self.closed:  # also for what the process had sent before it was cut off
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    # --- what the process sends

    async def _on_sent(self, line: bytes, payload: bytes) -> bytes:
        words = line.decode().split()
        subject, with_headers = words[1], words[0].upper() == "HPUB"
        reply = words[2] if len(words) == (5 if with_headers else 4) else ""
        headers, body = _split(payload[:-2], int(words[-2]) if with_headers else 0)
        event = self._event(">", subject, headers, body, reply)
        return line + payload if await self._write_down(event, self.sent_hooks) else b""

    def _event(self, way: str, subject: str, headers: dict[str, str], body: bytes, reply: str) -> Event:
        kind, fields, delivery = "other", {}, 0
        if subject.startswith("$JS.ACK."):
            kind = ACKS.get(body[:5].split(b" ")[0], "ack" if not body else "other")
            task = self._delivered.get(subject)
            delivery = delivery_of(subject)
            if task is not None:
                subject, fields = task.subject, task.fields | {"consumer": consumer_of(subject)}
        elif subject.startswith("$JS.API."):
            kind, subject = _asked(subject, body)
            _, fields = self._names.parse(subject)
        else:
            kind, fields = self._names.parse(subject)
        return Event(len(self.log), monotonic(), way, kind, subject, headers, body, fields, delivery, reply)

    # --- what the process is sent

    async def _on_delivered(self, line: bytes, payload: bytes) -> bytes:
        words = line.decode().split()
        subject, with_headers = words[1], words[0].upper() == "HMSG"
        reply = words[3] if len(words) == (6 if with_headers else 5) else ""
        if reply.startswith("$JS.ACK."):
            before = sum(count for part, count in self.lost.items() if part in subject)
            if before:
                reply = delivered_before(reply, before)
                words[3] = reply
                line = " ".join(words).encode() + b"\r\n"
        elif not subject.startswith("jf."):
            return line + payload  # an answer, or a status
        headers, body = _split(payload[:-2], int(words[-2]) if with_headers else 0)
        kind, fields = self._names.parse(subject)
        event = Event(len(self.log), monotonic(), "<", kind, subject, headers, body, fields, 0, reply)
        if reply.startswith("$JS.ACK."):
            event.delivery = delivery_of(reply)
            self._delivered[reply] = event
        return line + payload if await self._write_down(event, self.delivered_hooks) else b""

    async def _write_down(self, event: Event, hooks: list[Hook]) -> bool:
        self.log.append(event)
        async with self.grown:
            self.grown.notify_all()
        for hook in list(hooks):
            if not await hook(event):
                return False
        return True


def _asked(subject: str, body: bytes) -> tuple[str, str]:
    """Return what a request to the API is, and which subject or filter it asks for."""
    request: dict[str, object] = {}
    with contextlib.suppress(ValueError):
        request = json.loads(body or b"{}")
    if ".STREAM.MSG.GET." in subject:
        return "get", str(request.get("last_by_subj") or request.get("next_by_subj") or request.get("seq") or "")
    if ".STREAM.INFO." in subject and request.get("subjects_filter"):
        return "list", str(request["subjects_filter"])
    if ".STREAM.PURGE." in subject:
        return "purge", str(request.get("filter", ""))
    return "api", subject


def _split(payload: bytes, size: int) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a message. Headers are kept as they stand, in their own case."""
    headers: dict[str, str] = {}
    for line in payload[:size].decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers, payload[size:]


def delivery_of(reply: str) -> int:
    """Return how often a message has been delivered, by the subject that acknowledges it."""
    tokens = reply.split(".")
    return int(tokens[4 if len(tokens) == 9 else 6])


def consumer_of(reply: str) -> str:
    """Return the consumer that a message was pulled from, by the subject that acknowledges it."""
    tokens = reply.split(".")
    return tokens[3 if len(tokens) == 9 else 5]


def delivered_before(reply: str, times: int) -> str:
    """Return the subject that acknowledges the same message, as if it had been delivered so often before."""
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    tokens[at] = str(int(tokens[at]) + times)
    return ".".join(tokens)
