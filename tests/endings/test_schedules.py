"""Schedules: each tick is one run, through changes, pauses, deploys and kills."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import msgspec
import pytest

import jetflow.sync
from jetflow import Client, Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.engine.schedules import Tick, key_of
from jetflow.errors import (
    InvalidDeclaration,
    InvalidInput,
    InvalidName,
    InvalidQuery,
    ScheduleExists,
    UnknownSchedule,
    UnknownWorkflow,
)
from jetflow.runs import schedules as stored_schedules
from jetflow.runs.schedules import read_schedule
from jetflow.server import NatsServer
from jetflow.wire.records import encode
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_timers import armed
from tests.inside import services

MakeWorker = Callable[..., Worker]
SOON = timedelta(seconds=1)


@workflow("job")
async def job(number: int, ctx: Context) -> list[Any]:
    return [number, ctx.metadata["jetflow_tick"], time()]


async def runs_of(client: Client, flow: str = "job") -> list[str]:
    """Return the keys of the runs that there are, in their order."""
    return sorted([row.key or "" for row in (await client.runs(workflow=flow, limit=500)).items])


async def so_many(client: Client, number: int, flow: str = "job") -> list[str] | None:
    keys = await runs_of(client, flow)
    return keys if len(keys) >= number else None


def are_consecutive(keys: list[str]) -> bool:
    """Tell whether keys of ticks are those of one second after the other."""
    seconds = [int(datetime.fromisoformat(key.partition("@")[2]).timestamp()) for key in keys]
    return seconds == list(range(seconds[0], seconds[0] + len(seconds)))


# --- ticks


async def test_each_tick_is_one_run(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """At its time or after it, with the input of the schedule, and the tick in its key and its metadata."""
    async with worker([job]):
        row = await client.schedules.create("seconds", job, 7, every=1, metadata={"by": "me"})
        assert row.next is not None
        keys = await until(lambda: so_many(client, 4))
        await client.schedules.delete("seconds")
        assert are_consecutive(keys)
        first = next(row for row in (await client.runs(workflow="job", limit=500)).items if row.key == keys[0])
        trace = await client.describe(first.id)
        assert trace.metadata == {"by": "me", "jetflow_schedule": "seconds", "jetflow_tick": keys[0].split("@")[1]}
        number, tick, began = await client.run(first.id).result(PATIENCE)
        assert number == 7
        assert 0 <= began - datetime.fromisoformat(tick).timestamp() < PATIENCE
    assert await armed(stored) == []


@pytest.mark.parametrize("plan", [{"cron": "* * * * * *"}, {"every": SOON}], ids=["cron", "interval"])
async def test_several_workers_start_no_tick_twice(client: Client, worker: MakeWorker, plan: Any) -> None:
    async with worker([job]), worker([job]), worker([job]):
        await client.schedules.create("seconds", "job", 1, **plan)
        keys = await until(lambda: so_many(client, 4))
        await client.schedules.delete("seconds")
    assert are_consecutive(keys)


async def test_a_list_of_times_ends(client: Client, worker: MakeWorker, stored: Stored) -> None:
    base = datetime.fromtimestamp(int(time()) + 1, UTC)
    times = [base + timedelta(milliseconds=500 * number) for number in range(3)]
    async with worker([job]):
        await client.schedules.create("listed", job, 1, times=times)
        keys = await until(lambda: so_many(client, 3))
        assert sorted(datetime.fromisoformat(key.split("@")[1]) for key in keys) == times
        assert (await client.schedules.get("listed")).next is None
        await until(lambda: _armed_is(stored, ["schedule.listed"]))
        await client.schedules.delete("listed")


async def _armed_is(stored: Stored, tails: list[str]) -> bool:
    return [".".join(subject.split(".")[3:]) for subject in await armed(stored)] == tails


async def test_jitter_is_the_same_for_a_tick(client: Client) -> None:
    await client.schedules.create("spread", await declared(client), 1, every=3600, jitter=600)
    found = await read_schedule(client.session, "spread")
    assert found is not None
    schedule, tick = found[0], found[0].timing.first(time()) or 0
    due = {schedule.due("spread", tick) for _ in range(3)}
    assert len(due) == 1
    assert tick <= due.pop() < tick + 600
    assert schedule.due("other", tick) != schedule.due("spread", tick)
    await client.schedules.delete("spread")


async def declared(client: Client) -> Workflow[int, list[Any]]:
    """Return a workflow of which a client knows."""
    await client.session.registry.ensure(job.declaration)
    return job


# --- missed ticks


@pytest.mark.parametrize(("catch_up", "made_up"), [("all", 60), ("latest", 1), ("none", 0)])
async def test_ticks_that_were_missed(
    client: Client, worker: MakeWorker, stored: Stored, catch_up: Any, made_up: int
) -> None:
    """Nobody was there for a minute and more: what becomes of its ticks, a policy says."""
    await client.schedules.create("missed", await declared(client), 1, every=1, catch_up=catch_up)
    since = await missed(stored, "missed", seconds=70)
    async with worker([job]):
        await until(lambda: _has_gone_on(client, since + 70))
        await client.schedules.pause("missed")
        keys = await runs_of(client)
        old = [key for key in keys if datetime.fromisoformat(key.split("@")[1]).timestamp() < since + 59]
        assert len(old) == (59 if made_up == 60 else 0)
        assert len(keys) == len(set(keys))
        await client.schedules.delete("missed")


async def missed(stored: Stored, name: str, *, seconds: int) -> float:
    """Have a schedule be at a tick that is so long ago, as if nobody had been there since. Returns when that was."""
    names, session = stored.names, stored.session
    found = await read_schedule(session, name)
    assert found is not None
    since = float(int(time()) - seconds)
    await session.connection.api(f"STREAM.PURGE.{names.timers_stream}", {"filter": names.timer_of_tick(name)})
    await session.publisher.store(names.due_tick(name), encode(Tick(since, found[0].epoch)))
    return since


async def _has_gone_on(client: Client, since: float) -> bool:
    keys = await runs_of(client)
    return any(datetime.fromisoformat(key.split("@")[1]).timestamp() >= since for key in keys)


@pytest.mark.parametrize(("window", "made_up"), [(None, 1), (60, 0)])
async def test_the_latest_is_made_up_for_within_a_window(
    client: Client, worker: MakeWorker, stored: Stored, window: float | None, made_up: int
) -> None:
    plan: Any = {} if window is None else {"window": window}
    await client.schedules.create("daily", await declared(client), 1, every=86400, start=_days_ago(3), **plan)
    await missed(stored, "daily", seconds=2 * 86400)
    async with worker([job]):
        await until(lambda: _has_timer(stored, "daily"))
        assert len(await runs_of(client)) == made_up
        await client.schedules.delete("daily")


def _days_ago(days: int) -> datetime:
    return datetime.fromtimestamp(int(time()) - 3600, UTC) - timedelta(days=days)


async def _has_timer(stored: Stored, name: str) -> bool:
    return stored.names.timer_of_tick(name) in await armed(stored)


# --- overlap


async def test_a_tick_is_skipped_while_the_last_run_goes_on(client: Client, worker: MakeWorker) -> None:
    go = asyncio.Event()
    began: list[float] = []

    @workflow("slow-job")
    async def slow_job() -> None:
        began.append(time())
        await go.wait()

    async with worker([slow_job]):
        await client.schedules.create("alone", slow_job, every=1, overlap="skip")
        await until(lambda: so_many(client, 1, "slow-job"))
        first = (await client.schedules.next("alone", 1))[0]
        while datetime.now(UTC) < first + timedelta(seconds=2.5):  # noqa: ASYNC110 - ticks have to pass
            await asyncio.sleep(0.05)
        assert len(await runs_of(client, "slow-job")) == 1
        go.set()
        await until(lambda: so_many(client, 2, "slow-job"))
        await client.schedules.delete("alone")


# --- changing


async def test_it_is_changed_paused_and_resumed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    schedules = client.schedules
    async with worker([job]):
        await schedules.create("s", job, 1, cron="0 3 * * *", tz="Europe/Berlin")
        assert (await schedules.get("s")).next != (await schedules.update("s", cron="0 4 * * *")).next
        row = await schedules.update("s", catch_up="all", jitter=5, input=9, metadata={"a": 1})
        assert (row.cron, row.tz, row.input, row.catch_up, row.jitter) == ("0 4 * * *", "UTC", 9, "all", 5)
        row = await schedules.pause("s")
        assert (row.paused, row.next) == (True, None)
        assert await _armed_is(stored, ["schedule.s"])
        assert len(await schedules.next("s", 3)) == 3
        row = await schedules.update("s", every=1)
        assert (row.paused, row.cron, row.every) == (True, None, 1)
        assert await _armed_is(stored, ["schedule.s"])
        assert not (await schedules.resume("s")).paused
        await until(lambda: so_many(client, 2))
        await schedules.pause("s")
        before = await runs_of(client)
        later = datetime.now(UTC) + timedelta(seconds=2.2)
        while datetime.now(UTC) < later:  # noqa: ASYNC110 - ticks have to pass
            await asyncio.sleep(0.05)
        assert await runs_of(client) == before
        await schedules.delete("s")


async def test_while_its_workflow_is_paused_its_ticks_wait_or_are_dropped(client: Client, worker: MakeWorker) -> None:
    schedules = client.schedules
    async with worker([job]):
        await schedules.create("s", job, 1, every=1)
        await until(lambda: so_many(client, 1))
        await client.pause("job")
        before = len(await runs_of(client))
        await until(lambda: so_many(client, before + 2))  # queued
        await client.pause("job", schedules="drop")
        row = await schedules.get("s")
        assert row.silent is not None
        assert (row.paused, row.next is not None) == (False, True)
        await asyncio.sleep(0.5)  # one that was under way
        before = len(await runs_of(client))
        await asyncio.sleep(2.2)  # ticks have to pass
        assert len(await runs_of(client)) == before
        await client.resume("job")
        assert (await schedules.get("s")).silent is None
        await until(lambda: so_many(client, before + 2))
        await schedules.delete("s")
        for row in (await client.runs(workflow="job")).items:
            await client.run(row.id).result(timeout=PATIENCE)
        with pytest.raises(InvalidQuery, match="not steps"):
            await client.pause("job", "run", schedules="drop")
        with pytest.raises(InvalidQuery, match="'skip'"):
            await client.pause("job", schedules="skip")  # pyright: ignore[reportArgumentType]


async def test_changes_that_race_are_all_made(client: Client) -> None:
    """Each goes by what the one before has stored."""
    await client.schedules.create("s", await declared(client), 1, every=3600)
    plans: list[Any] = [{"jitter": 1}, {"catch_up": "all"}, {"window": 60}, {"overlap": "skip"}, {"tz": "Asia/Tokyo"}]
    plans[-1] |= {"cron": "0 0 * * *"}
    await asyncio.gather(*(client.schedules.update("s", **plan) for plan in plans))
    row = await client.schedules.get("s")
    assert (row.jitter, row.catch_up, row.window, row.overlap, row.tz) == (1, "all", 60, "skip", "Asia/Tokyo")
    found = await read_schedule(client.session, "s")
    assert found is not None
    assert found[0].epoch == 6
    await client.schedules.delete("s")


async def test_they_are_listed(client: Client) -> None:
    known = await declared(client)
    await client.schedules.create("b", known, 1, every=60)
    await client.schedules.create("a", known, 2, cron="0 0 29 2 *", tz="Asia/Kolkata")
    rows = await client.schedules.list()
    assert [(row.name, row.input, row.known, row.declared) for row in rows] == [
        ("a", 2, True, False),
        ("b", 1, True, False),
    ]
    assert await client.schedules.list("nobody") == []
    for row in rows:
        await client.schedules.delete(row.name)
    assert await client.schedules.list() == []


async def test_ticks_are_made_up_for(client: Client, worker: MakeWorker) -> None:
    """By hand, each once, though it was started before."""
    async with worker([job]):
        await client.schedules.create("daily", job, 1, cron="0 3 * * *", tz="Europe/Berlin")
        since, to = datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
        runs = await client.schedules.backfill("daily", since, to)
        again = await client.schedules.backfill("daily", since, to)
        assert [run.id for run in runs] == [run.id for run in again]
        ticks = [(await run.result(PATIENCE))[1] for run in runs]
        assert ticks == [
            "2026-03-27T02:00:00Z",
            "2026-03-28T02:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T01:00:00Z",
            "2026-03-31T01:00:00Z",
        ]
        run = await client.schedules.trigger("daily")
        assert (await run.result(PATIENCE))[0] == 1
        await client.schedules.update("daily", cron="* * * * *")
        with pytest.raises(InvalidInput, match="10,000"):
            await client.schedules.backfill("daily", since, to + timedelta(days=30))
        await client.schedules.delete("daily")


# --- declared with the workflow


def version(*plans: tuple[str, dict[str, Any]]) -> Workflow[int, int]:
    flow = Workflow("declared", input=int, output=int)
    for name, plan in plans:
        flow.schedule(name=name, input=3, **plan)

    @flow.step
    async def only_step(number: int) -> int:
        return number

    return flow


async def test_what_is_declared_is_stored_by_workers(client: Client, worker: MakeWorker) -> None:
    """What is declared anew replaces it, and what is declared no more is removed; what was made at run time stays."""
    async with worker([version(("a", {"every": 3600}), ("b", {"cron": "0 3 * * *"}))]):
        await client.schedules.create("made", "declared", 5, every=60)
        await client.schedules.pause("b")
        assert [row.name for row in await client.schedules.list()] == ["a", "b", "made"]
    async with worker([version(("b", {"cron": "0 5 * * *"}))]):
        rows = {row.name: row for row in await client.schedules.list()}
        assert rows.keys() == {"b", "made"}
        assert (rows["b"].cron, rows["b"].paused, rows["b"].declared, rows["b"].input) == ("0 5 * * *", True, True, 3)
    async with worker([version()]):
        assert [row.name for row in await client.schedules.list()] == ["made"]
        await client.schedules.delete("made")


async def test_a_worker_that_starts_again_changes_nothing(client: Client, worker: MakeWorker) -> None:
    flow = version(("a", {"every": 3600}))
    async with worker([flow]):
        before = await read_schedule(client.session, "a")
    async with worker([version(("a", {"every": 3600}))]):
        assert await read_schedule(client.session, "a") == before
    async with worker([version()]):
        pass


async def test_the_schedule_of_another_workflow_is_left_alone(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    await client.schedules.create("a", await declared(client), 1, every=3600)
    async with worker([version(("a", {"every": 60}))]):
        assert (await client.schedules.get("a")).every == 3600
    assert "there is another one of that name" in caplog.text
    await client.schedules.delete("a")


# --- refused, and broken


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({}, "one of cron=, every= and times="),
        ({"cron": "* * * *"}, "has 4 fields"),
        ({"cron": "61 * * * *"}, "field 1, minute, cannot be '61'"),
        ({"cron": "0 0 30 2 *"}, "never comes|day-of-month"),
        ({"cron": "0 0 * * MOO"}, "day-of-week"),
        ({"cron": "0 0 * * *", "tz": "Europe/Nowhere"}, "no time zone 'Europe/Nowhere'"),
        ({"cron": "0 0 * * *", "every": 3}, "one of"),
        ({"every": 0.2}, "every 1 s at most"),
        ({"every": -3}, "every="),
        ({"times": [datetime(2030, 1, 1)]}, "time zone"),
        ({"every": 3, "catch_up": "some"}, "catch_up"),
        ({"every": 3, "overlap": "queue"}, "needs limits"),
        ({"every": 3, "jitter": -1}, "jitter"),
        (
            {"every": 3, "start": datetime(2030, 1, 2, tzinfo=UTC), "end": datetime(2030, 1, 1, tzinfo=UTC)},
            "ends before",
        ),
    ],
    ids=str,
)
async def test_a_plan_that_makes_no_sense_is_refused(client: Client, plan: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await client.schedules.create("s", await declared(client), 1, **plan)
    with pytest.raises(InvalidDeclaration, match=says):
        Workflow("w").schedule(name="s", **plan)
    assert await client.schedules.list() == []


async def test_names_and_workflows_are_checked(client: Client) -> None:
    known = await declared(client)
    with pytest.raises(UnknownWorkflow):
        await client.schedules.create("s", "nobody", every=3)
    with pytest.raises(InvalidName):
        await client.schedules.create("no name", known, 1, every=3)
    with pytest.raises(InvalidInput, match="input of workflow 'job'"):
        await client.schedules.create("s", known, "text", every=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="evry"):
        await client.schedules.create("s", known, 1, evry=3)  # type: ignore[call-arg]
    for _ in range(2):  # the same one more: the answer may have been lost
        await client.schedules.create("s", known, 1, every=3600)
    with pytest.raises(ScheduleExists, match="there is a schedule 's'"):
        await client.schedules.create("s", known, 1, every=7200)
    await client.schedules.delete("s")
    for call in (client.schedules.get, client.schedules.pause, client.schedules.delete, client.schedules.trigger):
        with pytest.raises(UnknownSchedule):
            await call("s")


async def test_one_of_a_workflow_that_nobody_has_starts_nothing(
    client: Client, worker: MakeWorker, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown as such, and its chain goes on: somebody may declare the workflow again."""
    await client.schedules.create("lonely", await declared(client), 1, every=1)
    names = stored.names
    for subject in (names.workflow("job"), names.workflow_version("job", job.graph.version)):
        await stored.session.connection.api(f"STREAM.PURGE.{names.workflows_stream}", {"filter": subject})

    async with worker([version()]):
        await until(lambda: _said(caplog, "starts no run of 'job'"))
        assert [(row.known, row.next is not None) for row in await client.schedules.list()] == [(False, True)]
        await client.session.publisher.store(names.workflow("job"), encode(job.declaration))
        await client.session.publisher.store(names.workflow_version("job", job.graph.version), encode(job.graph))
        await until(lambda: so_many(client, 1))
        await client.schedules.delete("lonely")
        for row in (await client.runs(workflow="job")).items:
            await client.cancel(row.id)


async def _said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def test_a_chain_that_was_broken_by_hand_is_mended(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """By the net, and that is counted: nothing but an administrator removes a timer."""
    async with worker([job], options=WorkerOptions(sweep_every=0.1)) as only:
        await client.schedules.create("s", job, 1, every=3600)
        names = stored.names
        await stored.session.connection.api(f"STREAM.PURGE.{names.timers_stream}", {"filter": names.timer_of_tick("s")})
        await until(lambda: _has_timer(stored, "s"))
        await client.schedules.delete("s")
        assert only.counts.swept == 1
        only.counts.swept = 0  # the test has seen to that


async def test_a_zombie_arms_nothing_over_a_change(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """A worker that has read a schedule before it was changed is refused by the server."""
    await client.schedules.create("s", await declared(client), 1, every=3600)
    found = await read_schedule(stored.session, "s")
    assert found is not None
    schedule, sequence = found
    await client.schedules.update("s", cron="0 3 * * *")
    armed_then = await stored.session.store.leader_last(stored.names.timers_stream, stored.names.timer_of_tick("s"))
    late = stored_schedules.ArmTick("s", schedule, sequence, Tick(time() + 5, schedule.epoch))
    await stored_schedules.arm_tick(stored.session, late)
    armed_now = await stored.session.store.leader_last(stored.names.timers_stream, stored.names.timer_of_tick("s"))
    assert armed_now == armed_then
    await client.schedules.delete("s")


async def test_an_old_timer_of_a_changed_schedule_starts_nothing(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """It may have fired just before the change."""
    async with worker([job]) as only:
        await client.schedules.create("s", job, 1, every=3600)
        await client.schedules.update("s", every=7200)
        await stored.session.publisher.store(stored.names.due_tick("s"), encode(Tick(time() - 1, 1)))
        await until(lambda: _armed_is(stored, ["schedule.s", "tick.s"]))
        assert await runs_of(client) == []
        await stored.session.publisher.store(stored.names.due_tick("s"), b"no tick")
        await until(lambda: _rejected(only))
        await client.schedules.delete("s")


async def _rejected(worker: Worker) -> bool:
    return services(worker).counts.rejected == 1


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_chain_outlives_server_and_workers(own_server: NatsServer, kill: bool) -> None:
    """Every tick from the first to the last that were started is there, once."""
    async with jetflow.connect(own_server.url) as client:
        async with Worker([job], server=own_server.url):
            await client.schedules.create("s", job, 1, every=1, catch_up="all")
            await until(lambda: so_many(client, 2))
        if kill:
            await own_server.kill()
            await own_server.start()
        else:
            await own_server.restart()
        async with Worker([job], server=own_server.url) as second:
            before = len(await runs_of(client))
            keys = await until(lambda: so_many(client, before + 3))
            await client.schedules.delete("s")
            assert are_consecutive(keys)
            assert second.counts.swept == 0


async def test_plain_programs_have_them(client: Client, nats_server: NatsServer, namespace: str) -> None:
    await declared(client)

    def plainly() -> tuple[list[str], int]:
        with jetflow.sync.connect(nats_server.url, namespace=namespace) as plain:
            plain.schedules.create("s", "job", 1, cron="0 3 * * *")
            plain.schedules.update("s", every=60)
            names = [row.name for row in plain.schedules.list()]
            ticks = plain.schedules.next("s", 3)
            plain.schedules.delete("s")
            return names, len(ticks)

    assert await asyncio.to_thread(plainly) == (["s"], 3)


def test_a_key_names_its_tick() -> None:
    assert key_of("s", 1795660217.0) == "s@2026-11-26T02:30:17Z"
    assert key_of("s", 1795660217.5) == "s@2026-11-26T02:30:17.500Z"
    assert msgspec.json.decode(encode(Tick(1.5, 2))) == {"tick": 1.5, "epoch": 2}
