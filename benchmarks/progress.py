"""Progress of long runs, on standard error."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

EVERY: Final = 2.0
"""Seconds between two looks; a run that is shorter is not disturbed by any."""


@asynccontextmanager
async def show(label: str, url: str, stream: str, expected: int) -> AsyncIterator[None]:
    """Show how many of ``expected`` results a stream holds, for the time of the block."""
    _write(label)
    watching = asyncio.create_task(_watch(label, url, stream, expected)) if expected else None
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        _write("")


async def _watch(label: str, url: str, stream: str, expected: int) -> None:
    await asyncio.sleep(EVERY)
    began = perf_counter() - EVERY
    connection = await nats.connect(url)
    try:
        while True:
            stored = await _stored(connection, stream)
            _write(f"{label}: {stored:,} of {expected:,} after {perf_counter() - began:.0f} s")
            await asyncio.sleep(EVERY)
    finally:
        await connection.close()


async def _stored(connection: Client, stream: str) -> int:
    try:
        answer: dict[str, Any] = msgspec.json.decode(
            (await connection.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)).data
        )
    except nats.errors.TimeoutError:
        return 0
    return int(answer.get("state", {}).get("messages", 0))


def _write(text: str) -> None:
    """Show one line in place of the last; on something that is no terminal, one line after the other."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
    elif text:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
