"""After a bad night only what has failed is run again: as a new run, which takes over the rest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from time import time

import pytest
from patience import PATIENCE

from jetflow import (
    Client,
    Context,
    NonRetryable,
    Retry,
    RunFailed,
    Signal,
    Worker,
    Workflow,
    output_of,
    sleep,
    workflow,
)
from jetflow.errors import AlreadyRerun, NothingToRerun, RunNotEnded


class World:
    """What goes wrong in these tests, and which bodies have run."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.bodies: Counter[object] = Counter()


def squares(world: World) -> Workflow[int, int]:
    @workflow("square")
    async def square(number: int) -> int:
        world.bodies[number] += 1
        if number in world.broken:
            raise NonRetryable(f"{number} is broken")
        return number * number

    return square


async def test_only_the_children_that_failed_run_again(client: Client, worker: Callable[..., Worker]) -> None:
    """The join of the new run is made of both: of what it has taken over, and of what it has run."""
    world = World()
    square = squares(world)

    @workflow("sum-squares")
    async def sum_squares(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))

    world.broken = {3, 7}
    async with worker([sum_squares, square]):
        run = await client.trigger(sum_squares, 10)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        world.broken, world.bodies = set(), Counter()

        again = await client.rerun(run)
        assert await again.result(PATIENCE) == 285
        assert world.bodies == {3: 1, 7: 1}


async def test_each_run_names_the_other(client: Client, worker: Callable[..., Worker]) -> None:
    """The old one stays as it is, and the newest is found from any of them, or by the key."""
    world = World()
    square = squares(world)
    world.broken = {2}
    async with worker([square]):
        run = await client.trigger(square, 2, key="two")
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        again = await client.rerun(run)
        with pytest.raises(RunFailed):
            await again.result(PATIENCE)
        world.broken = set()
        third = await client.rerun(again)
        assert await third.result(PATIENCE) == 4

    assert (await client.describe(run.id)).rerun_as == again.id
    told = await client.describe(again.id)
    assert (told.rerun_of, told.rerun_as, told.key) == (run.id, third.id, "two")
    assert await client.chain(again.id) == [run.id, again.id, third.id]
    assert (await client.newest(run)).id == (await client.newest_of(square, "two")).id == third.id
    assert await run.status() == "failed"


async def test_steps_that_succeeded_do_not_run_again(client: Client, worker: Callable[..., Worker]) -> None:
    """Nor their children, of which the next step can read all the same."""
    world = World()
    square = squares(world)
    flow = Workflow("steps", input=int, output=str)

    @flow.step
    async def scan(count: int, ctx: Context) -> int:
        world.bodies["scan"] += 1
        await ctx.spawn_workflows(square, range(count))
        return count

    @flow.step(after=[scan])
    async def report(count: int, ctx: Context) -> str:
        world.bodies["report"] += 1
        if world.broken:
            raise NonRetryable("no paper")
        total = sum([child.output async for child in ctx.children(scan, square)])
        return f"{ctx.output(scan)} squares: {total}"

    async with worker([flow, square]):
        world.broken = {99}
        run = await client.trigger(flow, 5)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        world.broken, world.bodies = set(), Counter()
        again = await client.rerun(run)
        assert await again.result(PATIENCE) == "5 squares: 30"
        assert world.bodies == {"report": 1}
        [first, last] = (await client.describe(again.id)).steps
        assert first.adopted == run.id
        assert last.adopted is None


async def test_what_was_recorded_stays(client: Client, worker: Callable[..., Worker]) -> None:
    """Values of `once` are not computed again, and a sleep that is over is not slept again."""
    calls: list[float] = []
    broken = [True]

    @workflow("charge")
    async def charge(_: None, ctx: Context) -> float:
        paid = await ctx.once("pay", lambda: calls.append(time()) or time())
        await ctx.sleep(1)
        if broken:
            raise NonRetryable("no receipt")
        return paid

    async with worker([charge]):
        run = await client.trigger(charge)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        broken.clear()
        began = time()
        again = await client.rerun(run)
        await again.result(PATIENCE)
        assert time() - began < 0.9
        assert len(calls) == 1


async def test_from_a_step_on_or_all_of_it(client: Client, worker: Callable[..., Worker]) -> None:
    """Also what has succeeded may be run again: a step with all behind it, or everything."""
    bodies: Counter[str] = Counter()
    flow = Workflow("three", input=int, output=int)

    @flow.step
    async def first(number: int) -> int:
        bodies["first"] += 1
        return number + 1

    @flow.step(after=[first])
    async def second(number: int, ctx: Context) -> int:
        bodies["second"] += 1
        return ctx.output(first) + 1

    @flow.step(after=[second])
    async def third(number: int, ctx: Context) -> int:
        bodies["third"] += 1
        return ctx.output(second) + 1

    async with worker([flow]):
        run = await client.trigger(flow, 1)
        assert await run.result(PATIENCE) == 4
        with pytest.raises(NothingToRerun):
            await client.rerun(run)
        again = await client.rerun(run, from_step=second)
        assert await again.result(PATIENCE) == 4
        assert bodies == {"first": 1, "second": 2, "third": 2}
        anew = await client.rerun(again, only="all")
        assert await anew.result(PATIENCE) == 4
        assert bodies == {"first": 2, "second": 3, "third": 3}


async def test_asking_twice_is_asking_once(client: Client, worker: Callable[..., Worker]) -> None:
    """Reruns make a chain: each run has one, and what was run again is run again by its newest."""
    world = World()
    square = squares(world)
    world.broken = {2}
    async with worker([square]):
        run = await client.trigger(square, 2)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        again, same = await client.rerun(run), await client.rerun(run.id)
        assert again.id == same.id
        assert (again.created, same.created) == (True, False)
        with pytest.raises(RunFailed):
            await again.result(PATIENCE)
        with pytest.raises(AlreadyRerun) as refused:
            await client.rerun(run, only="all")
        assert refused.value.newest == again.id


async def test_a_run_that_goes_on_is_not_run_again(client: Client, worker: Callable[..., Worker]) -> None:
    """It may be cancelled, and then be."""
    square = squares(World())
    async with worker([square]):  # declares it
        pass
    run = await client.trigger("square", 5)
    with pytest.raises(RunNotEnded):
        await client.rerun(run)
    await client.cancel(run.id)
    again = await client.rerun(run)
    async with worker([square]):
        assert await again.result(PATIENCE) == 25


async def test_many_are_run_again(client: Client, worker: Callable[..., Worker]) -> None:
    """All that fit a filter: first a dry run, which begins nothing. To abort is to leave the loop."""
    world = World()
    square = squares(world)
    world.broken = set(range(0, 20, 2))
    async with worker([square]):
        runs = await client.trigger_many(square, range(20))
        for run in runs:
            with contextlib.suppress(RunFailed):
                await run.result(PATIENCE)
        world.broken, world.bodies = set(), Counter()
        found = [one.run async for one in client.rerun_many(workflow="square", dry_run=True)]
        assert len(found) == 10
        assert not world.bodies
        again = [one.rerun async for one in client.rerun_many(workflow="square") if one.created]
        for run_id in again:
            assert run_id is not None
            await client.run(run_id).result(PATIENCE)
        assert world.bodies == dict.fromkeys(range(0, 20, 2), 1)
        once_more = [one async for one in client.rerun_many(workflow="square")]
        assert not any(one.created for one in once_more)


async def test_what_was_skipped_stays_skipped(client: Client, worker: Callable[..., Worker]) -> None:
    """What its conditions wait for has not to come again. From that step on they are decided anew."""
    broken = True
    asked: list[int] = []
    flow = Workflow("order", input=int, retry=Retry(attempts=1))

    @flow.step
    async def check(number: int) -> int:
        return number

    def is_small(number: int) -> bool:
        asked.append(number)
        return number < 10

    @flow.step(after=check, skip_if=Signal("leave"), wait_for=sleep(60))
    async def insure(_: int) -> str:
        return "insured"

    @flow.step(after=check, skip_if=output_of(check, is_small))
    async def approve(_: int) -> str:
        return "approved"

    @flow.step(after=[check, insure, approve])
    async def ship(_: int, ctx: Context) -> list[bool]:
        if broken:
            raise ValueError("no van")
        return [ctx.was_skipped(insure), ctx.was_skipped(approve)]

    async with worker([flow]):
        run = await client.trigger(flow, 4)
        await run.signal("leave")
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        broken = False
        again = await client.rerun(run)
        assert await again.result(PATIENCE) == [True, True]
        assert asked == [4]
        steps = {step.name: step for step in (await client.describe(again.id)).steps}
        assert [(steps[name].status, bool(steps[name].adopted)) for name in ("insure", "approve", "ship")] == [
            ("skipped", True),
            ("skipped", True),
            ("succeeded", False),
        ]
