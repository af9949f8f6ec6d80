"""What looking costs: questions about N children, what writers wait meanwhile, and a fan-out that is watched.

There is no floor: the bars stand in the goals. First the fan-out runs unseen, watched, and waited for by `jetflow
trigger --wait` on a terminal, in turn, with 100,000 children at most; then N children are stored, and each question is
asked again and again. Runs are triggered beside, and what that takes is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from random import randrange
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec

from benchmarks import flows
from benchmarks.lab import jetflow_bench, patience
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

BESIDE_FAN_OUT: Final = 0.02
"""The same, beside a fan-out."""

PAUSE: Final = 0.25
"""Seconds between two questions, as a view that is looked at asks."""

JUMPS: Final = 40
"""Pages that are asked for in places that were not asked for before."""

TOTALS_WITHIN: Final = 100.0
PAGE_WITHIN: Final = 300.0
JUMP_WITHIN: Final = 300.0
LONGEST_PUBLISH: Final = 25.0
"""Milliseconds; the last one beside a fan-out that is watched."""

WATCHED_AT_MOST: Final = 1.03
WAITED_AT_MOST: Final = 1.02
"""How much longer a fan-out may take that is watched, by a client or by `trigger --wait` on a terminal."""

ON_TERMINAL: Final = """
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if not child:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.executable, [sys.executable, "-m", "jetflow.cli", *sys.argv[1:]])
try:
    while written := os.read(terminal, 65536):
        os.write(1, written)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Seen(msgspec.Struct, kw_only=True):
    """One fan-out: how long it took by its own records, seconds of the server's processor, and the longest publish."""

    seconds: float
    server_cpu: float
    longest_publish_ms: float


async def run(options: Options) -> Report:
    """Measure."""
    seen = await _seen(options)
    times, waits, counted = await _asked(options)
    rows = [
        row
        for how, found in seen.items()
        for row in (
            Row(f"fan-out of {min(options.n, WATCHED):,}, {how}, s", None, median(one.seconds for one in found)),
            Row(f"server CPU, {how}, s", None, median(one.server_cpu for one in found)),
            Row(f"longest publish, {how}, ms", None, median(one.longest_publish_ms for one in found)),
        )
    ]
    rows += [Row(f"{name}, ms", None, median(found)) for name, found in times.items()]
    rows += [
        Row("jump, p95, ms", None, percentile(times["jump"], 95)),
        Row("publish beside questions, p50, ms", None, percentile(waits, 50)),
        Row("publish beside questions, max, ms", None, max(waits)),
    ]
    watched, cpu = _ratio(seen, "watched", "seconds"), _ratio(seen, "watched", "server_cpu")
    waited = _ratio(seen, "waited for", "seconds")
    rows += [
        Row("watched / unseen, time", None, watched, ".3f"),
        Row("watched / unseen, server CPU", None, cpu, ".3f"),
        Row("waited for / unseen, time", None, waited, ".3f"),
    ]
    longest = median(one.longest_publish_ms for one in seen["watched"])
    pages = max(median(found) for name, found in times.items() if name.startswith("children"))
    limits = [
        ("totals, ms", median(times["totals"]), TOTALS_WITHIN),
        ("totals of a run that is over, ms", median(times["totals again"]), TOTALS_WITHIN),
        ("describe with no children, ms", median(times["describe, children=0"]), TOTALS_WITHIN),
        ("any page, ms", pages, PAGE_WITHIN),
        ("a jump, p95, ms", percentile(times["jump"], 95), JUMP_WITHIN),
        ("the longest publish beside a fan-out that is watched, ms", longest, LONGEST_PUBLISH),
        ("watched / unseen, time", watched, WATCHED_AT_MOST),
        ("watched / unseen, server CPU", cpu, WATCHED_AT_MOST),
        ("trigger --wait / unseen, time", waited, WAITED_AT_MOST),
    ]
    return Report(
        workload="dashboard",
        title=f"dashboard: questions about {options.n:,} children",
        n=options.n,
        options=options,
        rows=rows,
        goals=[
            Goal(f"dashboard: all {options.n:,} children are counted, and {counted:,} were", counted == options.n),
            *(
                Goal(f"dashboard: {name} <= {most:g}, and is {found:.3g}", found <= most)
                for name, found, most in limits
            ),
        ],
        figures={
            "asked_ms": {name: median(found) for name, found in times.items()},
            "publish_max_ms": max(waits),
            "seen": {how: msgspec.to_builtins(found) for how, found in seen.items()},
        },
    )


def _ratio(seen: dict[str, list[Seen]], how: str, what: str) -> float:
    pairs = zip(seen["unseen"], seen[how], strict=True)
    return median(getattr(other, what) / getattr(alone, what) for alone, other in pairs)


async def _seen(options: Options) -> dict[str, list[Seen]]:
    """Run a fan-out unseen, watched, and waited for by a command, in turn."""
    ways: dict[str, Callable[[Client, str, int], Coroutine[Any, Any, str]]] = {
        "unseen": _unseen,
        "watched": _watched,
        "waited for": _waited_for,
    }
    seen: dict[str, list[Seen]] = {how: [] for how in ways}
    for number in range(options.rounds):
        for how in ways if number % 2 == 0 else reversed(ways):
            seen[how].append(await _fanned(options, how, ways[how]))
    return seen


async def _fanned(options: Options, how: str, fan_out: Callable[[Client, str, int], Coroutine[Any, Any, str]]) -> Seen:
    count = min(options.n, WATCHED)
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(count)):
        await (await client.trigger(flows.boundary, WARM_UP)).result()
        waits: list[float] = []
        beside = asyncio.create_task(_trigger_beside(client, waits, every=BESIDE_FAN_OUT))
        async with bench.timed(f"{count:,} children, {how}") as timing:
            run = await fan_out(client, bench.server.url, count)
        await _ended(beside)
        trace = await client.describe(run, children=0)
    assert trace.triggered is not None, "its task is stored"
    assert trace.ended is not None, "it was waited for"
    return Seen(
        seconds=trace.ended - trace.triggered,
        server_cpu=timing.sample.server_cpu,
        longest_publish_ms=max(waits),
    )


async def _unseen(client: Client, url: str, count: int) -> str:
    run = await client.trigger(flows.boundary, count)
    await run.result()
    return run.id


async def _watched(client: Client, url: str, count: int) -> str:
    run = await client.trigger(flows.boundary, count)
    async with aclosing(client.watch(run.id)) as looks:
        async for _ in looks:
            pass
    await run.result()
    return run.id


async def _waited_for(client: Client, url: str, count: int) -> str:
    """Have `jetflow trigger --wait` draw it on a terminal."""
    command = ("trigger", flows.boundary.name, str(count), "--wait", "--server", url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ON_TERMINAL, *command),
        stdout=asyncio.subprocess.PIPE,
    )
    drawn, _ = await process.communicate()
    found = re.search(rb"run ([0-9a-f]{32})", drawn)
    assert found is not None, drawn
    assert process.returncode == 0, drawn
    return found[1].decode()


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
    summary="what it costs to ask about N children, and to watch a fan-out",
    n_is="children",
    n=500_000,
    run=run,
)
