"""N steps sleep until one time, and N wait for one event: how fast are they woken, and what do they cost meanwhile?

What is counted is next turns that are *stored*: from the time itself (or from the publish of the event) until the last
of N stands in the stream, as the server tells. The floor is the same mechanism in plain nats-py, in a worker process
of its own: N tasks and N timers (or waits) of the same form, due messages that are pulled, tasks that are read, next
turns that are stored write-once, acknowledgements (`benchmarks.bare.waking`). Both are read by the same clock, and have
a fresh server each. jetflow's workflow is paused while its steps are woken, so that no body competes, as none does on
the floor; then it goes on, and it is said how fast the runs have ended, bodies and all.

The figures of FLOW.md were measured on a machine that did nothing else, by a program like the floor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter, time
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client as NatsClient

from benchmarks import flows, machine, newer_flows
from benchmarks.bare import waking as bare
from benchmarks.bare.wire import ask
from benchmarks.lab import NAMESPACE, Bench, jetflow_bench, patience, server
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.processes import worker_processes
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

FLOW: Final = {"sleepers": 39_000.0, "waiters": 43_000.0}
"""Next turns that were stored in a second when the mechanism was designed, by one program in plain nats-py."""

MARGIN: Final = 1.0
"""Seconds before their time at which it is counted how many sleepers have been woken."""

LOOK_AGAIN: Final = 0.02
"""Seconds between two looks at how much is stored: at the total of a stream, which costs the server nothing."""


class _Used(msgspec.Struct, kw_only=True):
    """What something took: seconds, and of processors, microseconds for each step."""

    seconds: float
    worker_us: float
    server_us: float


class _Kind(msgspec.Struct, kw_only=True):
    """What one kind of waiting gave on one side; MB, percents of a core, and how many were woken before their time."""

    parked: _Used
    woken: _Used
    ended_in: float = 0.0
    idle_worker: float = 0.0
    idle_server: float = 0.0
    worker_mb: float
    worker_peak_mb: float
    server_before_mb: float
    server_mb: float
    early: int = 0


class _Meter:
    """Reads what workers and server use from when it is made."""

    def __init__(self, bench: Bench, count: int) -> None:
        self._bench = bench
        self._count = count
        self._worker, self._server = self._cpu()
        self._began = perf_counter()

    def _cpu(self) -> tuple[float, float]:
        return sum(machine.cpu_seconds(one.pid) for one in self._bench.workers), self._bench.server_cpu

    def read(self) -> _Used:
        seconds = perf_counter() - self._began
        worker, server_cpu = self._cpu()
        return _Used(
            seconds=seconds,
            worker_us=(worker - self._worker) / self._count * 1e6,
            server_us=(server_cpu - self._server) / self._count * 1e6,
        )

    def percents(self) -> tuple[float, float]:
        used = self.read()
        share = self._count / 1e4 / used.seconds
        return used.worker_us * share, used.server_us * share


async def run(options: Options) -> Report:
    """Measure."""
    found: dict[str, tuple[list[_Kind], list[_Kind]]] = {name: ([], []) for name in FLOW}
    workflows: dict[str, Workflow[Any, int]] = {"sleepers": newer_flows.sleeping, "waiters": newer_flows.waiting}
    for number in range(1, options.rounds + 1):
        for name, workflow in workflows.items():
            label = f"round {number} of {options.rounds}, {name}"
            found[name][0].append(await _floor(options, name, label))
            found[name][1].append(await _jetflow(options, workflow, label))
    return _report(options, found)


# --- the floor


async def _floor(options: Options, name: str, label: str) -> _Kind:
    async with server(options) as running:
        connection = await nats.connect(running.url, pending_size=256 * 1024 * 1024)
        try:
            await bare.make_streams(connection)
            async with worker_processes("benchmarks.bare.waker", running.url, count=options.workers) as workers:
                bench = Bench(running, workers, bare.TASKS)
                async with asyncio.timeout(patience(options.n)), bench.timed(f"{label}, floor", 2 * options.n):
                    return await _floor_of(bench, connection, options.n, name)
        finally:
            await connection.close()


async def _floor_of(bench: Bench, connection: NatsClient, count: int, name: str) -> _Kind:
    before, parking = machine.rss_mb(bench.server_pid), _Meter(bench, count)
    until = time() + LEAD + count / PARKED_PER_S if name == "sleepers" else None
    await bare.park(connection, count, until)
    parked = parking.read()
    waiting_mb = machine.rss_mb(bench.server_pid)
    for worker in bench.workers:
        machine.reset_peak(worker.pid)
    if until is not None:
        await asyncio.sleep(until - time())
    waking = _Meter(bench, count)
    if until is None:
        await connection.request(bare.EVENT, b"null")
    await _stored(connection, bare.TASKS, 2 * count)
    woken = waking.read()
    return _Kind(
        parked=parked,
        woken=woken,
        worker_mb=sum(machine.rss_mb(one.pid) for one in bench.workers),
        worker_peak_mb=sum(machine.peak_rss_mb(one.pid) for one in bench.workers),
        server_before_mb=before,
        server_mb=waiting_mb,
    )


# --- jetflow


async def _jetflow(options: Options, workflow: Workflow[Any, int], label: str) -> _Kind:
    async with (
        jetflow_bench("waking", options, settings=("park_after=0",)) as (bench, client),
        asyncio.timeout(3 * patience(options.n)),
        bench.timed(label, options.n + WARM_UP),
    ):
        connection = await nats.connect(bench.server.url)
        try:
            return await _jetflow_of(bench, client, connection, workflow, options.n)
        finally:
            await connection.close()


async def _jetflow_of(
    bench: Bench, client: Client, connection: NatsClient, workflow: Workflow[Any, int], count: int
) -> _Kind:
    names, sleeps = Subjects(NAMESPACE), workflow is newer_flows.sleeping
    await ended_runs(bench, client, flows.one_step, WARM_UP)
    before, parking = machine.rss_mb(bench.server_pid), _Meter(bench, count)
    until = time() + LEAD + CALM + count / PARKED_PER_S
    await _trigger(client, workflow, count, until)
    await _hold(connection, names.records_stream, f"jf.{NAMESPACE}.join.*.*.*.0", count)
    parked = parking.read()
    await asyncio.sleep(LOOK_AGAIN)  # the last acknowledgements
    calm = _Meter(bench, count)
    await asyncio.sleep(CALM)
    idle_worker, idle_server = calm.percents()
    memory = sum(machine.rss_mb(one.pid) for one in bench.workers), machine.rss_mb(bench.server_pid)
    await client.pause(workflow.name)
    tasks, early = await _total(connection, names.tasks_stream), 0
    if sleeps:
        await asyncio.sleep(until - time() - MARGIN)
        early = await _total(connection, names.tasks_stream) - tasks
        await asyncio.sleep(until - time())
    for worker in bench.workers:
        machine.reset_peak(worker.pid)
    waking = _Meter(bench, count)
    if not sleeps:
        await client.publish("bench.all")
    await _stored(connection, names.tasks_stream, tasks + count)
    woken = waking.read()
    peak = sum(machine.peak_rss_mb(one.pid) for one in bench.workers)
    await client.resume(workflow.name)
    going_on = perf_counter()
    await _hold(connection, names.records_stream, names.run("*", NONE, NONE, "*"), count + WARM_UP)
    return _Kind(
        parked=parked,
        woken=woken,
        ended_in=perf_counter() - going_on,
        idle_worker=idle_worker,
        idle_server=idle_server,
        worker_mb=memory[0],
        worker_peak_mb=peak,
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


async def _total(connection: NatsClient, stream: str) -> int:
    return int((await ask(connection, f"STREAM.INFO.{stream}"))["state"]["messages"])


async def _stored(connection: NatsClient, stream: str, count: int) -> None:
    """Wait until a stream holds so many messages."""
    while await _total(connection, stream) < count:  # noqa: ASYNC110 - the server does not tell
        await asyncio.sleep(LOOK_AGAIN)


async def _hold(connection: NatsClient, stream: str, subject: str, count: int) -> None:
    """Wait until a stream holds so many subjects of a filter. Counting them holds up the server: it is asked seldom."""
    asked = {"subjects_filter": subject, "offset": 2**31}
    while (await ask(connection, f"STREAM.INFO.{stream}", asked)).get("total", 0) < count:  # noqa: ASYNC110
        await asyncio.sleep(10 * LOOK_AGAIN)


def _report(options: Options, found: dict[str, tuple[list[_Kind], list[_Kind]]]) -> Report:
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    goals: list[Goal] = []
    for name, (floors, kinds) in found.items():

        def both(
            of: Callable[[_Kind], float], sides: tuple[list[_Kind], list[_Kind]] = (floors, kinds)
        ) -> tuple[float, float]:
            floor, jetflow = (middle([of(one) for one in side]) for side in sides)
            return floor, jetflow

        floor, rate = (options.n / seconds for seconds in both(lambda one: one.woken.seconds))
        early = sum(one.early for one in kinds)
        rows += [
            Row(f"{name} woken a second", floor, rate, ",.0f"),
            Row("  beside the figure of FLOW.md", FLOW[name], rate, ",.0f"),
            Row("  worker CPU a wake, us", *both(lambda one: one.woken.worker_us)),
            Row("  server CPU a wake, us", *both(lambda one: one.woken.server_us)),
            Row("  worker memory at peak, MB", *both(lambda one: one.worker_peak_mb)),
            Row("  and ended a second, when they go on", None, options.n / both(lambda one: one.ended_in)[1], ",.0f"),
            Row(
                "  parked a second, triggers and all", None, options.n / both(lambda one: one.parked.seconds)[1], ",.0f"
            ),
            Row("  worker CPU a park, us", None, both(lambda one: one.parked.worker_us)[1]),
            Row("  server CPU a park, us", *both(lambda one: one.parked.server_us)),
            Row("  worker CPU while they wait, % of a core", None, both(lambda one: one.idle_worker)[1]),
            Row("  server CPU while they wait, % of a core", None, both(lambda one: one.idle_server)[1]),
            Row("  worker memory while they wait, MB", None, both(lambda one: one.worker_mb)[1]),
            Row("  server memory before, MB", *both(lambda one: one.server_before_mb)),
            Row("  server memory while they wait, MB", *both(lambda one: one.server_mb)),
            Row("  woken before their time", None, early, ",.0f"),
        ]
        ratio = rate / floor
        figures |= {f"{name}_floor_per_s": floor, f"{name}_per_s": rate, f"{name}_ratio": ratio, f"{name}_early": early}
        goals += [
            Goal(f"waking: {name} >= {ENOUGH:g} x floor, and are {ratio:.2f}", ratio >= ENOUGH),
            Goal(f"waking: no {name} before their time, and {early} are", early == 0),
        ]
    kept = {name: {"floor": floors, "jetflow": kinds} for name, (floors, kinds) in found.items()}
    waiters = found["waiters"][1]
    return Report(
        workload="waking",
        title=f"waking: {options.n:,} sleepers until one time, and {options.n:,} waiters of one event",
        n=options.n,
        options=options,
        worker_rss_mb=middle([one.worker_mb for one in waiters]),
        server_rss_mb=middle([one.server_mb for one in waiters]),
        rows=rows,
        goals=goals,
        figures={**figures, "rounds": kept},
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
