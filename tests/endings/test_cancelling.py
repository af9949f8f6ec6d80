"""Cancelling: what is queued never starts, what runs is told, what waits for it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
from rich.console import Console, RenderableType

from jetflow import (
    ChildFailed,
    Client,
    Context,
    KeyConflict,
    Retry,
    RunFailed,
    UnknownRun,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.cli.tables import page_of
from jetflow.engine.attempts import Recorded
from jetflow.engine.tasks import StepAddress, Task
from jetflow.errors import RunCancelled
from jetflow.runs.trace import Totals
from jetflow.server import NatsServer
from jetflow.wire.records import header_block
from jetflow.worker.cancellation import Cancellations
from tests.endings.cancel_many import BOUND, measure
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_outcomes import take_and_die
from tests.inside import services

MakeWorker = Callable[..., Worker]
PARKED = WorkerOptions(park_after=0)


async def status_of(client: Client, run: str) -> str:
    return (await client.describe(run, children=0)).status


async def test_a_task_that_is_delivered_again_while_its_run_is_cancelled_does_not_start(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking at the marks and running the step, what earlier deliveries have left is read."""
    options = WorkerOptions(ack_wait=0.2)

    @workflow("endless")
    async def endless() -> None:
        raise AssertionError("not reached")

    async with worker([endless], options=options):
        pass  # from now on the consumer exists
    run = await client.trigger(endless)
    await take_and_die(client, "endless", "run", times=1)
    survivor = worker([endless], options=options)
    async with survivor:
        executor = services(survivor).executor
        tried = executor._deliveries.tried

        async def cancelled_meanwhile(task: Task) -> list[Recorded]:
            await client.cancel(run.id)
            await until(lambda: _knows(executor.cancellations, task))
            return await tried(task)

        monkeypatch.setattr(executor._deliveries, "tried", cancelled_meanwhile)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
        await until(Stored(client).all_acknowledged)
    assert survivor.counts.executed == 0


async def _knows(cancellations: Cancellations, task: Task) -> bool:
    return cancellations.covers(task)


async def test_queued_tasks_never_start(client: Client, worker: MakeWorker, stored: Stored) -> None:
    spawned = asyncio.Event()

    @workflow("child")
    async def child(_: int) -> None:
        raise AssertionError("not reached")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, range(2000))
        spawned.set()

    async with worker([parent]):
        run = await client.trigger(parent)
        await spawned.wait()
        assert await client.cancel(run.id)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
    async with worker([child]) as late:
        await until(stored.is_idle)
    assert late.counts.executed == 0


@pytest.mark.parametrize("below", [False, True], ids=["root", "child"])
async def test_what_a_cancel_removed_is_told(client: Client, worker: MakeWorker, stored: Stored, below: bool) -> None:
    """The tasks are gone; how many children there were is not. Those of several steps count once."""
    done = Workflow[int, int]("done")

    @done.step
    async def first(number: int) -> int:
        return number

    @done.step(after=[first])
    async def second(number: int) -> int:
        return number

    @workflow("queued")
    async def queued(_: int) -> None:
        raise AssertionError("not reached")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.join(await ctx.spawn_workflows(done, range(3)))
        await ctx.join(await ctx.spawn_workflows(queued, range(20)))

    @workflow("above")
    async def above(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(parent)).result()

    async def all_queued() -> bool:
        return len(await stored.subjects(stored.names.tasks_stream, "jf.*.task.queued.>")) == 20

    async with worker([above, parent, done]):
        run = await client.trigger(above if below else parent)
        await until(all_queued)
        task = (await stored.subjects(stored.names.tasks_stream, "jf.*.task.parent.>"))[0]
        cancelled = task.split(".")[7]
        assert await client.cancel(cancelled)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        await until(stored.all_acknowledged)
        for _ in range(2):
            totals = (await client.describe(cancelled)).totals
            assert totals == Totals(spawned=23, succeeded=3, removed=20)
            await client.cancel(cancelled)  # once more: what is told stands
        await until(Stored(client).all_acknowledged)  # the task that keeps the id of the cancelled run, too
    assert "23 children  3 succeeded  20 removed" in text_of(page_of(await client.describe(cancelled)))
    assert (await client.describe(cancelled)).children == ()


async def test_a_run_that_is_cancelled_alone_has_removed_nothing(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Nor has a cancel that died when it had counted."""

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.join(await ctx.spawn_workflows(child, range(3)))

    async def all_queued() -> bool:
        return len(await stored.subjects(stored.names.tasks_stream, "jf.*.task.child.>")) == 3

    async with worker([parent]):
        run = await client.trigger(parent)
        await until(all_queued)
        await client.cancel(run.id, tree=False)
    assert (await client.describe(run.id)).totals == Totals(spawned=3, open=3)
    counted = stored.names.once(StepAddress(run.id, run.id, "_cancel"), "removed")
    await stored.session.publisher.store(counted, b"3")  # unless the step that was stopped has counted them
    assert (await client.describe(run.id)).totals == Totals(spawned=3, open=3)
    async with worker([child]):
        await until(stored.is_idle)
    assert (await client.describe(run.id)).totals == Totals(spawned=3, succeeded=3)


def text_of(page: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=240)
    with console.capture() as printed:
        console.print(page)
    return printed.get()


async def test_a_running_step_gets_cancelled_error(client: Client, worker: MakeWorker) -> None:
    began, ended = asyncio.Event(), list[BaseException]()

    @workflow("endless")
    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    async with worker([endless]) as only:
        run = await client.trigger(endless)
        await began.wait()
        await client.cancel(run.id)
        await until(lambda: _true(ended))
        await until(Stored(client).all_acknowledged)  # the task that keeps the id of the cancelled run, too
    assert isinstance(ended[0], asyncio.CancelledError)
    assert only.counts.executed == 1
    assert await status_of(client, run.id) == "cancelled"


async def _true(value: object) -> bool:
    return bool(value)


async def test_a_step_that_swallows_it_is_cancelled_all_the_same(client: Client, worker: MakeWorker) -> None:
    began = asyncio.Event()

    @workflow("stubborn")
    async def stubborn() -> str:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    async with worker([stubborn]):
        run = await client.trigger(stubborn)
        await began.wait()
        await client.cancel(run.id)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)


async def test_a_plain_def_step_sees_it(client: Client, worker: MakeWorker) -> None:
    began, saw = asyncio.Event(), list[bool]()

    @workflow("in-a-thread")
    def in_a_thread(_: None, ctx: Context) -> None:
        ctx.block_on(_set(began))
        end = monotonic() + PATIENCE
        while not ctx.cancelled and monotonic() < end:
            pass
        saw.append(ctx.cancelled)

    async with worker([in_a_thread]):
        run = await client.trigger(in_a_thread)
        await began.wait()
        await client.cancel(run.id)
        await until(lambda: _true(saw))
        await until(Stored(client).all_acknowledged)  # the task that keeps the id of the cancelled run, too
    assert saw == [True]
    assert await status_of(client, run.id) == "cancelled"


async def _set(event: asyncio.Event) -> None:
    event.set()


async def test_a_cancelled_parent_spawns_nothing_more(client: Client, worker: MakeWorker) -> None:
    began, refused = asyncio.Event(), list[Exception]()

    @workflow("child")
    async def child(_: int) -> None:
        raise AssertionError("not reached")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for spawn in (
                ctx.spawn_workflow(child, 1),
                ctx.spawn_workflows(child, [2]),
                ctx.spawn_workflow(child, 3, detached=True),
            ):
                try:
                    await spawn
                except RunCancelled as error:
                    refused.append(error)
            raise

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await began.wait()
        await client.cancel(run.id)
        await until(lambda: _true(len(refused) == 3))
        await until(Stored(client).all_acknowledged)  # the task that keeps the id of the cancelled run, too
    assert await Stored(client).subjects(client._session.names.tasks_stream, "jf.*.task.child.>") == []


async def test_a_bulk_spawn_stops_in_the_middle(client: Client, worker: MakeWorker, stored: Stored) -> None:
    cancelled, spawned = asyncio.Event(), list[int]()

    @workflow("child")
    async def child(_: int) -> None: ...

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        def inputs() -> Iterator[int]:
            for number in range(1_000_000):
                spawned.append(number)
                yield number

        try:
            await ctx.spawn_workflows(child, inputs())
        finally:
            cancelled.set()

    async with worker([parent]):
        run = await client.trigger(parent)
        await until(lambda: _true(spawned))
        await client.cancel(run.id)
        await cancelled.wait()
        await until(lambda: _is(client, run.id, "cancelled"))
    assert len(spawned) < 1_000_000
    async with worker([child]) as late:
        await until(stored.is_idle)
    assert late.counts.executed == 0


async def _is(client: Client, run: str, status: str) -> bool:
    return await status_of(client, run) == status


@pytest.mark.parametrize("park_after", [0, 60])
async def test_a_join_gets_a_cancelled_child_as_its_outcome(
    client: Client, worker: MakeWorker, park_after: float
) -> None:
    waits, children = asyncio.Event(), list[str]()

    @workflow("child")
    async def child() -> None:
        await asyncio.Event().wait()

    @workflow("parent", retry=Retry(attempts=1))
    async def parent(_: None, ctx: Context) -> str:
        started = await ctx.spawn_workflow(child)
        children.append(started.id)
        waits.set()
        try:
            await started.result()
        except ChildFailed as failed:
            return f"{failed.status} {failed.error_type}"
        return "not reached"

    async with worker([parent, child], options=WorkerOptions(park_after=park_after)):
        run = await client.trigger(parent)
        await waits.wait()
        assert await client.cancel(children[0])
        assert await run.result(PATIENCE) == "cancelled Cancelled"


async def test_the_boundary_fails_by_a_cancelled_child(client: Client, worker: MakeWorker) -> None:
    children: list[str] = []

    @workflow("child")
    async def child() -> None:
        await asyncio.Event().wait()

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        children.append((await ctx.spawn_workflow(child)).id)

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await until(lambda: _true(children))
        await client.cancel(children[0])
        with pytest.raises(RunFailed, match=r"1 of 1 children failed.*Cancelled"):
            await run.result(PATIENCE)
    trace = await client.describe(run.id)
    assert (trace.status, trace.totals.cancelled) == ("failed", 1)


async def test_a_subtree_leaves_its_siblings_alone(client: Client, worker: MakeWorker) -> None:
    """Three branches with leaves, all running; cancelling one ends its leaves, and the others end well."""
    running, cancelled = list[str](), list[str]()
    branches: dict[str, str] = {}
    go = asyncio.Event()

    @workflow("leaf")
    async def leaf(name: str) -> str:
        running.append(name)
        try:
            await go.wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise
        return name

    @workflow("branch")
    async def branch(name: str, ctx: Context) -> list[str]:
        return await ctx.join(await ctx.spawn_workflows(leaf, [f"{name}{number}" for number in range(3)]))

    @workflow("root")
    async def root(_: None, ctx: Context) -> list[str]:
        children = await ctx.spawn_workflows(branch, ["a", "b", "c"])
        branches.update(zip("abc", [child.id for child in children], strict=True))
        results = await ctx.join(children, return_exceptions=True)
        return [result.status if isinstance(result, ChildFailed) else "".join(result) for result in results]

    async with worker([root, branch, leaf]):
        run = await client.trigger(root)
        await until(lambda: _true(len(running) == 9))
        await client.cancel(branches["b"])
        await until(lambda: _true(len(cancelled) == 3))
        go.set()
        assert await run.result(PATIENCE) == ["a0a1a2", "cancelled", "c0c1c2"]
    assert sorted(cancelled) == ["b0", "b1", "b2"]


@pytest.mark.parametrize("waiting", ["warm", "parked", "sealed"])
async def test_a_deep_tree_ends_to_its_leaves(client: Client, worker: MakeWorker, waiting: str) -> None:
    """Levels that wait in memory, that are parked, or that have returned: the leaf below them is told."""
    began, ended = asyncio.Event(), asyncio.Event()

    @workflow("level")
    async def level(depth: int, ctx: Context) -> None:
        if depth == 5:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        child = await ctx.spawn_workflow(level, depth + 1)
        if waiting != "sealed":
            await child.result()

    async with worker([level], options=WorkerOptions(park_after=0 if waiting == "parked" else 60)):
        run = await client.trigger(level, 0)
        await began.wait()
        assert await client.cancel(run.id)
        await asyncio.wait_for(ended.wait(), PATIENCE)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)


@pytest.mark.parametrize("waiting", ["warm", "parked", "sealed"])
async def test_a_deep_subtree_ends_to_its_leaves(client: Client, worker: MakeWorker, waiting: str) -> None:
    began, ended, top = asyncio.Event(), asyncio.Event(), list[str]()

    @workflow("level")
    async def level(depth: int, ctx: Context) -> None:
        if depth == 5:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        child = await ctx.spawn_workflow(level, depth + 1)
        if waiting != "sealed":
            await child.result()

    @workflow("root", retry=Retry(attempts=1))
    async def root(_: None, ctx: Context) -> str:
        child = await ctx.spawn_workflow(level, 0)
        top[:] = [child.id]
        with pytest.raises(ChildFailed):
            await child.result()
        return "goes on"

    async with worker([root, level], options=WorkerOptions(park_after=0 if waiting == "parked" else 60)):
        run = await client.trigger(root)
        await began.wait()
        assert await client.cancel(top[0])
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert await run.result(PATIENCE) == "goes on"


async def test_cancelling_twice_says_so(client: Client, worker: MakeWorker) -> None:
    @workflow("never")
    async def never() -> None: ...

    async with worker([never]):
        pass
    run = await client.trigger(never)
    assert await client.cancel(run.id) is True
    assert await client.cancel(run.id) is False
    assert await status_of(client, run.id) == "cancelled"
    async with worker([never]) as late:
        await until(Stored(client).is_idle)
    assert late.counts.executed == 0


async def test_a_finished_run_stays_as_it_is(client: Client, worker: MakeWorker) -> None:
    @workflow("quick")
    async def quick() -> int:
        return 1

    async with worker([quick]):
        run = await client.trigger(quick)
        await run.result(PATIENCE)
        assert await client.cancel(run.id) is False
        assert await run.result(PATIENCE) == 1
    assert await status_of(client, run.id) == "succeeded"


@pytest.mark.parametrize("run", ["00" * 16, "nonsense"])
async def test_an_unknown_run_is_named(client: Client, run: str) -> None:
    with pytest.raises(UnknownRun):
        await client.cancel(run)


async def test_a_key_stays_taken(client: Client, worker: MakeWorker) -> None:
    """The same key is the same run, cancelled or not; its body does not run again."""

    @workflow("nightly")
    async def nightly() -> None:
        raise AssertionError("not reached")

    run = await client.trigger(nightly, key="monday")
    await client.cancel(run.id)
    again = await client.trigger(nightly, key="monday")
    assert again.id == run.id
    async with worker([nightly]) as late:
        with pytest.raises(RunFailed, match="cancelled"):
            await again.result(PATIENCE)
        await until(Stored(client).is_idle)
    assert late.counts.executed == 0


async def test_a_key_of_a_cancelled_run_stays_bound_to_its_input(client: Client) -> None:
    """Its first task tells which that was: it is put back when the tasks of the tree are removed."""

    @workflow("nightly")
    async def nightly(day: int) -> int:
        return day

    run = await client.trigger(nightly, 1, key="monday")
    await client.cancel(run.id)
    with pytest.raises(KeyConflict):
        await client.trigger(nightly, 2, key="monday")


async def test_only_the_run_and_not_its_tree(client: Client, worker: MakeWorker) -> None:
    began, go = asyncio.Event(), asyncio.Event()
    children: list[str] = []

    @workflow("child")
    async def child() -> str:
        began.set()
        await go.wait()
        return "ended well"

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        child_run = await ctx.spawn_workflow(child)
        children.append(child_run.id)
        await child_run.result()

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await began.wait()
        assert await client.cancel(run.id, tree=False)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
        go.set()
        assert await client.run(children[0]).result(PATIENCE) == "ended well"


async def test_a_detached_child_survives(client: Client, worker: MakeWorker) -> None:
    began, go, ids = asyncio.Event(), asyncio.Event(), list[str]()

    @workflow("child")
    async def child() -> str:
        began.set()
        await go.wait()
        return "alive"

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        detached = await ctx.spawn_workflow(child, detached=True)
        ids.append(detached.id)
        await asyncio.Event().wait()

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await began.wait()
        await client.cancel(run.id)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)
        go.set()
        assert await client.run(ids[0]).result(PATIENCE) == "alive"
    trace = await client.describe(ids[0])
    assert (trace.root, trace.parent, trace.depth) == (ids[0], None, 1)


async def test_a_detached_child_is_spawned_once_and_joined_never(client: Client, worker: MakeWorker) -> None:
    ids: list[str] = []

    @workflow("child")
    async def child() -> None: ...

    @workflow("parent", retry=Retry(attempts=2, initial=0))
    async def parent(_: None, ctx: Context) -> None:
        detached = await ctx.spawn_workflow(child, detached=True)
        ids.append(detached.id)
        if ctx.attempt == 1:
            raise OSError
        with pytest.raises(ValueError, match="detached"):
            await detached.result()

    async with worker([parent]):  # nobody runs the child: the parent does not wait for it
        await (await client.trigger(parent)).result(PATIENCE)
    assert ids[0] == ids[1]
    async with worker([child]):
        await client.run(ids[0]).result(PATIENCE)


async def test_a_worker_that_starts_later_knows(client: Client, worker: MakeWorker) -> None:
    """A child that was published after its tree was cancelled is dropped, also by a worker that heard no mark."""
    names, session = client._session.names, client._session

    @workflow("child")
    async def child() -> None:
        raise AssertionError("not reached")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None: ...

    run = await client.trigger(parent)
    async with worker([child]):
        pass
    task = await session.store.leader_last(names.tasks_stream, names.tasks_of_run_id(run.id))
    assert task is not None
    await client.cancel(run.id)
    late = names.task("child", "run", run.id, run.id, "ef" * 16)
    headers = f"NATS/1.0\r\nJf-Parent-Step: run\r\nJf-Depth: 1\r\nJf-Version: {child.graph.version}\r\n\r\n"
    await session.publisher.store(late, b"null", headers.encode())
    async with worker([child]) as only:
        await until(lambda: _is(client, "ef" * 16, "cancelled"))
    assert only.counts.executed == 0


async def test_a_cancelled_run_of_several_steps_goes_no_further(client: Client, worker: MakeWorker) -> None:
    flow, began = Workflow("two-steps"), asyncio.Event()

    @flow.step
    async def first() -> int:
        return 1

    @flow.step(after=[first])
    async def second() -> None:
        began.set()
        await asyncio.Event().wait()

    @flow.step(after=[second])
    async def third() -> None:
        raise AssertionError("not reached")

    async with worker([flow]):
        run = await client.trigger(flow)
        await began.wait()
        await client.cancel(run.id)
        await until(lambda: _is(client, run.id, "cancelled"))
        await until(Stored(client).is_idle)
    statuses = {step.name: step.status for step in (await client.describe(run.id)).steps}
    assert statuses["first"] == "succeeded"
    assert {statuses["second"], statuses["third"]} <= {"cancelled", "pending"}


@pytest.mark.parametrize("branches", [0, 20])
async def test_a_wide_tree_is_cancelled_at_once(nats_server: NatsServer, namespace: str, branches: int) -> None:
    """``python -m tests.endings.cancel_many`` does the same with 100,000 descendants, and prints how long it takes."""
    figure = await measure(nats_server.url, namespace, descendants=5000, branches=branches)
    assert figure.began_afterwards == 0
    assert figure.cancel_seconds < BOUND


async def test_a_child_that_was_put_back_by_another_step_ends_once(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Its task was removed with the tree, and stored again by a step that had not heard of the cancelling yet."""
    flow = Workflow("flow")
    spawned = asyncio.Event()

    @workflow("shared")
    async def shared() -> None:
        pass

    @flow.step
    async def left(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(shared)).result()
        spawned.set()
        await asyncio.Event().wait()

    names, records = stored.names, stored.names.records_stream
    async with worker([flow, shared]):
        run = await client.trigger(flow)
        await asyncio.wait_for(spawned.wait(), PATIENCE)
        [subject] = await stored.subjects(names.tasks_stream, names.tasks_of_parent(run.id, run.id))
        task = await stored.session.store.leader_last(names.tasks_stream, subject)
        assert task is not None
        assert await client.cancel(run.id)
        await until(stored.is_idle)
        headers = header_block(task.headers | {"Jf-Parent-Step": "right", "Nats-Msg-Id": "another"})
        assert (await stored.session.publisher.store(subject, task.body, headers)).stored
        await until(stored.is_idle)
    assert len(await stored.subjects(records, names.run_by_id(subject.split(".")[-2]))) == 1
