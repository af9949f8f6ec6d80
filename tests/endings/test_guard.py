"""A guard keeps alive what its worker holds, whatever that does, and gives it back at once when the worker dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias

import pytest
import pytest_asyncio

from jetflow import Client, RunFailed, Worker, WorkerOptions
from jetflow.errors import BrokerTimeout
from jetflow.processes.releasing import LOST
from jetflow.server import NatsServer
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.services import Services
from tests.endings import guarded_worker
from tests.endings.guarded_worker import FLOWS, SLOTS, clutching, forking, holding, holding_once, options
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import services
from tests.processes import children_of, lives

MakeWorker = Callable[..., Worker]

NEVER: Final = 600.0
"""Seconds of silence after which tasks would be delivered again without a guard."""


class Guarded:
    """A worker process, and the lines that it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def says(self, text: str, *, times: int = 1) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while sum(text in line for line in self.said) < times:
                line = await self.process.stdout.readline()
                assert line, self.said
                self.said.append(line.decode())
        return self.said[-1]

    async def guard(self) -> int:
        """Return the process id of its guard."""
        return (await until(lambda: _children(self.process.pid)))[0]

    async def dies(self, *others: int) -> None:
        self.process.kill()
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        await self.process.wait()


async def _children(pid: int) -> list[int]:
    return children_of(pid)


async def _is_gone(pid: int) -> bool:
    return not lives(pid)


Start: TypeAlias = Callable[[float], Awaitable[Guarded]]


@pytest_asyncio.fixture
async def start(nats_server: NatsServer, namespace: str, client: Client) -> AsyncGenerator[Start]:
    """Starts worker processes, which are gone behind the test, with their guards."""
    started: list[Guarded] = []
    guards: list[int] = []

    async def one(ack_wait: float) -> Guarded:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", guarded_worker.__name__, nats_server.url, namespace, str(ack_wait)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started.append(Guarded(process))
        await started[-1].says("guarded")
        guards.append(await started[-1].guard())
        return started[-1]

    yield one
    for guarded in started:
        if guarded.process.returncode is None:
            guarded.process.kill()
        await guarded.process.communicate()
    for guard in guards:
        await until(lambda pid=guard: _is_gone(pid))


async def test_a_task_whose_worker_dies_is_delivered_again_at_once(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    """As the next attempt; and it is told which worker was lost."""
    first = await start(NEVER)
    gate = tmp_path / "gate"
    run = await client.trigger(holding, str(gate))
    await first.says("holding 1")
    await first.dies()
    gate.touch()
    async with worker(FLOWS, options=options(NEVER)):
        assert await run.result(PATIENCE) == 2
    (lost,) = (await client.describe(run.id)).steps[0].failures
    assert lost.error is not None
    assert (lost.attempt, lost.error.type) == (1, LOST)
    assert f"-{first.process.pid} died while it ran this step" in lost.error.message
    assert 0 < (lost.started or 0) < (lost.ended or 0)


async def test_what_had_not_begun_is_no_attempt(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    first = await start(NEVER)
    gate = tmp_path / "gate"
    runs = [await client.trigger(holding, str(gate)) for _ in range(2 * SLOTS)]
    await first.says("holding 1", times=SLOTS)
    await until(lambda: _are_fetched(client, 2 * SLOTS))
    await first.dies()
    gate.touch()
    async with worker(FLOWS, options=options(NEVER)):
        ended = [await run.result(PATIENCE) for run in runs]
    assert sorted(ended) == [1] * SLOTS + [2] * SLOTS


async def _are_fetched(client: Client, count: int) -> bool:
    return await _fetched(client) == count


async def _fetched(client: Client) -> int:
    session = client._session
    consumer = session.names.consumer(holding.name, "run")
    info = await session.connection.api(f"CONSUMER.INFO.{session.names.tasks_stream}.{consumer}")
    return int(info["num_ack_pending"])


async def test_what_a_worker_was_given_and_never_saw_is_given_back(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    """And what other workers have is left to them, begun or not."""
    gate, count = tmp_path / "gate", 4 * SLOTS
    first = await start(NEVER)
    first.process.send_signal(signal.SIGSTOP)
    runs = [await client.trigger(holding, str(gate))]
    await until(lambda: _are_fetched(client, 1))
    async with worker(FLOWS, options=options(NEVER)) as other:
        runs += [await client.trigger(holding, str(gate)) for _ in range(count)]
        await until(lambda: _is_busy(other))
        given_back = await _fetched(client) - len(services(other).deliveries.held())
        await first.dies()
        await first.says(f"died: {given_back} tasks that it had are given back")
        gate.touch()
        assert [await run.result(PATIENCE) for run in runs] == [1] * (count + 1)
    assert given_back >= 1
    assert (other.counts.executed, other.counts.redelivered) == (count + 1, given_back)


async def _is_busy(worker: Worker) -> bool:
    return worker.counts.executed == SLOTS and len(services(worker).deliveries.held()) >= 2 * SLOTS


async def test_a_body_that_was_lost_was_its_only_attempt(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    first = await start(NEVER)
    run = await client.trigger(holding_once, str(tmp_path / "gate"))
    await first.says("began once")
    await first.dies()
    async with worker(FLOWS, options=options(NEVER)) as other:
        with pytest.raises(RunFailed, match="Poisoned"):
            await run.result(PATIENCE)
    assert other.counts.executed == 0


async def test_a_child_that_outlives_the_worker_hides_its_death_from_nobody(
    client: Client, worker: MakeWorker, start: Start
) -> None:
    first = await start(NEVER)
    run = await client.trigger(forking)
    child = int((await first.says("child ")).split()[1])
    try:
        async with worker(FLOWS, options=options(NEVER)):
            assert await run.result(PATIENCE) == 2
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_guard_that_dies_is_replaced(client: Client, worker: MakeWorker, start: Start, tmp_path: Path) -> None:
    first = await start(NEVER)
    gate = tmp_path / "gate"
    run = await client.trigger(holding, str(gate))
    await first.says("holding 1")
    elder = await first.guard()
    os.kill(elder, signal.SIGKILL)
    await first.says("the guard of this worker ended (-9)")
    await first.says("guarded", times=2)
    await first.dies()
    gate.touch()
    async with worker(FLOWS, options=options(NEVER)):
        assert await run.result(PATIENCE) == 2


async def test_worker_and_guard_die_together(client: Client, worker: MakeWorker, start: Start, tmp_path: Path) -> None:
    """As where the machine is gone: the broker notices by their silence. What had begun once more counts once."""
    first = await start(1.0)
    gate = tmp_path / "gate"
    run = await client.trigger(holding, str(gate))
    await first.says("holding 1")
    began = monotonic()
    guard = await first.guard()
    os.kill(guard, signal.SIGSTOP)  # or it would be quicker than the second signal
    await first.dies(guard)
    gate.touch()
    async with worker(FLOWS, options=options(1.0)):
        assert await run.result(PATIENCE) == 1
    assert monotonic() - began > 0.5


async def test_a_call_that_lets_nothing_else_run_loses_no_task(
    client: Client, worker: MakeWorker, start: Start
) -> None:
    """Not even a thread of its worker can run; others wait for such tasks, and are not given this one."""
    ack_wait = 1
    first = await start(ack_wait)
    run = await client.trigger(clutching, 3 * ack_wait)
    await first.says("clutching 1")
    async with worker(FLOWS, options=options(ack_wait)) as other:
        assert await run.result(PATIENCE) == 1
    assert other.counts.executed == other.counts.redelivered == 0


async def test_a_worker_whose_guard_stands_still_keeps_its_tasks_alive_itself(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    ack_wait = 1.0
    first = await start(ack_wait)
    gate = tmp_path / "gate"
    run = await client.trigger(holding, str(gate))
    await first.says("holding 1")
    guard = await first.guard()
    os.kill(guard, signal.SIGSTOP)
    async with worker(FLOWS, options=options(ack_wait)) as other:
        stopped = monotonic()
        await until(lambda: _is_over(stopped + 3 * ack_wait))
        gate.touch()
        assert await run.result(PATIENCE) == 1
    os.kill(guard, signal.SIGCONT)
    assert other.counts.redelivered == 0


async def _is_over(moment: float) -> bool:
    return monotonic() > moment


async def test_a_worker_that_is_stopped_by_a_signal_keeps_nothing_from_others(
    client: Client, worker: MakeWorker, start: Start, tmp_path: Path
) -> None:
    """Its guard does not keep alive what nobody works at; what it has done in the end changes nothing."""
    first = await start(1.0)
    gate = tmp_path / "gate"
    run = await client.trigger(holding, str(gate))
    await first.says("holding 1")
    first.process.send_signal(signal.SIGSTOP)
    gate.touch()
    async with worker(FLOWS, options=options(1.0)):
        assert await run.result(PATIENCE) == 1
        first.process.send_signal(signal.SIGCONT)
        await until(Stored(client).is_idle)
    assert (await client.describe(run.id)).status == "succeeded"


async def test_a_worker_that_stops_gives_back_what_it_has_to_itself(
    client: Client, start: Start, tmp_path: Path
) -> None:
    """Its guard ends with it, and records nothing."""
    first = await start(NEVER)
    run = await client.trigger(holding, str(tmp_path / "gate"))
    await first.says("holding 1")
    guard = await first.guard()
    first.process.send_signal(signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert await run.result(PATIENCE) == 1
    assert await first.process.wait() == 0
    await until(lambda: _is_gone(guard))
    assert (await client.describe(run.id)).steps[0].failures == ()


async def test_a_worker_that_cannot_start_has_no_guard_to_end(
    worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Services) -> None:
        raise BrokerTimeout("nobody is there")

    monkeypatch.setattr(Services, "start", fails)
    with pytest.raises(BrokerTimeout, match="nobody is there"):
        await worker(FLOWS, options=WorkerOptions(guard=True)).start()


async def test_an_embedded_worker_has_a_guard_where_it_is_asked_for(worker: MakeWorker) -> None:
    async with worker(FLOWS) as without:
        assert services(without).guarding is None
    async with worker(FLOWS, options=WorkerOptions(guard=True)) as guarded:
        assert services(guarded).guarding is not None
        deliveries = services(guarded).deliveries
        await until(lambda: _is_guarded(deliveries))


async def _is_guarded(deliveries: Deliveries) -> bool:
    return deliveries.is_guarded(PATIENCE)
