"""Deleting a tree: nothing is left but the mark that refuses what is still under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jetflow import Client, Context, Retry, UnknownRun, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import RecentlyDeleted
from jetflow.runs import deleting
from jetflow.runs.deleting import mark_all_deleted
from jetflow.runs.marks import DELETED, TREE
from jetflow.worker import cancellation, history
from jetflow.worker.history import History
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
MIB = 1024 * 1024


def everything() -> list[Workflow[None, object]]:
    """A tree with something in every stream: steps, joins, attempts, once, large values."""

    @workflow("leaf", retry=Retry(attempts=2, initial=0))
    async def leaf(size: int, ctx: Context) -> str:
        await ctx.once("size", lambda: size)
        if ctx.attempt == 1:
            raise OSError
        return "x" * size

    flow = Workflow("tree")

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, [1, 2, MIB])

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> int:
        return sum([len(one.output) async for one in ctx.children(scatter, leaf)])

    return [flow, leaf]


async def deleted(client: Client, run: str) -> None:
    stored = Stored(client)
    assert await stored.of_tree(run) == [stored.names.cancelled(run, run)]
    with pytest.raises(UnknownRun):
        await client.describe(run)


async def test_a_finished_tree(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow, leaf = everything()
    async with worker([flow, leaf]):
        run = await client.trigger(flow)
        other = await client.trigger(flow)
        assert await run.result(PATIENCE) == MIB + 3
        assert await other.result(PATIENCE) == MIB + 3
        await until(stored.is_idle)
        before = await stored.of_tree(other.id)
        await client.delete(run.id)
        await deleted(client, run.id)
        assert await stored.of_tree(other.id) == before
        assert await other.result(PATIENCE) == MIB + 3


async def test_a_queued_tree(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow, leaf = everything()
    run = await client.trigger(flow)
    await client.delete(run.id)
    await deleted(client, run.id)
    async with worker([flow, leaf]) as late:
        await until(stored.is_idle)
    assert late.counts.executed == 0


async def test_a_running_tree_is_told_to_stop_and_leaves_nothing(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @workflow("child")
    async def child() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(child)).result()

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await began.wait()
        await client.delete(run.id)
        await asyncio.wait_for(ended.wait(), PATIENCE)
        await until(stored.is_idle)
    await deleted(client, run.id)


async def test_a_cancelled_tree(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """The mark of the cancelling gives way to the one of the deletion."""
    flow, leaf = everything()
    run = await client.trigger(flow)
    await client.cancel(run.id)
    await client.delete(run.id)
    async with worker([flow, leaf]) as late:
        await until(stored.is_idle)
    assert late.counts.executed == 0
    await deleted(client, run.id)


async def test_deleting_twice_says_that_there_is_nothing(client: Client) -> None:
    flow, _ = everything()
    run = await client.trigger(flow)
    await client.delete(run.id)
    with pytest.raises(UnknownRun):
        await client.delete(run.id)


async def test_only_whole_trees_are_deleted(client: Client, worker: MakeWorker) -> None:
    """A child belongs to its root, and is not touched."""
    flow, leaf = everything()
    async with worker([flow, leaf]):
        run = await client.trigger(flow)
        await run.result(PATIENCE)
    child = (await client.describe(run.id)).children[0].id
    with pytest.raises(UnknownRun):
        await client.delete(child)
    assert (await client.describe(child)).status == "succeeded"
    assert (await client.describe(run.id)).totals.spawned == 3


async def test_a_key_of_a_deleted_run_is_refused_by_name(client: Client) -> None:
    """What may still be under way of the deleted run has the same id, and is refused for an hour."""
    flow, _ = everything()
    run = await client.trigger(flow, key="nightly")
    await client.delete(run.id)
    with pytest.raises(RecentlyDeleted, match="nightly"):
        await client.trigger(flow, key="nightly")


async def test_old_trees_are_deleted_by_the_workers(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow, leaf = everything()
    async with worker([flow, leaf], options=WorkerOptions(keep=0.2, sweep_every=0.1)):
        run = await client.trigger(flow)
        assert await run.result(PATIENCE) == MIB + 3
        await until(lambda: is_gone(stored, run.id))
    with pytest.raises(UnknownRun):
        await client.describe(run.id)


async def is_gone(stored: Stored, run: str) -> bool:
    return await stored.of_tree(run) == []


async def test_trees_that_are_under_way_are_kept(client: Client, worker: MakeWorker, stored: Stored) -> None:
    go = asyncio.Event()

    @workflow("waits")
    async def waits(wait: bool) -> str:
        if wait:
            await go.wait()
        return "done"

    async with worker([waits], options=WorkerOptions(keep=0.01, sweep_every=0.02)):
        slow = await client.trigger(waits, True)
        quick = await client.trigger(waits, False)
        await until(lambda: is_gone(stored, quick.id))
        assert await slow.status() == "running"
        go.set()
        await until(lambda: is_gone(stored, slow.id))


async def ended(client: Client, flow: Workflow[bool, str], succeeds: list[bool]) -> list[str]:
    """Run one after the other, and return their ids in the order in which they ended."""
    runs: list[str] = []
    for one in succeeds:
        run = await client.trigger(flow, one)
        await asyncio.wait([asyncio.ensure_future(run.result(PATIENCE))])
        runs.append(run.id)
    return runs


def succeeds_or_fails() -> Workflow[bool, str]:
    @workflow("either")
    async def either(succeeds: bool) -> str:
        if not succeeds:
            raise ValueError("no")
        return "done"

    return either


async def gone(stored: Stored, runs: list[str]) -> list[str]:
    return [run for run in runs if await is_gone(stored, run)]


async def test_one_sweep_deletes_all_that_is_old(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TREES_A_PAGE", 3)
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True, False] * 5)
        await until(stored.is_idle)
    assert await History(stored.session, WorkerOptions(keep=1e-9)).delete_old() == 10
    assert await gone(stored, runs) == runs


async def test_two_workers_share_what_is_to_be_deleted(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True] * 20)
        await until(stored.is_idle)
    both = [History(stored.session, WorkerOptions(keep=1e-9)) for _ in range(2)]
    shares = await asyncio.gather(*(one.delete_old() for one in both))
    assert sum(shares) == 20
    assert await gone(stored, runs) == runs


async def test_a_worker_leaves_to_others_what_is_hardly_late(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True] * 3)
        await until(stored.is_idle)
    history = History(stored.session, WorkerOptions(keep=1e-9))
    assert await history.delete_old(patience=3600) == 0
    assert await gone(stored, runs) == []
    assert await history.delete_old() == 3


async def test_trees_whose_time_is_over_share_a_mark(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True] * 3)
        await until(stored.is_idle)
    known, heard = cancellation.Cancellations(stored.session), asyncio.Event()
    await known.start()
    known.on_cancelled = heard.set
    assert await History(stored.session, WorkerOptions(keep=1e-9)).delete_old() == 3
    assert len(await stored.subjects(stored.names.tasks_stream, stored.names.all_cancelled)) == 1
    await asyncio.wait_for(heard.wait(), PATIENCE)
    assert all(known.deleted(run) for run in runs)
    late = cancellation.Cancellations(stored.session)
    await late.start()
    assert all(late.deleted(run) for run in runs)
    for one in (known, late):
        await one.stop()


async def test_trees_that_ended_an_hour_ago_leave_no_mark(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 0)
    flow = succeeds_or_fails()
    async with worker([flow]):
        await ended(client, flow, [True] * 3)
        await until(stored.is_idle)
    assert await History(stored.session, WorkerOptions(keep=1e-9)).delete_old() == 3
    assert await stored.subjects(stored.names.tasks_stream, stored.names.all_tasks[1]) == []


async def test_a_key_is_refused_while_its_old_run_may_be_under_way(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        assert await (await client.trigger(flow, True, key="nightly")).result(PATIENCE) == "done"
        await until(stored.is_idle)
    assert await History(stored.session, WorkerOptions(keep=1e-9)).delete_old() == 1
    with pytest.raises(RecentlyDeleted, match="nightly"):
        await client.trigger(flow, True, key="nightly")


async def test_a_tree_of_more_than_one_answer_holds(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """It is deleted among small ones."""

    @workflow("one")
    async def one(_: int) -> None: ...

    @workflow("wide")
    async def wide(width: int, ctx: Context) -> int:
        return len(await ctx.join(await ctx.spawn_workflows(one, range(width))))

    async with worker([wide, one]):
        runs = [await client.trigger(wide, width) for width in (1, 1100, 2)]
        assert [await run.result(PATIENCE) for run in runs] == [1, 1100, 2]
        await until(stored.is_idle)
    assert await History(stored.session, WorkerOptions(keep=1e-9)).delete_old() == 3
    assert await gone(stored, [run.id for run in runs]) == [run.id for run in runs]


@pytest.mark.parametrize("kept", [True, False])
async def test_how_a_run_ended_decides_how_long_it_is_kept(
    client: Client, worker: MakeWorker, stored: Stored, kept: bool
) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        good, bad, best, worst = await ended(client, flow, [True, False, True, False])
        await until(stored.is_idle)
    options = WorkerOptions(keep=3600, keep_failed=1e-9) if kept else WorkerOptions(keep=1e-9, keep_failed=3600)
    assert await History(stored.session, options).delete_old() == 2
    assert await gone(stored, [good, bad, best, worst]) == ([bad, worst] if kept else [good, best])


async def test_no_more_runs_are_kept_than_allowed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True, False, True, True, False])
        await until(stored.is_idle)
    assert await History(stored.session, WorkerOptions(keep_runs=2)).delete_old() == 3
    assert await gone(stored, runs) == runs[:3]


async def test_workers_that_delete_together_leave_as_many_as_are_kept(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TREES_A_PAGE", 3)
    flow = succeeds_or_fails()
    async with worker([flow]):
        runs = await ended(client, flow, [True] * 20)
        await until(stored.is_idle)
    slow, fast = (History(stored.session, WorkerOptions(keep_runs=8)) for _ in range(2))
    count, counts = stored.session.store.count, 0

    async def then_the_other_deletes(*given: str) -> int:
        nonlocal counts
        counts += 1
        found = await count(*given)
        if counts == 1:
            assert await fast.delete_old() == 12
        return found

    monkeypatch.setattr(stored.session.store, "count", then_the_other_deletes)
    assert await slow.delete_old() == 0
    assert await gone(stored, runs) == runs[:12]


async def test_a_large_tree_is_purged_in_pieces(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "PURGED_AT_ONCE", 2)
    flow, leaf = everything()
    async with worker([flow, leaf]):
        run = await client.trigger(flow)
        assert await run.result(PATIENCE) == MIB + 3
        await until(stored.is_idle)
    await client.delete(run.id)
    await deleted(client, run.id)


async def test_only_marks_of_deleted_trees_that_count_no_more_are_removed(
    client: Client, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, _ = everything()
    run, other = await client.trigger(flow), await client.trigger(flow)
    await client.delete(run.id)
    await client.cancel(other.id)
    await mark_all_deleted(stored.session, [other.id])
    keeper = History(stored.session, WorkerOptions())
    assert await keeper.forget_marks() == 0
    monkeypatch.setattr(history, "REMEMBERED", 0)
    assert await keeper.forget_marks() == 2
    marks = await stored.subjects(stored.names.tasks_stream, stored.names.all_cancelled)
    assert marks == [stored.names.cancelled(other.id, other.id)]


async def test_a_worker_remembers_a_bounded_number_of_deleted_trees(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker hears of each tree that any of them deletes: a thousand a second, where a thousand are triggered."""
    monkeypatch.setattr(cancellation, "DELETED_REMEMBERED", 4)
    known = cancellation.Cancellations(stored.session)
    known.add("cancelled", TREE)
    for number in range(5):
        known.add(f"deleted-{number}", DELETED)
    assert [known.deleted(f"deleted-{number}") for number in range(5)] == [False, False, True, True, True]
    assert known.knows("cancelled", "cancelled")
