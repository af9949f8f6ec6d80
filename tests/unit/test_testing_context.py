"""`jetflow.testing.context`: one step without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import jetflow.testing
from jetflow import (
    ChildFailed,
    ChildrenFailed,
    Context,
    InvalidInput,
    InvalidOutput,
    JoinPolicy,
    KeyConflict,
    Workflow,
    workflow,
)
from jetflow.engine.tasks import Failure


class Source(msgspec.Struct):
    path: str


@workflow("size")
async def size(source: Source) -> int:
    return len(source.path)


tree = Workflow("tree", input=list[str], output=int)


@tree.step
async def scan(paths: list[str], ctx: Context) -> int:
    children = await ctx.spawn_workflows(size, [Source(path) for path in paths], key=lambda source: source.path)
    return sum(await ctx.join(children))


@tree.step(after=[scan])
async def report(_: list[str], ctx: Context) -> int:
    sizes = [child.output for child in await ctx.children(scan, size) if child.status == "succeeded"]
    return ctx.output(scan) + sum(sizes)


async def test_spawns_are_recorded_and_joined() -> None:
    ctx = jetflow.testing.context(results={size: lambda source: len(source.path)})
    assert await scan(["a", "bb"], ctx) == 3
    assert [(child.workflow, child.input, child.key) for child in ctx.spawned] == [
        ("size", Source("a"), "a"),
        ("size", Source("bb"), "bb"),
    ]


async def test_a_workflow_may_give_its_own_results() -> None:
    assert await scan(["a", "bb"], jetflow.testing.context(results={size: size})) == 3


async def test_one_output_for_all_children() -> None:
    assert await scan(["a", "bb"], jetflow.testing.context(results={"size": 5})) == 10


@pytest.mark.parametrize("result", [OSError("gone"), OSError, lambda _: 1 // 0])
async def test_children_that_fail(result: Any) -> None:
    ctx = jetflow.testing.context(results={size: result})
    with pytest.raises(ChildrenFailed, match="2 of 2 children failed"):
        await scan(["a", "bb"], ctx)


async def test_what_comes_before() -> None:
    ctx = jetflow.testing.context(outputs={scan: 3}, children={scan: [1, 2, OSError("gone")]})
    assert await report([], ctx) == 6
    with pytest.raises(LookupError, match=r"give context\(outputs="):
        ctx.output("nothing")
    with pytest.raises(LookupError, match=r"give context\(children="):
        await ctx.children("nothing")


async def test_a_child_without_a_result_is_named() -> None:
    ctx = jetflow.testing.context()
    with pytest.raises(LookupError, match=r"a child of 'size' is waited for, and has no result.*results=\{'size'"):
        await scan(["a"], ctx)


async def test_spawning_alone_needs_no_result() -> None:
    ctx = jetflow.testing.context()
    await ctx.spawn_workflow(size, Source("a"), detached=True)
    assert [child.detached for child in ctx.spawned] == [True]


async def test_identity_is_that_of_real_runs() -> None:
    ctx = jetflow.testing.context(results={size: 1}, run_id="0" * 32)
    first, again = await ctx.spawn_workflow(size, Source("a")), await ctx.spawn_workflow("size", {"path": "a"})
    assert first.id == again.id
    assert len(ctx.spawned) == 1
    await ctx.spawn_workflow(size, Source("a"), key="k")
    with pytest.raises(KeyConflict, match="key 'k'"):
        await ctx.spawn_workflow(size, Source("b"), key="k")


async def test_types_are_those_of_real_runs() -> None:
    ctx = jetflow.testing.context(results={size: "many"})
    with pytest.raises(InvalidInput):
        await ctx.spawn_workflow(size, 5)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(InvalidOutput):
        await scan(["a"], ctx)
    with pytest.raises(InvalidOutput):
        jetflow.testing.context(outputs={scan: "three"})


async def test_a_run_is_told_of() -> None:
    error = Failure("ValueError", "why", "scan")
    ctx = jetflow.testing.context(metadata={"by": "me"}, attempt=3, run_id="a" * 32, errors=[error, OSError("gone")])
    assert (ctx.metadata, ctx.attempt, ctx.run_id) == ({"by": "me"}, 3, "a" * 32)
    assert ctx.errors == (error, Failure("OSError", "gone"))
    assert ctx.idempotency_key.startswith(ctx.run_id)
    assert not ctx.cancelled
    ctx.set_cancelled()
    assert ctx.cancelled


async def test_once_is_recorded() -> None:
    ctx = jetflow.testing.context(once={"early": 1})
    assert await ctx.once("early", lambda: 2) == 1
    assert await ctx.once("late", lambda: 2) == 2
    assert ctx.recorded == {"early": 1, "late": 2}
    with pytest.raises(InvalidOutput):
        await ctx.once("odd", object)


async def test_policies_and_completion() -> None:
    def unless_b(source: Source) -> int:
        if source.path == "b":
            raise OSError("gone")
        return 1

    async def sources() -> AsyncIterator[Source]:
        for path in "abc":
            yield Source(path)

    ctx = jetflow.testing.context(results={size: unless_b})
    children = await ctx.spawn_workflows(size, sources())
    joined = await ctx.join(children, policy=JoinPolicy.tolerate(1))
    assert (joined.met, joined.outputs, len(joined.failed)) == (True, [1, 1], 1)
    assert not (await ctx.join(children, policy=JoinPolicy.of_quorum(3))).met
    seen = [child.id async for child in ctx.as_completed(children)]
    assert seen == [child.id for child in children]
    with pytest.raises(ChildFailed, match="gone"):
        await children[1].result()
    assert len([one for one in await ctx.join(return_exceptions=True) if isinstance(one, ChildFailed)]) == 1


def test_a_plain_step_blocks() -> None:
    @workflow("plain")
    def plain(paths: list[str], ctx: Context) -> int:
        return sum(ctx.block_on(ctx.join(ctx.block_on(ctx.spawn_workflows(size, map(Source, paths))))))

    assert plain(["a", "b"], jetflow.testing.context(results={size: 2})) == 4

    async def on_a_loop() -> None:
        jetflow.testing.context().block_on(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="plain def steps"):
        asyncio.run(on_a_loop())


async def test_a_stream_is_spawned_child_by_child() -> None:
    @workflow("stream-sizes")
    async def stream_sizes(paths: list[str], ctx: Context) -> int:
        streamed = await ctx.spawn_stream(size, (Source(path) for path in paths), window=10)
        return streamed.succeeded

    ctx = jetflow.testing.context(results={size: lambda source: len(source.path)})
    assert await stream_sizes(["a", "bb"], ctx) == 2
    assert [child.input for child in ctx.spawned] == [Source("a"), Source("bb")]


async def test_a_stream_is_folded() -> None:
    @workflow("sum-sizes")
    async def sum_sizes(paths: list[str], ctx: Context) -> int:
        return await ctx.reduce(size, map(Source, paths), lambda total, one: total + one, 0, window=10)

    ctx = jetflow.testing.context(results={size: lambda source: len(source.path)})
    assert await sum_sizes(["a", "bb"], ctx) == 3
