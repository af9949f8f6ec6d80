"""A worker stops while a plain def step runs in a thread, which nothing can stop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from time import monotonic

import msgspec
import pytest

from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow
from jetflow.engine.tasks import Outcome
from jetflow.wire.records import encode
from jetflow.worker.execution import Execution
from tests.endings.stored import PATIENCE, until

ONCE = Retry(attempts=1)
began, go_on = threading.Event(), threading.Event()
bodies: list[bool] = []


@pytest.fixture(autouse=True)
async def gate() -> AsyncIterator[None]:
    began.clear()
    go_on.clear()
    bodies.clear()
    yield
    go_on.set()


@workflow("stuck", retry=ONCE)
def stuck() -> int:
    bodies.append(True)
    began.set()
    go_on.wait()
    return len(bodies)


@workflow("attentive", retry=ONCE)
def attentive(_: int, ctx: Context) -> int:
    bodies.append(True)
    began.set()
    while len(bodies) == 1 and not ctx.cancelled:
        go_on.wait(0.01)
    return len(bodies)


@workflow("slow", retry=ONCE)
async def slow() -> None:
    await asyncio.sleep(0)


@workflow("impatient", retry=ONCE, timeout=0.05)
def impatient(_: int, ctx: Context) -> None:
    while not ctx.cancelled:
        go_on.wait(0.01)
    bodies.append(True)


@workflow("hangs", retry=ONCE, timeout=0.05)
def hangs() -> None:
    go_on.wait()


async def told(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds)


async def test_what_goes_on_in_a_thread_is_begun_by_nobody_else(
    client: Client, worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    options = WorkerOptions(ack_wait=1.0)
    async with worker([stuck], options=options):
        run = await client.trigger(stuck)
        await asyncio.to_thread(began.wait, PATIENCE)
        stopped = monotonic()
    assert monotonic() - stopped < 2.0 + 1.0  # the grace time of these tests is far below a second
    assert "1 steps go on in threads" in caplog.text
    async with worker([stuck], options=options):
        with pytest.raises(TimeoutError):
            await run.result(2.5)  # more than twice what a task lives that nobody keeps alive
        assert len(bodies) == 1
        go_on.set()
        assert await run.result(PATIENCE) == 2


async def test_what_has_gone_on_in_a_thread_is_handed_back_when_it_returns(
    client: Client, worker: Callable[..., Worker]
) -> None:
    options = WorkerOptions(ack_wait=3 * PATIENCE)  # by which the broker itself would deliver it again
    async with worker([stuck], options=options):
        run = await client.trigger(stuck)
        await asyncio.to_thread(began.wait, PATIENCE)
    go_on.set()
    async with worker([stuck], options=options):
        assert await run.result(PATIENCE) == 2


async def test_a_step_in_a_thread_is_told_that_its_worker_ends(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([attentive]):
        run = await client.trigger(attentive, 0)
        await asyncio.to_thread(began.wait, PATIENCE)
    async with worker([attentive]):
        assert await run.result(PATIENCE) == 2


async def test_a_step_in_a_thread_is_told_that_its_time_is_over(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([impatient]):
        run = await client.trigger(impatient, 0)
        with pytest.raises(Exception, match="timeout"):
            await run.result(PATIENCE)
        await told(lambda: len(bodies) == 1)


went_on: list[int] = []
held = asyncio.Event()


@workflow("child-of-one")
async def child_of_one(number: int) -> int:
    await held.wait()
    return number


@workflow("goes-on", retry=ONCE)
async def goes_on(number: int, ctx: Context) -> int:
    await (await ctx.spawn_workflow(child_of_one, number)).result()
    went_on.append(number)
    return number


async def test_a_step_that_is_parked_does_not_go_on(client: Client, worker: Callable[..., Worker]) -> None:
    """Its child ends in the very pass of the event loop in which it is parked: what is behind the wait is done once."""
    went_on.clear()
    held.clear()
    async with worker([goes_on, child_of_one]) as running:
        run = await client.trigger(goes_on, 1)
        services = running._services
        assert services is not None

        def waits() -> Execution | None:
            bodies = services.executor.bodies.running.values()
            return next((one for one in bodies if isinstance(one, Execution) and not one.holds_slot), None)

        await told(lambda: waits() is not None)
        body = waits()
        assert body is not None
        outcome = encode(Outcome(status="succeeded", output=msgspec.Raw(b"1"), workflow="child-of-one"))
        body.park()
        assert body.waiting._waits.take(body.spawner.owned(), outcome)
        await told(lambda: waits() is None)
        held.set()
        assert await run.result(PATIENCE) == 1
    assert went_on == [1]


async def test_threads_that_hang_do_not_grow_without_bound(
    client: Client,
    worker: Callable[..., Worker],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jetflow.worker.executor.NO_THREADS_DELAY", 0.05)
    caplog.set_level(logging.ERROR, "jetflow.worker")
    async with worker([hangs, attentive, slow], slots=2):
        for _ in range(3):
            with pytest.raises(Exception, match="timeout"):
                await (await client.trigger(hangs)).result(PATIENCE)
        waits = await client.trigger(attentive, 0)
        await told(lambda: "more than 2 threads go on" in caplog.text)
        await (await client.trigger(slow)).result(PATIENCE)
        assert not bodies
        bodies.append(True)  # so that it returns at once
        go_on.set()
        assert await waits.result(PATIENCE) == 2
    assert caplog.text.count("more than 2 threads go on") == 1
