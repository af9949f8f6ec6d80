"""Steps that wait for a time: attempts that are made again, and joins with a deadline, parked until a timer fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import pytest

import jetflow
from jetflow import Client, Context, JoinPolicy, Retry, RetryAfter, RunFailed, Worker, WorkerOptions, workflow
from jetflow.runs import timers
from jetflow.runs.trace import RunTrace, StepTrace
from jetflow.server import NatsServer
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_outcomes import end_of, take_and_die
from tests.inside import recording

MakeWorker = Callable[..., Worker]
PARKED = WorkerOptions(park_after=0)
LATER = Retry(attempts=2, initial=60, jitter=0)
"""Long enough that nothing here waits for it."""


async def retrying(client: Client, run: str) -> StepTrace | None:
    """Return the only step of a run once it waits for its next attempt."""
    [step] = (await client.describe(run)).steps
    return step if step.status == "retrying" else None


async def armed(stored: Stored) -> list[str]:
    return await stored.subjects(stored.names.timers_stream)


async def none_armed(stored: Stored) -> bool:
    return not await armed(stored)


async def one_armed(stored: Stored) -> str | None:
    """Return the subject of the only timer, once nothing is held by a worker any more."""
    found = await armed(stored)
    return found[0] if len(found) == 1 and await stored.all_acknowledged() else None


# --- attempts that are made again


async def test_an_attempt_that_waits_is_parked(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """No worker holds its task meanwhile: a timer of the broker is all that there is. It is shown as retrying."""

    @workflow("later", retry=LATER)
    async def later() -> None:
        raise OSError("not yet")

    async with worker([later]):
        began = time()
        run = await client.trigger(later)
        step = await until(lambda: retrying(client, run.id))
        assert await until(lambda: one_armed(stored))
        assert step.again is not None
        assert began + 60 <= step.again <= time() + 60
        assert (step.attempts, step.turns) == (1, 1)
        assert [attempt.error and attempt.error.message for attempt in step.failures] == ["not yet"]
        await client.cancel(run.id)


async def test_an_attempt_that_waits_holds_no_place(client: Client, worker: MakeWorker) -> None:
    """Of ``max_running``, which is how many bodies run at once."""

    @workflow("sync-account", max_running=1, retry=LATER)
    async def sync_account(name: str) -> str:
        if name == "rate-limited":
            raise RetryAfter(60, "429")
        return name

    async with worker([sync_account]):
        limited = await client.trigger(sync_account, "rate-limited")
        await until(lambda: retrying(client, limited.id))
        assert await (await client.trigger(sync_account, "healthy")).result(PATIENCE) == "healthy"
        await client.cancel(limited.id)


async def test_a_short_wait_is_held_in_memory(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """The broker arms nothing for it."""

    @workflow("soon", retry=Retry(attempts=3, initial=0.05))
    async def soon(_: None, ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError
        return ctx.attempt

    async with worker([soon]):
        assert await (await client.trigger(soon)).result(PATIENCE) == 3
    assert (await stream_of_timers(stored))["last_seq"] == 0


async def stream_of_timers(stored: Stored) -> dict[str, Any]:
    info = await stored.session.connection.api(f"STREAM.INFO.{stored.names.timers_stream}")
    return info["state"]


async def test_a_short_wait_of_a_step_with_max_running_is_not_held(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """What is held keeps its task, and so a place."""

    @workflow("soon", max_running=1, retry=Retry(attempts=2, initial=0.05))
    async def soon(_: None, ctx: Context) -> int:
        if ctx.attempt < 2:
            raise OSError
        return ctx.attempt

    async with worker([soon]):
        assert await (await client.trigger(soon)).result(PATIENCE) == 2
    assert (await stream_of_timers(stored))["last_seq"] > 0


async def test_attempts_are_counted_over_turns(client: Client, worker: MakeWorker) -> None:
    """Whether the next one begins at once, from memory or by a timer."""
    attempts: list[int] = []

    @workflow("patient", retry=Retry(attempts=4))
    async def patient(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise RetryAfter((0, 0.05, 1.05, 0)[ctx.attempt - 1])

    async with worker([patient]):
        trace = await end_of(client, (await client.trigger(patient)).id)
    [step] = trace.steps
    assert attempts == [1, 2, 3, 4]
    assert (trace.status, step.attempts, step.turns) == ("failed", 4, 4)
    assert [attempt.attempt for attempt in step.failures] == [1, 2, 3]


async def test_attempts_before_a_wait_that_parked_do_not_count_behind_it(client: Client, worker: MakeWorker) -> None:
    """What was waited for has ended by then: the step begins anew, from its top."""
    attempts: list[int] = []
    go = asyncio.Event()

    @workflow("held")
    async def held() -> None:
        await go.wait()

    @workflow("parent", retry=Retry(attempts=3, initial=0))
    async def parent(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            raise OSError
        await (await ctx.spawn_workflow(held)).result()

    async with worker([parent, held], options=PARKED) as only:
        run = await client.trigger(parent)
        await until(lambda: _parked(only))
        go.set()
        await run.result(PATIENCE)
    assert attempts == [1, 2, 1]


async def _parked(worker: Worker) -> bool:
    return worker.counts.parked == 1


async def test_a_worker_that_is_lost_in_a_later_turn_counts_as_an_attempt(client: Client, worker: MakeWorker) -> None:
    """One attempt failed, two bodies were lost that are known to have begun: of three attempts none is left."""
    options = WorkerOptions(ack_wait=0.2)

    @workflow("deadly", retry=Retry(attempts=3))
    async def deadly() -> None:
        raise RetryAfter(1.05)

    @workflow("bystander")
    async def bystander() -> None: ...

    async with worker([deadly], options=options):
        run = await client.trigger(deadly)
        await until(lambda: retrying(client, run.id))
    async with worker([bystander]):  # it wakes what others have parked
        await take_and_die(client, "deadly", "run", times=3)
    async with worker([deadly], options=options) as survivor:
        trace = await end_of(client, run.id)
    assert (trace.status, survivor.counts.executed) == ("failed", 0)
    assert trace.error is not None
    assert trace.error.type == "Poisoned"


async def test_a_timer_does_not_fire_before_its_time(client: Client, worker: MakeWorker) -> None:
    began: list[float] = []

    @workflow("busy", retry=Retry(attempts=2))
    async def busy() -> str:
        began.append(time())
        if len(began) == 1:
            raise RetryAfter(1.2, "rate limit")
        return "done"

    async with worker([busy]):
        assert await (await client.trigger(busy)).result(PATIENCE) == "done"
    assert began[1] - began[0] >= 1.2


async def test_what_ends_meanwhile_does_not_wake_it(client: Client, worker: MakeWorker) -> None:
    """A child of the attempt before is counted, and whoever counts it looks at the join of the step."""
    began: list[float] = []
    parked, go = asyncio.Event(), asyncio.Event()

    @workflow("quick")
    async def quick() -> None:
        await parked.wait()

    @workflow("slow")
    async def slow() -> None:
        await go.wait()

    @workflow("parent", retry=Retry(attempts=2))
    async def parent(_: None, ctx: Context) -> int:
        first = await ctx.spawn_workflow(quick)
        second = await ctx.spawn_workflow(slow)
        await first.result()  # parks: from then on the step's counter says that a look may be worth it
        began.append(time())
        if ctx.attempt == 1:
            raise RetryAfter(1.5)
        await second.result()
        return ctx.attempt

    async with worker([parent, quick, slow], options=PARKED) as only:
        run = await client.trigger(parent)
        await until(lambda: _parked(only))
        parked.set()
        await until(lambda: retrying(client, run.id))
        go.set()
        assert await run.result(PATIENCE) == 2
    assert began[1] - began[0] >= 1.5


async def test_the_next_attempt_is_made_by_another_worker(client: Client, worker: MakeWorker) -> None:
    """The one that has made the first is gone by then."""

    @workflow("moving", retry=Retry(attempts=2))
    async def moving(_: None, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise RetryAfter(1.05)
        return ctx.attempt

    async with worker([moving]) as first:
        run = await client.trigger(moving)
        await until(lambda: retrying(client, run.id))
    async with worker([moving]) as second:
        assert await run.result(PATIENCE) == 2
    assert (first.counts.executed, second.counts.executed) == (1, 1)


@pytest.mark.parametrize("kill", [False, True])
async def test_a_timer_outlives_its_server(own_server: NatsServer, kill: bool) -> None:
    began: list[float] = []

    @workflow("patient", retry=Retry(attempts=2))
    async def patient(_: None, ctx: Context) -> int:
        began.append(time())
        if ctx.attempt == 1:
            raise RetryAfter(1.5)
        return ctx.attempt

    async with (
        Worker([patient], server=own_server.url, options=WorkerOptions(grace=1)) as only,
        jetflow.connect(own_server.url) as client,
    ):
        run = await client.trigger(patient)
        await until(lambda: retrying(client, run.id))
        await until(lambda: one_armed(Stored(client)))
        if kill:
            await own_server.kill()
            await own_server.start()
        else:
            await own_server.restart()
        assert await run.result(PATIENCE) == 2
        assert only.counts.swept == 0
        await until(lambda: none_armed(Stored(client)))
    assert began[1] - began[0] >= 1.5


async def test_a_worker_that_stops_gives_what_it_holds_to_the_broker(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "HELD_BELOW", 100.0)  # the worker would hold it for longer than a test takes

    @workflow("later", retry=LATER)
    async def later() -> None:
        raise OSError

    async with worker([later]):
        run = await client.trigger(later)
        await until(lambda: retrying(client, run.id))
        assert await none_armed(stored)
    assert await until(lambda: one_armed(stored))
    await client.cancel(run.id)


# --- cancelling and deleting


async def test_the_timers_of_a_cancelled_run_are_removed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """And those of its descendants."""

    @workflow("later", retry=LATER)
    async def later(_: int) -> None:
        raise OSError

    @workflow("parent", retry=LATER)
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(later, range(3))
        raise OSError

    async with worker([parent, later]):
        run = await client.trigger(parent)
        await until(lambda: _so_many_armed(stored, 4))
        await client.cancel(run.id)
        assert await armed(stored) == []


async def test_the_timer_of_a_child_that_is_cancelled_alone_is_removed(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Those of its siblings stay."""

    @workflow("later", retry=LATER)
    async def later(_: int) -> None:
        raise OSError

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(later, range(2))

    async with worker([parent, later]):
        run = await client.trigger(parent)
        await until(lambda: _so_many_armed(stored, 2))
        one, other = (child.id for child in (await client.describe(run.id)).children)
        await client.cancel(one)
        assert [subject.split(".")[-2] for subject in await armed(stored)] == [other]
        await client.cancel(run.id)


async def _so_many_armed(stored: Stored, number: int) -> bool:
    return len(await armed(stored)) == number and await stored.all_acknowledged()


async def test_the_timers_of_a_deleted_tree_are_removed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    @workflow("later", retry=LATER)
    async def later() -> None:
        raise OSError

    async with worker([later]):
        run = await client.trigger(later)
        await until(lambda: one_armed(stored))
        await client.delete(run.id)
        assert await armed(stored) == []


# --- joins with a deadline


@workflow("child")
async def child(how: str) -> str:
    if how == "never":
        await asyncio.Event().wait()
    return how


async def test_a_parked_join_is_woken_by_its_timer(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """What has ended by then decides."""
    turns: list[int] = []

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        turns.append(ctx.attempt)
        children = await ctx.spawn_workflows(child, ["a", "never"])
        result = await ctx.join(children, policy=JoinPolicy.collect().within(1.5))
        return [len(result.succeeded), len(result.open)]

    async with worker([parent, child], options=PARKED) as only:
        run = await client.trigger(parent)
        assert await run.result(PATIENCE) == [1, 1]
        await until(lambda: none_armed(stored))
        assert (only.counts.parked, turns) == (1, [1, 1])
        await client.cancel((await client.describe(run.id)).children[1].id)


async def test_a_parked_join_that_is_woken_by_its_children_removes_its_timer(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    go = asyncio.Event()

    @workflow("held")
    async def held() -> str:
        await go.wait()
        return "held"

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        children = [await ctx.spawn_workflow(child, "a"), await ctx.spawn_workflow(held)]
        result = await ctx.join(children, policy=JoinPolicy.collect().within(60))
        return [len(result.succeeded), len(result.open)]

    async with worker([parent, child, held], options=PARKED) as only:
        run = await client.trigger(parent)
        await until(lambda: _one_waits(stored, only))
        go.set()
        assert await run.result(PATIENCE) == [2, 0]
        await until(lambda: none_armed(stored))


async def _one_waits(stored: Stored, worker: Worker) -> bool:
    return await _parked(worker) and len(await armed(stored)) == 1 and not recording(worker)


# --- what timers become


async def test_a_message_that_is_no_timer_is_rejected(client: Client, worker: MakeWorker, stored: Stored) -> None:
    prefix = stored.names.prefix
    async with worker([child]) as only:
        for subject, headers in (
            (f"{prefix}.due._nonsense", b""),
            (f"{prefix}.due.run.child.r", b""),
            (f"{prefix}.due.wake.child.run.r.-.r", b""),
            (f"{prefix}.due.wake.child.run.{'ab' * 16}.-.{'ab' * 16}.0", header_block({Header.ATTEMPT: "many"})),
        ):
            await stored.session.publisher.store(subject, b"", headers)
        await until(lambda: none_armed(stored))
        assert only.counts.rejected == 4
        assert await (await client.trigger(child, "still there")).result(PATIENCE) == "still there"


async def test_a_timer_of_another_version_is_left_to_its_workers(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Whoever does not know its kind hands it back, so that a chain of timers does not break in a deploy."""
    subject = f"{stored.names.prefix}.due.invented.one"
    async with worker([child]) as only:
        await stored.session.publisher.store(subject, b"")
        await until(lambda: _was_seen(stored))
        assert await (await client.trigger(child, "still there")).result(PATIENCE) == "still there"
        assert only.counts.rejected == 0
    assert await armed(stored) == [subject]


async def _was_seen(stored: Stored) -> bool:
    names = stored.names
    info = await stored.session.connection.api(f"CONSUMER.INFO.{names.timers_stream}.{names.due_consumer}")
    return bool(info["num_redelivered"] or info["delivered"]["consumer_seq"])


async def test_a_timer_that_fires_twice_starts_one_turn(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """And one that fires after its run has ended starts none."""
    attempts: list[int] = []

    @workflow("later", retry=Retry(attempts=9, initial=60))
    async def later(_: None, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    async with worker([later]):
        run = await client.trigger(later)
        timer = await until(lambda: one_armed(stored))
        for _ in range(2):
            await fire(stored, timer)
        assert await run.result(PATIENCE) == 2
        await fire(stored, timer)
        await until(lambda: one_armed(stored))
        trace: RunTrace = await client.describe(run.id)
        await until(stored.is_idle)
        await client.delete(run.id)
    assert trace.steps[0].turns == 2
    assert attempts == [1, 2]


async def fire(stored: Stored, timer: str) -> None:
    """Publish what a timer becomes."""
    due = timer.replace(".timer.", ".due.", 1)
    await stored.session.publisher.store(due, b"", header_block({Header.ATTEMPT: "1"}))


async def test_a_timer_of_a_cancelled_run_starts_nothing(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """It may have fired while the run was cancelled."""

    @workflow("later", retry=LATER)
    async def later() -> None:
        raise OSError

    async with worker([later]) as only:
        run = await client.trigger(later)
        timer = await until(lambda: one_armed(stored))
        await client.cancel(run.id)
        await fire(stored, timer)
        await until(lambda: none_armed(stored))
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
        await until(stored.is_idle)
        assert await stored.subjects(stored.names.tasks_stream, f"*.*.task.*.*.*.*.{run.id}.1") == []
    assert only.counts.executed == 1
