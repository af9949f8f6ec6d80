"""A child that runs far longer than its siblings did gets a twin: what succeeds first counts, and the other stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from patience import PATIENCE

from jetflow import (
    Client,
    Context,
    Hedge,
    InvalidDeclaration,
    JoinPolicy,
    Limit,
    Retry,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.errors import InvalidInput, RunFailed

SOON = Hedge(after=0.9, factor=2, at_least=0.3)
PARKED = WorkerOptions(park_after=0.1)


class Source:
    """Answers at once, but that it holds up whoever asks for 13 first."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()

    async def answer(self, number: int) -> int:
        self.asked.append(number)
        if number == 13 and self.asked.count(13) == 1:
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.stopped.set()
                raise
        return number


def hedged_sum(source: Source, **how: object) -> tuple[Workflow[int, int], Workflow[list[int], list[int]]]:
    @workflow("ask", idempotent=True)
    async def ask(number: int) -> int:
        return await source.answer(number)

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(ask, numbers), hedge=SOON)

    return ask, ask_all


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def test_a_straggler_is_overtaken_by_its_twin(client: Client, worker: Callable[..., Worker]) -> None:
    """One of twenty hangs until it is stopped. Its twin ends the run, and each result is there once."""
    source = Source()
    ask, ask_all = hedged_sum(source)
    async with worker([ask, ask_all]):
        run = await client.trigger(ask_all, list(range(20)))
        assert await run.result(PATIENCE) == list(range(20))
        await within(source.stopped)
        assert sorted(source.asked) == sorted([*range(20), 13])
        totals = (await client.describe(run.id)).totals
        assert (totals.spawned, totals.succeeded) == (20, 20)


async def test_a_parked_join_hedges(client: Client, worker: Callable[..., Worker]) -> None:
    """It is woken when enough have ended, and when one may be late."""
    source = Source()
    ask, ask_all = hedged_sum(source)
    async with worker([ask, ask_all], options=PARKED):
        run = await client.trigger(ask_all, list(range(20)))
        assert await run.result(PATIENCE) == list(range(20))
        await within(source.stopped)
        assert source.asked.count(13) == 2
