"""A jetflow worker process under uvloop: ``python -m benchmarks.jetflow_worker URL WORKLOAD SLOTS [durable]``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys

import uvloop

from benchmarks.flows import WORK
from benchmarks.processes import serve
from jetflow import Worker, WorkerOptions


async def _main(url: str, workload: str, slots: str, *durable: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    options = WorkerOptions(slots=int(slots), durable=bool(durable))
    worker = Worker(WORK[workload], server=url, options=options)
    await worker.start()
    running = asyncio.create_task(worker.run())  # as the process of a worker does
    await serve()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
