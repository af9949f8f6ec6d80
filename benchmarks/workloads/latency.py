"""From the trigger of a no-op to its result, one at a time.

The floor makes the same hops: a task stored in a stream, delivered to a worker, its result stored, republished to
whoever triggered it.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from benchmarks import flows
from benchmarks.bare.wire import Node
from benchmarks.lab import Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import in_turn
from benchmarks.options import Options
from benchmarks.report import Goal, Report, latency_report
from benchmarks.workloads.workload import Workload

WARM_UP: Final = 100


async def run(options: Options) -> Report:
    """Measure."""
    meters: list[Sample] = []

    async def floor(label: str) -> list[float]:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            for index in range(WARM_UP):
                await client.run(Node(index))
            times: list[float] = []
            async with bench.timed(label):
                for index in range(options.n):
                    began = perf_counter()
                    await client.run(Node(index))
                    times.append(perf_counter() - began)
        return times

    async def jetflow(label: str) -> list[float]:
        async with jetflow_bench("latency", options) as (bench, client), asyncio.timeout(patience(options.n)):
            for index in range(WARM_UP):
                await (await client.trigger(flows.one_step, flows.Leaf(index))).result()
            times: list[float] = []
            async with bench.timed(label) as timing:
                for index in range(options.n):
                    began = perf_counter()
                    run = await client.trigger(flows.one_step, flows.Leaf(index))
                    await run.result()
                    times.append(perf_counter() - began)
        meters.append(timing.sample)
        return times

    pair = await in_turn(options.rounds, floor, jetflow)
    report = latency_report(
        "latency",
        f"latency: trigger to result of a no-op, one at a time, {options.n:,} a round",
        options,
        [time for times in pair.floor for time in times],
        [time for times in pair.jetflow for time in times],
        meters[-1],
    )
    report.goals += goals(report)
    return report


def goals(report: Report) -> list[Goal]:
    """Return what the latencies should be."""
    p50, p99, ratio = report.figures["p50_ms"], report.figures["p99_ms"], report.ratio or 0.0
    return [
        Goal(f"latency: p50 <= 2.5 x the bare hops, and is {ratio:.2f} x", ratio <= 2.5),
        Goal(f"latency: p99 <= 5 x its own p50, and is {p99 / p50:.2f} x", p99 <= 5 * p50),
        Goal(f"latency: p50 < 1.5 ms, and is {p50:.2f} ms", p50 < 1.5),
    ]


WORKLOAD: Final = Workload(
    name="latency",
    summary="trigger to result of a no-op, one at a time",
    n_is="runs a round",
    n=2000,
    run=run,
)
