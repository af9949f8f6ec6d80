"""One measurement: a fresh server, fresh worker processes of one side, a client, and a reading of what they used.

Each measurement has a server of its own, so that neither side inherits what the other has stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

import msgspec

import jetflow
from benchmarks import machine
from benchmarks.bare.client import BareClient, bare_client
from benchmarks.options import Options
from benchmarks.processes import WorkerProcess, worker_processes
from benchmarks.progress import show
from jetflow import Client
from jetflow.server import NatsServer, ServerOptions

NAMESPACE: Final = "default"
_DURABLE: Final = "jetstream { sync_interval: always }\n"


class Sample(msgspec.Struct, kw_only=True):
    """What one run took. Memory is MB of resident set, of all workers together; CPU is seconds."""

    seconds: float
    worker_rss_before_mb: float
    worker_rss_mb: float
    worker_peak_mb: float
    worker_cpu: float
    server_rss_mb: float
    server_cpu: float


class Bench(msgspec.Struct):
    """A running server and its workers."""

    server: NatsServer
    workers: list[WorkerProcess]
    records_stream: str
    _earlier_cpu: float = 0.0

    @property
    def server_pid(self) -> int:
        """The server's process id."""
        assert self.server.pid is not None
        return self.server.pid

    @property
    def server_cpu(self) -> float:
        """Processor seconds of the server so far, and of those that were killed before it."""
        return self._earlier_cpu + machine.cpu_seconds(self.server_pid)

    async def kill_server(self) -> None:
        """End the server as a crash would. Its store stays, and ``server.start()`` runs it again."""
        self._earlier_cpu = self.server_cpu
        await self.server.kill()

    @asynccontextmanager
    async def timed(self, label: str, expected: int = 0) -> AsyncIterator[Timing]:
        """Time the block, with progress towards ``expected`` stored results, and read what the processes used."""
        timing = Timing(self)
        async with show(label, self.server.url, self.records_stream, expected):
            timing.start()
            yield timing
            timing.stop()


class Timing:
    """The clock and the meters around one run."""

    sample: Sample

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._pids = [worker.pid for worker in bench.workers]

    def start(self) -> None:
        """Read the meters and start the clock."""
        for pid in self._pids:
            machine.reset_peak(pid)
        self._rss_before = sum(map(machine.rss_mb, self._pids))
        self._worker_cpu = sum(map(machine.cpu_seconds, self._pids))
        self._server_cpu = self._bench.server_cpu
        self._began = perf_counter()

    def stop(self) -> None:
        """Stop the clock and read the meters."""
        seconds = perf_counter() - self._began
        self.sample = Sample(
            seconds=seconds,
            worker_rss_before_mb=self._rss_before,
            worker_rss_mb=sum(map(machine.rss_mb, self._pids)),
            worker_peak_mb=sum(map(machine.peak_rss_mb, self._pids)),
            worker_cpu=sum(map(machine.cpu_seconds, self._pids)) - self._worker_cpu,
            server_rss_mb=machine.rss_mb(self._bench.server_pid),
            server_cpu=self._bench.server_cpu - self._server_cpu,
        )


@asynccontextmanager
async def server(options: Options, config: str = "") -> AsyncIterator[NatsServer]:
    """Run a server for one measurement."""
    async with NatsServer(options=ServerOptions(config=config + (_DURABLE if options.durable else ""))) as running:
        yield running


@asynccontextmanager
async def bare_bench(options: Options) -> AsyncIterator[tuple[Bench, BareClient]]:
    """Run a server, workers and a client of the floor."""
    async with (
        server(options) as running,
        bare_client(running.url) as client,
        worker_processes("benchmarks.bare.worker", running.url, count=options.workers) as workers,
    ):
        yield Bench(running, workers, "BARE_results"), client


@asynccontextmanager
async def jetflow_bench(
    workload: str, options: Options, *, config: str = "", workers: int | None = None, settings: Sequence[str] = ()
) -> AsyncIterator[tuple[Bench, Client]]:
    """Run a server, workers and a client of jetflow. ``settings`` are options of the workers, as ``name=number``."""
    count = options.workers if workers is None else workers
    how = (workload, str(options.slots), *(["durable"] if options.durable else []), *settings)
    async with (
        server(options, config) as running,
        worker_processes("benchmarks.jetflow_worker", running.url, *how, count=count) as started,
        jetflow.connect(running.url, namespace=NAMESPACE) as client,
    ):
        yield Bench(running, started, f"JF_{NAMESPACE}_records"), client


def patience(count: int) -> float:
    """Return the seconds after which a run of ``count`` children counts as stuck."""
    return 60 + count / 200
