"""Metadata travel with a run to all that it spawns; a spawn may add to them; runs are found by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE

from jetflow import Client, Context, InvalidInput, Worker, workflow
from jetflow.errors import PayloadTooLarge

MakeWorker = Callable[..., Worker]


@workflow("grandchild")
async def grandchild(_: None, ctx: Context) -> dict[str, Any]:
    return dict(ctx.metadata)


@workflow("child")
async def child(number: int, ctx: Context) -> dict[str, Any]:
    if number < 0:
        return await (await ctx.spawn_workflow(grandchild)).result()
    return dict(ctx.metadata)


async def test_a_child_has_those_of_its_parent_and_its_own(client: Client, worker: MakeWorker) -> None:
    """What is given with it stands in the place of what it inherits, and its own children inherit both."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[Any]:
        one = await ctx.spawn_workflow(child, 0, metadata={"part": "one", "by": "child"})
        below = await ctx.spawn_workflow(child, -1, metadata={"part": [1, None]})
        same = await ctx.spawn_workflows(child, [1, 2], metadata={"part": "many"})
        each = await ctx.spawn_workflows(child, [3, 4], key=str, metadata=lambda number: {"part": f"é{number}"})
        plain = await ctx.spawn_workflow(child, 5)
        return await ctx.join([one, below, *same, *each, plain])

    async with worker([parent, child, grandchild]):
        run = await client.trigger(parent, metadata={"by": "test", "tenant": "a"})
        found = await run.result(PATIENCE)
    assert [(one["by"], one["tenant"], one.get("part")) for one in found] == [
        ("child", "a", "one"),
        ("test", "a", [1, None]),
        ("test", "a", "many"),
        ("test", "a", "many"),
        ("test", "a", "é3"),
        ("test", "a", "é4"),
        ("test", "a", None),
    ]


@pytest.mark.parametrize("place", ["loop", "process"])
async def test_so_have_those_of_a_stream(client: Client, worker: MakeWorker, place: str) -> None:
    """For all, or by a function of the input; what the parent has is not told twice."""
    async with worker([streaming, child, in_process]):
        flow = streaming if place == "loop" else in_process
        found = await (await client.trigger(flow, metadata={"by": "test"})).result(PATIENCE)
    assert found == [["test", "all"], ["test", "all"], ["test", "é2"], ["test", "é3"]]


async def _stream(ctx: Context) -> list[list[Any]]:
    def add(found: list[list[Any]], one: dict[str, Any]) -> list[list[Any]]:
        return sorted([*found, [one["by"], one["part"]]])

    found = await ctx.reduce(child, [0, 1], add, [], window=5, metadata={"part": "all"})
    streamed = await ctx.spawn_stream(child, [4], window=5, metadata={"part": "all"})
    assert streamed.succeeded == 1
    each = {"window": 5, "key": str, "metadata": lambda number: {"part": f"é{number}"}}
    return await ctx.reduce(child, [2, 3], add, found, **each)


@workflow("streaming")
async def streaming(_: None, ctx: Context) -> list[list[Any]]:
    return await _stream(ctx)


@workflow("streaming-in-process", runs_in="process")
def in_process(_: None, ctx: Context) -> list[list[Any]]:
    return ctx.block_on(_stream(ctx))


async def test_they_are_no_part_of_what_it_is(client: Client, worker: MakeWorker) -> None:
    """The same input is the same child, and it has those with which it was first spawned."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[Any]:
        first = await ctx.spawn_workflow(child, 1, metadata={"part": 1})
        again = await ctx.spawn_workflow(child, 1, metadata={"part": 2})
        assert first.id == again.id
        detached = await ctx.spawn_workflow(child, 2, detached=True, metadata={"part": 3})
        return [await again.result(), detached.id]

    async with worker([parent, child, grandchild]):
        metadata, detached = await (await client.trigger(parent)).result(PATIENCE)
        assert metadata == {"part": 1}
        assert await client.run(detached).result(PATIENCE) == {"part": 3}
    assert (await client.describe(detached)).metadata == {"part": 3}


async def test_what_is_no_metadata_is_refused_where_it_is_given(client: Client, worker: MakeWorker) -> None:
    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        for wrong in (["a"], "text", {"a": object()}):
            with pytest.raises(InvalidInput):
                await ctx.spawn_workflow(child, 1, metadata=wrong)  # pyright: ignore[reportArgumentType, reportCallIssue]
            with pytest.raises(InvalidInput):
                await ctx.spawn_workflows(child, [1], metadata=lambda _: wrong)  # pyright: ignore[reportArgumentType, reportCallIssue] # noqa: B023 - called at once
        with pytest.raises(PayloadTooLarge, match="the metadata of a child run"):
            await ctx.spawn_workflow(child, 1, metadata={"text": "x" * 20_000})
        return len(await ctx.join())

    async with worker([parent, child, grandchild]):
        assert await (await client.trigger(parent)).result(PATIENCE) == 0


async def test_runs_are_found_by_their_metadata(client: Client, worker: MakeWorker) -> None:
    """By all members that are asked for; text stands for any value that is written so."""
    async with worker([child, grandchild]):
        runs = {
            (tenant, plan): await client.trigger(child, 1, metadata={"tenant": tenant, "plan": plan})
            for tenant in ("a", "b")
            for plan in (1, 2)
        }
        for run in runs.values():
            await run.result(PATIENCE)
        of_a = await client.runs(metadata={"tenant": "a"})
        assert {row.id for row in of_a.items} == {runs["a", 1].id, runs["a", 2].id}
        one = await client.runs(metadata={"tenant": "a", "plan": "2"}, status="succeeded")
        assert [row.id for row in one.items] == [runs["a", 2].id]
        assert (await client.runs(metadata={"tenant": "c"})).items == ()
