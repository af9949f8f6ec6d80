"""How soon urgent runs begin before a backlog of low ones, on a few slots."""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec

from benchmarks import newer_flows
from benchmarks.flows import Leaf
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.workload import Workload
from jetflow import Client

URGENT: Final = 100
"""Urgent runs of a round, one each `EVERY`."""

EVERY: Final = 0.1
"""Seconds between two of them."""

WITHIN_MS: Final = 100.0
"""Milliseconds within which an urgent run is to begin, at the 99th percentile."""


class _Round(msgspec.Struct):
    idle: list[float]
    burst: float
    urgent: list[float]
    lows: int
    sample: Sample


async def run(options: Options) -> Report:
    """Measure."""
    rounds = [await _one(options, f"round {number + 1} of {options.rounds}") for number in range(options.rounds)]
    return _report(options, rounds)


async def _one(options: Options, label: str) -> _Round:
    async with jetflow_bench("priorities", options) as (bench, client), asyncio.timeout(10 * patience(options.n)):
        idle = [await _begins(client, number) for number in range(URGENT)]
        async with bench.timed(label) as timing:
            lows = [Leaf(URGENT + number) for number in range(options.n)]
            await client.trigger_many(newer_flows.leveled, lows, level="low")
            burst = await _begins(client, -1)
            await _admitted(client)
            before = await _waiting(client)
            asked: list[asyncio.Task[float]] = []
            for number in range(URGENT):
                asked.append(asyncio.create_task(_begins(client, -2 - number)))
                await asyncio.sleep(EVERY)
            after = await _waiting(client)
            urgent = await asyncio.gather(*asked)
        assert after, f"the backlog was worked off before the last urgent run came: --n {2 * options.n}"
    return _Round(idle, burst, urgent, before - after, timing.sample)


async def _begins(client: Client, number: int) -> float:
    """Trigger an urgent run, and return after how many milliseconds its body began."""
    asked = time()
    run = await client.trigger(newer_flows.leveled, Leaf(number), level="urgent")
    return 1000 * (await run.result() - asked)


async def _admitted(client: Client) -> None:
    """Wait until all runs stand in the queues of their levels."""
    left = 1
    while left:
        left = sum(row.waiting + row.held for row in await client.queues() if row.step == "_admit")


async def _waiting(client: Client) -> int:
    return sum(row.waiting for row in await client.queues() if row.step == "run=low")


def _report(options: Options, rounds: list[_Round]) -> Report:
    idle, urgent = (sorted(one for each in rounds for one in getattr(each, kind)) for kind in ("idle", "urgent"))
    p99, burst = percentile(urgent, 99), max(one.burst for one in rounds)
    lows = sum(one.lows for one in rounds) / sum(one.sample.seconds for one in rounds)
    return Report(
        workload="priorities",
        title=f"priorities: {options.n:,} low runs of {1000 * newer_flows.LEVELED_FOR:.0f} ms, {options.slots} slots",
        n=options.n,
        options=options,
        jetflow_per_s=lows,
        rows=[
            Row("ms to the begin of an urgent run, idle, p50", None, percentile(idle, 50), ",.1f"),
            Row("  before the backlog, p50", None, percentile(urgent, 50), ",.1f"),
            Row("  p99", None, p99, ",.1f"),
            Row("  the longest", None, urgent[-1], ",.1f"),
            Row("  triggered behind the burst itself", None, burst, ",.1f"),
        ],
        goals=[
            Goal(
                f"priorities: urgent ones begin within {WITHIN_MS:.0f} ms at p99, and do in {p99:,.0f}",
                p99 <= WITHIN_MS,
            )
        ],
        figures={"p50_ms": percentile(urgent, 50), "p99_ms": p99, "burst_ms": burst},
    )


WORKLOAD: Final = Workload(
    name="priorities",
    summary="the begin of urgent runs before a backlog of low ones",
    n_is="low runs",
    n=10_000,
    run=run,
    rounds=1,
    slots=10,
)
