"""A run with N children of which 37 have failed is run again: how long that takes, and how many bodies run.

The rounds take in turn the run itself, in which they fail, and its rerun, in which nothing is broken any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import check
from benchmarks.workloads.workload import Workload
from jetflow import RunFailed

BROKEN: Final = flows.BROKEN
"""Children that fail in the first run."""

WARM_UP: Final = 200

AT_MOST: Final = 1.0
"""Seconds that the rerun of 10,000 may take."""


class _Round(msgspec.Struct):
    first: float
    again: float
    bodies: int


async def run(options: Options) -> Report:
    """Measure."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
        rounds = [
            await _round(options, f"round {number} of {options.rounds}", Path(scratch), samples)
            for number in range(1, options.rounds + 1)
        ]
    again, bodies = middle([one.again for one in rounds]), [one.bodies for one in rounds]
    per_s = options.n / again
    limit = AT_MOST * max(1.0, options.n / 10_000)
    return Report(
        workload="rerun",
        title=f"rerun: {options.n:,} children of which {BROKEN} have failed, run again",
        n=options.n,
        options=options,
        worker_rss_mb=samples[-1].worker_rss_mb,
        server_rss_mb=samples[-1].server_rss_mb,
        rows=[
            Row("the run in which they fail, s", None, middle([one.first for one in rounds]), ".2f"),
            Row("its rerun, s", None, again, ".2f"),
            Row("children a second of the rerun", None, per_s, ",.0f"),
            Row("bodies that ran in the rerun", None, middle(bodies), ".0f"),
        ],
        goals=[
            Goal(f"rerun: <= {limit:g} s, and is {again:.2f} s", again <= limit),
            Goal(f"rerun: {BROKEN} bodies run again, and are {bodies}", all(one == BROKEN for one in bodies)),
        ],
        figures={
            "rerun_s": again,
            "first_s": middle([one.first for one in rounds]),
            "bodies": bodies,
            "rounds_s": [round(one.again, 3) for one in rounds],
        },
    )


async def _round(options: Options, label: str, scratch: Path, samples: list[Sample]) -> _Round:
    broken, bodies = scratch / "broken", scratch / "bodies"
    async with jetflow_bench("rerun", options) as (bench, client), asyncio.timeout(2 * patience(options.n)):
        await (await client.trigger(flows.breaking, _asked(WARM_UP, scratch / "none", scratch / "warm"))).result()
        broken.write_bytes(b"")
        bodies.write_bytes(b"")
        began = perf_counter()
        first = await client.trigger(flows.breaking, _asked(options.n, broken, bodies))
        with contextlib.suppress(RunFailed):
            await first.result()
        took = perf_counter() - began
        before = bodies.stat().st_size
        broken.unlink()
        async with bench.timed(f"{label}, rerun", options.n) as timing:
            began = perf_counter()
            again = await client.rerun(first)
            total = await again.result()
            ended = perf_counter()
        check(total, options.n)
        samples.append(timing.sample)
        return _Round(took, ended - began, bodies.stat().st_size - before)


def _asked(count: int, broken: Path, bodies: Path) -> flows.Breaking:
    return flows.Breaking(count, max(1, count // BROKEN), str(broken), str(bodies))


WORKLOAD: Final = Workload(
    name="rerun",
    summary=f"a run of N children of which {BROKEN} have failed is run again",
    n_is="children",
    n=10_000,
    run=run,
)
