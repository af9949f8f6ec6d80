"""The floor of waking: as many next turns stored, each write-once, by one program that does nothing else.

The messages have the size and form of jetflow's. Their protocol lines are made before the clock starts and written
straight to a socket: what is measured is the server and the wire.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from benchmarks.bare.spawn import STREAM
from benchmarks.bare.wire import encode

MOST_UNDER_WAY: Final = 4000
_AT_ONCE: Final = 100


def turns(inbox: str, count: int) -> list[bytes]:
    """Return the next turns of parked steps, as they stand on the wire."""
    lines: list[bytes] = []
    for number in range(count):
        run = secrets.token_hex(16)
        body = encode({"index": number})
        headers = (
            "NATS/1.0\r\nJf-Version: 0123456789abcdef\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"
            f"Nats-Msg-Id: {run}.run.1\r\n\r\n"
        ).encode()
        subject = f"bf.default.task.bench-leaf.run.{run}.-.{run}.1"
        line = f"HPUB {subject} {inbox}.{number} {len(headers)} {len(headers) + len(body)}\r\n".encode()
        lines.append(b"".join((line, headers, body, b"\r\n")))
    return lines


async def store_turns(url: str, count: int) -> float:
    """Store so many turns in `STREAM`; return the seconds until all are acknowledged.

    Raises:
        RuntimeError: one was refused.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**24)
    inbox = f"_INBOX.{secrets.token_hex(8)}"
    lines = turns(inbox, count)
    connect = {"verbose": False, "pedantic": False, "headers": True, "lang": "bench", "version": "0", "protocol": 1}
    writer.write(f"CONNECT {json.dumps(connect)}\r\nSUB {inbox}.* 1\r\n".encode())
    stored, moved = 0, asyncio.Event()

    async def read() -> None:
        nonlocal stored
        rest = b""
        while chunk := await reader.read(2**18):
            found = rest + chunk
            cut = found.rfind(b"\n") + 1
            rest = found[cut:]
            if b'"error"' in found[:cut]:
                raise RuntimeError(f"a turn was refused: {found[:500]!r}")
            stored += found.count(b'"stream":"' + STREAM.encode(), 0, cut)
            moved.set()

    async def until(number: int) -> None:
        while stored < number:
            moved.clear()
            waiting = asyncio.create_task(moved.wait())
            await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                waiting.cancel()
                reading.result()
                raise RuntimeError("the server closed the connection")

    reading = asyncio.create_task(read())
    try:
        began = perf_counter()
        for at in range(0, count, _AT_ONCE):
            writer.write(b"".join(lines[at : at + _AT_ONCE]))
            await writer.drain()
            await until(at - MOST_UNDER_WAY)
        await until(count)
        return perf_counter() - began
    finally:
        reading.cancel()
        writer.close()
