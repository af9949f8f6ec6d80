"""A step spawns N no-op children with typed inputs, joins them in the step, and sums their results."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.bare.wire import Node
from benchmarks.lab import Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import in_turn, middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row, rate_report
from benchmarks.workloads.workload import Workload

WARM_UP: Final = 200
"""Children that each side runs before the clock starts."""


async def run(options: Options) -> Report:
    """Measure."""

    async def floor(label: str) -> Sample:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            await client.run(Node(level=1, width=WARM_UP))
            async with bench.timed(label, options.n) as timing:
                total = await client.run(Node(level=1, width=options.n))
        check(total, options.n)
        return timing.sample

    async def jetflow(label: str, options: Options = options) -> Sample:
        async with jetflow_bench("fanout", options) as (bench, client), asyncio.timeout(patience(options.n)):
            await (await client.trigger(flows.fanout, WARM_UP)).result()
            async with bench.timed(label, options.n) as timing:
                total = await (await client.trigger(flows.fanout, options.n)).result()
        check(total, options.n)
        return timing.sample

    async def not_durable(label: str) -> Sample:
        return await jetflow(label, msgspec.structs.replace(options, durable=False))

    title = f"fanout: spawn, join and sum {options.n:,} children"
    if not options.durable:
        pair = await in_turn(options.rounds, floor, jetflow)
        return rate_report("fanout", title, "child", options, pair, goal=0.7)
    fast: list[Sample] = []

    async def both(label: str) -> Sample:
        sample = await jetflow(label)
        fast.append(await not_durable(f"{label}, not durable"))
        return sample

    pair = await in_turn(options.rounds, floor, both)
    report = rate_report("fanout", title, "child", options, pair)
    _compare_durable(report, fast)
    return report


def _compare_durable(report: Report, not_durable: list[Sample]) -> None:
    """Add to a durable report what the same costs when the server does not flush."""
    per_s = report.n / middle([sample.seconds for sample in not_durable])
    kept = (report.jetflow_per_s or 0.0) / per_s
    report.rows.append(Row("children a second, not durable", None, per_s, ",.0f"))
    report.figures |= {"jetflow_not_durable_per_s": per_s, "durable_ratio": kept}
    report.goals.append(Goal(f"fanout: durable >= 0.3 x not durable, and is {kept:.2f} x", kept >= 0.3))


def check(total: int, count: int) -> None:
    """Compare the sum of the results with what it must be.

    Raises:
        RuntimeError: it is another.
    """
    if total != count * (count - 1) // 2:
        raise RuntimeError(f"the sum of the results of {count} children is {total}: wrong")


WORKLOAD: Final = Workload(
    name="fanout",
    summary="a step spawns N no-op children, joins and sums them",
    n_is="children",
    n=10_000,
    run=run,
)
