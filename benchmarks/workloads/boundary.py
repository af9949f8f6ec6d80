"""A step spawns N no-op children and returns; the join is at the step's boundary, and the next step ends the run."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks import flows
from benchmarks.bare.wire import Node
from benchmarks.lab import Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import in_turn
from benchmarks.options import Options
from benchmarks.report import Goal, Report, rate_report
from benchmarks.workloads.fanout import WARM_UP
from benchmarks.workloads.workload import Workload

LARGE: Final = 1_000_000
"""Children from which on the memory may grow a little more, and time is not compared."""


async def run(options: Options) -> Report:
    """Measure."""

    async def floor(label: str) -> Sample:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            await client.run(Node(level=1, width=WARM_UP, collect=False))
            async with bench.timed(label, options.n) as timing:
                await client.run(Node(level=1, width=options.n, collect=False))
        return timing.sample

    async def jetflow(label: str) -> Sample:
        async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(options.n)):
            await (await client.trigger(flows.boundary, WARM_UP)).result()
            async with bench.timed(label, options.n) as timing:
                joined = await (await client.trigger(flows.boundary, options.n)).result()
        if joined != options.n:
            raise RuntimeError(f"{joined} children were joined, not {options.n}")
        return timing.sample

    pair = await in_turn(options.rounds, floor, jetflow)
    title = f"boundary: spawn {options.n:,} children and join them at the step's boundary"
    large = options.n >= LARGE
    report = rate_report("boundary", title, "child", options, pair, goal=None if options.durable or large else 0.7)
    limit = 150 if large else 100
    grown = report.figures["worker_growth_mb"]
    report.goals.append(
        Goal(f"boundary: a worker's memory grows by less than {limit} MB, and did by {grown:.1f} MB", grown < limit)
    )
    return report


WORKLOAD: Final = Workload(
    name="boundary",
    summary="a step spawns N children and returns; the next step starts when all are done",
    n_is="children",
    n=100_000,
    run=run,
)
