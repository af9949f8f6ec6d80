"""Workflows of three steps against runs of one step, many at once; the client triggers them and counts what has ended.

The client listens on one subject for the outcomes of all runs, so that it costs little beside what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import nats
from nats.aio.msg import Msg

from benchmarks import flows
from benchmarks.bare.client import BareClient
from benchmarks.bare.wire import Node
from benchmarks.lab import NAMESPACE, Bench, Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import Pair, in_turn, middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row, rate_report
from benchmarks.workloads.workload import Workload
from jetflow import Client, Workflow
from jetflow.wire.subjects import Subjects

WARM_UP: Final = 100
UNDER_WAY: Final = 500
"""Triggers that the client makes at once."""


class _Both(msgspec.Struct):
    one: Sample
    three: Sample


async def run(options: Options) -> Report:
    """Measure."""

    async def floor(label: str) -> _Both:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            await _bare_runs(client, WARM_UP, 3)
            async with bench.timed(f"{label}, one step") as one:
                await _bare_runs(client, options.n, 1)
            async with bench.timed(f"{label}, three steps") as three:
                await _bare_runs(client, options.n, 3)
        return _Both(one.sample, three.sample)

    async def jetflow(label: str) -> _Both:
        async with jetflow_bench("chain", options) as (bench, client), asyncio.timeout(patience(options.n)):
            await ended_runs(bench, client, flows.one_step, WARM_UP)
            await ended_runs(bench, client, flows.three_steps, WARM_UP)
            async with bench.timed(f"{label}, one step") as one:
                await ended_runs(bench, client, flows.one_step, options.n)
            async with bench.timed(f"{label}, three steps") as three:
                await ended_runs(bench, client, flows.three_steps, options.n)
        return _Both(one.sample, three.sample)

    pair = await in_turn(options.rounds, floor, jetflow)
    ones = Pair([both.one for both in pair.floor], [both.one for both in pair.jetflow])
    threes = Pair([both.three for both in pair.floor], [both.three for both in pair.jetflow])
    report = rate_report("chain", f"chain: {options.n:,} runs of three steps, many at once", "run", options, threes)
    floor_one, jetflow_one = (
        options.n / middle([sample.seconds for sample in side]) for side in (ones.floor, ones.jetflow)
    )
    floor_cost = floor_one / (report.floor_per_s or 1)
    cost = jetflow_one / (report.jetflow_per_s or 1)
    report.rows += [
        Row("one-step runs a second", floor_one, jetflow_one, ",.0f"),
        Row("cost of three steps, one-step runs", floor_cost, cost, ".2f"),
    ]
    report.figures |= {
        "one_step_floor_per_s": floor_one,
        "one_step_jetflow_per_s": jetflow_one,
        "cost_ratio": cost,
        "floor_cost_ratio": floor_cost,
    }
    report.goals.append(Goal(f"chain: three steps cost <= 3.5 x one step, and do {cost:.2f} x", cost <= 3.5))
    return report


async def _bare_runs(client: BareClient, count: int, steps: int) -> None:
    results: list[asyncio.Future[int]] = []
    for index in range(count):
        results.append(await client.trigger(Node(index, steps=steps)))
        if not index % 100:
            await client.room()
    await asyncio.gather(*results)


async def ended_runs(bench: Bench, client: Client, workflow: Workflow[flows.Leaf, int], count: int) -> None:
    """Trigger runs, many at once, and wait until all have ended."""

    async def trigger(numbers: range) -> None:
        for number in numbers:
            await client.trigger(workflow, flows.Leaf(number))

    async with _ended(bench.server.url, count) as ended:
        async with asyncio.TaskGroup() as group:
            for start in range(min(UNDER_WAY, count)):
                group.create_task(trigger(range(start, count, UNDER_WAY)))
        await ended.wait()


@asynccontextmanager
async def _ended(url: str, count: int) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set when ``count`` runs have ended."""
    left, wrong, ended = count, 0, asyncio.Event()

    async def on_outcome(message: Msg) -> None:
        nonlocal left, wrong
        left -= 1
        wrong += b'"status":"succeeded"' not in message.data
        if left == 0:
            ended.set()

    listener = await nats.connect(url)
    try:
        ends = Subjects(NAMESPACE).live_run_by_id("*")
        listening: Any = await listener.subscribe(ends, cb=on_outcome, pending_msgs_limit=0, pending_bytes_limit=0)
        await listener.flush()
        yield ended
        await listening.unsubscribe()
        if wrong:
            raise RuntimeError(f"{wrong} of {count} runs did not succeed")
    finally:
        await listener.close()


WORKLOAD: Final = Workload(
    name="chain",
    summary="runs of three steps against runs of one, many at once",
    n_is="runs",
    n=5000,
    run=run,
)
