"""Messages to the workers at large whose handling fails: only what can never be done is ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, Context, Event, Worker, WorkerOptions, workflow
from jetflow.broker.item import Item
from jetflow.broker.publisher import Done
from jetflow.worker import answers, event_runs, ticking
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import services

MakeWorker = Callable[..., Worker]
PARKED = WorkerOptions(park_after=0)


class Trouble:
    """Makes a function fail the first times that it is called, with an error that is nobody's."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.failed = asyncio.Event()

    def before(self, function: Any) -> Any:
        async def called(*args: Any, **kwargs: Any) -> Any:
            self.fail()
            return await function(*args, **kwargs)

        return called

    def fail(self) -> None:
        if self.left:
            self.left -= 1
            self.failed.set()
            raise RuntimeError("out of sorts")


def breaks_waking(only: Worker, trouble: Trouble) -> None:
    """Have the worker fail where it wakes a step."""
    tasks = services(only)._session.tasks
    publish = tasks.publish

    def failing(item: Item, done: Done) -> None:
        if not item.subject.endswith(".0"):
            trouble.fail()
        publish(item, done)

    tasks.publish = failing  # type: ignore[method-assign]


async def test_a_sleep_ends_though_its_timer_could_not_be_handled(client: Client, worker: MakeWorker) -> None:
    """Whatever went wrong has nothing to do with the message: it comes again, and the step is woken."""
    trouble = Trouble(2)

    @workflow("sleeps")
    async def sleeps(_: None, ctx: Context) -> str:
        await ctx.sleep(1.1)
        return "woken"

    async with worker([sleeps], options=PARKED) as only:
        breaks_waking(only, trouble)
        assert await (await client.trigger(sleeps)).result(PATIENCE) == "woken"
        assert (trouble.left, only.counts.rejected) == (0, 0)


async def test_an_event_wakes_though_it_could_not_be_handled(client: Client, worker: MakeWorker) -> None:
    trouble = Trouble()

    @workflow("waits")
    async def waits(_: None, ctx: Context) -> Any:
        return (await ctx.wait_for(Event("door.opened"))).payload

    async with worker([waits]) as only:
        run = await client.trigger(waits)
        await until(lambda: _is_waiting(client, run.id))
        breaks_waking(only, trouble)
        await client.publish("door.opened", 5)
        assert await run.result(PATIENCE) == 5
        assert (trouble.left, only.counts.rejected) == (0, 0)


async def _is_waiting(client: Client, run: str) -> bool:
    return (await client.describe(run)).steps[0].status == "waiting"


async def test_an_event_starts_its_run_though_it_could_not_at_first(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble()

    @workflow("started")
    async def started(number: int) -> int:
        return number

    started.on("number.came")
    monkeypatch.setattr(event_runs, "start_root", trouble.before(event_runs.start_root))
    async with worker([started]) as only:
        event = await client.publish("number.came", 7)
        [run] = (await until(lambda: client.runs_of_event(event))).values()
        assert await client.run(run).result(PATIENCE) == 7
        assert (trouble.left, only.counts.rejected) == (0, 0)


async def test_a_chain_of_ticks_does_not_break(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble()

    @workflow("job")
    async def job(number: int) -> int:
        return number

    monkeypatch.setattr(ticking, "arm_tick", trouble.before(ticking.arm_tick))
    async with worker([job]) as only:
        await client.schedules.create("seconds", job, 7, every=1)
        await until(lambda: _so_many(client, 3))
        await client.schedules.delete("seconds")
        assert (trouble.left, only.counts.rejected, only.counts.swept) == (0, 0, 0)


async def _so_many(client: Client, number: int) -> bool:
    return len((await client.runs(workflow="job", status="succeeded")).items) >= number


async def test_what_no_delivery_could_mend_is_ended(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """Or it would come back for ever: it says nothing, and will not the next time."""
    names = stored.names

    @workflow("job")
    async def job(number: int) -> int:
        return number

    async with worker([job]) as only:
        await stored.session.publisher.store(f"{names.prefix}.due.tick.nightly", b"{")
        await stored.session.publisher.store(f"{names.prefix}.due.tick.nightly.more", b"{}")
        await until(lambda: _rejected(only, 2))
    assert await stored.subjects(names.timers_stream) == []


async def _rejected(only: Worker, number: int) -> bool:
    return only.counts.rejected >= number


class Delivered:
    """What is asked of a delivery."""

    subject = "jf.default.due.wake"

    def __init__(self, count: int) -> None:
        self.count = count


def test_it_comes_again_ever_later_and_is_told_of_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    counts = answers.Counts()
    answering = answers.Answers(counts, "a message")
    caplog.set_level(logging.WARNING, "jetflow.worker")
    given: list[bytes] = []
    for count in range(1, 101):
        delivery: Any = Delivered(count)
        given.append(answering.to(delivery, RuntimeError("out of sorts")))
    assert given[:3] == [b'-NAK {"delay":%d}' % (seconds * 10**9) for seconds in (1, 2, 4)]
    assert set(given[6:]) == {b'-NAK {"delay":60000000000}'}
    assert len(caplog.records) == 7
    assert counts.rejected == 0
    impossible: Any = Delivered(1)
    assert answering.to(impossible, answers.Impossible("it says nothing")) == b"+TERM"
    assert counts.rejected == 1
