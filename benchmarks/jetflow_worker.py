"""A jetflow worker process under uvloop: ``python -m benchmarks.jetflow_worker URL WORKLOAD SLOTS [OPTION ...]``.

An option is ``durable``, or ``name=number`` of what can be set of a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

import uvloop

from benchmarks.flows import WORK
from benchmarks.processes import serve
from jetflow import Worker, WorkerOptions


async def _main(url: str, workload: str, slots: str, *more: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    settings: dict[str, Any] = dict(_setting(one) for one in more if "=" in one)
    options = WorkerOptions(slots=int(slots), durable="durable" in more, **settings)
    started = asyncio.Event()
    running = asyncio.create_task(Worker(WORK[workload], server=url, options=options).run(started=started.set))
    starting = asyncio.create_task(started.wait())
    await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    if started.is_set():
        await serve()
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
