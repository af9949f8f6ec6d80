"""A retry storm: N runs whose first attempt fails and that are tried again after a delay, many at once.

Twice: with a delay that a worker may hold in memory, and with one that is long enough for a timer of the broker. A
floor has no such thing: beside jetflow's figures stand those of the same runs when nothing fails.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Report, Row
from benchmarks.workloads.chain import ended_runs
from benchmarks.workloads.workload import Workload

WARM_UP: Final = 100


class _Round(msgspec.Struct):
    calm: Sample
    held: Sample
    timed: Sample


async def run(options: Options) -> Report:
    """Measure."""

    async def one(label: str) -> _Round:
        async with jetflow_bench("retries", options) as (bench, client), asyncio.timeout(patience(2 * options.n)):
            for warm in (flows.failing_never, flows.failing_short, flows.failing_long):
                await ended_runs(bench, client, warm, WARM_UP)
            async with bench.timed(f"{label}, nothing fails") as calm:
                await ended_runs(bench, client, flows.failing_never, options.n)
            async with bench.timed(f"{label}, again after {flows.SHORT_DELAY} s") as held:
                await ended_runs(bench, client, flows.failing_short, options.n)
            async with bench.timed(f"{label}, again after {flows.LONG_DELAY} s") as timed:
                await ended_runs(bench, client, flows.failing_long, options.n)
        return _Round(calm.sample, held.sample, timed.sample)

    rounds = [await one(f"round {number} of {options.rounds}") for number in range(1, options.rounds + 1)]
    calm = _Figures.of([each.calm for each in rounds], options.n, 0.0)
    held = _Figures.of([each.held for each in rounds], options.n, flows.SHORT_DELAY)
    timed = _Figures.of([each.timed for each in rounds], options.n, flows.LONG_DELAY)
    return Report(
        workload="retries",
        title=f"retries: {options.n:,} runs that fail once, many at once; floor: the same, and nothing fails",
        n=options.n,
        options=options,
        floor_per_s=calm.per_s,
        jetflow_per_s=timed.per_s,
        ratio=timed.per_s / calm.per_s,
        worker_rss_mb=middle([each.timed.worker_rss_mb for each in rounds]),
        server_rss_mb=middle([each.timed.server_rss_mb for each in rounds]),
        rows=[
            *_rows(f"again after {flows.SHORT_DELAY} s", calm, held),
            *_rows(f"again after {flows.LONG_DELAY} s", calm, timed),
        ],
        goals=[],
        figures={
            "held_per_s": held.per_s,
            "timer_per_s": timed.per_s,
            "calm_cpu_us": calm.cpu_us,
            "held_cpu_us": held.cpu_us,
            "timer_cpu_us": timed.cpu_us,
            "samples": rounds,
        },
    )


class _Figures(msgspec.Struct):
    """The medians of one kind of runs: runs a second beyond the delay, and CPU microseconds a run."""

    per_s: float
    worker_us: float
    server_us: float

    @classmethod
    def of(cls, samples: list[Sample], count: int, delay: float) -> _Figures:
        return cls(
            per_s=count / middle([max(sample.seconds - delay, 1e-3) for sample in samples]),
            worker_us=middle([sample.worker_cpu for sample in samples]) / count * 1e6,
            server_us=middle([sample.server_cpu for sample in samples]) / count * 1e6,
        )

    @property
    def cpu_us(self) -> float:
        return self.worker_us + self.server_us


def _rows(name: str, calm: _Figures, failing: _Figures) -> list[Row]:
    return [
        Row(f"{name}: runs a second", calm.per_s, failing.per_s, ",.0f"),
        Row("  worker CPU, us a run", calm.worker_us, failing.worker_us),
        Row("  server CPU, us a run", calm.server_us, failing.server_us),
    ]


WORKLOAD: Final = Workload(
    name="retries",
    summary="runs that fail once and are tried again, in memory and by a timer of the broker",
    n_is="runs of each kind",
    n=10_000,
    run=run,
)
