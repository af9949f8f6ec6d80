"""Runs begin later, or by themselves: after a delay, at a time, when nobody asks any more, and by schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, Worker, Workflow, workflow
from jetflow.errors import UnknownRun


@workflow("remind")
async def remind(_: str) -> float:
    return time()


async def test_a_run_begins_after_a_delay(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([remind]):
        asked = time()
        run = await client.trigger(remind, "drink", delay=1.1)
        assert await run.status() == "scheduled"
        assert await run.result(PATIENCE) >= asked + 1.1


async def test_it_can_be_listed_moved_and_forgotten(client: Client, worker: Callable[..., Worker]) -> None:
    """Nothing of it is stored but its timer."""
    when = datetime.now(UTC) + timedelta(days=400)
    run = await client.trigger(remind, "drink", at=when, key="water")
    [waiting] = await client.delayed("remind")
    assert (waiting.id, waiting.key) == (run.id, "water")
    await client.reschedule(run.id, delay=0.3)
    async with worker([remind]):
        await run.result(PATIENCE)
    other = await client.trigger(remind, "eat", delay=3600)
    assert await client.cancel(other.id)
    with pytest.raises(UnknownRun):
        await other.status()


async def test_a_child_begins_later(client: Client, worker: Callable[..., Worker]) -> None:
    """Its parent waits for it as for any other."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> float:
        spawned = await ctx.once("spawned", time)
        return await (await ctx.spawn_workflow(remind, "drink", delay=1.1)).result() - spawned

    async with worker([parent, remind]):
        assert await (await client.trigger(parent)).result(PATIENCE) >= 1.1


async def test_what_is_asked_for_often_runs_once(client: Client, worker: Callable[..., Worker]) -> None:
    """When nobody has asked for a while; with the last input."""

    @workflow("index")
    async def index(path: str) -> str:
        return path

    async with worker([index]) as only:
        for path in ("a", "b", "c"):
            run = await client.trigger(index, path, debounce=0.5, debounce_key="all")
        assert await run.result(PATIENCE) == "c"
        assert only.counts.executed == 1


async def test_a_schedule_is_declared_with_its_workflow(client: Client, worker: Callable[..., Worker]) -> None:
    """Each tick is one run, and its key is the tick. What is declared no more is removed."""
    ticking = Workflow("ticking", input=str, output=str)
    ticking.schedule(every=1, input="tick")

    @ticking.step
    async def only_step(text: str, ctx: Context) -> str:
        return f"{text} {ctx.metadata['jetflow_tick']}"

    async def three() -> bool:
        return len((await client.runs(workflow="ticking")).items) >= 3

    async with worker([ticking]):
        await until(three)
        row = (await client.runs(workflow="ticking", status="succeeded")).items[0]
        tick = (row.key or "").removeprefix("ticking@")
        assert await client.run(row.id).result(PATIENCE) == f"tick {tick}"
        assert datetime.fromisoformat(tick).microsecond == 0
        await client.schedules.pause("ticking")
    ticking.schedules.clear()
    async with worker([ticking]):
        assert await client.schedules.list() == []


async def test_a_schedule_is_made_at_run_time(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([remind]):
        await client.schedules.create("nightly", remind, "sleep", cron="30 2 * * *", tz="Europe/Berlin")
        since, to = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
        runs = await client.schedules.backfill("nightly", since, to)
        keys = [(await client.describe(run.id)).key for run in runs]
        assert keys == [
            "nightly@2026-03-28T01:30:00Z",
            "nightly@2026-03-29T01:00:00Z",  # half past two is left out that night: it comes when the clocks go on
            "nightly@2026-03-30T00:30:00Z",
        ]
        for run in runs:
            await run.result(PATIENCE)
        await client.schedules.delete("nightly")
