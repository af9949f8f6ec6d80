"""A worker process that a step of its own kills: ``python deadly_worker.py URL NAMESPACE``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from jetflow import Context, Retry, Worker, WorkerOptions, workflow


@workflow("deadly", retry=Retry(attempts=2))
async def deadly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@workflow("careful", retry=Retry(attempts=1))
async def careful(_: None, ctx: Context) -> None:
    child = await ctx.spawn_workflow(deadly)
    await child.result()


if __name__ == "__main__":
    url, namespace = sys.argv[1:]
    asyncio.run(Worker([deadly], server=url, namespace=namespace, options=WorkerOptions(ack_wait=1)).run())
