"""What looking costs: questions about N children, what writers wait meanwhile, and a fan-out that is watched.

There is no floor: the bars stand in the goals. First the fan-out runs unseen and watched in turn, with 100,000 children
at most; then N children are stored, and each question is asked again and again while runs are triggered beside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec

from benchmarks import flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import WARM_UP
from benchmarks.workloads.workload import Workload
from jetflow import Client

WATCHED: Final = 100_000
"""Children of the fan-out that is watched, at most."""

ASKED: Final = 9
"""Times that each question is asked."""

BESIDE_EVERY: Final = 0.005
"""Seconds between two triggers beside the questions."""

PAUSE: Final = 0.25
"""Seconds between two questions, as a view that is looked at asks."""

TOTALS_WITHIN: Final = 100.0
PAGE_WITHIN: Final = 300.0
LONGEST_PUBLISH: Final = 100.0
"""Milliseconds."""

WATCHED_AT_MOST: Final = 1.02
"""How much longer a fan-out may take that is watched."""


async def run(options: Options) -> Report:
    """Measure."""
    alone, seen = await _watched(options)
    times, waits, counted = await _asked(options)
    rows = [
        Row(f"fan-out of {min(options.n, WATCHED):,}, unseen, s", None, median(one.seconds for one in alone)),
        Row("the same, watched, s", None, median(one.seconds for one in seen)),
        Row("server CPU, unseen, s", None, median(one.server_cpu for one in alone)),
        Row("server CPU, watched, s", None, median(one.server_cpu for one in seen)),
    ]
    rows += [Row(f"{name}, ms", None, median(found)) for name, found in times.items()]
    rows += [
        Row("publish beside, p50, ms", None, percentile(waits, 50)),
        Row("publish beside, p99, ms", None, percentile(waits, 99)),
        Row("publish beside, max, ms", None, max(waits)),
    ]
    ratio = median(two.seconds / one.seconds for one, two in zip(alone, seen, strict=True))
    cpu = median(two.server_cpu / one.server_cpu for one, two in zip(alone, seen, strict=True))
    rows += [Row("watched / unseen, time", None, ratio, ".3f"), Row("watched / unseen, server CPU", None, cpu, ".3f")]
    totals, described = median(times["totals"]), median(times["describe, children=0"])
    pages = max(median(found) for name, found in times.items() if name.startswith("children"))
    goals = [
        Goal(f"dashboard: all {options.n:,} children are counted, and {counted:,} were", counted == options.n),
        Goal(f"dashboard: totals <= {TOTALS_WITHIN:g} ms, and take {totals:.1f} ms", totals <= TOTALS_WITHIN),
        Goal(f"dashboard: describe <= {TOTALS_WITHIN:g} ms, and takes {described:.1f} ms", described <= TOTALS_WITHIN),
        Goal(f"dashboard: any page <= {PAGE_WITHIN:g} ms, and takes {pages:.1f} ms", pages <= PAGE_WITHIN),
        Goal(
            f"dashboard: a publish beside waits <= {LONGEST_PUBLISH:g} ms, and did {max(waits):.1f} ms",
            max(waits) <= LONGEST_PUBLISH,
        ),
        Goal(f"dashboard: watched <= {WATCHED_AT_MOST} x unseen, and is {ratio:.3f}", ratio <= WATCHED_AT_MOST),
    ]
    return Report(
        workload="dashboard",
        title=f"dashboard: questions about {options.n:,} children",
        n=options.n,
        options=options,
        rows=rows,
        goals=goals,
        figures={
            "watched_ratio": ratio,
            "watched_cpu_ratio": cpu,
            "asked_ms": {name: median(found) for name, found in times.items()},
            "publish_max_ms": max(waits),
            "unseen": msgspec.to_builtins(alone),
            "watched": msgspec.to_builtins(seen),
        },
    )


async def _watched(options: Options) -> tuple[list[Sample], list[Sample]]:
    """Run a fan-out unseen and watched in turn."""
    alone: list[Sample] = []
    seen: list[Sample] = []
    for number in range(options.rounds):
        both = [(alone, False), (seen, True)]
        for samples, watched in both if number % 2 == 0 else both[::-1]:
            samples.append(await _fanned(options, watched=watched))
    return alone, seen


async def _fanned(options: Options, *, watched: bool) -> Sample:
    count = min(options.n, WATCHED)
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(count)):
        await (await client.trigger(flows.boundary, WARM_UP)).result()
        async with bench.timed(f"{count:,} children, {'watched' if watched else 'unseen'}") as timing:
            run = await client.trigger(flows.boundary, count)
            looking = asyncio.create_task(_look_on(client, run.id)) if watched else None
            await run.result()
        if looking is not None:
            await looking
    return timing.sample


async def _look_on(client: Client, run: str) -> None:
    async with aclosing(client.watch(run)) as looks:
        async for _ in looks:
            pass


async def _asked(options: Options) -> tuple[dict[str, list[float]], list[float], int]:
    """Store the children, then ask. Returns milliseconds by question, those of publishes beside, and the count."""
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(options.n) + 300):
        async with bench.timed(f"{options.n:,} children to ask about", options.n):
            run = await client.trigger(flows.boundary, options.n)
            await run.result()
        questions: dict[str, Callable[[], Awaitable[Any]]] = {
            "totals": lambda: client.totals(run.id),
            "describe, children=0": lambda: client.describe(run.id, children=0),
            "describe, children=100": lambda: client.describe(run.id, children=100),
            "children, the first 100": lambda: client.children(run.id),
            "children, 100 in the middle": lambda: client.children(run.id, offset=options.n // 2),
            "children, the last 100": lambda: client.children(run.id, offset=options.n - 100),
            "children that failed": lambda: client.children(run.id, status="failed"),
            "newest 50 root runs": client.runs,
            "errors of the run": lambda: client.errors(run.id),
            "queues": client.queues,
        }
        waits: list[float] = []
        beside = asyncio.create_task(_trigger_beside(client, waits))
        times: dict[str, list[float]] = {}
        for name, ask in questions.items():
            for _ in range(ASKED):
                began = perf_counter()
                await ask()
                times.setdefault(name, []).append((perf_counter() - began) * 1000)
                await asyncio.sleep(PAUSE)
        beside.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beside
        return times, waits, (await client.totals(run.id)).totals.succeeded


async def _trigger_beside(client: Client, waits: list[float]) -> None:
    """Trigger runs of one child, and note how long each publish took, in milliseconds."""
    number = 0
    while True:
        began = perf_counter()
        await client.trigger(flows.leaf, flows.Leaf(number))
        waits.append((perf_counter() - began) * 1000)
        number += 1
        await asyncio.sleep(BESIDE_EVERY)


WORKLOAD: Final = Workload(
    name="dashboard",
    summary="what it costs to ask about N children, and to watch a fan-out",
    n_is="children",
    n=500_000,
    run=run,
)
