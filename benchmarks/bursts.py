"""Short bursts of a workload, told from outside: ``python -m benchmarks.bursts WORKLOAD``.

A server, one worker and a client stay up; each line on standard input runs one burst, and one line of JSON on standard
output tells what it took. So two packages can be measured in turn many times a minute, and what the machine does
meanwhile falls on both alike.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

import msgspec
import uvloop

from benchmarks import flows, machine
from benchmarks.lab import Bench, jetflow_bench
from benchmarks.options import Options
from benchmarks.workloads.chain import ended_runs
from jetflow import Client

SIZES: Final = {"fanout": 1000, "boundary": 1000, "chain": 300, "latency": 100}
"""Children or runs of a burst, by workload."""

_WARM_UP: Final = 3


class Burst(msgspec.Struct):
    """What a child or a run of one burst took, in microseconds: of time, of the worker's processor and the server's."""

    us: float
    worker_cpu_us: float
    server_cpu_us: float


async def _fanout(_: Bench, client: Client, count: int) -> None:
    await (await client.trigger(flows.fanout, count)).result()


async def _boundary(_: Bench, client: Client, count: int) -> None:
    await (await client.trigger(flows.boundary, count)).result()


async def _chain(bench: Bench, client: Client, count: int) -> None:
    await ended_runs(bench, client, flows.three_steps, count)


async def _latency(_: Bench, client: Client, count: int) -> None:
    for index in range(count):
        await (await client.trigger(flows.one_step, flows.Leaf(index))).result()


_RUN: Final[dict[str, Callable[[Bench, Client, int], Awaitable[None]]]] = {
    "fanout": _fanout,
    "boundary": _boundary,
    "chain": _chain,
    "latency": _latency,
}


async def _serve(workload: str) -> None:
    count, run = SIZES[workload], _RUN[workload]
    loop = asyncio.get_running_loop()
    options = Options(n=count, workers=1, rounds=1, slots=100)
    async with jetflow_bench(workload, options) as (bench, client):
        for _ in range(_WARM_UP):
            await run(bench, client, count)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while await loop.run_in_executor(None, sys.stdin.readline):
            worker, server = machine.cpu_ns(bench.workers[0].pid), machine.cpu_ns(bench.server_pid)
            began = perf_counter()
            await run(bench, client, count)
            seconds = perf_counter() - began
            burst = Burst(
                us=seconds * 1e6 / count,
                worker_cpu_us=(machine.cpu_ns(bench.workers[0].pid) - worker) / 1e3 / count,
                server_cpu_us=(machine.cpu_ns(bench.server_pid) - server) / 1e3 / count,
            )
            sys.stdout.write(msgspec.json.encode(burst).decode() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
