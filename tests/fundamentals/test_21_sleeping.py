"""A step may sleep, for seconds or for weeks. No worker holds anything of it; it wakes at its time, in any of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time

from patience import PATIENCE, until

from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow

PARKED = WorkerOptions(park_after=0)
"""Sleeps of a minute and more are parked; here all are."""


async def test_a_step_sleeps(client: Client, worker: Callable[..., Worker]) -> None:
    """Never for less than it says."""

    @workflow("reminder")
    async def reminder(text: str, ctx: Context) -> str:
        await ctx.sleep(1.2)
        return text

    async with worker([reminder], options=PARKED):
        began = time()
        assert await (await client.trigger(reminder, "drink")).result(PATIENCE) == "drink"
        assert time() - began >= 1.2


async def test_it_sleeps_until_a_time(client: Client, worker: Callable[..., Worker]) -> None:
    """A time with a zone, so that everybody means the same."""
    when = datetime.now(UTC) + timedelta(seconds=1.2)

    @workflow("at-noon")
    async def at_noon(_: None, ctx: Context) -> float:
        await ctx.sleep(until=when)
        return time()

    async with worker([at_noon], options=PARKED):
        assert await (await client.trigger(at_noon)).result(PATIENCE) >= when.timestamp()


async def test_a_sleeper_needs_no_worker(client: Client, worker: Callable[..., Worker]) -> None:
    """The one it fell asleep in is gone when it wakes: its code is run from the top, and what was slept is over."""

    @workflow("patient")
    async def patient(_: None, ctx: Context) -> float:
        began = await ctx.once("began", time)
        await ctx.sleep(2)
        return time() - began

    async def sleeps() -> bool:
        [step] = (await client.describe(run.id)).steps
        return step.sleeps_until is not None

    async with worker([patient], options=PARKED):
        run = await client.trigger(patient)
        await until(sleeps)
    async with worker([patient], options=PARKED):
        assert await run.result(PATIENCE) >= 2


async def test_a_retry_sleeps_for_what_is_left(client: Client, worker: Callable[..., Worker]) -> None:
    """The end of a sleep is fixed when it is first reached."""
    attempts: list[float] = []

    @workflow("shaky", retry=Retry(attempts=2, initial=0))
    async def shaky(_: None, ctx: Context) -> int:
        await ctx.sleep(1.2)
        attempts.append(time())
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    async with worker([shaky], options=PARKED):
        assert await (await client.trigger(shaky)).result(PATIENCE) == 2
    assert attempts[1] - attempts[0] < 1.2


async def test_one_that_is_asleep_can_be_cancelled(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("for-a-week")
    async def for_a_week(_: None, ctx: Context) -> None:
        await ctx.sleep(timedelta(days=7))

    async def sleeps() -> bool:
        [step] = (await client.describe(run.id)).steps
        return step.sleeps_until is not None

    async with worker([for_a_week]):
        run = await client.trigger(for_a_week)
        await until(sleeps)
        assert await client.cancel(run.id)
        assert await run.status() == "cancelled"
