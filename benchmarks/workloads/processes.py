"""A fan-out on one worker process, and on two: each has its own loop, and the parent is in one of them."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import in_turn, middle
from benchmarks.options import Options
from benchmarks.report import Report, Row
from benchmarks.workloads.fanout import WARM_UP, check
from benchmarks.workloads.workload import Workload


async def run(options: Options) -> Report:
    """Measure."""

    async def fanout(label: str, workers: int) -> Sample:
        async with (
            jetflow_bench("fanout", options, workers=workers) as (bench, client),
            asyncio.timeout(patience(options.n)),
        ):
            await (await client.trigger(flows.fanout, WARM_UP)).result()
            async with bench.timed(f"{label}, {workers} worker processes", options.n) as timing:
                total = await (await client.trigger(flows.fanout, options.n)).result()
        check(total, options.n)
        return timing.sample

    pair = await in_turn(options.rounds, lambda label: fanout(label, 1), lambda label: fanout(label, 2))
    one, two = (options.n / middle([each.seconds for each in side]) for side in (pair.floor, pair.jetflow))
    cpu = [middle([each.worker_cpu for each in side]) / options.n * 1e6 for side in (pair.floor, pair.jetflow)]
    meters = pair.jetflow[-1]
    return Report(
        workload="processes",
        title=f"processes: {options.n:,} children on one worker process (floor) and on two",
        n=options.n,
        options=msgspec.structs.replace(options, workers=2),
        floor_per_s=one,
        jetflow_per_s=two,
        ratio=two / one,
        worker_rss_mb=meters.worker_rss_mb,
        server_rss_mb=meters.server_rss_mb,
        rows=[
            Row("children a second", one, two, ",.0f"),
            Row("worker CPU, us a child", cpu[0], cpu[1]),
        ],
        goals=[],
        figures={"two_to_one": two / one},
    )


WORKLOAD: Final = Workload(
    name="processes",
    summary="fan-out with one worker process and with two",
    n_is="children",
    n=20_000,
    run=run,
)
