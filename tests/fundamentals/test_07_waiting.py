"""A step that waits for children gives its slot back: in memory first, then parked, with nothing left but records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from patience import PATIENCE, until

from jetflow import Client, Context, Retry, Worker, WorkerOptions, Workflow, workflow


async def test_a_waiting_step_holds_no_slot(client: Client, worker: Callable[..., Worker]) -> None:
    """With one slot, a parent and its child could not run at the same time; but a parent that waits does not run."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(child, 7)).result()

    async with worker([parent, child], slots=1):
        assert await (await client.trigger(parent)).result(PATIENCE) == 7


async def test_one_slot_runs_a_recursion_of_a_hundred_levels(client: Client, worker: Callable[..., Worker]) -> None:
    """Each level spawns and joins: two children at the first five levels, one below. 31 + 32 * 96 runs, one slot."""
    running, most = 0, 0

    @workflow("level")
    async def level(path: str, ctx: Context) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        depth = len(path)
        if depth == 100:
            return 1
        children = await ctx.spawn_workflows(level, [path + letter for letter in ("ab" if depth < 5 else "a")])
        return 1 + sum(await ctx.join(children))

    async with worker([level], slots=1):
        run = await client.trigger(level, "")
        assert await run.result(60) == 31 + 32 * 96
    assert most == 1


async def test_a_recursion_may_be_parked_at_every_level(client: Client, worker: Callable[..., Worker]) -> None:
    """Two hundred turns: a hundred to go down and as many to come up, and nothing in memory between them."""

    @workflow("level")
    async def level(depth: int, ctx: Context) -> int:
        if depth == 100:
            return 1
        return 1 + await (await ctx.spawn_workflow(level, depth + 1)).result()

    async with worker([level], options=WorkerOptions(slots=1, max_waiting=0)) as only:
        assert await (await client.trigger(level, 0)).result(PATIENCE) == 101
    assert only.counts.parked == 100


async def test_a_parked_step_goes_on_in_another_worker(client: Client, worker: Callable[..., Worker]) -> None:
    """A parked step is a record: every worker may end, and the step goes on, from its top, in one that starts later.

    Its spawns then attach to the children that exist, and its joins return what is stored.
    """
    began: list[str] = []
    spawned = asyncio.Event()

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        began.append(ctx.run_id)
        children = await ctx.spawn_workflows(child, [1, 2, 3])
        spawned.set()
        return await ctx.join(children)

    async def all_children_ended() -> bool:
        return not (await client.describe(run.id)).totals.open

    async with worker([parent], options=WorkerOptions(park_after=0.01)) as first:
        run = await client.trigger(parent)
        await asyncio.wait_for(spawned.wait(), PATIENCE)
    assert first.counts.parked == 1
    [step] = (await client.describe(run.id)).steps
    assert step.status == "waiting"
    async with worker([child]) as second:  # the last child's end starts the parent's next turn
        await until(all_children_ended)
    assert second.counts.succeeded == 3
    async with worker([parent]):
        assert await run.result(PATIENCE) == [1, 2, 3]
    assert began == [run.id] * 2
    [step] = (await client.describe(run.id)).steps
    assert (step.status, step.turns) == ("succeeded", 2)


async def test_a_worker_that_stops_parks_what_waits(client: Client, worker: Callable[..., Worker]) -> None:
    """A deploy never waits for a day-long join: a worker that is told to stop parks its waiting steps at once."""
    waits = asyncio.Event()

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        waiting = await ctx.spawn_workflow(child, 7)
        waits.set()
        return await waiting.result()

    async with worker([parent], options=WorkerOptions(park_after=3600)) as first:
        run = await client.trigger(parent)
        await asyncio.wait_for(waits.wait(), PATIENCE)
    assert first.counts.parked == 1
    async with worker([parent, child]):
        assert await run.result(PATIENCE) == 7


async def test_a_step_may_be_parked_at_each_of_its_waits(client: Client, worker: Callable[..., Worker]) -> None:
    """Turn after turn it comes further; what was spawned and joined before is not done again."""
    ran: Counter[int] = Counter()

    @workflow("child")
    async def child(number: int) -> int:
        ran[number] += 1
        return number

    @workflow("parent")
    async def parent(count: int, ctx: Context) -> list[int]:
        return [await (await ctx.spawn_workflow(child, number)).result() for number in range(count)]

    async with worker([parent, child], options=WorkerOptions(park_after=0)) as only:
        run = await client.trigger(parent, 5)
        assert await run.result(PATIENCE) == [0, 1, 2, 3, 4]
    assert ran == dict.fromkeys(range(5), 1)
    [step] = (await client.describe(run.id)).steps
    assert step.turns == only.counts.parked + 1


async def test_as_completed_survives_parking(client: Client, worker: Callable[..., Worker]) -> None:
    """Each time that enough has ended for one more step of the loop, the step goes on."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(count: int, ctx: Context) -> int:
        children = await ctx.spawn_workflows(child, range(count))
        return sum([await child.result() async for child in ctx.as_completed(children)])

    async with worker([parent, child], options=WorkerOptions(park_after=0)):
        assert await (await client.trigger(parent, 20)).result(PATIENCE) == sum(range(20))


async def test_several_waits_of_one_step_are_parked_as_one(client: Client, worker: Callable[..., Worker]) -> None:
    """Coroutines of one step may wait side by side; the step is parked when all of them wait."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        children = [await ctx.spawn_workflow(child, number) for number in range(4)]
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(one.result()) for one in children]
        return [wait.result() for wait in waits]

    async with worker([parent, child], options=WorkerOptions(park_after=0)):
        assert await (await client.trigger(parent)).result(PATIENCE) == [0, 1, 2, 3]


async def test_a_plain_def_step_is_parked_too(client: Client, worker: Callable[..., Worker]) -> None:
    """``ctx.block_on`` ends the thread as ``await`` ends the coroutine."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    def parent(_: None, ctx: Context) -> int:
        return sum(ctx.block_on(ctx.join(ctx.block_on(ctx.spawn_workflows(child, range(10))))))

    async with worker([parent], options=WorkerOptions(park_after=0)) as parents:
        run = await client.trigger(parent)
        await until(lambda: parents.counts.parked == 1)
        async with worker([child]):
            assert await run.result(PATIENCE) == 45


async def test_more_steps_may_wait_than_a_worker_holds_in_memory(client: Client, worker: Callable[..., Worker]) -> None:
    """``max_waiting`` steps wait in memory, the others are parked."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(number: int, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(child, number)).result()

    @workflow("grandparent")
    async def grandparent(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(parent, range(count))))

    async with worker([grandparent, parent], options=WorkerOptions(max_waiting=3)) as parents:
        run = await client.trigger(grandparent, 30)
        await until(lambda: parents.counts.parked == 28)  # 31 steps wait, three of them in memory
        async with worker([child]):
            assert await run.result(PATIENCE) == sum(range(30))


async def test_max_running_1_is_strictly_sequential(client: Client, worker: Callable[..., Worker]) -> None:
    """Across all workers and runs, in the order of the triggers."""
    running, order = 0, list[int]()

    @workflow("ledger", max_running=1)
    async def ledger(number: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        assert running == 1
        running -= 1
        order.append(number)

    async with worker([ledger]), worker([ledger]):
        runs = [await client.trigger(ledger, number) for number in range(20)]
        await asyncio.gather(*(run.result(PATIENCE) for run in runs))
    assert order == list(range(20))


async def test_max_running_1_may_spawn_and_join_runs_of_itself(client: Client, worker: Callable[..., Worker]) -> None:
    """A step that waits does not count as running, or its children could never begin. Still one runs at a time."""
    running = 0

    @workflow("exclusive", max_running=1, retry=Retry(attempts=1))
    async def exclusive(depth: int, ctx: Context) -> int:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        if depth == 3:
            return 1
        children = [await ctx.spawn_workflow(exclusive, depth + 1, key=f"{depth}-{twin}") for twin in range(2)]
        return 1 + sum(await ctx.join(children))

    async with worker([exclusive]), worker([exclusive]):
        assert await (await client.trigger(exclusive, 0)).result(PATIENCE) == 15


async def test_max_running_holds_for_one_step_of_many(client: Client, worker: Callable[..., Worker]) -> None:
    """Two at a time in the narrow step, while the wide one is free."""
    flow = Workflow("funnel")
    running, most = 0, 0
    wide_running = asyncio.Barrier(6)

    @flow.step
    async def wide(_: int) -> None:
        await wide_running.wait()

    @flow.step(after=[wide], max_running=2)
    async def narrow(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    async with worker([flow]), worker([flow]):
        runs = [await client.trigger(flow, number) for number in range(6)]
        await asyncio.gather(*(run.result(PATIENCE) for run in runs))
    assert most == 2


async def test_a_step_that_waits_in_many_places_is_one_that_waits(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """Three places more than may wait in memory are no reason to park: they are all of one step."""
    began = 0

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(count: int, ctx: Context) -> list[int]:
        nonlocal began
        began += 1
        children = await ctx.spawn_workflows(child, range(count))
        return await asyncio.gather(*(kid.result() for kid in children))

    async with worker([parent, child], slots=1, options=WorkerOptions(max_waiting=1)) as here:
        assert await (await client.trigger(parent, 4)).result(PATIENCE) == [0, 1, 2, 3]
        assert here.counts.parked == 0
    assert began == 1
