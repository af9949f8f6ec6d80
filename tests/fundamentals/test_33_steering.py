"""What a running step asks for itself: more time, the end of its run, to go on without a slot; and several slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidDeclaration, InvalidInput, RunFailed, Worker, Workflow, workflow

MakeWorker = Callable[..., Worker]


async def nothing_is_left(client: Client) -> bool:
    return not any(row.waiting or row.held for row in await client.queues())


# --- time


async def test_a_step_extends_its_time(client: Client, worker: MakeWorker) -> None:
    """As often as it finds that it is worth it. What it waits for children is not counted anyway."""

    @workflow("long", timeout=0.4)
    async def long(pieces: int, ctx: Context) -> int:
        for _ in range(pieces):
            ctx.extend_timeout(0.3)
            await asyncio.sleep(0.3)
        return pieces

    async with worker([long]):
        assert await (await client.trigger(long, 4)).result(PATIENCE) == 4


async def test_so_does_one_in_a_thread(client: Client, worker: MakeWorker) -> None:
    @workflow("long", timeout=0.4)
    def long(pieces: int, ctx: Context) -> bool:
        for _ in range(pieces):
            ctx.extend_timeout(0.3)
            time.sleep(0.3)
        return ctx.cancelled

    async with worker([long]):
        assert await (await client.trigger(long, 4)).result(PATIENCE) is False


async def test_the_error_tells_how_long_it_has_had(client: Client, worker: MakeWorker) -> None:
    @workflow("endless", timeout=0.2)
    async def endless(_: None, ctx: Context) -> None:
        ctx.extend_timeout(0.1)
        with pytest.raises(InvalidInput, match="extend_timeout takes is seconds from 0 on"):
            ctx.extend_timeout(-1)
        await asyncio.sleep(PATIENCE)

    async with worker([endless]):
        with pytest.raises(RunFailed, match=r"longer than its timeout of 0\.3 s") as caught:
            await (await client.trigger(endless)).result(PATIENCE)
    assert caught.value.status == "timed_out"


# --- the end of its run


async def test_a_run_cancels_itself(client: Client, worker: MakeWorker) -> None:
    """Its children with it; nothing that stands behind the step begins, and no further attempt is made."""
    begun: list[str] = []
    runs: dict[str, str] = {}

    @workflow("child")
    async def child(number: int) -> None:
        begun.append(f"child {number}")
        await asyncio.sleep(PATIENCE)

    flow = Workflow("order", input=None)

    @flow.step
    async def check(_: None, ctx: Context) -> None:
        children = await ctx.spawn_workflows(child, [1, 2])
        runs.update(zip("ab", [one.id for one in children], strict=True))
        await until(lambda: len(begun) == 2)
        await ctx.cancel()
        begun.append("not reached")

    @flow.step
    async def beside(_: None) -> None:
        await asyncio.sleep(PATIENCE)

    @flow.step(after=check)
    async def ship(_: None) -> None:
        begun.append("ship")

    @flow.on_failure
    async def failed(_: None) -> None:
        begun.append("failed")

    async with worker([flow, child]):
        run = await client.trigger(flow)
        with pytest.raises(RunFailed) as caught:
            await run.result(PATIENCE)
        assert caught.value.status == "cancelled"  # the step beside may be the one that says so
        for one in runs.values():
            with pytest.raises(RunFailed) as caught:
                await client.run(one).result(PATIENCE)
            assert caught.value.status == "cancelled"
        await until(partial(nothing_is_left, client))  # the run's first task is put back, for its key
    assert sorted(begun) == ["child 1", "child 2"]


async def test_a_child_that_cancels_itself_leaves_its_parent_alone(client: Client, worker: MakeWorker) -> None:
    """Also from a thread. Its parent gets that as its outcome; what is below it is cancelled, however deep."""
    begun: list[str] = []

    @workflow("sleeper")
    async def sleeper(_: None, ctx: Context) -> None:
        begun.append(ctx.run_id)
        await asyncio.sleep(PATIENCE)

    @workflow("grandchild", max_running=1)
    async def grandchild(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(sleeper)).result()  # parked: it is in nobody's memory

    @workflow("child")
    def child(number: int, ctx: Context) -> int:
        if number == 1:
            ctx.block_on(ctx.spawn_workflow(grandchild))
            ctx.block_on(until(lambda: bool(begun)))
            time.sleep(0.3)
        if number < 2:
            ctx.block_on(ctx.cancel())
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[Any]:
        results = await ctx.join(await ctx.spawn_workflows(child, range(4)), return_exceptions=True)
        reasons = {one.error_message for one in results if isinstance(one, RunFailed)}
        assert reasons == {"the run has cancelled itself"}
        return [str(one.status) if isinstance(one, RunFailed) else one for one in results]

    async with worker([parent, child, grandchild, sleeper]):
        assert await (await client.trigger(parent)).result(PATIENCE) == ["cancelled", "cancelled", 2, 3]
        with pytest.raises(RunFailed) as caught:
            await client.run(begun[0]).result(PATIENCE / 2)
        assert caught.value.status == "cancelled"
        await until(partial(nothing_is_left, client))


async def test_what_has_failed_is_not_cancelled(client: Client, worker: MakeWorker) -> None:
    told: list[str] = []
    flow = Workflow("fails")

    @flow.step
    async def fail() -> None:
        raise ValueError

    @flow.on_failure
    async def clean(_: None, ctx: Context) -> None:
        with pytest.raises(InvalidInput, match="its run has ended") as caught:
            await ctx.cancel()
        told.append(str(caught.value))

    async with worker([flow]):
        with pytest.raises(RunFailed):
            await (await client.trigger(flow)).result(PATIENCE)
        await until(lambda: bool(told))


# --- its slot


async def test_a_step_goes_on_without_its_slot(client: Client, worker: MakeWorker) -> None:
    """It waits for something that jetflow knows nothing of. Its worker goes on to hold it, and does others' work.

    It takes no slot again, also when it has waited for a child.
    """
    let_go, came_back = asyncio.Event(), asyncio.Event()

    @workflow("answer")
    async def answer() -> None:
        await asyncio.sleep(0.2)
        let_go.set()

    @workflow("ask")
    async def ask(_: None, ctx: Context) -> str:
        ctx.release_slot()
        ctx.release_slot()
        await let_go.wait()
        await (await ctx.spawn_workflow(answer)).result()
        let_go.clear()
        came_back.set()
        await let_go.wait()
        return "answered"

    async with worker([ask, answer], slots=1):
        run = await client.trigger(ask)
        await (await client.trigger(answer)).result(PATIENCE)
        await asyncio.wait_for(came_back.wait(), PATIENCE)
        await (await client.trigger(answer)).result(PATIENCE)
        assert await run.result(PATIENCE) == "answered"
        await (await client.trigger(answer)).result(PATIENCE)  # the slot is whole


async def test_one_in_a_thread_does_so_too(client: Client, worker: MakeWorker) -> None:
    let_go = asyncio.Event()

    @workflow("answer")
    async def answer() -> None:
        let_go.set()

    @workflow("ask")
    def ask(_: None, ctx: Context) -> None:
        ctx.release_slot()
        while not let_go.is_set():
            time.sleep(0.01)

    async with worker([ask, answer], slots=1):
        run = await client.trigger(ask)
        await (await client.trigger(answer)).result(PATIENCE)
        await run.result(PATIENCE)


# --- several slots


class Load:
    """How many slots are in use, and the most that ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.done: list[int] = []

    async def run(self, slots: int, seconds: float = 0.02) -> None:
        self.now += slots
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= slots
        self.done.append(slots)


async def test_a_heavy_step_takes_several_slots(client: Client, worker: MakeWorker) -> None:
    """Never more than the worker has; and light ones, however many, do not keep heavy ones out."""
    load = Load()

    @workflow("light")
    async def light(number: int) -> None:
        await load.run(1, 0.01 * (1 + number % 5))  # so that they do not end together

    @workflow("heavy", slots=3)
    async def heavy(_: int) -> None:
        await load.run(3)

    @workflow("heaviest", slots=4)
    async def heaviest(_: int) -> None:
        await load.run(4)

    async with worker([light, heavy, heaviest], slots=4):
        runs = await client.trigger_many(light, range(200))
        runs += await client.trigger_many(heavy, range(10))
        runs += await client.trigger_many(heaviest, range(5))
        for run in runs:
            await run.result(PATIENCE)
    assert load.most == 4
    assert (load.now, len(load.done)) == (0, 215)
    assert load.done.index(4) < 150, "none of them waits for all light ones"
    assert load.done.index(3) < 150


async def test_a_heavy_step_that_waits_gives_all_its_slots_back(client: Client, worker: MakeWorker) -> None:
    @workflow("heavy", slots=2)
    async def heavy(depth: int, ctx: Context) -> int:
        return 1 + await (await ctx.spawn_workflow(heavy, depth - 1)).result() if depth else 0

    async with worker([heavy], slots=2):
        assert await (await client.trigger(heavy, 5)).result(PATIENCE) == 5


async def test_what_can_never_begin_is_refused(worker: MakeWorker) -> None:
    @workflow("heavy", slots=3)
    async def heavy() -> None: ...

    with pytest.raises(InvalidDeclaration, match="takes 3 slots, and this worker has 2: it would never begin"):
        worker([heavy], slots=2)

    elsewhere = Workflow("elsewhere")
    elsewhere.step(name="step", slots=3, requires={"large": True})(lambda: None)
    worker([elsewhere], slots=2)  # it is for others

    for slots in (0, -1, True, 1.5, "2"):
        with pytest.raises(InvalidDeclaration, match="a step takes one slot"):
            workflow("wrong", slots=slots)(lambda: None)  # pyright: ignore[reportArgumentType] - of any kind
    with pytest.raises(InvalidDeclaration, match="a slot of its own: leave out slots="):
        workflow("wrong", slots=2, runs_in="process")(_plain)


def _plain() -> None: ...
