"""What a worker that has nothing to do costs: its CPU, and the messages that it sends."""

from __future__ import annotations

import asyncio
import socket
from statistics import median
from typing import Any, Final
from urllib.request import urlopen

import msgspec

from benchmarks import flows, machine
from benchmarks.lab import jetflow_bench
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.workload import Workload

SETTLE: Final = 2.0
"""Seconds after the start that do not count."""


async def run(options: Options) -> Report:
    """Measure."""
    cpu: list[float] = []
    server_cpu: list[float] = []
    sent: list[float] = []
    memory: list[float] = []
    server_memory: list[float] = []
    for number in range(1, options.rounds + 1):
        port = _free_port()
        async with jetflow_bench("idle", options, config=f"http: 127.0.0.1:{port}\n") as (bench, _):
            pids = [worker.pid for worker in bench.workers]
            await asyncio.sleep(SETTLE)
            async with bench.timed(f"round {number} of {options.rounds}, {options.n} s of idling") as timing:
                before = await _messages(port)
                await asyncio.sleep(options.n)
                sent.append((await _messages(port) - before) / options.n / options.workers)
            cpu.append(timing.sample.worker_cpu / timing.sample.seconds * 100 / options.workers)
            server_cpu.append(timing.sample.server_cpu / timing.sample.seconds * 100)
            memory.append(sum(map(machine.rss_mb, pids)))
            server_memory.append(timing.sample.server_rss_mb)
    return Report(
        workload="idle",
        title=f"idle: a worker with {flows.IDLE_STEPS} steps and nothing to do, for {options.n} s",
        n=options.n,
        options=options,
        worker_rss_mb=median(memory),
        server_rss_mb=median(server_memory),
        rows=[
            Row("worker CPU, % of a core", None, median(cpu), ".2f"),
            Row("server CPU, % of a core", None, median(server_cpu), ".2f"),
            Row("messages sent a second", None, median(sent), ".2f"),
            Row("worker memory, MB", None, median(memory)),
        ],
        goals=[
            Goal(f"idle: under 1 % of a core, and is {median(cpu):.2f} %", median(cpu) < 1),
            Goal(f"idle: under 2 messages a second, and is {median(sent):.2f}", median(sent) < 2),
        ],
        figures={"cpu_percent": median(cpu), "server_cpu_percent": median(server_cpu), "messages_per_s": median(sent)},
    )


async def _messages(port: int) -> int:
    """Return how many messages all clients have sent to the server so far; the bench's own sends none."""

    def read() -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{port}/connz?state=any", timeout=10) as answer:
            return msgspec.json.decode(answer.read())

    connections = (await asyncio.to_thread(read))["connections"]
    return sum(connection["in_msgs"] for connection in connections)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WORKLOAD: Final = Workload(
    name="idle",
    summary=f"messages and CPU of an idle worker with {flows.IDLE_STEPS} steps",
    n_is="seconds",
    n=30,
    run=run,
    rounds=1,
)
