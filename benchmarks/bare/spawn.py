"""The floor of a bulk spawn: one fast-ingest publish (ADR-50) of messages that are ready-made.

The messages have the size and form of jetflow's: subject, headers and body. Their protocol lines are made before the
clock starts and written straight to a socket, for nats-py formats a message with four headers for longer than the
server needs to store it. What is measured is the server and the wire.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from hashlib import blake2b
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bare.wire import ask, encode

SPAWN: Final = "bare.spawn"
STREAM: Final = "BARE_spawn"
FLOW: Final = 500
"""Messages between two acknowledgements of the server."""
MOST_UNDER_WAY: Final = 4 * FLOW
_AT_ONCE: Final = 100
_PAYLOAD: Final = re.compile(rb"MSG [^\r]* (\d+)\r\n")


async def answer_ingest(client: Client) -> None:
    """Answer requests on ``SPAWN`` that hold a number: publish so many messages, answer the seconds it took."""

    async def on_request(message: Msg) -> None:
        task = asyncio.create_task(answer(message))
        running.add(task)
        task.add_done_callback(running.discard)

    async def answer(message: Msg) -> None:
        assert client.connected_url is not None
        seconds = await ingest(client.connected_url.geturl(), int(message.data))
        await client.publish(message.reply, encode(seconds))

    running: set[asyncio.Task[None]] = set()
    await client.subscribe(SPAWN, cb=on_request)


async def make_spawn_stream(client: Client) -> None:
    """Make a stream like jetflow's for tasks."""
    await ask(
        client,
        f"STREAM.CREATE.{STREAM}",
        {
            "name": STREAM,
            "subjects": ["bf.default.task.>"],
            "retention": "limits",
            "storage": "file",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            "allow_batched": True,
            "allow_atomic": True,
            "duplicate_window": 120_000_000_000,
            "allow_direct": True,
        },
    )


def protocol_lines(inbox: str, count: int) -> list[bytes]:
    """Return a batch of messages like those of the children of one parent, as they stand on the wire."""
    parent = secrets.token_hex(16)
    lines: list[bytes] = []
    for sequence in range(1, count + 1):
        body = encode({"index": sequence})
        digest = blake2b(body, digest_size=16).hexdigest()
        child = blake2b(f"{parent}{digest}".encode(), digest_size=16).hexdigest()
        headers = (
            f"NATS/1.0\r\nJf-Parent-Step: run\r\nJf-Version: {digest[:16]}\r\nJf-Depth: 1\r\n"
            f"Nats-Msg-Id: {child}.run\r\n\r\n"
        ).encode()
        subject = f"bf.default.task.bench-leaf.run.{parent}.{parent}.{child}.0"
        operation = 2 if sequence == count else 0 if sequence == 1 else 1
        reply = f"{inbox}.1.{FLOW}.ok.{sequence}.{operation}.$FI"
        line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n".encode()
        lines.append(b"".join((line, headers, body, b"\r\n")))
    return lines


async def ingest(url: str, count: int) -> float:
    """Publish ``count`` messages as one batch; return the seconds until the server has stored them all."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    inbox = f"_INBOX.{secrets.token_hex(8)}"
    lines = protocol_lines(inbox, count)
    connect = {"verbose": False, "pedantic": False, "headers": True, "lang": "bench", "version": "0", "protocol": 1}
    writer.write(f"CONNECT {json.dumps(connect)}\r\nSUB {inbox}.> 1\r\n".encode())
    answers = _Answers(reader, writer)
    reading = asyncio.create_task(answers.read())
    try:
        began = perf_counter()
        for at in range(0, count, _AT_ONCE):
            writer.write(b"".join(lines[at : at + _AT_ONCE]))
            await writer.drain()
            await answers.until(at - MOST_UNDER_WAY)
        await answers.until(count)
        return perf_counter() - began
    finally:
        reading.cancel()
        writer.close()


class _Answers:
    """Reads what the server says, and knows how many messages it has stored."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._moved = asyncio.Event()
        self._stored = 0
        self._failed: Exception | None = None

    async def read(self) -> None:
        while line := await self._reader.readline():
            if line.startswith(b"PING"):
                self._writer.write(b"PONG\r\n")
            elif (found := _PAYLOAD.fullmatch(line)) is not None:
                self._take(json.loads(await self._reader.readexactly(int(found[1]) + 2)))
        self._fail(RuntimeError("the server closed the connection of a bulk publish"))

    async def until(self, stored: int) -> None:
        while self._stored < stored:
            self._moved.clear()
            await self._moved.wait()
            if self._failed is not None:
                raise self._failed

    def _take(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            self._fail(RuntimeError(f"a bulk publish was refused: {answer}"))
        elif "batch" in answer:
            self._stored = int(answer["count"])
        else:
            self._stored = max(self._stored, int(answer.get("seq", 0)))
        self._moved.set()

    def _fail(self, error: Exception) -> None:
        self._failed = error
        self._moved.set()
