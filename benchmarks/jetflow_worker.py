"""A jetflow worker process under uvloop: ``python -m benchmarks.jetflow_worker URL WORKLOAD SLOTS``."""

from __future__ import annotations

import logging
import sys

import uvloop

from benchmarks.flows import WORK
from benchmarks.processes import serve
from jetflow import Worker


async def _main(url: str, workload: str, slots: int) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    async with Worker(WORK[workload], server=url, slots=slots):
        await serve()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
