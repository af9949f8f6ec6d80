"""Publishers beside a load, in a process of their own: ``python -m benchmarks.beside URL``.

What a publish waits for is partly the stream's, partly the server's, and partly the machine's. So four ask at once,
each every 20 ms: jetflow triggers a run of one step; a bare client publishes to a stream of its own on the same server,
and pings it; and a timer looks how late it is woken. It ends with its standard input, and prints where
it has written its waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, time
from typing import Any, Final

import msgspec
import nats
import uvloop

import jetflow
from benchmarks import flows
from benchmarks.processes import serve, worker_processes

EVERY: Final = 0.02
"""Seconds between two of the same kind."""

STREAM: Final = "BESIDE"


class Waits(msgspec.Struct):
    """What each kind waited for: pairs of when it ended, and milliseconds."""

    trigger: list[tuple[float, float]]
    publish: list[tuple[float, float]]
    ping: list[tuple[float, float]]
    timer: list[tuple[float, float]]

    def longest(self, kind: str, since: float = 0.0, until: float = float("inf")) -> float:
        """Return the longest wait of a kind that ended in a span of time, in milliseconds; 0 where none did."""
        return max((wait for at, wait in getattr(self, kind) if since <= at <= until), default=0.0)


class Beside:
    """What the publishers beside a load have waited for, once they have ended."""

    waits: Waits


@asynccontextmanager
async def beside(url: str) -> AsyncIterator[Beside]:
    """Run the publishers for the time of the block; what they waited for is known behind it."""
    told = Beside()
    async with worker_processes("benchmarks.beside", url, count=1) as [process]:
        yield told
        path = Path(await process.last_line())
        told.waits = msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=Waits)
        await asyncio.to_thread(path.unlink)


async def _main(url: str) -> None:
    waits = Waits([], [], [], [])
    client = await nats.connect(url)
    await client.jetstream().add_stream(name=STREAM, subjects=["beside.>"])
    js = client.jetstream()
    async with jetflow.connect(url) as ours:
        number = 0

        async def trigger() -> None:
            nonlocal number
            number += 1
            await ours.trigger(flows.leaf, flows.Leaf(number))

        asked: list[tuple[list[tuple[float, float]], Callable[[], Awaitable[Any]]]] = [
            (waits.trigger, trigger),
            (waits.publish, lambda: js.publish("beside.x", b"x", timeout=30)),
            (waits.ping, lambda: client.flush(30)),
        ]
        tasks = [asyncio.create_task(_ask(*one)) for one in asked]
        tasks.append(asyncio.create_task(_wake(waits.timer)))
        await serve()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
    await client.close()
    with tempfile.NamedTemporaryFile(prefix="jetflow-bench-", delete=False) as file:
        file.write(msgspec.json.encode(waits))
    sys.stdout.write(f"{file.name}\n")
    sys.stdout.flush()


async def _ask(waits: list[tuple[float, float]], ask: Callable[[], Awaitable[Any]]) -> None:
    while True:
        began = perf_counter()
        await ask()
        waits.append((time(), (perf_counter() - began) * 1000))
        await asyncio.sleep(EVERY)


async def _wake(waits: list[tuple[float, float]]) -> None:
    while True:
        began = perf_counter()
        await asyncio.sleep(EVERY)
        waits.append((time(), (perf_counter() - began - EVERY) * 1000))


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
