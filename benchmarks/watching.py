"""A fan-out that is looked at, against one that nobody looks at: how long it takes, and what publishers wait for."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from statistics import median
from typing import Any, Final, TypeAlias

import msgspec

from benchmarks import flows
from benchmarks.beside import beside
from benchmarks.lab import Bench, jetflow_bench, patience
from benchmarks.options import Options
from benchmarks.pages import Question, ask_again, dashboard, pages
from benchmarks.report import Goal, Row
from benchmarks.workloads.fanout import WARM_UP
from jetflow import Client

WATCHED: Final = 100_000
"""Children of the fan-out that is watched, at most."""

WATCHED_AT_MOST: Final = 1.03
WAITED_AT_MOST: Final = 1.02
"""How much longer a fan-out may take that is watched, by a page, by a client or by `trigger --wait` on a terminal."""

LONGEST_ADDED: Final = 25.0
"""Milliseconds by which the longest publish beside a fan-out may be longer while its page is open."""

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

FanOut = Callable[[Client, str, int], Coroutine[Any, Any, str]]
"""Runs a fan-out of so many children, and returns its run."""

Way = Callable[[Bench, Client, int], Coroutine[Any, Any, "Seen"]]
"""Measures a fan-out of so many children that is looked at in some way."""


class Seen(msgspec.Struct, kw_only=True):
    """One fan-out: how long it took by its records, seconds of the server's processor, and the longest waits beside.

    ``trigger_ms`` is a run that is triggered, ``publish_ms`` a bare publish to another stream, ``ping_ms`` a ping of
    the server, ``timer_ms`` a timer of a process that has nothing to do: what the machine alone takes.
    """

    seconds: float
    server_cpu: float
    trigger_ms: float
    publish_ms: float
    ping_ms: float
    timer_ms: float


Pairs: TypeAlias = list[tuple[Seen, Seen]]
"""Fan-outs that nobody looks at, each with one right beside it that is looked at."""


async def seen(options: Options) -> dict[str, Pairs]:
    """Run a fan-out that is looked at in each way, beside one that is not: the machine is not as fast at all times."""
    page, unseen = Page(), _plain(_unseen)
    ways: dict[str, tuple[Way, Way]] = {
        "page open here": (unseen, page.here),
        "page open": (unseen, page.elsewhere),
        "watched": (unseen, _plain(_watched)),
        "waited for": (_plain(_triggered), _plain(_waited_for)),
    }
    found: dict[str, Pairs] = {how: [] for how in ways}
    for number in range(options.rounds):
        for how, (without, looked_at) in ways.items():
            if number % 2 == 0:
                first = await _fanned(options, without)
                found[how].append((first, await _fanned(options, looked_at)))
            else:
                first = await _fanned(options, looked_at)
                found[how].append((await _fanned(options, without), first))
    return found


def rows_of(seen: dict[str, Pairs], options: Options) -> list[Row]:
    """Return the lines of the report; the first column is the fan-out beside it."""
    count = min(options.n, WATCHED)
    rows: list[Row] = []
    for how, pairs in seen.items():
        rows += [
            Row(f"fan-out of {count:,}, {how}, s", *_middles(pairs, "seconds")),
            Row(f"server CPU, {how}, s", *_middles(pairs, "server_cpu")),
            *(
                Row(f"longest {kind}, {how}, ms", *_middles(pairs, f"{kind}_ms"))
                for kind in ("trigger", "publish", "ping", "timer")
            ),
        ]
    return rows


def goals_of(seen: dict[str, Pairs]) -> list[Goal]:
    """Return what watching may cost, and costs: the medians of what each pair says."""
    limits = [
        ("2 page open / unseen, time", _ratio(seen["page open"], "seconds"), WATCHED_AT_MOST),
        ("2 page open / unseen, server CPU", _ratio(seen["page open"], "server_cpu"), WATCHED_AT_MOST),
        ("2 what the page adds to the longest publish, ms", _added(seen["page open"]), LONGEST_ADDED),
        ("watched by a client / unseen, time", _ratio(seen["watched"], "seconds"), WATCHED_AT_MOST),
        ("watched by a client / unseen, server CPU", _ratio(seen["watched"], "server_cpu"), WATCHED_AT_MOST),
        ("trigger --wait / trigger, time", _ratio(seen["waited for"], "seconds"), WAITED_AT_MOST),
    ]
    return [
        Goal(f"dashboard: bar {name} <= {most:g}, and is {found:.3f}", found <= most) for name, found, most in limits
    ]


def _middles(pairs: Pairs, what: str) -> tuple[float, float]:
    without, looked_at = zip(*pairs, strict=True)
    return median(getattr(one, what) for one in without), median(getattr(one, what) for one in looked_at)


def _ratio(pairs: Pairs, what: str) -> float:
    return median(getattr(looked_at, what) / getattr(without, what) for without, looked_at in pairs)


def _added(pairs: Pairs) -> float:
    return max(0.0, median(looked_at.trigger_ms - without.trigger_ms for without, looked_at in pairs))


class Page:
    """The page of a fan-out: open in a browser on this machine, and as if it were open on another one.

    What the page asks is the same. But to draw it takes a third of what the fan-out takes, of the same two processors:
    so it is asked again, at the same times, without a browser, and that is what the bars are of. The dashboard has
    shown a page before: it is a service, and not begun for each look.
    """

    def __init__(self) -> None:
        self._of = ""
        self._asked: list[Question] = []

    async def here(self, bench: Bench, client: Client, count: int) -> Seen:
        """Open it in a browser, and note what it asks."""
        async with pages(bench.server.url, beside=True) as looking:

            async def with_page(client: Client, url: str, count: int) -> str:
                run = await client.trigger(flows.boundary, count)
                self._of, self._asked = run.id, []
                async with looking.open(f"runs/{run.id}", self._asked) as page:
                    await run.result()
                    await page.wait_for_selector(".runhead .t-green", timeout=60_000)
                return run.id

            return await _measured(bench, client, with_page, count, "page open here")

    async def elsewhere(self, bench: Bench, client: Client, count: int) -> Seen:
        """Ask what it has asked."""
        if not self._asked:
            await self.here(bench, client, count)
        async with dashboard(bench.server.url) as (url, _):

            async def asking(client: Client, _: str, count: int) -> str:
                run = await client.trigger(flows.boundary, count)
                questions = [
                    msgspec.structs.replace(one, path=one.path.replace(self._of, run.id)) for one in self._asked
                ]
                await ask_again(url, questions, run.result())
                return run.id

            await asking(client, url, WARM_UP)
            return await _measured(bench, client, asking, count, f"page open, {len(self._asked)} questions")


async def _fanned(options: Options, way: Way) -> Seen:
    count = min(options.n, WATCHED)
    async with jetflow_bench("boundary", options) as (bench, client), asyncio.timeout(patience(count)):
        await (await client.trigger(flows.boundary, WARM_UP)).result()
        return await way(bench, client, count)


def _plain(fan_out: FanOut) -> Way:
    async def measured(bench: Bench, client: Client, count: int) -> Seen:
        return await _measured(bench, client, fan_out, count, fan_out.__name__.strip("_"))

    return measured


async def _measured(bench: Bench, client: Client, fan_out: FanOut, count: int, how: str) -> Seen:
    async with beside(bench.server.url) as told, bench.timed(f"{count:,} children, {how}") as timing:
        run = await fan_out(client, bench.server.url, count)
    trace = await client.describe(run, children=0)
    assert trace.triggered is not None, "its task is stored"
    assert trace.ended is not None, "it was waited for"
    longest = {
        kind: told.waits.longest(kind, trace.triggered, trace.ended) for kind in ("trigger", "publish", "ping", "timer")
    }
    return Seen(
        seconds=trace.ended - trace.triggered,
        server_cpu=timing.sample.server_cpu,
        trigger_ms=longest["trigger"],
        publish_ms=longest["publish"],
        ping_ms=longest["ping"],
        timer_ms=longest["timer"],
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


async def _triggered(client: Client, url: str, count: int) -> str:
    """Have `jetflow trigger` begin it."""
    run = await _command(url, count)
    await client.run(run).result()
    return run


async def _waited_for(client: Client, url: str, count: int) -> str:
    """Have `jetflow trigger --wait` draw it on a terminal."""
    return await _command(url, count, "--wait")


async def _command(url: str, count: int, *more: str) -> str:
    command = ("trigger", flows.boundary.name, str(count), *more, "--server", url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ON_TERMINAL, *command),
        stdout=asyncio.subprocess.PIPE,
    )
    drawn, _ = await process.communicate()
    found = re.search(rb"\b([0-9a-f]{32})\b", drawn)
    assert found is not None, drawn
    assert process.returncode == 0, drawn
    return found[1].decode()
