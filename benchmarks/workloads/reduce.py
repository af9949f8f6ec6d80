"""A step folds what N children give, while the worker that runs it is killed again and again.

The result has to be exact. How often the function was called tells how much was folded twice: each call adds a byte to
a file. The floor is the same without a kill.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

import jetflow
from benchmarks import flows
from benchmarks.lab import NAMESPACE, patience, server
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.processes import worker_processes
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import check
from benchmarks.workloads.workload import Workload

KILLS: Final = 10
TWICE: Final = 0.1
"""The part of the outputs that may be folded a second time."""

_LOOK_AGAIN: Final = 0.01


class _Measured(msgspec.Struct):
    seconds: float
    folded: int


async def run(options: Options) -> Report:
    """Measure."""
    rounds = [(await _measured(options, 0), await _measured(options, KILLS)) for _ in range(options.rounds)]
    calm, killed = [one for one, _ in rounds], [one for _, one in rounds]
    rates = [options.n / middle([one.seconds for one in side]) for side in (calm, killed)]
    most = max(one.folded for one in killed)
    twice = most / options.n - 1
    return Report(
        workload="reduce",
        title=f"reduce: {options.n:,} outputs folded, the worker killed {KILLS} times; the floor is without a kill",
        n=options.n,
        options=options,
        floor_per_s=rates[0],
        jetflow_per_s=rates[1],
        ratio=rates[1] / rates[0],
        rows=[
            Row("children a second", rates[0], rates[1], ",.0f"),
            Row("calls of the function", float(max(one.folded for one in calm)), float(most), ",.0f"),
        ],
        goals=[Goal(f"reduce: at most {TWICE:.0%} folded twice, and were {twice:.1%}", twice <= TWICE)],
        figures={"folded_twice": twice, "kills": KILLS},
    )


async def _measured(options: Options, kills: int) -> _Measured:
    """Run one reduce whose worker is killed so often, and check its result."""
    with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
        file = _made(Path(scratch, "folded"))
        async with server(options) as running, asyncio.timeout(2 * patience(options.n)):
            began = perf_counter()
            run, done = None, None
            for life in range(kills + 1):
                how = ("reduce", str(options.slots))
                async with worker_processes("benchmarks.jetflow_worker", running.url, *how, count=1) as workers:
                    async with jetflow.connect(running.url, namespace=NAMESPACE) as client:
                        run = await client.trigger(flows.folded, flows.Noted(options.n, str(file)), key="it")
                        if life == kills:
                            done = await run.result()
                    if life < kills:
                        await _grown(file, options.n * (life + 1) // (kills + 1))
                        workers[0].kill()
            assert done is not None
            check(done, options.n)
            return _Measured(perf_counter() - began, _size(file))


async def _grown(file: Path, size: int) -> None:
    while _size(file) < size:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_LOOK_AGAIN)


def _made(file: Path) -> Path:
    file.touch()
    return file


def _size(file: Path) -> int:
    return file.stat().st_size


WORKLOAD: Final = Workload(
    name="reduce",
    summary="a step folds what N children give, its worker killed ten times",
    n_is="children",
    n=100_000,
    run=run,
    rounds=1,
)
