"""A child that runs far longer than its siblings did gets a twin: what succeeds first counts, and the other stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE

from jetflow import Client, Context, Hedge, InvalidDeclaration, JoinPolicy, Limit, Worker, WorkerOptions, workflow
from jetflow.errors import InvalidInput, RunFailed

SOON = Hedge(after=0.9, factor=2, at_least=0.3)


class Source:
    """Answers at once; but who asks for 13 has to wait: the first for ``first``, and its twin for ``second``."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.has_twin = asyncio.Event()
        self.stopped = [asyncio.Event(), asyncio.Event()]

    async def answer(self, number: int) -> int:
        self.asked.append(number)
        if number == 13:
            which = self.asked.count(13) - 1
            if which:
                self.has_twin.set()
            try:
                await (self.second if which else self.first).wait()
            except asyncio.CancelledError:
                self.stopped[which].set()
                raise
        return number


def asking(source: Source) -> tuple[Any, Any]:
    @workflow("ask", idempotent=True)
    async def ask(number: int) -> int:
        return await source.answer(number)

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(ask, numbers), hedge=SOON)

    return ask, ask_all


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def test_a_straggler_is_overtaken_by_its_twin(client: Client, worker: Callable[..., Worker]) -> None:
    """One of twenty hangs. Its twin ends the run, each result is there once, and what hangs is told to stop."""
    source = Source()
    source.second.set()
    async with worker(asking(source)):
        run = await client.trigger("ask-all", list(range(20)))
        assert await run.result(PATIENCE) == list(range(20))
        await soon(source.stopped[0])
        assert sorted(source.asked) == sorted([*range(20), 13])
        totals = (await client.describe(run.id)).totals
        assert (totals.spawned, totals.succeeded) == (20, 20)


async def test_a_join_hedges_that_is_parked(client: Client, worker: Callable[..., Worker]) -> None:
    """It is woken when enough of its children have ended, and when one of the others may be late."""
    source, others = Source(), asyncio.Event()
    source.second.set()

    @workflow("ask", idempotent=True)
    async def ask(number: int) -> int:
        if number != 13:
            await others.wait()
        return await source.answer(number)

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        children = await ctx.spawn_workflows(ask, numbers)
        return await ctx.join(children, hedge=Hedge(after=0.9, factor=1, at_least=5))

    async def parked(turns: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                [step] = (await client.describe(run.id)).steps
                if step.status == "waiting" and step.turns == turns:
                    return
                await asyncio.sleep(0.02)

    async with worker([ask, ask_all], options=WorkerOptions(park_after=0)):
        run = await client.trigger(ask_all, list(range(10, 20)))
        await parked(1)
        others.set()
        await parked(2)  # woken by those that have ended, and parked until the last may be late
        assert await run.result(PATIENCE) == list(range(10, 20))
        await soon(source.stopped[0])
        assert source.asked.count(13) == 2


async def test_the_first_may_be_faster_still(client: Client, worker: Callable[..., Worker]) -> None:
    source = Source()
    async with worker(asking(source)):
        run = await client.trigger("ask-all", list(range(20)))
        await soon(source.has_twin)
        source.first.set()
        assert await run.result(PATIENCE) == list(range(20))
        await soon(source.stopped[1])


async def test_a_twin_that_fails_is_no_attempt(client: Client, worker: Callable[..., Worker]) -> None:
    """The run has one attempt, which goes on; and it is that which counts."""
    twin_failed, attempts = asyncio.Event(), list[int]()

    @workflow("ask", idempotent=True)
    async def ask(number: int, ctx: Context) -> int:
        if number == 3:
            attempts.append(ctx.attempt)
            if len(attempts) == 2:
                twin_failed.set()
                raise OSError("no answer")
            await twin_failed.wait()
        return number

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        found = await ctx.join(
            await ctx.spawn_workflows(ask, numbers), policy=JoinPolicy.collect(), hedge=Hedge(after=0.6, at_least=0.2)
        )
        return [one.output for one in found.succeeded]

    async with worker([ask, ask_all]):
        run = await client.trigger(ask_all, [1, 2, 3])
        assert await run.result(PATIENCE) == [1, 2, 3]
    assert attempts == [1, 1]


async def test_it_is_told_who_may_have_a_twin(client: Client, worker: Callable[..., Worker]) -> None:
    """A step has to be declared idempotent. Else, and where there are limits, it is refused by name."""

    @workflow("plain")
    async def plain(number: int) -> int:
        return number

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(plain, numbers), hedge=SOON)

    async with worker([plain, ask_all]):
        run = await client.trigger(ask_all, [1, 2])
        with pytest.raises(RunFailed, match="NothingToHedge"):
            await run.result(PATIENCE)
    with pytest.raises(InvalidDeclaration, match="limits="):
        workflow("limited", limits=[Limit("one", max=1)], idempotent=True)(plain.function)
    for wrong in ({"after": 1.0}, {"after": 0}, {"factor": 0.5}, {"at_least": -1}):
        with pytest.raises(InvalidInput):
            Hedge(**wrong)


@pytest.mark.parametrize("what", ["spawns", "sleeps", "streams"])
async def test_an_idempotent_step_does_its_work_in_one_go(
    client: Client, worker: Callable[..., Worker], what: str
) -> None:
    """It does nothing that its twin would do again, or that would leave it open."""

    @workflow("in-one-go", idempotent=True)
    async def in_one_go(what: str, ctx: Context) -> None:
        if what == "spawns":
            await ctx.spawn_workflow("in-one-go", "nothing")
        elif what == "sleeps":
            await ctx.sleep(10)
        elif what == "streams":
            await ctx.stream(1)

    async with worker([in_one_go]):
        run = await client.trigger(in_one_go, what)
        with pytest.raises(RunFailed, match="NotInOneGo"):
            await run.result(PATIENCE)
