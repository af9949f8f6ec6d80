"""Joins that are loosened while their steps wait, where it matters what was stored when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jetflow import Client, Context, JoinPolicy, Worker, WorkerOptions, workflow
from jetflow.engine.tasks import StepAddress
from tests.endings.stored import GRACE, PATIENCE, Stored, until

PARKED = WorkerOptions(park_after=0, grace=GRACE)


async def test_it_goes_on_when_enough_end_later(client: Client, worker: Callable[..., Worker]) -> None:
    """Once it was looked at in vain, each end is looked at, whatever the counter had to reach before."""
    gate = asyncio.Event()
    stored = Stored(client)

    @workflow("look-up")
    async def look_up(number: int) -> int:
        await (asyncio.Event().wait() if number < 0 else gate.wait() if number > 9 else asyncio.sleep(0))
        return number

    @workflow("look-up-both")
    async def look_up_both(numbers: list[int], ctx: Context) -> int:
        found = await ctx.join(await ctx.spawn_workflows(look_up, numbers), policy=JoinPolicy.all_succeed())
        return sum(one.output for one in found.succeeded) if found.met else 0

    async def is_parked() -> bool:
        join = StepAddress(run.id, run.id, "run")
        ended = await stored.subjects(stored.names.records_stream, stored.names.runs_of_join(join))
        parked = await stored.subjects(stored.names.records_stream, stored.names.joins_of_step(join))
        return bool(parked) and len(ended) == 1

    async def is_looked_at() -> bool:
        return not await stored.subjects(stored.names.inbox_stream)

    async with worker([look_up, look_up_both], options=PARKED):
        run = await client.trigger(look_up_both, [1, 10, -1, -2])
        await until(is_parked)
        await client.loosen(run, policy=JoinPolicy.of_quorum(2))
        await until(is_looked_at)
        gate.set()
        assert await run.result(PATIENCE) == 11
