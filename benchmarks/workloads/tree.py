"""A recursive fan-out four levels deep: each node spawns and joins the nodes below it, down to N leaves."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks import flows
from benchmarks.bare.wire import Node
from benchmarks.lab import Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import in_turn
from benchmarks.options import Options
from benchmarks.report import Report, rate_report
from benchmarks.workloads.workload import Workload

LEVELS: Final = 4


async def run(options: Options) -> Report:
    """Measure."""
    width = max(1, round(options.n ** (1 / LEVELS)))
    runs = sum(width**level for level in range(1, LEVELS + 1))
    expected = width**LEVELS * (width - 1) // 2

    async def floor(label: str) -> Sample:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(runs)):
            await client.run(Node(level=2, width=10))
            async with bench.timed(label, runs) as timing:
                total = await client.run(Node(level=LEVELS, width=width))
        _check(total, expected)
        return timing.sample

    async def jetflow(label: str) -> Sample:
        async with jetflow_bench("tree", options) as (bench, client), asyncio.timeout(patience(runs)):
            await (await client.trigger(flows.tree, flows.Branch(0, 2, 10))).result()
            async with bench.timed(label, runs) as timing:
                total = await (await client.trigger(flows.tree, flows.Branch(0, LEVELS, width))).result()
        _check(total, expected)
        return timing.sample

    pair = await in_turn(options.rounds, floor, jetflow)
    shape = " x ".join([str(width)] * LEVELS)
    return rate_report("tree", f"tree: a recursive fan-out of {shape}, {runs:,} runs", "run", options, pair, count=runs)


def _check(total: int, expected: int) -> None:
    if total != expected:
        raise RuntimeError(f"the tree's sum is {total}, and must be {expected}")


WORKLOAD: Final = Workload(
    name="tree",
    summary="a recursive fan-out, four levels deep",
    n_is="leaves (the fourth power of a whole number)",
    n=10_000,
    run=run,
)
