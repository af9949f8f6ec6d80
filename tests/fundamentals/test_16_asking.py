"""What a client may ask: totals, pages of children and of root runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidQuery, Retry, RunFailed, UnknownRun, Worker, Workflow, workflow
from jetflow.runs.query.child_tables import ChildTable
from jetflow.runs.query.shapes import Firsts
from jetflow.wire.filters import Filters


@workflow("leaf", retry=Retry(attempts=1))
async def leaf(number: int) -> int:
    if number % 10 == 7:
        raise ValueError(f"{number} is unlucky")
    return number


@workflow("fan")
async def fan(count: int, ctx: Context) -> int:
    children = await ctx.spawn_workflows(leaf, range(count), key=str)
    return len(await ctx.join(children, return_exceptions=True))


async def test_totals_tell_how_children_stand(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 60)
        await run.result(PATIENCE)
    found = await client.totals(run.id)
    assert (found.totals.spawned, found.totals.succeeded, found.totals.failed, found.totals.open) == (60, 54, 6, 0)
    assert (found.status, found.spawning) == ("succeeded", False)
    [step] = found.steps
    assert (step.step, step.totals, step.sealed) == ("run", found.totals, True)
    [of_leaf] = found.workflows
    assert (of_leaf.workflow, of_leaf.spawned, of_leaf.succeeded, of_leaf.failed) == ("leaf", 60, 54, 6)


async def test_children_come_in_pages_in_the_order_of_their_spawning(
    client: Client, worker: Callable[..., Worker]
) -> None:
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 50)
        await run.result(PATIENCE)
    keys: list[str | None] = []
    places: list[int | None] = []
    after: str | None = None
    for size in (20, 20, 10):
        page = await client.children(run.id, limit=20, after=after)
        assert (len(page.items), page.total) == (size, 50)
        keys += [row.key for row in page.items]
        places += [row.n for row in page.items]
        after = page.next
    assert after is None
    assert keys == [str(number) for number in range(50)]
    assert places == list(range(50))
    back = await client.children(run.id, limit=20, after=page.previous)
    assert [row.n for row in back.items] == list(range(20, 40))
    far = await client.children(run.id, limit=3, offset=33)
    assert [row.key for row in far.items] == ["33", "34", "35"]
    beyond = await client.children(run.id, limit=3, offset=5000)
    assert (beyond.items, beyond.next, beyond.total) == ((), None, 50)


async def test_children_of_one_status(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 50)
        await run.result(PATIENCE)
    failed = await client.children(run.id, status="failed", limit=3)
    assert (len(failed.items), failed.total) == (3, 5)
    rest = await client.children(run.id, status="failed", limit=3, after=failed.next)
    assert {row.key for row in failed.items + rest.items} == {"7", "17", "27", "37", "47"}
    assert rest.next is None
    assert failed.items[0].error is not None
    assert "unlucky" in failed.items[0].error.message
    well = await client.children(run.id, status="succeeded", limit=100)
    assert (len(well.items), well.next) == (45, None)
    assert all(row.queued is not None for row in well.items)


async def test_children_of_several_steps_and_workflows(client: Client, worker: Callable[..., Worker]) -> None:
    other = Workflow("other")

    @other.step
    async def first(number: int) -> int:
        return number

    @other.step(after=first)
    async def second(number: int) -> int:
        return number

    flow = Workflow("both")

    @flow.step
    async def left(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, range(7))

    @flow.step
    async def right(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(other, range(5))
        await ctx.spawn_workflows(leaf, range(10, 13))

    async with worker([flow, leaf, other]):
        run = await client.trigger(flow)
        await run.result(PATIENCE)
    found = await client.totals(run.id)
    assert found.totals.spawned == found.totals.succeeded == 15
    assert {one.step: one.totals.spawned for one in found.steps} == {"left": 7, "right": 8}
    assert {one.workflow: (one.spawned, one.succeeded) for one in found.workflows} == {
        "leaf": (10, 10),
        "other": (5, 5),
    }
    assert len((await client.children(run.id)).items) == 15
    assert {row.workflow for row in (await client.children(run.id, step="left")).items} == {"leaf"}
    page = await client.children(run.id, step="right", workflow="other", limit=2)
    assert [row.step for row in page.items] == ["right", "right"]


async def test_a_mark_without_its_end_counts_for_nothing(client: Client, worker: Callable[..., Worker]) -> None:
    """As one that a worker leaves which dies between mark and end, and another one ends the run well."""
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 8)
        await run.result(PATIENCE)
    child = (await client.children(run.id, status="succeeded")).items[0].id
    names = client._session.names
    mark = Filters(names).marks(run.id, run.id, step="run", status="failed", workflow="leaf").replace("*", child)
    await client._session.publisher.store(mark, b"")
    found = await client.totals(run.id)
    assert (found.totals.succeeded, found.totals.failed) == (7, 1)
    assert (found.steps[0].totals.failed, found.workflows[0].failed) == (1, 1)


async def test_open_children_are_counted_and_listed(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, range(5))

    async with worker([parent]) as parents:
        run = await client.trigger(parent)
        await until(lambda: parents.counts.succeeded == 1)
    found = await client.totals(run.id)
    assert (found.status, found.totals.spawned, found.totals.open, found.spawning) == ("running", 5, 5, False)
    assert {row.status for row in (await client.children(run.id, status="open")).items} == {"open"}
    async with worker([leaf]):
        await run.result(PATIENCE)
    assert (await client.totals(run.id)).totals.open == 0


async def test_root_runs_come_newest_first(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([fan, leaf]):
        ids = [(await client.trigger(leaf, number, key=str(number), metadata={"n": number})).id for number in range(30)]
        wide = await client.trigger(fan, 40)
        await wide.result(PATIENCE)
        for run in ids:
            with contextlib.suppress(RunFailed):
                await client.run(run).result(PATIENCE)
    page = await client.runs(limit=20)
    assert (page.items[0].id, page.total) == (wide.id, 31)
    assert [row.id for row in page.items[1:]] == ids[:10:-1][:19]
    rest = await client.runs(limit=20, after=page.next)
    assert [row.id for row in page.items[1:] + rest.items] == ids[::-1]
    assert rest.next is None
    assert rest.searched.complete
    leaves = await client.runs(workflow="leaf", limit=5)
    assert [row.key for row in leaves.items] == ["29", "28", "27", "26", "25"]
    failed = await client.runs(status="failed")
    assert sorted(row.key or "" for row in failed.items) == ["17", "27", "7"]
    assert {row.workflow for row in failed.items} == {"leaf"}
    assert [row.id for row in (await client.runs(metadata={"n": "12"})).items] == [ids[12]]
    assert [row.id for row in (await client.runs(key="3", workflow="leaf")).items] == [ids[3]]
    assert (await client.runs(workflow="fan", status="running")).items == ()
    moment = page.items[0].triggered or 0.0
    assert (await client.runs(since=moment + 60)).items == ()
    assert (await client.runs(until=moment - 3600)).items == ()


async def test_what_makes_no_sense_is_refused(client: Client) -> None:
    run = await client.trigger(leaf, 1)
    page = await client.runs()
    assert [(row.id, row.status) for row in page.items] == [(run.id, "queued")]
    for asked in ({"limit": 0}, {"limit": 1001}, {"status": "dead"}, {"workflow": "a.b"}, {"after": "%%%"}):
        with pytest.raises(InvalidQuery):
            await client.runs(**asked)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidQuery):
        await client.children(run.id, offset=-1)
    with pytest.raises(UnknownRun):
        await client.totals("0" * 32)
    with pytest.raises(UnknownRun):
        await client.totals("nonsense")
    await client.cancel(run.id)


async def test_children_are_sorted_and_searched(client: Client, worker: Callable[..., Worker]) -> None:
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 60)
        await run.result(PATIENCE)
    by_key = await client.children(run.id, sort="-key", limit=3)
    assert [row.key for row in by_key.items] == ["9", "8", "7"]
    assert by_key.total == 60
    more = await client.children(run.id, sort="-key", limit=3, after=by_key.next)
    assert [row.key for row in more.items] == ["6", "59", "58"]
    back = await client.children(run.id, sort="-key", limit=3, after=more.previous)
    assert back.items == by_key.items
    assert [row.key for row in (await client.children(run.id, search="57 IS UNLUCKY")).items] == ["57"]
    assert [row.n for row in (await client.children(run.id, search="59")).items if row.key == "59"] == [59]
    some = by_key.items[0]
    assert some in (await client.children(run.id, search=some.id[:10])).items
    by_status = await client.children(run.id, sort="-status", limit=7)
    assert [row.status for row in by_status.items] == ["failed"] * 6 + ["succeeded"]
    took = [(row.ended or 0.0) - (row.started or 0.0) for row in (await client.children(run.id, sort="took")).items]
    assert took == sorted(took)
    with pytest.raises(InvalidQuery, match="sort is 'colour'"):
        await client.children(run.id, sort="colour")
    with pytest.raises(InvalidQuery, match="another question"):
        await client.children(run.id, after=by_key.next)


async def test_a_table_follows_what_ends(
    client: Client, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetflow.runs.query.child_tables.FRESH", 0.0)

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, range(5))

    async with worker([parent]) as parents:
        run = await client.trigger(parent)
        await until(lambda: parents.counts.succeeded == 1)
    assert (await client.children(run.id, status="open")).total == 5
    async with worker([leaf]):
        await run.result(PATIENCE)
    assert (await client.children(run.id, status="open")).total == 0
    assert (await client.children(run.id, status="succeeded", sort="-n")).items[0].n == 4


async def test_root_runs_are_sorted_searched_and_summed_up(client: Client, worker: Callable[..., Worker]) -> None:
    before = time.time() - 60
    async with worker([fan, leaf]):
        for number in (3, 7, 5):
            run = await client.trigger(leaf, number, key=f"k{number}", metadata={"who": f"Ann-{number}"})
            with contextlib.suppress(RunFailed):
                await run.result(PATIENCE)
        await (await client.trigger(fan, 20)).result(PATIENCE)
    by_key = await client.runs(sort="-key", limit=2)
    assert ([row.key for row in by_key.items], by_key.total) == (["k7", "k5"], 4)
    assert by_key.searched.complete
    rest = await client.runs(sort="-key", limit=2, after=by_key.next)
    assert [row.key for row in rest.items] == ["k3", None]
    assert (rest.next, rest.took is not None) == (None, True)
    for text in ("UNLUCKY", "k7", "ann-7"):
        assert [row.key for row in (await client.runs(search=text)).items] == ["k7"], text
    assert (await client.runs(search="leaf", status="succeeded", workflow="leaf")).total == 2
    assert (await client.runs(search="k", metadata={"who": "Ann-5"})).items[0].key == "k5"
    sums = {one.workflow: one for one in await client.summary(since=before)}
    assert (sums["leaf"].runs, sums["leaf"].succeeded, sums["leaf"].failed, sums["fan"].runs) == (3, 2, 1, 1)
    assert (await client.runs(sort="took", since=time.time() + 60)).total == 0
    with pytest.raises(InvalidQuery, match="sort is 'n'"):
        await client.runs(sort="n")
    waiting = await client.trigger(leaf, 9)
    await until(lambda: _has(client, waiting.id, "open"))
    await client.cancel(waiting.id)
    async with worker([fan, leaf]):
        await until(lambda: _has(client, waiting.id, "cancelled"))


async def _has(client: Client, run: str, status: str) -> bool:
    return [row.id for row in (await client.runs(search=run, status=status)).items] == [run]


async def test_a_table_that_is_not_whole_yet_says_so(
    client: Client, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read = asyncio.Event()
    read = ChildTable._read

    async def late(table: ChildTable, firsts: Firsts) -> None:
        await may_read.wait()
        await read(table, firsts)

    monkeypatch.setattr(ChildTable, "_read", late)
    async with worker([fan, leaf]):
        run = await client.trigger(fan, 20)
        await run.result(PATIENCE)
    page = await client.children(run.id, sort="-n", limit=3, within=0.01)
    assert ([row.key for row in page.items], page.loaded, page.next) == (["0", "1", "2"], 0.0, None)
    page = await client.children(run.id, search="1", within=0.01)
    assert (page.items, page.searched.complete, page.loaded) == ((), False, 0.0)
    may_read.set()
    page = await client.children(run.id, sort="-n", limit=3)
    assert ([row.key for row in page.items], page.loaded) == (["19", "18", "17"], 1.0)
    assert page.took is not None
    assert page.took.p50 <= page.took.p95 <= page.took.most


async def test_a_tree_is_rolled_up_by_step_and_workflow(client: Client, worker: Callable[..., Worker]) -> None:
    flow = Workflow("top")

    @flow.step
    async def wide(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(fan, [20, 30])

    @flow.step
    async def near(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(leaf, range(3))

    async with worker([flow, fan, leaf]):
        run = await client.trigger(flow)
        await run.result(PATIENCE)
    tree = await client.tree(run.id)
    assert tree.searched.complete
    nodes = {(node.step, node.workflow): node for node in tree.children}
    assert set(nodes) == {("wide", "fan"), ("near", "leaf")}
    fans = nodes["wide", "fan"]
    assert (fans.totals.spawned, fans.totals.succeeded, len(fans.runs)) == (2, 2, 2)
    [below] = fans.children
    assert (below.step, below.workflow, below.runs, below.children) == ("run", "leaf", (), ())
    assert (below.totals.spawned, below.totals.succeeded, below.totals.failed, below.totals.open) == (50, 45, 5, 0)
    assert below.took is not None
    assert (below.first or 0.0) <= (below.last or 0.0)
    [cut, _] = sorted((await client.tree(run.id, depth=1)).children, key=lambda node: node.workflow)
    assert (cut.children, cut.deeper) == ((), True)
    [of_fan] = (await client.tree(fans.runs[0])).children
    assert of_fan.totals.spawned in (20, 30)
    with pytest.raises(InvalidQuery, match="depth is 0"):
        await client.tree(run.id, depth=0)
