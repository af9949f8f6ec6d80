"""A jetflow worker process under uvloop: ``python -m benchmarks.jetflow_worker URL WORKLOAD SLOTS [OPTION ...]``.

An option is ``durable``, or ``name=number`` of what can be set of a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
from typing import Any

import uvloop

from benchmarks.flows import WORK
from benchmarks.processes import serve
from jetflow import Worker, WorkerOptions, Workflow


async def _main(url: str, workload: str, slots: str, *more: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    settings: dict[str, Any] = dict(_setting(one) for one in more if "=" in one)
    if "guard" in WorkerOptions.__struct_fields__:  # an older commit has none
        settings.setdefault("guard", True)
    options = WorkerOptions(slots=int(slots), durable="durable" in more, **settings)
    worker = Worker(_flows(workload), server=url, options=options)
    await worker.start()
    running = asyncio.create_task(worker.run())  # as the process of a worker does
    await serve()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _flows(workload: str) -> list[Workflow[Any, Any]]:
    """Return what the worker of a workload runs; the newer ones are imported by those alone."""
    return WORK.get(workload) or importlib.import_module("benchmarks.newer_flows").WORK[workload]


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
