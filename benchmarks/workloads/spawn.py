"""Bulk spawn alone, with nobody who runs the children, against a bare fast-ingest publish of the same messages."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.bare.spawn import SPAWN, make_spawn_stream
from benchmarks.lab import Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import in_turn
from benchmarks.options import Options
from benchmarks.report import Report, rate_report
from benchmarks.workloads.workload import Workload

WARM_UP: Final = 1000
_LOOK_AGAIN: Final = 0.02


async def run(options: Options) -> Report:
    """Measure."""

    async def floor(label: str) -> Sample:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            await make_spawn_stream(client.nats)
            await client.nats.request(SPAWN, str(WARM_UP).encode(), timeout=60)
            async with bench.timed(label) as timing:
                answer = await client.nats.request(SPAWN, str(options.n).encode(), timeout=patience(options.n))
        return msgspec.structs.replace(timing.sample, seconds=float(answer.data))

    async def jetflow(label: str) -> Sample:
        async with jetflow_bench("spawn", options) as (bench, client), asyncio.timeout(patience(options.n)):
            with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
                file = Path(scratch, "seconds")
                await client.trigger(flows.spawn_only, flows.Noted(WARM_UP, f"{file}-warm"))
                await noted(Path(f"{file}-warm"))
                async with bench.timed(label) as timing:
                    await client.trigger(flows.spawn_only, flows.Noted(options.n, str(file)))
                    seconds = await noted(file)
        return msgspec.structs.replace(timing.sample, seconds=seconds)

    pair = await in_turn(options.rounds, floor, jetflow)
    title = f"spawn: {options.n:,} children spawned in bulk, none of them run"
    return rate_report("spawn", title, "child", options, pair, goal=0.7)


async def noted(file: Path) -> float:
    """Wait until a step has written a number down, and return it."""
    while (number := _read(file)) is None:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_LOOK_AGAIN)
    return number


def _read(file: Path) -> float | None:
    return float(file.read_text()) if file.exists() else None


WORKLOAD: Final = Workload(
    name="spawn",
    summary="bulk spawn alone against a bare fast-ingest publish",
    n_is="children",
    n=50_000,
    run=run,
)
