"""A step spawns N children that compute in pure Python, and joins them: in threads, in processes, and on the floor.

The floor is a `concurrent.futures.ProcessPoolExecutor` of as many processes as there are cores, in the bench itself:
no broker, no record of anything.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Final

from benchmarks import flows
from benchmarks.lab import jetflow_bench, patience
from benchmarks.measuring import in_turn, middle
from benchmarks.options import Options
from benchmarks.progress import show
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import check
from benchmarks.workloads.workload import Workload
from jetflow import Workflow
from jetflow.processes.pool import cores

LEAST: Final = 0.85
"""Part of the floor's rate that processes should reach."""


async def run(options: Options) -> Report:
    """Measure."""
    in_threads: list[float] = []

    async def floor(label: str) -> float:
        async with show(label, "", "", 0):
            return await asyncio.to_thread(_pooled, options.n)

    async def measured(label: str, flow: Workflow[int, int]) -> float:
        async with jetflow_bench("cpu", options) as (bench, client), asyncio.timeout(60 + patience(options.n)):
            await (await client.trigger(flow, 2 * cores())).result()
            async with bench.timed(label, options.n) as timing:
                total = await (await client.trigger(flow, options.n)).result()
        check(total, options.n)
        return timing.sample.seconds

    async def both(label: str) -> float:
        in_threads.append(await measured(f"{label}, threads", flows.cpu_threads))
        return await measured(f"{label}, processes", flows.cpu_processes)

    pair = await in_turn(options.rounds, floor, both)
    return _report(options, middle(pair.floor), middle(pair.jetflow), middle(in_threads))


def _pooled(count: int) -> float:
    """Return how many seconds a process pool takes, once it is warm."""
    # Each leads a session, as a worker's processes do: Linux may share out a loaded machine by sessions.
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        list(pool.map(flows.computed, range(2 * cores())))
        began = perf_counter()
        total = sum(pool.map(flows.computed, range(count)))
        seconds = perf_counter() - began
    check(total, count)
    return seconds


def _begin() -> None:
    os.setsid()
    threading.Thread(target=_end_with_bench, daemon=True).start()


def _end_with_bench() -> None:
    bench = multiprocessing.parent_process()
    assert bench is not None
    bench.join()
    os._exit(1)


def _report(options: Options, floor: float, processes: float, threads: float) -> Report:
    ratio = floor / processes
    return Report(
        workload="cpu",
        title=f"cpu: {options.n:,} children that compute; the floor is a ProcessPoolExecutor of {cores()}",
        n=options.n,
        options=options,
        floor_per_s=options.n / floor,
        jetflow_per_s=options.n / processes,
        ratio=ratio,
        rows=[
            Row("children a second, in processes", options.n / floor, options.n / processes),
            Row("children a second, in threads", options.n / floor, options.n / threads),
            Row("seconds in all, in processes", floor, processes, ".2f"),
            Row("seconds in all, in threads", floor, threads, ".2f"),
        ],
        goals=[Goal(f"cpu: processes >= {LEAST:g} x floor, and are {ratio:.2f} x", ratio >= LEAST)],
        figures={"floor_s": floor, "processes_s": processes, "threads_s": threads, "cores": cores()},
    )


WORKLOAD: Final = Workload(
    name="cpu",
    summary="N children compute: in threads, in processes, against a process pool",
    n_is="children",
    n=64,
    run=run,
)
