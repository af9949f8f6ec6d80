"""A service that triggers a run every few seconds, without the workflows' code, and prints how each has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from itertools import count

import jetflow

PAUSE = float(os.environ.get("EXAMPLE_PAUSE", "5"))
RUNS = int(os.environ.get("EXAMPLE_RUNS", "0"))
"""Runs after which it ends; 0 is never."""


async def main() -> None:
    async with jetflow.connect() as client:
        for number in count(1):
            run = await client.trigger("order", {"items": [f"item-{number}-{part}" for part in range(5)]})
            print(f"{run.id}: {await run.result()}", flush=True)
            if number == RUNS:
                return
            await asyncio.sleep(PAUSE)


async def until_told() -> None:
    work = asyncio.create_task(main())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    asyncio.run(until_told())
