"""What a client may ask of what goes on: fan-outs as they change, queues, workers and what they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidQuery, Retry, RunFailed, Worker, Workflow, workflow
from jetflow.runs.query.rows import Change, RunTotals


async def test_workers_tell_what_they_run(client: Client, worker: Callable[..., Worker]) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @workflow("slow")
    async def slow() -> None:
        began.set()
        await may_end.wait()

    assert await client.workers() == []
    async with worker([slow], slots=7) as only:
        run = await client.trigger(slow)
        await asyncio.wait_for(began.wait(), PATIENCE)
        [row] = await client.workers()
        assert (row.name, row.slots, row.used, row.waiting, row.workflows) == (only.name, 7, 1, 0, ("slow",))
        assert (row.executed, row.succeeded, row.leaving) == (1, 0, False)
        [running] = row.running
        assert (running.run, running.workflow, running.step, running.attempt) == (run.id, "slow", "run", 1)
        [held] = await client.running(run.id, stack=True)
        assert held.state == "running"
        assert abs(time.time() - (held.started or 0.0)) < PATIENCE
        assert "await may_end.wait()" in held.stack
        assert "bodies.py" not in held.stack
        assert (await client.running(run.id))[0].stack == ""
        may_end.set()
        await run.result(PATIENCE)
        assert await client.running(run.id) == []


async def test_the_stack_of_a_step_in_a_thread(client: Client, worker: Callable[..., Worker]) -> None:
    began, may_end = threading.Event(), threading.Event()

    @workflow("blocking")
    def blocking() -> None:
        began.set()
        may_end.wait(PATIENCE)

    async with worker([blocking]):
        run = await client.trigger(blocking)
        await until(began.is_set)
        [held] = await client.running(run.id, stack=True)
        assert "may_end.wait(PATIENCE)" in held.stack
        assert "bodies.py" not in held.stack
        may_end.set()
        await run.result(PATIENCE)


async def test_a_step_that_waits_for_children_is_told_as_such(client: Client, worker: Callable[..., Worker]) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @workflow("child")
    async def child() -> None:
        began.set()
        await may_end.wait()

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(child)).result()

    async def waits() -> bool:
        return [held.state for held in await client.running(run.id)] == ["waiting"]

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await asyncio.wait_for(began.wait(), PATIENCE)
        await until(waits)
        [row] = await client.workers()
        assert (row.used, row.waiting, len(row.running)) == (1, 1, 2)
        may_end.set()
        await run.result(PATIENCE)


async def test_a_fan_out_is_watched_to_its_end(client: Client, worker: Callable[..., Worker]) -> None:
    """What is seen never exceeds the truth, and equals it at the end."""

    @workflow("leaf", retry=Retry(attempts=1))
    async def leaf(number: int) -> int:
        await asyncio.sleep(0.01)
        return 1 // (number % 10)

    @workflow("fan")
    async def fan(count: int, ctx: Context) -> None:
        children = await ctx.spawn_workflows(leaf, range(count))
        await ctx.join(children, return_exceptions=True)

    seen: list[RunTotals] = []
    run = await client.trigger(fan, 300)

    async def look_on() -> None:
        async with aclosing(client.watch(run.id)) as looks:
            seen.extend([totals async for totals in looks])

    async with asyncio.timeout(PATIENCE), worker([fan, leaf], slots=5), asyncio.TaskGroup() as group:
        group.create_task(look_on())
        group.create_task(look_on())
    for one in seen:
        totals = one.totals
        assert totals.succeeded + totals.failed + totals.open <= totals.spawned <= 300
    last = seen[-1]
    assert (last.status, last.totals.succeeded, last.totals.failed, last.totals.open) == ("succeeded", 270, 30, 0)
    assert len(seen) > 2
    assert seen[0].status in ("queued", "running")
    assert client._watches._watches == {}


async def test_a_run_is_followed_until_it_ends(client: Client, worker: Callable[..., Worker]) -> None:
    flow = Workflow("flow")

    @workflow("leaf", retry=Retry(attempts=1))
    async def leaf(number: int) -> None:
        if number == 1:
            raise ValueError("no")

    @flow.step(retry=Retry(attempts=2, initial=0))
    async def first(_: None, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("busy")
        children = await ctx.spawn_workflows(leaf, range(3))
        await ctx.join(children, return_exceptions=True)

    @flow.step(after=first)
    async def second() -> None: ...

    run = await client.trigger(flow)
    seen: list[Change] = []
    roots: list[Change] = []

    async def follow() -> None:
        seen.extend([change async for change in client.follow(run.id)])

    async def follow_roots() -> None:
        async with aclosing(client.follow_roots()) as changes:
            async for change in changes:
                roots.append(change)
                if change.kind == "run" and change.run != run.id:
                    return

    looking = asyncio.create_task(follow())
    of_roots = asyncio.create_task(follow_roots())
    async with worker([flow, leaf]):
        await run.result(PATIENCE)
        await asyncio.wait_for(looking, PATIENCE)
        other = await client.trigger(leaf, 0)
        await other.result(PATIENCE)
        await asyncio.wait_for(of_roots, PATIENCE)
    kinds = [change.kind for change in seen]
    assert kinds.count("run") == 4
    assert (kinds.count("mark"), kinds.count("step")) == (1, 1)
    assert "try" in kinds
    assert (seen[-1].kind, seen[-1].run) == ("run", run.id)
    assert [change.sequence for change in seen] == sorted({change.sequence for change in seen})
    assert [change.kind async for change in client.follow(run.id)] == ["run"]
    assert ("run", run.id) in {(change.kind, change.run) for change in roots}


async def test_queues_tell_what_waits_and_are_paused(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("job", max_running=3)
    async def job(number: int) -> int:
        return number

    with pytest.raises(InvalidQuery, match="no worker has ever run"):
        await client.pause("job")
    async with worker([job]):
        pass
    before = time.time()
    runs = [await client.trigger(job, number) for number in range(4)]

    async def all_wait() -> bool:
        return [row.waiting for row in await client.queues()] == [4]

    await until(all_wait)
    [row] = await client.queues()
    assert (row.workflow, row.step, row.held, row.limit) == ("job", "run", 0, 3)
    assert before - 1 < (row.oldest or 0.0) < time.time() + 1
    assert await client.pause("job") == ["run"]
    async with worker([job]) as only:
        [row] = await client.queues()
        assert (row.paused_until or 0.0) > time.time() + 86400
        assert (row.waiting, only.counts.executed) == (4, 0)
        assert await client.resume("job", "run") == ["run"]
        for run in runs:
            await run.result(PATIENCE)
        [row] = await client.queues()
        assert (row.waiting, row.paused_until) == (0, None)
    with pytest.raises(InvalidQuery, match="is over"):
        await client.pause("job", until=before)


async def test_failures_are_grouped_by_what_they_have_in_common(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("leaf", retry=Retry(attempts=1))
    async def leaf(number: int) -> None:
        if number % 3 == 0:
            raise ValueError(f"cannot open '/p/{number}' after {number}.5 s")
        if number % 3 == 1:
            raise KeyError(number)

    @workflow("fan", retry=Retry(attempts=1))
    async def fan(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, range(count))

    async with worker([fan, leaf]):
        run = await client.trigger(fan, 31)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
    found = await client.errors(run.id)
    assert (found.total, found.searched.complete, found.searched.runs) == (21, True, 21)
    first, second = found.items
    assert (first.type, first.message, first.count) == ("ValueError", "cannot open … after … s", 11)
    assert (second.type, second.count, second.workflow) == ("KeyError", 10, "leaf")
    assert first.place.endswith(":leaf")
    assert len(first.samples) == 5
    assert sum(first.trend) == 11
    assert first.sample.startswith("cannot open '/p/")
    everywhere = await client.errors(since=time.time() - 3600)
    assert (everywhere.total, len(everywhere.items)) == (22, 3)
    assert (await client.errors(since=time.time() + 3600)).items == ()


async def test_history_counts_what_ended_when(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("leaf", retry=Retry(attempts=1))
    async def leaf(number: int) -> float:
        return 1 / number

    async with worker([leaf]):
        runs = [await client.trigger(leaf, number) for number in range(5)]
        for run in runs[1:]:
            await run.result(PATIENCE)
        with pytest.raises(RunFailed):
            await runs[0].result(PATIENCE)
    buckets = await client.history(since=time.time() - 600, buckets=10)
    assert 10 <= len(buckets) <= 12
    assert sum(bucket.ended for bucket in buckets) == 5
    assert (sum(bucket.failed for bucket in buckets), sum(bucket.succeeded for bucket in buckets)) == (1, 4)
    with pytest.raises(InvalidQuery):
        await client.history(since=time.time() + 60)


async def test_a_large_value_is_read_in_chunks(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("large")
    async def large(size: int) -> str:
        return "x" * size

    async with worker([large]):
        run = await client.trigger(large, 600_000)
        await run.result(PATIENCE)
    [step] = (await client.describe(run.id)).steps
    assert step.large_output is not None
    chunks = [chunk async for chunk in client.value(run.id, step.large_output.reference)]
    assert len(chunks) == 3
    assert b"".join(chunks) == b'"' + b"x" * 600_000 + b'"'
