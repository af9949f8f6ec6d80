"""What waits for too long in a paused queue is cancelled once, whoever dies or comes late meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, RunFailed, Worker, workflow
from jetflow.broker.store import collect
from jetflow.engine.expiring import Expiry, Pause, Queue
from jetflow.errors import BrokerTimeout
from jetflow.runs import expiring as stored_pauses
from jetflow.runs.expiring import read_pauses
from jetflow.wire.records import encode
from jetflow.worker import executor
from jetflow.worker import expiring as looking
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
LETTERS = Queue("letter", "run")
BEGUN: list[int] = []


@workflow("letter")
async def letter(number: int) -> int:
    BEGUN.append(number)
    return number


@pytest.fixture(autouse=True)
def _none_begun() -> None:
    BEGUN.clear()


async def ends_cancelled(client: Client, run: str) -> str:
    with pytest.raises(RunFailed) as caught:
        await client.run(run).result(PATIENCE)
    assert caught.value.status == "cancelled"
    return caught.value.error_message


async def nothing_is_armed(stored: Stored) -> bool:
    names = stored.names
    return not await stored.subjects(names.timers_stream, f"{names.prefix}.timer.>")


@pytest.mark.parametrize("where", ["cancel_waiting", "arm_look", "read_waiting"])
async def test_a_look_that_is_broken_off_is_taken_up(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Its message comes again, before or behind what it has done; none is left out, and none is cancelled twice."""
    right, left = getattr(looking, where), [1]

    async def broken(*given: Any) -> Any:
        if left and left.pop():
            if where == "cancel_waiting":
                await right(*given)  # all of it is done, and nobody hears of it
            raise BrokerTimeout("the worker is cut off here")
        return await right(*given)

    monkeypatch.setattr(looking, where, broken)
    async with worker([letter]) as only:
        await client.pause("letter", queue_ttl=0.4)
        runs = [run.id for run in await client.trigger_many(letter, range(5))]
        assert {"queue that is paused" in await ends_cancelled(client, run) for run in runs} == {True}
        assert not left
        assert await client.resume("letter") == ["run"]
        assert await (await client.trigger(letter, 7)).result(PATIENCE) == 7
        await until(stored.is_idle)
        assert (BEGUN, only.counts.rejected) == ([7], 0)
    assert await read_pauses(client.session) == {}
    assert await nothing_is_armed(stored)


async def test_many_are_cancelled_in_one_look(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """More than a page; what was asked for behind them has its own time."""
    async with worker([letter]):
        pass
    await client.pause("letter", queue_ttl=0.5)
    runs = await client.trigger_many(letter, range(250))
    asked = time.time()
    await until(lambda: _has_been(asked, 0.6))
    late = await client.trigger(letter, 1000)
    async with worker([letter]):
        for run in runs:
            await ends_cancelled(client, run.id)
        await client.resume("letter")
        assert await late.status() in ("queued", "cancelled", "succeeded")
        await until(stored.is_idle)
    assert BEGUN in ([], [1000])


async def test_a_look_of_another_pause_does_nothing(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """As one that a slow worker arms, when its queue was let go on, and paused with another bound."""
    async with worker([letter]):
        await client.pause("letter", queue_ttl=3600)
        run = await client.trigger(letter, 1)
        earlier = Expiry(Pause(0.001, 1.0))
        timer = stored_pauses._timer(client.session, LETTERS, earlier, time.time())
        await client.session.publisher.store(timer.subject, timer.body, timer.headers)
        due = stored.names.due_expiry("letter", "run")

        async def is_handled() -> bool:
            return not await stored.subjects(stored.names.timers_stream, due) and not await stored.subjects(
                stored.names.timers_stream, timer.subject
            )

        await until(is_handled)
        assert await run.status() == "queued"
        late = looking.ArmLook(LETTERS, 10**6, earlier, time.time())
        await stored_pauses.arm_look(client.session, late)  # by the sequence of what is not there any more
        assert await stored.subjects(stored.names.timers_stream, timer.subject) == []
        await client.resume("letter")
        assert await run.result(PATIENCE) == 1


async def test_a_bound_ends_with_its_pause(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """A look that comes when the pause is over by itself cancels nothing, though what was said of it still stands."""
    async with worker([letter]):
        pass
    await client.pause("letter", until=time.time() + 0.5, queue_ttl=0.3)
    run = await client.trigger(letter, 1)  # and nobody is there to cancel it, or to run it
    asked = time.time()
    await until(lambda: _has_been(asked, 1.0))
    handled, right = list[object](), looking.read_held

    async def read(*given: Any) -> Any:
        found = await right(*given)
        handled.append(found)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(looking, "read_held", read)
        async with worker([letter]):
            assert await run.result(PATIENCE) == 1
            await until(lambda: _has(handled))
    assert handled == [None]
    await client.resume("letter")


async def test_what_was_put_back_does_not_wait(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """The first task of a root run that is cancelled is put back for its key: it is not cancelled again."""
    async with worker([letter]):
        pass
    await client.pause("letter", queue_ttl=3600)
    run = await client.trigger(letter, 1, key="it")
    await client.cancel(run.id)
    effect = looking.ReadWaiting(LETTERS, 0)
    assert await stored_pauses.read_waiting(client.session, effect) == []
    other = await client.trigger(letter, 2)
    assert [one.run for one in await stored_pauses.read_waiting(client.session, effect)] == [other.id]
    await client.resume("letter")
    async with worker([letter]):
        assert await other.result(PATIENCE) == 2
        await until(stored.is_idle)


async def test_a_pause_that_ends_by_itself_cancels_nothing_more(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    async with worker([letter]):
        await client.pause("letter", until=time.time() + 1.0, queue_ttl=3600)
        run = await client.trigger(letter, 1)
        assert await run.result(PATIENCE) == 1
        await client.resume("letter")
        assert await nothing_is_armed(stored)


async def test_what_says_nothing_is_not_looked_at_for_ever(client: Client, worker: MakeWorker, stored: Stored) -> None:
    names = stored.names
    async with worker([letter]) as only:
        await client.session.publisher.store(names.due_expiry("letter", "run"), b"{}")
        await client.session.publisher.store(names.due_expiry("letter", "a=b=c"), encode(Expiry(Pause(1, 1))))
        await until(lambda: _are(only, rejected=2))
        assert await collect(client.session.store.pages(names.timers_stream, names.all_due)) == []


async def test_a_run_that_was_cancelled_long_ago_is_not_begun(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task was queued for so long that no worker remembers that its run was cancelled."""
    async with worker([letter]):
        pass
    await client.pause("letter")
    run, other = await client.trigger(letter, 1), await client.trigger(letter, 2)
    await client.cancel(run.id)
    await client.session.connection.api(
        f"STREAM.PURGE.{stored.names.tasks_stream}", {"filter": stored.names.cancelled(run.id, run.id)}
    )
    monkeypatch.setattr(executor, "LONG_AGO", 0.0)
    async with worker([letter]):
        await client.resume("letter")
        assert await other.result(PATIENCE) == 2
        await until(stored.is_idle)
    assert BEGUN == [2]


async def _are(worker: Worker, *, rejected: int) -> bool:
    return worker.counts.rejected == rejected


async def _has(some: list[object]) -> bool:
    return bool(some)


async def _has_been(moment: float, seconds: float) -> bool:
    return time.time() - moment >= seconds
