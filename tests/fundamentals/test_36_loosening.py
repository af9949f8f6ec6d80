"""A join that waits for all of its children may be told, while it waits, to be content with fewer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from patience import PATIENCE

from jetflow import Client, Context, JoinPolicy, Retry, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import NothingToLoosen, TighterPolicy

PARKED = WorkerOptions(park_after=0, grace=1)


@workflow("look-up")
async def look_up(number: int) -> int:
    if number < 0:
        await asyncio.Event().wait()
    return number


@workflow("look-all-up")
async def look_all_up(numbers: list[int], ctx: Context) -> list[int]:
    children = await ctx.spawn_workflows(look_up, numbers)
    found = await ctx.join(children, policy=JoinPolicy.all_succeed())
    return [one.output for one in found.succeeded] if found.met else []


async def parked(client: Client, run: str, children: int) -> None:
    """Wait until a run has parked and so many of its children have ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            trace = await client.describe(run)
            if trace.totals.succeeded >= children and any(step.status == "waiting" for step in trace.steps):
                return
            await asyncio.sleep(0.02)


async def test_a_parked_join_goes_on_with_fewer(client: Client, worker: Callable[..., Worker]) -> None:
    """At once, if enough have ended. What is open then is cancelled, as the policy does it otherwise."""
    async with worker([look_up, look_all_up], options=PARKED):
        run = await client.trigger(look_all_up, [1, 2, 3, -1])
        await parked(client, run.id, 3)
        told = await client.loosen(run, policy=JoinPolicy.of_quorum(3))
        assert (told.step, told.children, told.successes, told.changed) == ("run", 4, 3, True)
        assert await run.result(PATIENCE) == [1, 2, 3]
        assert (await client.describe(run.id)).totals.cancelled == 1


async def test_it_goes_on_when_enough_have_ended(client: Client, worker: Callable[..., Worker]) -> None:
    """Where they have not, each end is looked at from then on; and it may be loosened again."""
    async with worker([look_up, look_all_up], options=PARKED):
        run = await client.trigger(look_all_up, [1, 2, -1, -2, -3])
        await parked(client, run.id, 2)
        assert (await client.loosen(run, policy=JoinPolicy.of_quorum(4))).changed
        assert await run.status() == "running"
        assert not (await client.loosen(run, policy=JoinPolicy.of_quorum(4))).changed
        await client.loosen(run, policy=JoinPolicy.of_quorum(2))
        assert await run.result(PATIENCE) == [1, 2]


async def test_later_attempts_and_turns_decide_the_same(client: Client, worker: Callable[..., Worker]) -> None:
    """What was open was cancelled meanwhile, and the join is met still: behind a failure, a sleep and another join."""
    met: list[bool] = []

    @workflow("look-up-twice", retry=Retry(attempts=3, initial=1.5))
    async def look_up_twice(numbers: list[int], ctx: Context) -> int:
        found = await ctx.join(await ctx.spawn_workflows(look_up, numbers), policy=JoinPolicy.all_succeed())
        met.append(found.met)
        if len(met) == 1:
            raise OSError("the file is torn")
        await ctx.sleep(1.5)
        more = await ctx.join(await ctx.spawn_workflows(look_up, [7, 8]), policy=JoinPolicy.all_succeed())
        return sum(one.output for one in (*found.succeeded, *more.succeeded))

    async with worker([look_up, look_up_twice], options=PARKED):
        run = await client.trigger(look_up_twice, [1, 2, -1])
        await parked(client, run.id, 2)
        await client.loosen(run, policy=JoinPolicy.of_quorum(2))
        assert await run.result(PATIENCE) == 1 + 2 + 7 + 8
    assert len(met) > 2
    assert all(met)


async def test_the_boundary_of_a_step(client: Client, worker: Callable[..., Worker]) -> None:
    """A step that has returned waits for its children, too."""
    spread = Workflow("spread", input=list[int])

    @spread.step
    async def begin(numbers: list[int], ctx: Context) -> int:
        await ctx.spawn_workflows(look_up, numbers)
        return len(numbers)

    @spread.step(after=[begin])
    async def gather(numbers: list[int], ctx: Context) -> list[int]:
        return sorted([child.output async for child in ctx.children(begin) if child.status == "succeeded"])

    async with worker([look_up, spread], options=WorkerOptions(grace=1)):
        run = await client.trigger(spread, [1, 2, -1])
        await parked(client, run.id, 2)
        await client.loosen(run, policy=JoinPolicy.of_quorum(2), step=begin)
        assert await run.result(PATIENCE) == [1, 2]


async def test_it_is_never_tightened(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([look_up, look_all_up], options=PARKED):
        run = await client.trigger(look_all_up, [1, -1, -2])
        await parked(client, run.id, 1)
        await client.loosen(run, policy=JoinPolicy.of_quorum(2))
        for tighter in (JoinPolicy.of_quorum(3), JoinPolicy.tolerate(2), JoinPolicy.of_quorum(1).within(1)):
            with pytest.raises(TighterPolicy):
                await client.loosen(run, policy=tighter)
        await client.cancel(run.id)


async def test_there_has_to_be_a_join(client: Client, worker: Callable[..., Worker]) -> None:
    """One that takes an output of every child cannot be told to do without some."""

    @workflow("take-every-one")
    async def take_every_one(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(look_up, numbers))

    async with worker([look_up, take_every_one], options=PARKED):
        run = await client.trigger(take_every_one, [1, -1])
        await parked(client, run.id, 1)
        with pytest.raises(NothingToLoosen, match="policy="):
            await client.loosen(run, policy=JoinPolicy.of_quorum(1))
        with pytest.raises(NothingToLoosen, match="does not wait"):
            await client.loosen(run, policy=JoinPolicy.of_quorum(1), step="other")
        await client.cancel(run.id)
        with pytest.raises(NothingToLoosen):
            await client.loosen(run, policy=JoinPolicy.of_quorum(1))
