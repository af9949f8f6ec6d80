"""A worker that is paused loses what it holds to others, and is in nobody's way when it goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from jetflow import Client, Worker, Workflow
from jetflow.engine.tasks import StepAddress
from jetflow.server import NatsServer
from tests.endings import pausing_worker
from tests.endings.pausing_worker import OPTIONS, parent, retrying, running
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import services

MakeWorker = Callable[..., Worker]

ALL = [running, parent, retrying]


class Paused:
    """A worker process, and the lines that it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def says(self, text: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not any(text in line for line in self.said):
                line = await self.process.stdout.readline()
                assert line, self.said
                self.said.append(line.decode())

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest_asyncio.fixture
async def other(nats_server: NatsServer, namespace: str, client: Client) -> AsyncGenerator[Paused]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", pausing_worker.__name__, nats_server.url, namespace), stdout=asyncio.subprocess.PIPE
    )
    paused = Paused(process)
    try:
        await paused.says("runs running")
        yield paused
    finally:
        paused.go_on()
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("flow", [running, parent], ids=["running", "waiting"])
async def test_what_a_paused_worker_holds_goes_on_elsewhere(
    client: Client, worker: MakeWorker, other: Paused, stored: Stored, tmp_path: Path, flow: Workflow[str, int]
) -> None:
    """As the attempt that it was: a pause is none, however often the paused worker is given the task meanwhile."""
    run = await client.trigger(flow, str(tmp_path / "gate"))
    await other.says("running 1")
    other.pause()
    async with worker(ALL, options=OPTIONS) as here:
        await until(lambda: runs(here, 1 if flow is running else 2))
        other.go_on()
        (tmp_path / "gate").touch()
        assert await run.result(PATIENCE) == 1
        await until(stored.all_acknowledged)  # before both stop, and nobody is there for what they hand back


async def test_a_parked_task_is_not_the_paused_workers(
    client: Client, worker: MakeWorker, other: Paused, tmp_path: Path, stored: Stored
) -> None:
    run = await client.trigger(parent, str(tmp_path / "gate"))
    await other.says("running 1")
    parked = client._session.names.joins_of_step(StepAddress(run.id, run.id, "run"))
    await until(lambda: stored.subjects(client._session.names.records_stream, parked))
    other.pause()
    async with worker(ALL, options=OPTIONS):
        (tmp_path / "gate").touch()
        assert await run.result(PATIENCE) == 1


async def test_a_retry_that_a_paused_worker_holds_in_memory_is_made_elsewhere(
    client: Client, worker: MakeWorker, other: Paused, tmp_path: Path, stored: Stored
) -> None:
    run = await client.trigger(retrying, str(tmp_path / "gate"))
    names = client._session.names
    failed = names.attempts_of_run(run.id, run.id)
    await until(lambda: stored.subjects(names.records_stream, failed))
    other.pause()
    async with worker(ALL, options=OPTIONS):
        assert await run.result(PATIENCE) == 2


async def test_what_was_sent_to_a_paused_worker_is_looked_at_before_it_begins(
    client: Client, worker: MakeWorker, other: Paused, tmp_path: Path
) -> None:
    """It is a first delivery, and another worker has begun the task since."""
    await until(lambda: is_pulled(client, "running"))
    other.pause()
    run = await client.trigger(running, str(tmp_path / "gate"))
    async with worker(ALL, options=OPTIONS) as here:
        await until(lambda: runs(here, 1))
        other.go_on()
        await other.says("is left to the worker that runs it")
        (tmp_path / "gate").touch()
        assert await run.result(PATIENCE) == 1
    assert not any("running 1" in line for line in other.said)


async def test_what_comes_soon_after_a_pause_is_looked_at_too(
    client: Client, worker: MakeWorker, tmp_path: Path
) -> None:
    """It may have lain in the socket, of which only a part is read at once."""
    (tmp_path / "gate").touch()
    async with worker(ALL) as only:
        services(only).fetcher._doubt()
        assert await (await client.trigger(running, str(tmp_path / "gate"))).result(PATIENCE) == 1
        assert only.counts.redelivered == 1


async def is_pulled(client: Client, flow: str) -> bool:
    names = client._session.names
    consumer = f"{names.tasks_stream}.{names.consumer(flow, 'run')}"
    return bool((await client._session.connection.api(f"CONSUMER.INFO.{consumer}"))["num_waiting"])


async def runs(worker: Worker, count: int) -> bool:
    """Whether so many bodies run in a worker."""
    return len(services(worker).executor.bodies.running) == count
