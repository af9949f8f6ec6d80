"""A step spawns N children in a window: what its worker's memory grows by, and how many were open at most.

The floor spawns them in bulk, and leaves the join to the step's boundary. How many were open is told by the server's
own clock: from when a child's task was stored until its outcome was.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import Pair, in_turn, middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row, growth, rate_report
from benchmarks.workloads.workload import Workload
from jetflow import Client, Workflow
from jetflow.engine.tasks import StepAddress

WARM_UP: Final = 3000
MOST_MB: Final = 50
"""Megabytes that the memory of a worker may grow by."""


class _Measured(msgspec.Struct):
    sample: Sample
    most_open: int


async def run(options: Options) -> Report:
    """Measure."""

    async def measured(label: str, flow: Workflow[int, int], step: str) -> _Measured:
        limit = f"max_descendants={max(1_000_000, 2 * options.n)}"
        async with (
            jetflow_bench("window", options, settings=(limit,)) as (bench, client),
            asyncio.timeout(patience(options.n)),
        ):
            await (await client.trigger(flow, WARM_UP)).result()
            async with bench.timed(label, options.n) as timing:
                run = await client.trigger(flow, options.n)
                await run.result()
            return _Measured(timing.sample, await _most_open(client, StepAddress(run.id, run.id, step)))

    pair = await in_turn(
        options.rounds,
        lambda label: measured(label, flows.boundary, "spread"),
        lambda label: measured(label, flows.windowed, "run"),
    )
    samples = Pair([one.sample for one in pair.floor], [one.sample for one in pair.jetflow])
    title = f"window: {options.n:,} children, {flows.WINDOW:,} at a time; the floor spawns all at once"
    report = rate_report("window", title, "child", options, samples)
    most = [max(one.most_open for one in side) for side in (pair.floor, pair.jetflow)]
    grown = middle([growth(one.sample) for one in pair.jetflow])
    report.rows.append(Row("children open at most", most[0], most[1], ",.0f"))
    report.figures |= {"most_open": most[1], "floor_most_open": most[0]}
    report.goals += [
        Goal(f"window: at most {flows.WINDOW:,} open, and were {most[1]:,}", most[1] <= flows.WINDOW),
        Goal(f"window: memory grows by < {MOST_MB} MB, and grew by {grown:.1f} MB", grown < MOST_MB),
    ]
    return report


async def _most_open(client: Client, join: StepAddress) -> int:
    """Return how many children of a step were open at most."""
    session = client._session  # noqa: SLF001 - what the server has stamped is asked for by nobody else
    names, moments = session.names, [array("d"), array("d")]
    stored = (
        (names.tasks_stream, names.tasks_of_parent(join.root, join.run)),
        (names.records_stream, names.runs_of_join(join)),
    )
    for (stream, subject), times in zip(stored, moments, strict=True):
        async for page in session.store.everything(stream, subject, headers_only=True):
            times.extend([message.time for message in page])
    begun, ended = (sorted(times) for times in moments)
    most = gone = 0
    for number, moment in enumerate(begun, 1):
        while gone < len(ended) and ended[gone] < moment:
            gone += 1
        most = max(most, number - gone)
    return most


WORKLOAD: Final = Workload(
    name="window",
    summary="a step spawns N children a window at a time, against all at once",
    n_is="children",
    n=100_000,
    run=run,
    rounds=1,
)
