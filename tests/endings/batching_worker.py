"""A worker process with a guard: ``python -m tests.endings.batching_worker URL NAMESPACE``. Some batches kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from jetflow import Batch, Context, Retry, Worker, WorkerOptions, workflow


@workflow("deadly-batch", batch=Batch(size=3, wait=1.0), retry=Retry(attempts=3))
async def deadly_batch(inputs: list[str], ctxs: list[Context]) -> list[list[int]]:
    """Return how many there were in the call, and which attempt it was; a deadly input ends the worker."""
    if "deadly" in inputs:
        os.kill(os.getpid(), signal.SIGKILL)
    return [[len(inputs), ctx.attempt] for ctx in ctxs]


async def main(url: str, namespace: str) -> None:
    await Worker([deadly_batch], server=url, namespace=namespace, options=WorkerOptions(slots=1)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
