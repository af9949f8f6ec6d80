"""Runs are triggered at a steady rate and deleted a minute after their end: does memory stay, and do publishers wait?

The rate is `RATE`, whether or not the server keeps up. The first two minutes fill what is kept and do not count for
memory; a shorter run keeps less, in proportion.
"""

from __future__ import annotations

import asyncio
from statistics import fmean
from time import perf_counter
from typing import Any, Final

import msgspec
import nats

from benchmarks import flows, machine
from benchmarks.bare.wire import ask
from benchmarks.lab import Bench, Sample, jetflow_bench
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.chain import ended_runs
from benchmarks.workloads.workload import Workload
from jetflow import Client

RATE: Final = 1000
"""Runs that are triggered a second."""

KEEP: Final = 60.0
"""Seconds for which runs are kept."""

BATCH: Final = 10
"""Runs that are due at one time."""

FILLS: Final = 2
"""How many times as long as runs are kept it takes until memory counts."""

LOOK_EVERY: Final = 2.0
"""Seconds between two readings of memory."""

LONGEST: Final = 0.05
"""Seconds that a publish may wait at p99.9."""

FLAT: Final = 0.15
"""How far memory may be from its mean."""


class Reading(msgspec.Struct):
    """What was used at one time: seconds since the start, MB, records that are stored."""

    at: float
    server_mb: float
    worker_mb: float
    records: int


async def run(options: Options) -> Report:
    """Measure."""
    keep = min(KEEP, options.n / 10)
    settings = (f"keep={keep}", f"sweep_every={min(30.0, keep / 2)}")
    async with jetflow_bench("history", options, settings=settings) as (bench, client):
        await ended_runs(bench, client, flows.one_step, RATE)
        async with bench.timed(f"{options.n} s of {RATE:,} runs a second, kept for {keep:g} s") as timing:
            watching = asyncio.create_task(_watch(bench))
            waits, late = await _trigger(client, options.n)
            watching.cancel()
            readings = await watching
    return _report(options, keep, timing.sample, waits, late, readings)


async def _trigger(client: Client, seconds: int) -> tuple[list[float], float]:
    """Trigger at the rate; return how long each publish took, and how late the last began."""
    waits: list[float] = []
    under_way: set[asyncio.Task[None]] = set()
    began = perf_counter()
    now = began

    async def one(number: int) -> None:
        at = perf_counter()
        await client.trigger(flows.one_step, flows.Leaf(number))
        waits.append(perf_counter() - at)

    for number in range(0, seconds * RATE, BATCH):
        due = began + number / RATE
        if (left := due - perf_counter()) > 0:
            await asyncio.sleep(left)
        now = perf_counter()
        for at in range(BATCH):
            task = asyncio.create_task(one(number + at))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    return waits, now - began - seconds


async def _watch(bench: Bench) -> list[Reading]:
    readings: list[Reading] = []
    began = perf_counter()
    connection = await nats.connect(bench.server.url)
    try:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            state: dict[str, Any] = (await ask(connection, f"STREAM.INFO.{bench.records_stream}"))["state"]
            workers = sum(machine.rss_mb(worker.pid) for worker in bench.workers)
            records = int(state["messages"])
            readings.append(Reading(perf_counter() - began, machine.rss_mb(bench.server_pid), workers, records))
    except asyncio.CancelledError:
        return readings
    finally:
        await connection.close()


def _report(
    options: Options, keep: float, sample: Sample, waits: list[float], late: float, readings: list[Reading]
) -> Report:
    counted = [reading for reading in readings if reading.at > FILLS * keep]
    server, worker = ([getattr(reading, side) for reading in counted] for side in ("server_mb", "worker_mb"))
    p50, p99, p999, most = (percentile(waits, percent) for percent in (50, 99, 99.9, 100))
    apart = {"server": _apart(server), "worker": _apart(worker)}
    stored = max(reading.records for reading in counted)
    runs = options.n * RATE
    rows = [
        Row("runs triggered a second", None, len(waits) / sample.seconds, ",.0f"),
        Row("a publish waits, p50, ms", None, p50 * 1000),
        Row("a publish waits, p99, ms", None, p99 * 1000),
        Row("a publish waits, p99.9, ms", None, p999 * 1000),
        Row("a publish waits, max, ms", None, most * 1000),
        Row("most records stored", None, stored, ",.0f"),
        Row("server memory, mean, MB", None, fmean(server)),
        Row("server memory, least, MB", None, min(server)),
        Row("server memory, most, MB", None, max(server)),
        Row("worker memory, mean, MB", None, fmean(worker)),
        Row("worker memory, least, MB", None, min(worker)),
        Row("worker memory, most, MB", None, max(worker)),
        Row("server CPU, us a run", None, sample.server_cpu / runs * 1e6),
        Row("worker CPU, us a run", None, sample.worker_cpu / runs * 1e6),
    ]
    goals = [
        Goal(f"history: the last trigger is no more than 1 s late, and is {late:.2f} s", late <= 1),
        Goal(f"history: p99.9 of a publish <= {LONGEST * 1000:g} ms, and is {p999 * 1000:.1f} ms", p999 <= LONGEST),
        *(
            Goal(f"history: {side} memory within {FLAT:.0%} of its mean, and is within {far:.1%}", far <= FLAT)
            for side, far in apart.items()
        ),
    ]
    return Report(
        workload="history",
        title=f"history: {RATE:,} runs a second for {options.n} s, kept for {keep:g} s",
        n=options.n,
        options=options,
        worker_rss_mb=fmean(worker),
        server_rss_mb=fmean(server),
        rows=rows,
        goals=goals,
        figures={
            "publish_p999_ms": p999 * 1000,
            "late_s": late,
            "records": stored,
            "apart": apart,
            "keep_s": keep,
            "readings": msgspec.to_builtins(readings),
        },
    )


def _apart(values: list[float]) -> float:
    """Return how far values are from their mean at most, as a part of it."""
    mean = fmean(values)
    return max(max(values) - mean, mean - min(values)) / mean


WORKLOAD: Final = Workload(
    name="history",
    summary=f"{RATE:,} runs a second that are deleted after a minute: memory, and what a publish waits",
    n_is="seconds",
    n=600,
    run=run,
    rounds=1,
)
