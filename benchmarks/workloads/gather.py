"""A step waits for N children in as many places, by a gather of their results; the floor is one join of the same."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import in_turn
from benchmarks.options import Options
from benchmarks.report import Goal, Report, rate_report
from benchmarks.workloads.fanout import WARM_UP, check
from benchmarks.workloads.workload import Workload
from jetflow import Workflow

MOST: Final = 1.3
"""How many times as long as a join a gather may take."""


async def run(options: Options) -> Report:
    """Measure."""

    async def measured(label: str, flow: Workflow[int, int]) -> Sample:
        async with jetflow_bench("gather", options) as (bench, client), asyncio.timeout(patience(options.n)):
            await (await client.trigger(flow, WARM_UP)).result()
            async with bench.timed(label, options.n) as timing:
                total = await (await client.trigger(flow, options.n)).result()
        check(total, options.n)
        return timing.sample

    pair = await in_turn(
        options.rounds, lambda label: measured(label, flows.fanout), lambda label: measured(label, flows.gather)
    )
    title = f"gather: {options.n:,} results in a gather; the floor is a join of as many"
    report = rate_report("gather", title, "child", options, pair)
    times = 1 / (report.ratio or 1.0)
    report.figures["times_a_join"] = times
    report.goals.append(Goal(f"gather: <= {MOST:g} x a join, and is {times:.2f} x", times <= MOST))
    return report


WORKLOAD: Final = Workload(
    name="gather",
    summary="a step gathers the results of N children one by one, against one join",
    n_is="children",
    n=10_000,
    run=run,
)
