"""A worker process that is paused: ``python pausing_worker.py URL NAMESPACE``. It logs on stdout which bodies begin."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from jetflow import Context, Retry, Worker, WorkerOptions, workflow

_log = logging.getLogger("pausing")

ONCE = Retry(attempts=1)
OPTIONS = WorkerOptions(ack_wait=1.0, park_after=0.2, guard=False)
"""Without a guard, as where a whole machine is paused; `test_guard.py` pauses a worker alone."""


async def opened(gate: str) -> None:
    """Wait until a file is there."""
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - what is waited for sets no event, and is local
        await asyncio.sleep(0.02)


@workflow("running", retry=ONCE)
async def running(gate: str, ctx: Context) -> int:
    _log.info("running %d", ctx.attempt)
    await opened(gate)
    return ctx.attempt


@workflow("parent", retry=ONCE)
async def parent(gate: str, ctx: Context) -> int:
    _log.info("parent %d", ctx.attempt)
    await (await ctx.spawn_workflow(running, gate)).result()
    return ctx.attempt


@workflow("retrying", retry=Retry(attempts=2, initial=0.9))
async def retrying(gate: str, ctx: Context) -> int:
    _log.info("retrying %d", ctx.attempt)
    if ctx.attempt == 1:
        raise ValueError(gate)
    return ctx.attempt


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    asyncio.run(
        Worker([running, parent, retrying], server=sys.argv[1], namespace=sys.argv[2], slots=1, options=OPTIONS).run()
    )
