"""N steps sleep until one time, and N wait for one event: how fast are they woken, and what do they cost meanwhile?

Woken is a step whose next turn is stored. Their workflows are paused while they are woken, so that no body competes;
then they go on, and it is said how fast they end. The floor stores as many turns.
"""

from __future__ import annotations

import asyncio
from time import perf_counter, time
from typing import Any, Final

import msgspec
import nats

from benchmarks import flows, machine, newer_flows
from benchmarks.bare.spawn import make_spawn_stream
from benchmarks.bare.waking import store_turns
from benchmarks.bare.wire import ask
from benchmarks.lab import NAMESPACE, Bench, jetflow_bench, patience, server
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.chain import UNDER_WAY, ended_runs
from benchmarks.workloads.workload import Workload
from jetflow import Client, Workflow
from jetflow.engine.tasks import NONE
from jetflow.wire.subjects import Subjects

WARM_UP: Final = 100
PARKED_PER_S: Final = 1500
"""Steps that are parked in a second even on a busy machine."""

LEAD: Final = 5.0
CALM: Final = 5.0
"""Seconds for which nothing happens, to see what waiting costs."""

ENOUGH: Final = 0.7
"""How much of the floor's rate is asked for."""

MARGIN: Final = 1.0
"""Seconds before their time at which it is counted how many sleepers have been woken."""

LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at what is stored."""


class _Kind(msgspec.Struct, kw_only=True):
    """What one kind of waiting gave: seconds, MB, percents of a core, and how many were woken before their time."""

    parked_in: float
    woken_in: float
    ended_in: float
    idle_worker: float
    idle_server: float
    worker_mb: float
    server_before_mb: float
    server_mb: float
    early: int = 0


async def run(options: Options) -> Report:
    """Measure."""
    floors: list[float] = []
    sleepers: list[_Kind] = []
    waiters: list[_Kind] = []
    for number in range(1, options.rounds + 1):
        label = f"round {number} of {options.rounds}"
        floors.append(await _floor(options))
        sleepers.append(await _one(options, newer_flows.sleeping, f"{label}, sleepers"))
        waiters.append(await _one(options, newer_flows.waiting, f"{label}, waiters"))
    return _report(options, floors, sleepers, waiters)


async def _floor(options: Options) -> float:
    async with server(options) as running:
        client = await nats.connect(running.url)
        try:
            await make_spawn_stream(client)
        finally:
            await client.close()
        return await store_turns(running.url, options.n)


async def _one(options: Options, workflow: Workflow[Any, int], label: str) -> _Kind:
    names, total = Subjects(NAMESPACE), options.n + WARM_UP
    async with (
        jetflow_bench("waking", options, settings=("park_after=0",)) as (bench, client),
        asyncio.timeout(3 * patience(options.n)),
        bench.timed(label, total),
    ):
        await ended_runs(bench, client, flows.one_step, WARM_UP)
        before, began = machine.rss_mb(bench.server_pid), perf_counter()
        until = time() + LEAD + CALM + options.n / PARKED_PER_S
        await _trigger(client, workflow, options.n, until)
        await _stored(bench, names.records_stream, f"jf.{NAMESPACE}.join.*.*.*.0", options.n)
        parked_in = perf_counter() - began
        await asyncio.sleep(LOOK_AGAIN)  # the last acknowledgements
        idle_worker, idle_server = await _idle(bench)
        memory = sum(machine.rss_mb(one.pid) for one in bench.workers), machine.rss_mb(bench.server_pid)
        await client.pause(workflow.name)
        turns, early = f"jf.{NAMESPACE}.task.{workflow.name}.*.*.*.*.1", 0
        if workflow is newer_flows.sleeping:
            await asyncio.sleep(until - time() - MARGIN)
            early = await _count(bench, names.tasks_stream, turns)
            await asyncio.sleep(until - time())
        else:
            await client.publish("bench.all")
        woken_in = await _stored(bench, names.tasks_stream, turns, options.n)
        await client.resume(workflow.name)
        ended_in = await _stored(bench, names.records_stream, names.run("*", NONE, NONE, "*"), total)
    return _Kind(
        parked_in=parked_in,
        woken_in=woken_in,
        ended_in=ended_in,
        idle_worker=idle_worker,
        idle_server=idle_server,
        worker_mb=memory[0],
        server_before_mb=before,
        server_mb=memory[1],
        early=early,
    )


async def _trigger(client: Client, workflow: Workflow[Any, int], count: int, until: float) -> None:
    async def some(start: int) -> None:
        for number in range(start, count, UNDER_WAY):
            await client.trigger(
                workflow, flows.Planned(number, until) if workflow is newer_flows.sleeping else flows.Leaf(number)
            )

    async with asyncio.TaskGroup() as group:
        for start in range(min(UNDER_WAY, count)):
            group.create_task(some(start))


async def _idle(bench: Bench) -> tuple[float, float]:
    """Return what worker and server use while nothing happens, in percents of a core."""

    def used() -> tuple[float, float]:
        return sum(machine.cpu_seconds(one.pid) for one in bench.workers), bench.server_cpu

    worker, held = used()
    await asyncio.sleep(CALM)
    return (used()[0] - worker) / CALM * 100, (used()[1] - held) / CALM * 100


async def _count(bench: Bench, stream: str, subject: str) -> int:
    connection = await nats.connect(bench.server.url)
    try:
        asked = {"subjects_filter": subject, "offset": 2**31}
        return int((await ask(connection, f"STREAM.INFO.{stream}", asked)).get("total", 0))
    finally:
        await connection.close()


async def _stored(bench: Bench, stream: str, subject: str, count: int) -> float:
    """Wait until so many subjects are stored; return after how many seconds that was."""
    began = perf_counter()
    while await _count(bench, stream, subject) < count:  # noqa: ASYNC110 - the server does not tell
        await asyncio.sleep(LOOK_AGAIN)
    return perf_counter() - began


def _report(options: Options, floors: list[float], sleepers: list[_Kind], waiters: list[_Kind]) -> Report:
    floor = options.n / middle(floors)
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    goals: list[Goal] = []
    for name, kinds in (("sleepers", sleepers), ("waiters", waiters)):

        def of(key: str, kinds: list[_Kind] = kinds) -> float:
            return middle([getattr(one, key) for one in kinds])

        rate, early = options.n / of("woken_in"), sum(one.early for one in kinds)
        rows += [
            Row(f"{name} woken a second", floor, rate, ",.0f"),
            Row("  and ended a second, when they go on", None, options.n / of("ended_in"), ",.0f"),
            Row("  parked a second, triggers and all", None, options.n / of("parked_in"), ",.0f"),
            Row("  worker CPU while they wait, % of a core", None, of("idle_worker"), ".1f"),
            Row("  server CPU while they wait, % of a core", None, of("idle_server"), ".1f"),
            Row("  worker memory, MB", None, of("worker_mb")),
            Row("  server memory before, MB", None, of("server_before_mb")),
            Row("  server memory while they wait, MB", None, of("server_mb")),
            Row("  woken before their time", None, early, ",.0f"),
        ]
        figures |= {f"{name}_per_s": rate, f"{name}_early": early}
        ratio = rate / floor
        goals += [
            Goal(f"waking: {name} >= {ENOUGH:g} x floor, and are {ratio:.2f}", ratio >= ENOUGH),
            Goal(f"waking: no {name} before their time, and {early} are", early == 0),
        ]
    return Report(
        workload="waking",
        title=f"waking: {options.n:,} sleepers until one time, and {options.n:,} waiters of one event",
        n=options.n,
        options=options,
        floor_per_s=floor,
        worker_rss_mb=middle([one.worker_mb for one in waiters]),
        server_rss_mb=middle([one.server_mb for one in waiters]),
        rows=rows,
        goals=goals,
        figures={"floor_per_s": floor, **figures, "rounds": [*sleepers, *waiters]},
    )


WORKLOAD: Final = Workload(
    name="waking",
    summary="steps that sleep until one time, and that wait for one event: how fast they are woken",
    n_is="sleepers, and waiters",
    n=100_000,
    run=run,
    rounds=1,
    slots=1000,
)
