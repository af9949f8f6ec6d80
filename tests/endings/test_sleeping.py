"""Steps that sleep: in memory, parked, in threads and processes; through retries, deploys, kills and cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time

import pytest

import jetflow.testing
from jetflow import Client, Context, InvalidInput, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.cli.tables import page_of
from jetflow.runs.trace import StepTrace
from jetflow.server import NatsServer
from tests.endings.steps_in_processes import sleeping_in_process
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_cancelling import text_of
from tests.endings.test_timers import armed, none_armed, one_armed

MakeWorker = Callable[..., Worker]
PARKED = WorkerOptions(park_after=0)
LONG = 3600.0
"""Seconds that nothing here waits for."""


async def asleep(client: Client, run: str) -> StepTrace | None:
    """Return the only step of a run once it sleeps, parked."""
    [step] = (await client.describe(run)).steps
    return step if step.sleeps_until is not None else None


@workflow("sleeper")
async def sleeper(seconds: float, ctx: Context) -> float:
    began = await ctx.once("began", time)
    await ctx.sleep(seconds)
    return time() - began


@pytest.mark.parametrize("park_after", [0, 60], ids=["parked", "in memory"])
async def test_a_step_sleeps_as_long_as_it_says(client: Client, worker: MakeWorker, park_after: float) -> None:
    """And never less, in memory or parked."""
    async with worker([sleeper], options=WorkerOptions(park_after=park_after)) as only:
        assert 1.3 <= await (await client.trigger(sleeper, 1.3)).result(PATIENCE) < 1.3 + PATIENCE
        assert only.counts.parked == (0 if park_after else 1)


async def test_a_sleeper_is_in_no_worker(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """A long sleep is parked at once: its task is acknowledged, and a timer of the broker is all that there is."""
    async with worker([sleeper], slots=1) as only:
        run = await client.trigger(sleeper, LONG)
        step = await until(lambda: asleep(client, run.id))
        assert await until(lambda: one_armed(stored))
        assert step.status == "waiting"
        assert step.sleeps_until == pytest.approx(time() + LONG, abs=PATIENCE)
        assert (only.counts.parked, step.turns, step.attempts) == (1, 1, 1)
        assert "sleeps until" in text_of(page_of(await client.describe(run.id), verbose=False))
        await client.cancel(run.id)


async def test_the_end_is_fixed_when_it_is_first_reached(client: Client, worker: MakeWorker) -> None:
    """A later attempt, in another worker, sleeps for what is left."""
    ends: list[float] = []

    @workflow("tired", retry=Retry(attempts=3, initial=0))
    async def tired(_: None, ctx: Context) -> int:
        first = await ctx.once("first", time)
        await ctx.sleep(1.2)
        ends.append(time() - first)
        if len(ends) < 2:
            raise OSError
        return ctx.attempt

    async with worker([tired], options=PARKED):
        run = await client.trigger(tired)
        await until(lambda: asleep(client, run.id))
    async with worker([tired]):
        assert await run.result(PATIENCE) == 2
    assert ends[0] >= 1.2
    assert ends[1] - ends[0] < 1.2


async def test_each_sleep_has_an_end_of_its_own(client: Client, worker: MakeWorker) -> None:
    """Equal ones are told apart by their order, and by their keys."""

    @workflow("naps")
    async def naps(_: None, ctx: Context) -> float:
        began = await ctx.once("began", time)
        await ctx.sleep(0.4)
        await ctx.sleep(timedelta(seconds=0.4))
        await ctx.sleep(0.4, key="third")
        await ctx.sleep(0.4, key="third")
        return time() - began

    async with worker([naps], options=PARKED):
        assert 1.2 <= await (await client.trigger(naps)).result(PATIENCE) < 1.6 + PATIENCE


async def test_a_sleep_that_comes_before_does_not_begin_another_anew(client: Client, worker: MakeWorker) -> None:
    """As after a deploy: ends are found by what was asked, and not by a number that counts all sleeps."""
    ends: dict[str, float] = {}

    def version(name: str) -> Workflow[None, float]:
        @workflow("deployed")
        async def deployed(_: None, ctx: Context) -> float:
            began = await ctx.once("began", time)
            if name == "new":
                await ctx.sleep(0.01)
            await ctx.sleep(2)
            ends[name] = time() - began
            return ends[name]

        return deployed

    async with worker([version("old")], options=PARKED):
        run = await client.trigger("deployed")
        await until(lambda: asleep(client, run.id))
        await asyncio.sleep(0.5)
    async with worker([version("new")], options=PARKED):
        assert 2 <= await run.result(PATIENCE) < 2.5 + 1


async def test_a_time_that_is_over_is_slept_at_once(client: Client, worker: MakeWorker, stored: Stored) -> None:
    @workflow("late")
    async def late(_: None, ctx: Context) -> str:
        await ctx.sleep(until=datetime(2020, 1, 1, tzinfo=UTC))
        await ctx.sleep(0)
        return "awake"

    async with worker([late], options=PARKED) as only:
        assert await (await client.trigger(late)).result(PATIENCE) == "awake"
        assert only.counts.parked == 0
    assert await none_armed(stored)


async def test_a_step_sleeps_until_a_time(client: Client, worker: MakeWorker) -> None:
    when = datetime.now(UTC) + timedelta(seconds=1.5)

    @workflow("punctual")
    async def punctual(_: None, ctx: Context) -> float:
        await ctx.sleep(until=when)
        return time()

    async with worker([punctual], options=PARKED):
        assert await (await client.trigger(punctual)).result(PATIENCE) >= when.timestamp()


async def test_a_sleeping_step_holds_no_slot_and_no_place(client: Client, worker: MakeWorker) -> None:
    """Neither in memory nor of ``max_running``; and its timeout does not count what it sleeps."""

    @workflow("bounded", max_running=1, timeout=1)
    async def bounded(seconds: float, ctx: Context) -> float:
        await ctx.sleep(seconds)
        return seconds

    async with worker([bounded], slots=1):
        long = await client.trigger(bounded, LONG)
        assert await until(lambda: asleep(client, long.id))
        assert await (await client.trigger(bounded, 1.5)).result(PATIENCE) == 1.5
        await client.cancel(long.id)


async def test_a_step_in_a_thread_sleeps(client: Client, worker: MakeWorker) -> None:
    @workflow("in-thread")
    def in_thread(_: None, ctx: Context) -> int:
        ctx.block_on(ctx.sleep(1.2))
        return ctx.attempt

    async with worker([in_thread], options=PARKED) as only:
        assert await (await client.trigger(in_thread)).result(PATIENCE) == 1
        assert only.counts.parked == 1


async def test_a_step_in_a_process_sleeps(client: Client, worker: MakeWorker) -> None:
    options = WorkerOptions(park_after=0, processes=1)
    async with worker([sleeping_in_process], options=options) as only:
        assert await (await client.trigger(sleeping_in_process, 1.2)).result(PATIENCE) >= 1.2
        assert only.counts.parked == 1


async def test_a_sleep_beside_a_child_ends_first(client: Client, worker: MakeWorker) -> None:
    """One that is parked in two places goes on at the nearer: here its timer, though a child is open."""
    go = asyncio.Event()

    @workflow("endless")
    async def endless() -> None:
        await go.wait()

    @workflow("both")
    async def both(_: None, ctx: Context) -> str:
        child = await ctx.spawn_workflow(endless)
        waits = {asyncio.create_task(ctx.sleep(1.2)), asyncio.ensure_future(child.result())}
        done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in rest:
            one.cancel()
        await asyncio.gather(*done)
        go.set()  # the run ends with its child
        return "slept"

    async with worker([both, endless], options=PARKED):
        assert await (await client.trigger(both)).result(PATIENCE) == "slept"


async def test_what_ends_meanwhile_does_not_wake_a_sleeper(client: Client, worker: MakeWorker) -> None:
    """The children of an earlier turn have driven the counter of the step beyond what makes others look."""
    go = asyncio.Event()
    turns: list[float] = []

    @workflow("quick")
    async def quick(_: int) -> None:
        await go.wait()

    @workflow("sleeping-parent")
    async def sleeping_parent(_: None, ctx: Context) -> float:
        began = await ctx.once("began", time)
        turns.append(time())
        await ctx.spawn_workflows(quick, range(3))
        await ctx.sleep(2)
        return time() - began

    async with worker([sleeping_parent, quick], options=PARKED):
        run = await client.trigger(sleeping_parent)
        while not (await client.describe(run.id)).steps[0].sleeps_until:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
        go.set()
        assert await run.result(PATIENCE) >= 2
    assert len(turns) == 2


async def test_a_sleeper_is_cancelled(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """At once, though no worker knows of it, and its timer is removed; so it is of a tree that is deleted."""
    async with worker([sleeper]) as only:
        run, other = await client.trigger(sleeper, LONG), await client.trigger(sleeper, LONG)
        for one in (run, other):
            await until(lambda one=one: asleep(client, one.id))
        await until(stored.all_acknowledged)
        assert await client.cancel(run.id)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
        await client.delete(other.id)
        assert await armed(stored) == []
        assert only.counts.executed == 2


async def test_a_run_whose_time_is_over_does_not_sleep_on(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("hurried", input=float, deadline=1.5)

    @flow.step
    async def hurried(seconds: float, ctx: Context) -> None:
        await ctx.sleep(seconds)

    async with worker([flow], options=PARKED):
        with pytest.raises(RunFailed) as failed:
            await (await client.trigger(flow, LONG)).result(PATIENCE)
    assert failed.value.error_type == "RunTimeout"


async def test_a_sleep_that_outlasts_what_is_kept_is_refused(client: Client, worker: MakeWorker) -> None:
    """By name, and without another attempt: 30 days is what a namespace keeps."""
    async with worker([sleeper]) as only:
        with pytest.raises(RunFailed) as failed:
            await (await client.trigger(sleeper, 31 * 86400.0)).result(PATIENCE)
        assert (failed.value.error_type, only.counts.executed) == ("SleepTooLong", 1)
        assert "keeps what is stored for 30 days" in failed.value.error_message


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"duration": -1},
        {"duration": float("nan")},
        {"duration": "3 days"},
        {"duration": 1e12},
        {"duration": 1, "until": datetime.now(UTC)},
        {"until": datetime(2030, 1, 1)},
        {"until": 3},
        {"duration": 1, "key": 7},
    ],
    ids=str,
)
async def test_what_cannot_be_slept_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"sleep"):
        await jetflow.testing.context().sleep(**asked)  # type: ignore[arg-type]


async def test_a_test_does_not_sleep() -> None:
    ctx = jetflow.testing.context()
    assert await sleeper(LONG, ctx) < 1
    assert ctx.slept == [LONG]


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_sleepers_outlive_worker_and_server(own_server: NatsServer, kill: bool) -> None:
    async with jetflow.connect(own_server.url) as client:
        async with Worker([sleeper], server=own_server.url, options=PARKED):
            run = await client.trigger(sleeper, 2)
            await until(lambda: asleep(client, run.id))
            await until(lambda: one_armed(Stored(client)))
        if kill:
            await own_server.kill()
            await own_server.start()
        else:
            await own_server.restart()
        async with Worker([sleeper], server=own_server.url, options=PARKED) as second:
            assert await run.result(PATIENCE) >= 2
            assert second.counts.swept == 0
