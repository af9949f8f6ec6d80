"""`ctx.once` records a value for good, and `on_failure` runs once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.engine.tasks import Failure, Outcome
from jetflow.wire.records import encode
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_outcomes import take_and_die

MakeWorker = Callable[..., Worker]


async def test_a_value_survives_retries(client: Client, worker: MakeWorker) -> None:
    calls: list[str] = []

    def charge(amount: int) -> str:
        calls.append(f"charged {amount}")
        return f"receipt {len(calls)}"

    @workflow("charge", retry=Retry(attempts=3, initial=0))
    async def charging(_: None, ctx: Context) -> str:
        receipt = await ctx.once("charge", charge, 12)
        if ctx.attempt < 3:
            raise OSError
        return receipt

    async with worker([charging]):
        assert await (await client.trigger(charging)).result(PATIENCE) == "receipt 1"
    assert calls == ["charged 12"]


async def test_a_value_survives_parking(client: Client, worker: MakeWorker) -> None:
    calls: list[int] = []

    @workflow("child")
    async def child() -> None: ...

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        number = await ctx.once("number", lambda: calls.append(1) or len(calls))
        await (await ctx.spawn_workflow(child)).result()
        return number

    async with worker([parent], options=WorkerOptions(park_after=0)) as first:
        run = await client.trigger(parent)
        await until(lambda: parked(first))
    async with worker([parent, child]):
        assert await run.result(PATIENCE) == 1
    assert calls == [1]


async def parked(worker: Worker) -> bool:
    return worker.counts.parked == 1


async def test_the_first_value_wins(client: Client, worker: MakeWorker) -> None:
    """Two that compute at once, such as a step and its zombie, are given the same value."""
    both = asyncio.Barrier(2)

    async def compute(value: str) -> str:
        await both.wait()
        return value

    @workflow("twice")
    async def twice(_: None, ctx: Context) -> list[str]:
        return list(await asyncio.gather(ctx.once("value", compute, "a"), ctx.once("value", compute, "b")))

    async with worker([twice]):
        one, other = await (await client.trigger(twice)).result(PATIENCE)
    assert one == other


async def test_nothing_is_recorded_of_a_call_that_raises(client: Client, worker: MakeWorker) -> None:
    @workflow("flaky", retry=Retry(attempts=2, initial=0))
    async def flaky(_: None, ctx: Context) -> float:
        return await ctx.once("quotient", lambda: 1 / (ctx.attempt - 1))

    async with worker([flaky]):
        assert await (await client.trigger(flaky)).result(PATIENCE) == 1.0


@pytest.mark.parametrize("name", ["charge", "_hidden", "with a space", "a.b", "*", ">", "größe", "", "x" * 300])
async def test_any_text_is_a_name(client: Client, worker: MakeWorker, name: str) -> None:
    @workflow("named")
    async def named(_: None, ctx: Context) -> list[Any]:
        return [await ctx.once(name, lambda: 1), await ctx.once(name, lambda: 2), await ctx.once("other", lambda: 3)]

    async with worker([named]):
        assert await (await client.trigger(named)).result(PATIENCE) == [1, 1, 3]


async def test_none_is_a_value(client: Client, worker: MakeWorker) -> None:
    calls: list[int] = []

    @workflow("nothing")
    async def nothing(_: None, ctx: Context) -> None:
        assert await ctx.once("nothing", calls.append, 1) is None
        assert await ctx.once("nothing", calls.append, 2) is None

    async with worker([nothing]):
        await (await client.trigger(nothing)).result(PATIENCE)
    assert calls == [1]


async def test_a_value_that_is_too_large_for_a_record_is_refused(client: Client, worker: MakeWorker) -> None:
    @workflow("large")
    async def large(_: None, ctx: Context) -> None:
        await ctx.once("large", lambda: "x" * 2_000_000)

    async with worker([large]):
        with pytest.raises(RunFailed, match="PayloadTooLarge"):
            await (await client.trigger(large)).result(PATIENCE)


# --- on_failure ------------------------------------------------------------------------------------------------


def watched(**options: Any) -> tuple[Workflow[Any, Any], list[list[str]], asyncio.Event]:
    """A workflow that fails, and what its on_failure was told."""
    flow, told, heard = Workflow[Any, Any]("watched", **options), list[list[str]](), asyncio.Event()

    @flow.step
    async def fails(_: None, ctx: Context) -> None:
        raise OSError(f"attempt {ctx.attempt}")

    @flow.on_failure
    async def tell(_: None, ctx: Context) -> None:
        told.append([error.message for error in ctx.errors])
        heard.set()

    return flow, told, heard


async def test_on_failure_is_told_the_errors(client: Client, worker: MakeWorker) -> None:
    """The run's own first, then those of the attempts before it."""
    flow, told, _ = watched(retry=Retry(attempts=2, initial=0))
    async with worker([flow]):
        run = await client.trigger(flow)
        with pytest.raises(RunFailed, match="attempt 2"):
            await run.result(PATIENCE)
        await until(Stored(client).is_idle)
    assert told == [["attempt 2", "attempt 1"]]


async def test_on_failure_runs_though_the_worker_died_after_the_outcome(client: Client, worker: MakeWorker) -> None:
    """Its task was not published yet: the redelivery of the task that failed does it."""
    flow, told, heard = watched(retry=Retry(attempts=1))
    options = WorkerOptions(ack_wait=0.3)
    async with worker([flow], options=options):
        pass
    run = await client.trigger(flow)
    await take_and_die(client, "watched", "fails", times=1)
    names, session = client._session.names, client._session
    outcome = Outcome(status="failed", error=Failure("OSError", "stored, then died"), workflow="watched", step="fails")
    await session.publisher.store(names.run(run.id, "-", "-", run.id), encode(outcome))
    async with worker([flow], options=options) as second:
        await asyncio.wait_for(heard.wait(), PATIENCE)
        await until(Stored(client).is_idle)
    assert told == [["stored, then died"]]
    assert second.counts.executed == 1


async def test_on_failure_runs_after_the_deadline(client: Client, worker: MakeWorker) -> None:
    """The time is up for the run, and not for what cleans up behind it, nor for the children of that."""
    flow, cleaned = Workflow("late", deadline=0.1), asyncio.Event()

    @workflow("sweep-up")
    async def sweep_up() -> None:
        cleaned.set()

    @flow.step
    async def endless() -> None:
        await asyncio.Event().wait()

    @flow.on_failure
    async def clean(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(sweep_up)).result()

    async with worker([flow, sweep_up]):
        with pytest.raises(RunFailed, match="timed_out"):
            await (await client.trigger(flow)).result(PATIENCE)
        await asyncio.wait_for(cleaned.wait(), PATIENCE)
        await until(Stored(client).is_idle)


async def test_on_failure_does_not_run_for_what_was_cancelled(client: Client, worker: MakeWorker) -> None:
    flow, told, _ = watched()
    run = await client.trigger(flow)
    await client.cancel(run.id)
    async with worker([flow]):
        await until(Stored(client).is_idle)
    assert told == []


async def test_on_failure_may_fail_itself(client: Client, worker: MakeWorker) -> None:
    """It has its attempts, and the run stays as it ended."""
    flow, tried = Workflow("unlucky", retry=Retry(attempts=2, initial=0)), list[int]()

    @flow.step
    async def fails() -> None:
        raise OSError("the cause")

    @flow.on_failure
    async def fails_too(_: None, ctx: Context) -> None:
        tried.append(ctx.attempt)
        raise ValueError("and more")

    async with worker([flow]):
        run = await client.trigger(flow)
        with pytest.raises(RunFailed, match="the cause"):
            await run.result(PATIENCE)
        await until(Stored(client).is_idle)
        with pytest.raises(RunFailed, match="the cause"):
            await run.result(PATIENCE)
    assert tried == [1, 2]


async def test_on_failure_runs_for_failed_children_of_a_step(client: Client, worker: MakeWorker) -> None:
    flow, told = Workflow("boundary"), list[str]()

    @workflow("bad", retry=Retry(attempts=1))
    async def bad() -> None:
        raise OSError("below")

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(bad)

    @flow.on_failure
    async def tell(_: None, ctx: Context) -> None:
        told.append(ctx.errors[0].type)

    async with worker([flow, bad]):
        with pytest.raises(RunFailed, match="below"):
            await (await client.trigger(flow)).result(PATIENCE)
        await until(Stored(client).is_idle)
    assert told == ["ChildrenFailed"]
