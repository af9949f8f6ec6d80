"""Runs that begin later: at a time, after a delay, when they are asked for no more; listed, moved, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time

import pytest

import jetflow
from jetflow import Client, Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import InvalidInput, KeyConflict, PayloadTooLarge, RunBegun, UnknownRun, UnknownWorkflow
from jetflow.server import NatsServer
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_timers import armed, none_armed

MakeWorker = Callable[..., Worker]
LONG = 3600.0


@workflow("now")
async def now(_: int) -> float:
    return time()


async def test_a_run_begins_after_a_delay(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """And not before. Until then it is one that is scheduled, and nothing of it is among tasks or records."""
    async with worker([now]):
        asked = time()
        run = await client.trigger(now, 1, delay=1.2)
        assert (await run.status(), run.created) == ("scheduled", True)
        assert await stored.of_tree(run.id) == []
        assert asked + 1.2 <= await run.result(PATIENCE) < asked + 1.2 + PATIENCE
        assert await none_armed(stored)


async def test_a_run_begins_at_a_time(client: Client, worker: MakeWorker) -> None:
    when = datetime.now(UTC) + timedelta(seconds=1.2)
    async with worker([now]):
        assert await (await client.trigger(now, 1, at=when)).result(PATIENCE) >= when.timestamp()


async def test_a_time_that_is_over_is_now(client: Client, worker: MakeWorker, stored: Stored) -> None:
    async with worker([now]):
        run = await client.trigger(now, 1, at=datetime(2020, 1, 1, tzinfo=UTC))
        assert await stored.of_tree(run.id) != []
        await run.result(PATIENCE)


async def test_many_begin_later(client: Client, worker: MakeWorker) -> None:
    asked = time()
    runs = await client.trigger_many(now, range(20), delay=1.1)
    async with worker([now]):
        assert all(began >= asked + 1.1 for began in await asyncio.gather(*(run.result(PATIENCE) for run in runs)))


async def test_key_input_and_metadata_are_kept(client: Client, worker: MakeWorker) -> None:
    @workflow("told")
    async def told(text: str, ctx: Context) -> list[str]:
        return [text, ctx.metadata["by"]]

    async with worker([told]):
        run = await client.trigger(told, "é", key="sôme key", metadata={"by": "mé"}, delay=0.3)
        assert await run.result(PATIENCE) == ["é", "mé"]
        trace = await client.describe(run.id)
        assert (trace.key, trace.input) == ("sôme key", "é")


async def test_a_key_is_one_run(client: Client, worker: MakeWorker) -> None:
    """Before it begins, while it goes on and afterwards; with another input it is a conflict."""
    first = await client.trigger(now, 1, key="k", delay=1)
    again = await client.trigger(now, 1, key="k", delay=LONG)
    assert (first.id, first.created, again.created) == (again.id, True, False)
    with pytest.raises(KeyConflict):
        await client.trigger(now, 2, key="k", delay=1)
    async with worker([now]):
        ended = await first.result(PATIENCE)
        later = await client.trigger(now, 1, key="k", delay=LONG)
        assert (later.created, await later.result(PATIENCE)) == (False, ended)
        with pytest.raises(KeyConflict):
            await client.trigger(now, 2, key="k", delay=1)
    assert await client.delayed() == []


async def test_those_that_wait_are_listed(client: Client) -> None:
    """The next one first."""
    asked = time()
    late = await client.trigger(now, 1, delay=LONG)
    soon = await client.trigger(now, 2, key="k", delay=60)
    await client.trigger(sleepy, 3, delay=30)
    rows = await client.delayed("now")
    assert [(row.id, row.workflow, row.key) for row in rows] == [(soon.id, "now", "k"), (late.id, "now", None)]
    assert rows[0].at == pytest.approx(asked + 60, abs=PATIENCE)
    assert len(await client.delayed()) == 3
    for row in await client.delayed():
        assert await client.cancel(row.id)


@workflow("sleepy")
async def sleepy(_: int) -> None: ...


async def test_one_is_put_to_another_time(client: Client, worker: MakeWorker) -> None:
    asked = time()
    run = await client.trigger(now, 1, key="k", metadata={"a": 1}, delay=LONG)
    await client.reschedule(run.id, delay=1.2)
    await client.reschedule(run.id, at=datetime.fromtimestamp(asked + 1.1, UTC))
    async with worker([now]):
        assert await run.result(PATIENCE) >= asked + 1.1
        assert (await client.describe(run.id)).metadata == {"a": 1}
        with pytest.raises(RunBegun, match="has begun"):
            await client.reschedule(run.id, delay=3)
    with pytest.raises(UnknownRun):
        await client.reschedule("ab" * 16, delay=3)
    with pytest.raises(InvalidInput):
        await client.reschedule(run.id)


async def test_one_that_is_cancelled_is_forgotten(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """Its key is free again, and nothing is left of it."""
    run = await client.trigger(now, 1, key="k", delay=LONG)
    assert await client.cancel(run.id)
    assert await armed(stored) == []
    with pytest.raises(UnknownRun):
        await run.status()
    with pytest.raises(UnknownRun):
        await client.cancel(run.id)
    other = await client.trigger(now, 2, key="k")
    async with worker([now]):
        await other.result(PATIENCE)
    deleted = await client.trigger(now, 1, delay=LONG)
    await client.delete(deleted.id)
    assert await client.delayed() == []


async def test_cancelling_at_the_moment_it_begins_ends_it_either_way(client: Client, worker: MakeWorker) -> None:
    """It is forgotten, or cancelled or done as any run; and it is never left to begin after that."""
    began: list[int] = []

    @workflow("counted")
    async def counted(number: int) -> None:
        began.append(number)

    async with worker([counted]):
        runs = await client.trigger_many(counted, range(20), delay=0.3)
        await asyncio.sleep(0.3)  # timers of the broker fire within the next quarter of a second
        for run in runs:
            assert await client.cancel(run.id) in (True, False)
        seen = len(began)
        await until(lambda: _none_delayed(client))
        assert len(began) == seen or seen == 20


async def _none_delayed(client: Client) -> bool:
    return not await client.delayed()


async def test_waiting_for_one_that_has_not_begun(client: Client, worker: MakeWorker) -> None:
    """By its id alone, from another client."""
    run = await client.trigger(now, 1, delay=2.5)
    async with worker([now]):
        assert await client.run(run.id).result(PATIENCE) > 0


async def test_a_run_that_is_too_large_to_wait_is_refused(client: Client) -> None:
    @workflow("large")
    async def large(_: str) -> None: ...

    with pytest.raises(PayloadTooLarge, match="begins later"):
        await client.trigger(large, "x" * 600_000, delay=1)


async def test_who_is_gone_when_the_time_comes(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """A workflow that nobody has declared fails by name, as a trigger of any NATS client would."""
    names, run = stored.names, "ab" * 16
    with pytest.raises(UnknownWorkflow):
        await client.trigger("nobody", delay=1)
    await stored.session.publisher.store(names.due_run("nobody", run), b"1")
    async with worker([now]):
        await until(lambda: _status(client, run))
        assert (await client.describe(run)).error.type == "UnknownWorkflow"  # type: ignore[union-attr]


async def _status(client: Client, run: str) -> bool:
    try:
        return await client.run(run).status() == "failed"
    except UnknownRun:
        return False


async def test_any_client_may_ask_for_a_time(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """By one header of a trigger."""
    run, asked = "cd" * 16, time()
    headers = header_block({Header.RUN: run, Header.NOT_BEFORE: f"{asked + 1.3:.3f}"})
    await stored.session.publisher.store(stored.names.inbox_trigger("now"), b"1", headers)
    async with worker([now]):
        await until(lambda: _is_listed(client))
        assert await client.run(run).result(PATIENCE) >= asked + 1.3


async def _is_listed(client: Client) -> bool:
    return bool(await client.delayed())


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_they_outlive_the_server(own_server: NatsServer, kill: bool) -> None:
    async with jetflow.connect(own_server.url) as client:
        asked = time()
        runs = await client.trigger_many(now, range(50), delay=1.5)
        if kill:
            await own_server.kill()
            await own_server.start()
        else:
            await own_server.restart()
        async with Worker([now], server=own_server.url):
            for run in runs:
                assert await run.result(PATIENCE) >= asked + 1.5


# --- debounce


async def test_a_debounced_run_begins_when_it_is_asked_for_no_more(client: Client, worker: MakeWorker) -> None:
    """Once, with the last input."""

    @workflow("index")
    async def index(number: int) -> list[float]:
        return [number, time()]

    async with worker([index]) as only:
        runs = [await client.trigger(index, number, debounce=1.0, debounce_key="a") for number in range(5)]
        last = time()
        assert len({run.id for run in runs}) == 1
        assert [run.created for run in runs] == [True, False, False, False, False]
        number, began = await runs[0].result(PATIENCE)
        assert number == 4
        assert began >= last + 0.99  # the last one was asked for a moment before it was told
        assert only.counts.executed == 1
        other = await client.trigger(index, 9, debounce=0.1, debounce_key="a")
        assert other.id != runs[0].id
        await other.result(PATIENCE)


async def test_a_debounced_run_is_put_off_so_long_and_no_longer(client: Client, worker: MakeWorker) -> None:
    asked = time()
    async with worker([now]):
        runs = [await client.trigger(now, 1, debounce=0.6, debounce_at_most=1.2)]
        while len({run.id for run in runs}) == 1:
            await asyncio.sleep(0.1)
            runs.append(await client.trigger(now, 1, debounce=0.6, debounce_at_most=1.2))
            assert time() < asked + PATIENCE
        assert asked + 1.2 <= await runs[0].result(PATIENCE)
        await client.cancel(runs[-1].id)


async def test_keys_are_debounced_apart(client: Client) -> None:
    one = await client.trigger(now, 1, debounce=LONG, debounce_key="a")
    other = await client.trigger(now, 1, debounce=LONG, debounce_key="b")
    assert one.id != other.id
    assert [row.debounced for row in await client.delayed()] == [True, True]
    assert [await client.cancel(run.id) for run in (one, other)] == [True, True]


@pytest.mark.parametrize(
    "when",
    [
        {"at": datetime.now(UTC), "delay": 1},
        {"delay": -1},
        {"delay": float("inf")},
        {"at": 7},
        {"at": datetime(2030, 1, 1)},
        {"debounce": 1, "key": "k"},
        {"debounce": 0},
        {"debounce": 5, "debounce_at_most": 1},
        {"debounce": 5, "debounce_key": 3},
        {"debounce_key": "a"},
        {"delay": 3, "debounce": 1},
    ],
    ids=str,
)
async def test_what_makes_no_time_is_refused(client: Client, when: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await client.trigger(now, 1, **when)  # type: ignore[arg-type]
    assert await client.delayed() == []


async def test_what_is_no_argument_is_none(client: Client) -> None:
    with pytest.raises(TypeError, match="delai"):
        await client.trigger(now, 1, delai=3)  # type: ignore[call-arg]


# --- children


async def test_a_child_begins_later(client: Client, worker: MakeWorker) -> None:
    """Its parent parks meanwhile; the child's deadline counts from when it begins."""
    child = Workflow("late-child", input=int, output=float, deadline=1.0)

    @child.step
    async def only_step(_: int) -> float:
        return time()

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> float:
        spawned = await ctx.once("spawned", time)
        one = await ctx.spawn_workflow(child, 1, delay=1.4)
        return await one.result() - spawned

    async with worker([parent, child], options=WorkerOptions(park_after=0)):
        assert await (await client.trigger(parent)).result(PATIENCE) >= 1.4


@pytest.mark.parametrize("keyed", [True, False])
async def test_many_children_begin_later(client: Client, worker: MakeWorker, keyed: bool) -> None:
    """All of a bulk spawn at one time; a later turn of their parent finds them, and puts none off."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> float:
        spawned = await ctx.once("spawned", time)
        key = str if keyed else None
        children = await ctx.spawn_workflows(now, range(30), key=key, delay=timedelta(seconds=1.3))
        return min(await ctx.join(children)) - spawned

    async with worker([parent, now], options=WorkerOptions(park_after=0)):
        assert 1.3 <= await (await client.trigger(parent)).result(PATIENCE) < PATIENCE


async def test_one_that_has_not_begun_is_described(client: Client) -> None:
    """By what it was asked for with, and when it begins."""
    asked = time()
    run = await client.trigger(now, 7, key="k", metadata={"by": "me"}, delay=LONG)
    trace = await client.describe(run.id)
    assert (trace.status, trace.workflow, trace.key, trace.input) == ("scheduled", "now", "k", 7)
    assert (trace.metadata, trace.steps, trace.root) == ({"by": "me"}, (), run.id)
    assert trace.begins is not None
    assert asked + LONG <= trace.begins <= time() + LONG
    await client.cancel(run.id)
    with pytest.raises(UnknownRun):
        await client.describe(run.id)


@pytest.mark.parametrize("steps", ["one", "several"])
async def test_a_detached_child_begins_later(client: Client, worker: MakeWorker, steps: str) -> None:
    """Also where its first steps are several, of which none may begin before."""
    child = Workflow("late-detached", input=int, output=float if steps == "one" else None)

    @child.step
    async def left(_: int) -> float:
        return time()

    if steps == "several":

        @child.step
        async def right(_: int) -> float:
            return time()

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> str:
        return (await ctx.spawn_workflow(child, 1, delay=timedelta(seconds=1.2), detached=True)).id

    async with worker([parent, child]):
        asked = time()
        run = client.run(await (await client.trigger(parent)).result(PATIENCE))
        began = await run.result(PATIENCE)
        assert min(began.values() if isinstance(began, dict) else [began]) >= asked + 1.2


async def test_a_child_that_has_not_begun_is_cancelled_with_its_tree(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    @workflow("late-parent")
    async def late_parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(now, 1, delay=LONG)

    async with worker([late_parent, now]) as only:
        run = await client.trigger(late_parent)
        await until(lambda: armed(stored))
        assert await client.cancel(run.id)
        assert await armed(stored) == []
        assert only.counts.executed == 1
