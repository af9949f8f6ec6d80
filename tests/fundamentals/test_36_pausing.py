"""What waits for too long while its queue is paused is cancelled, and what goes on afterwards is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidInput, Retry, RunFailed, Worker, Workflow, workflow
from jetflow.triggering import Run

MakeWorker = Callable[..., Worker]


async def why_cancelled(run: Run[object]) -> str:
    """Wait for a run that is cancelled, and return why."""
    with pytest.raises(RunFailed) as caught:
        await run.result(PATIENCE)
    assert caught.value.status == "cancelled"
    return caught.value.error_message


async def nothing_is_left(client: Client) -> bool:
    return not any(row.waiting or row.held for row in await client.queues())


async def test_what_has_waited_for_too_long_is_cancelled(client: Client, worker: MakeWorker) -> None:
    """During the pause, and each for itself: what is asked for later has its own time. Whoever waits is told why."""
    begun: list[int] = []

    @workflow("letter")
    async def letter(number: int) -> int:
        begun.append(number)
        return number

    async with worker([letter]):
        assert await (await client.trigger(letter, 0)).result(PATIENCE) == 0
        assert await client.pause("letter", queue_ttl=1.0) == ["run"]
        [row] = await client.queues()
        assert row.queue_ttl == 1.0
        asked = time.time()
        first = await client.trigger(letter, 1, key="first")
        await asyncio.sleep(0.7)  # the time that passes is what is tested
        second = await client.trigger(letter, 2)
        reason = "waited for longer than 1 s in a queue that is paused: that of its step 'run'"
        assert reason in await why_cancelled(first)
        assert 1.0 < time.time() - asked < 3.0
        assert await second.status() == "queued"
        assert reason in await why_cancelled(second)
        [row] = await client.queues()
        assert row.paused_until is not None
        third = await client.trigger(letter, 3)
        assert await client.resume("letter") == ["run"]
        assert await third.result(PATIENCE) == 3
        assert begun == [0, 3]
        again = await client.trigger(letter, 1, key="first")  # its key stands for it as before
        assert again.id == first.id
        [row] = await client.queues()
        assert (row.paused_until, row.queue_ttl) == (None, None)


async def test_the_time_counts_from_the_pause(client: Client, worker: MakeWorker) -> None:
    """A backlog of before is not cancelled at once; and one that is paused anew goes on to count."""
    flow = Workflow("letter", input=int)
    flow.step(name="send")(lambda number: number)
    async with worker([flow]):
        pass
    old = await client.trigger(flow, 1)
    await asyncio.sleep(1.2)
    assert await client.pause("letter", queue_ttl=timedelta(seconds=1)) == ["send"]
    began = time.time()
    async with worker([flow]):
        await client.pause("letter", "send", queue_ttl=1)
        await why_cancelled(old)
        assert time.time() - began > 0.9
        await client.resume("letter")
        await until(partial(nothing_is_left, client))  # the run's first task is put back, for its key


async def test_a_run_that_has_begun_is_cancelled_where_it_would_go_on(client: Client, worker: MakeWorker) -> None:
    """A step alone may be paused so. A child's parent is told; what a worker holds is not touched."""
    held, may_end = asyncio.Event(), asyncio.Event()
    flow = Workflow("order", input=int)

    @flow.step
    async def check(number: int) -> None:
        if number == 0:
            held.set()
            await may_end.wait()

    @flow.step(after=check)
    async def ship(number: int) -> int:
        return number

    @workflow("parent", retry=Retry(attempts=1))
    async def parent(_: None, ctx: Context) -> str:
        with pytest.raises(RunFailed) as caught:
            await (await ctx.spawn_workflow(flow, 7)).result()
        return str(caught.value.status)

    async with worker([flow, parent]):
        await (await client.trigger(flow, -1)).result(PATIENCE)
        slow = await client.trigger(flow, 0)
        await asyncio.wait_for(held.wait(), PATIENCE)
        await client.pause("order", "ship", queue_ttl=0.3)
        above = await client.trigger(parent)
        assert "that of its step 'ship'" in await why_cancelled(await client.trigger(flow, 1))
        assert await above.result(PATIENCE) == "cancelled"
        assert await slow.status() == "running"
        await client.resume("order", "ship")
        may_end.set()
        assert await slow.result(PATIENCE) == 0


async def test_without_a_bound_everything_waits(client: Client, worker: MakeWorker) -> None:
    """Also where there was one, and the pause is now without."""

    @workflow("letter")
    async def letter(number: int) -> int:
        return number

    async with worker([letter]):
        await client.pause("letter", queue_ttl=0.3)
        run = await client.trigger(letter, 1)
        await client.pause("letter")
        [row] = await client.queues()
        assert row.queue_ttl is None
        await asyncio.sleep(1)
        assert await run.status() == "queued"
        await client.resume("letter")
        assert await run.result(PATIENCE) == 1


@pytest.mark.parametrize("ttl", [0, -1, "1h"])
async def test_what_is_no_bound_is_refused(client: Client, worker: MakeWorker, ttl: object) -> None:
    with pytest.raises(InvalidInput, match="in a paused queue"):
        await client.pause("letter", queue_ttl=ttl)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
