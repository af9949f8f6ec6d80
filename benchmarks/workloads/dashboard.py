"""What looking costs: the bars of the dashboard, each with its figure.

There is no floor: the bars stand in the goals. In turn: a fan-out of 100,000 at most runs unseen, with its page open,
watched by a client, and waited for by `jetflow trigger --wait` on a terminal, while publishers beside it note what they
wait for; N children are stored, and each question is asked again and again; the pages are opened in a browser, of
100,000 children at most that end while they are looked at, and of twice N; and the tests that hold the other bars run.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from random import randrange
from statistics import median
from time import perf_counter
from typing import Any, Final

from benchmarks import flows
from benchmarks.held import held
from benchmarks.lab import jetflow_bench, patience
from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.pages import JUMPS as PAGE_JUMPS
from benchmarks.pages import pages
from benchmarks.report import Goal, Report, Row
from benchmarks.watching import goals_of, rows_of, seen
from benchmarks.workloads.workload import Workload
from jetflow import Client

ASKED: Final = 9
"""Times that each question is asked."""

BESIDE_EVERY: Final = 0.005
"""Seconds between two triggers beside the questions."""

PAUSE: Final = 0.25
"""Seconds between two questions, as a view that is looked at asks."""

JUMPS: Final = 40
"""Pages that are asked for in places that were not asked for before."""

TOTALS_WITHIN: Final = 100.0
PAGE_WITHIN: Final = 300.0
"""Milliseconds."""

OPENED: Final = 100_000
"""Children of the table that is opened and jumped about in, at most."""

LIVE: Final = 120.0
"""Seconds for which a table stays open while its children end."""

ROWS_WITHIN: Final = 700.0
JUMP_WITHIN: Final = 300.0
MANY_WITHIN: Final = 1500.0
"""Milliseconds; the last one of twice as many children as were asked for, 1,000,000 unless told otherwise."""

ROWS_AT_MOST: Final = 80
HEAP_AT_MOST: Final = 40.0
"""Rows in the document, and MB of 10^6 bytes."""

PARTS: Final = ("fan-out", "questions", "pages", "million", "tests")


async def run(options: Options) -> Report:
    """Measure."""
    report = Report(
        workload="dashboard",
        title=f"dashboard: what looking at {options.n:,} children costs",
        n=options.n,
        options=options,
        rows=[],
        goals=[],
        figures={},
    )
    measures = {"fan-out": _fan_out, "questions": _questions, "pages": _pages, "million": _million, "tests": _tests}
    for part in PARTS if options.part is None else (options.part,):
        await measures[part](options, report)
    report.goals.sort(key=lambda goal: not goal.text.startswith("dashboard: bar"))
    return report


async def _fan_out(options: Options, report: Report) -> None:
    found = await seen(options)
    report.rows += rows_of(found, options)
    report.goals += goals_of(found)
    report.figures["seen"] = found


async def _questions(options: Options, report: Report) -> None:
    times, waits, counted = await _asked(options)
    report.rows += [Row(f"{name}, ms", None, median(found)) for name, found in times.items()]
    report.rows += [
        Row("jump, p95, ms", None, percentile(times["jump"], 95)),
        Row("publish beside questions, p50, ms", None, percentile(waits, 50)),
        Row("publish beside questions, max, ms", None, max(waits)),
    ]
    pages = max(median(found) for name, found in times.items() if name.startswith("children"))
    of = f"of {options.n:,} children"
    limits = [
        (f"totals {of}, ms", median(times["totals"]), TOTALS_WITHIN),
        (f"totals {of} when the run is over, ms", median(times["totals again"]), TOTALS_WITHIN),
        (f"describe with none {of}, ms", median(times["describe, children=0"]), TOTALS_WITHIN),
        (f"any page {of}, ms", pages, PAGE_WITHIN),
    ]
    report.goals.append(
        Goal(f"dashboard: all {options.n:,} children are counted, and {counted:,} were", counted == options.n)
    )
    report.goals += [_limit(*limit) for limit in limits]
    report.figures["asked_ms"] = {name: median(found) for name, found in times.items()}
    report.figures["publish_max_ms"] = max(waits)


async def _pages(options: Options, report: Report) -> None:
    """Open the table of children that end meanwhile."""
    few = min(options.n, OPENED)
    async with (
        jetflow_bench("dashboard", options) as (bench, client),
        asyncio.timeout(patience(few) + 6 * LIVE),
        pages(bench.server.url) as looking,
    ):
        async with bench.timed(f"{few:,} children, looked at for {LIVE:.0f} s", few):
            run = await client.trigger(flows.slowly, few)
            heap = await looking.stays(run.id, LIVE)
            await run.result()
        opened = await looking.table(run.id, jumps=PAGE_JUMPS)
    report.rows += [
        Row(f"table of {few:,}: jump, median, ms", None, opened.jump_ms),
        Row(f"table of {few:,}: totals, ms", None, opened.totals_ms),
    ]
    report.goals += [
        _limit(f"bar 1 {few:,} children: first rows, ms", opened.rows_ms, ROWS_WITHIN),
        _limit(f"bar 1 {few:,} children: a jump, p95, ms", opened.jump_p95_ms, JUMP_WITHIN),
        _limit(f"bar 1 {few:,} children: rows in the document", opened.most_rows, ROWS_AT_MOST),
        _limit(f"bar 1 {few:,} children: heap after {LIVE:.0f} s live, MB", heap, HEAP_AT_MOST),
    ]
    report.figures["pages"] = {"heap_mb": heap, "few": opened}


async def _million(options: Options, report: Report) -> None:
    """Open the table of very many children."""
    many = 2 * options.n
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(many)):
        async with bench.timed(f"{many:,} children, for their table", many):
            run = await client.trigger(flows.boundary, many)
            await run.result()
        async with pages(bench.server.url) as looking:
            large = await looking.table(run.id, jumps=PAGE_JUMPS)
    report.rows += [
        Row(f"table of {many:,}: jump, median, ms", None, large.jump_ms),
        Row(f"table of {many:,}: jump, p95, ms", None, large.jump_p95_ms),
        Row(f"table of {many:,}: rows in the document", None, large.most_rows, ".0f"),
    ]
    report.goals += [
        _limit(f"bar 1 {many:,} children: totals, ms", large.totals_ms, MANY_WITHIN),
        _limit(f"bar 1 {many:,} children: first rows, ms", large.rows_ms, MANY_WITHIN),
    ]
    report.figures["million"] = large


async def _tests(options: Options, report: Report) -> None:
    sys.stderr.write("the tests that hold the other bars\n")
    report.goals += await held()


def _limit(name: str, found: float, most: float) -> Goal:
    return Goal(f"dashboard: {name} <= {most:g}, and is {found:.3g}", found <= most)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _asked(options: Options) -> tuple[dict[str, list[float]], list[float], int]:
    """Store the children, then ask. Returns milliseconds by question, those of publishes beside, and the count."""
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(options.n) + 300):
        async with bench.timed(f"{options.n:,} children to ask about", options.n):
            run = await client.trigger(flows.boundary, options.n)
            await run.result()
        questions: dict[str, Callable[[], Awaitable[Any]]] = {
            "totals": lambda: _anew(client).totals(run.id),
            "totals again": lambda: client.totals(run.id),
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
        beside = asyncio.create_task(_trigger_beside(client, waits, every=BESIDE_EVERY))
        times: dict[str, list[float]] = {}
        for name, ask in questions.items():
            for _ in range(ASKED):
                began = perf_counter()
                await ask()
                times.setdefault(name, []).append((perf_counter() - began) * 1000)
                await asyncio.sleep(PAUSE)
        for _ in range(JUMPS):
            began = perf_counter()
            await client.children(run.id, offset=randrange(options.n))
            times.setdefault("jump", []).append((perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE)
        await _ended(beside)
        return times, waits, (await client.totals(run.id)).totals.succeeded


def _anew(client: Client) -> Client:
    """Return a client that remembers nothing."""
    return Client(client._session)  # noqa: SLF001 - what a process that has just been started would find


async def _trigger_beside(client: Client, waits: list[float], *, every: float) -> None:
    """Trigger runs of one child, and note how long each publish took, in milliseconds."""
    number = 0
    while True:
        began = perf_counter()
        await client.trigger(flows.leaf, flows.Leaf(number))
        waits.append((perf_counter() - began) * 1000)
        number += 1
        await asyncio.sleep(every)


WORKLOAD: Final = Workload(
    name="dashboard",
    summary="the bars of the dashboard: questions, pages, a fan-out that is watched",
    n_is="children",
    n=500_000,
    rounds=7,
    run=run,
)
