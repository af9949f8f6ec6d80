"""Children a second of one child worker of each SDK, in the same run: an idle Python parent waits for them.

The children are queued before their worker starts, and the time is from the first stored outcome to the last, by the
server's clock: what is measured is the worker with its server, and neither the parent nor the spawning.

A machine may be a third slower for minutes, with nothing else on it. So each round measures all, every second one in
the other order, and the share of Python's is the median of what the rounds say, not a share of medians.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import nats

import jetflow
from benchmarks import machine
from benchmarks.lab import NAMESPACE, patience, server
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.workload import Workload
from jetflow import Context, Worker, Workflow

ROOT: Final = Path(__file__).parents[2]
RECORDS: Final = f"JF_{NAMESPACE}_records"
_LOOK_AGAIN: Final = 0.05


class Sdk(msgspec.Struct, frozen=True):
    """One SDK: how its conformance kit is started, whose ``square`` is the child. ``goal`` is a share of Python's."""

    name: str
    command: Callable[[Path], list[str] | None]
    goal: float = 0.0


def _python(_: Path) -> list[str] | None:
    return [sys.executable, "-m", "benchmarks.sdk_child"]


def _go(scratch: Path) -> list[str] | None:
    return [str(_build(scratch))] if shutil.which("go") else None


def _typescript(_: Path) -> list[str] | None:
    kit = ROOT / "sdk" / "typescript" / "dist" / "conformance" / "kit.js"  # what `make test-sdk-ts` has built
    return ["node", str(kit)] if kit.exists() and shutil.which("node") else None


SDKS: Final = (
    Sdk("Python", _python),
    Sdk("Go", _go, goal=0.9),
    Sdk("TypeScript", _typescript, goal=0.4),
)


def _build(scratch: Path) -> Path:
    import subprocess  # noqa: PLC0415 - only where Go is there

    made = scratch / "kit-go"
    subprocess.run(["go", "build", "-o", made, "./conformance/kit"], cwd=ROOT / "sdk" / "go", check=True)
    return made


class Taken(msgspec.Struct):
    """What one run took."""

    per_s: float
    cpu: float
    server_cpu: float
    rss_mb: float


def fan(count: int) -> Workflow[int, int]:
    """Return the parent: it spawns so many children by name, and adds what they return."""
    made: Workflow[int, int] = Workflow("sdk-fan")

    @made.step(name="scatter")
    async def scatter(number: int, ctx: Context) -> None:
        await ctx.spawn_workflows("square", range(number))

    @made.step(name="sum", after="scatter")
    async def add(number: int, ctx: Context) -> int:
        total = 0
        async for child in ctx.children("scatter"):
            total += child.output
        if total != sum(one * one for one in range(count)):
            raise ValueError(f"the sum is wrong: {total}")
        return total

    return made


@asynccontextmanager
async def child_worker(command: list[str], url: str, slots: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a kit for the time of the block, which begins when it pulls tasks."""
    settings = {"NATS_URL": url, "JETFLOW_NAMESPACE": NAMESPACE, "SLOTS": str(slots), "PREFIX": ""}
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | settings, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while (line := await process.stdout.readline()).strip() != b"ready":
                if not line:
                    raise RuntimeError(f"{command} did not start")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def measure(sdk: Sdk, command: list[str], options: Options) -> Taken:
    """Queue children, have one worker run them, and read when the first and the last ended."""
    async with server(options) as running, asyncio.timeout(patience(options.n)):
        async with child_worker(command, running.url, options.slots):
            pass  # now its workflows are declared, and its consumers are there
        async with Worker([fan(options.n)], server=running.url), jetflow.connect(running.url) as client:
            bus = await nats.connect(running.url)
            run = await client.trigger("sdk-fan", options.n)
            children = f"jf.{NAMESPACE}.task.square.run.{run.id}.>"
            while await _count(bus, f"JF_{NAMESPACE}_tasks", children) < options.n:  # noqa: ASYNC110 - a look is a request
                await asyncio.sleep(_LOOK_AGAIN)
            assert running.pid is not None
            before = machine.cpu_seconds(running.pid)
            async with child_worker(command, running.url, options.slots) as process:
                await run.result()
                server_cpu = machine.cpu_seconds(running.pid) - before
                cpu, rss = machine.cpu_seconds(process.pid), machine.rss_mb(process.pid)
            ends = f"jf.{NAMESPACE}.run.{run.id}.{run.id}.scatter.*"
            first, last = await _at(bus, {"seq": 1, "next_by_subj": ends}), await _at(bus, {"last_by_subj": ends})
            await bus.close()
    return Taken(options.n / (last - first).total_seconds(), cpu, server_cpu, rss)


async def _count(bus: Any, stream: str, subjects: str) -> int:
    asked = msgspec.json.encode({"subjects_filter": subjects, "offset": 2**31})
    answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", asked, timeout=10)
    return int(msgspec.json.decode(answer.data)["total"])


async def _at(bus: Any, which: dict[str, Any]) -> datetime:
    answer = await bus.request(f"$JS.API.STREAM.MSG.GET.{RECORDS}", msgspec.json.encode(which), timeout=10)
    return datetime.fromisoformat(msgspec.json.decode(answer.data)["message"]["time"])


async def run(options: Options) -> Report:
    """Measure all SDKs in turn."""
    taken: dict[str, list[Taken]] = {}
    with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
        commands = [(sdk, command) for sdk in SDKS if (command := sdk.command(Path(scratch))) is not None]
        for number in range(1, options.rounds + 1):
            for sdk, command in commands if number % 2 else reversed(commands):
                sys.stderr.write(f"round {number} of {options.rounds}, {sdk.name}\n")
                taken.setdefault(sdk.name, []).append(await measure(sdk, command, options))
    rates = {name: middle([one.per_s for one in all_of]) for name, all_of in taken.items()}
    rows, goals, figures = [], [], {}
    for sdk in SDKS:
        if sdk.name not in taken:
            rows.append(Row(f"{sdk.name}: its tools are not here", None, None))
            continue
        beside = zip(taken[sdk.name], taken["Python"], strict=True)
        ratio = middle([mine.per_s / python.per_s for mine, python in beside])
        rows += [
            Row(f"children a second, {sdk.name}", None, rates[sdk.name], ",.0f"),
            Row("  as a share of Python's", None, ratio, ".2f"),
            Row("  CPU seconds of the worker", None, middle([one.cpu for one in taken[sdk.name]]), ".2f"),
            Row("  CPU seconds of the server", None, middle([one.server_cpu for one in taken[sdk.name]]), ".2f"),
            Row("  resident MB of the worker", None, middle([one.rss_mb for one in taken[sdk.name]]), ",.0f"),
        ]
        figures[f"{sdk.name.lower()}_per_s"] = rates[sdk.name]
        if sdk.goal:
            goals.append(Goal(f"{sdk.name} at least {sdk.goal} of Python", ratio >= sdk.goal))
    title = f"sdk: {options.n:,} queued children of a Python parent, one worker of each SDK"
    return Report(workload="sdk", title=title, n=options.n, options=options, rows=rows, goals=goals, figures=figures)


WORKLOAD: Final = Workload(
    name="sdk",
    summary="a child worker of each SDK, beside an idle Python parent",
    n_is="children",
    n=30_000,
    run=run,
)
