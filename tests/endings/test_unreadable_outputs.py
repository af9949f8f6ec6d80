"""One output that cannot be read fails its child in a join, and not the join.

As in a rolling deploy: the child's worker runs newer code than the parent's, and its output is of another type.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import (
    ChildFailed,
    ChildrenFailed,
    Client,
    Context,
    InvalidOutput,
    JoinPolicy,
    NonRetryable,
    Retry,
    Worker,
    Workflow,
    workflow,
)
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


@workflow("child")
async def child(number: int) -> dict[str, int]:
    return {"number": number}


@workflow("child")
async def newer_child(number: int) -> dict[str, Any]:
    return {"number": "one" if number == 1 else number}


MESSAGE = "output of step 'run' of workflow 'child': Expected `int`, got `str` - at `$[...]`"


async def result(client: Client, worker: MakeWorker, flow: Workflow[Any, Any]) -> Any:
    """Return how the older code goes on with what the newer code has given."""
    async with worker([flow]), worker([newer_child]):
        return await (await client.trigger(flow)).result(PATIENCE)


async def test_the_others_are_there(client: Client, worker: MakeWorker) -> None:
    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> list[Any]:
        ended = await ctx.join(await ctx.spawn_workflows(child, range(3)), return_exceptions=True)
        return [str(one.errors[0]) if isinstance(one, ChildFailed) else one for one in ended]

    assert await result(client, worker, parent) == [
        {"number": 0},
        f"step 'run': InvalidOutput: {MESSAGE}",
        {"number": 2},
    ]


async def test_it_is_named_where_the_join_raises(client: Client, worker: MakeWorker) -> None:
    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> list[str]:
        children = await ctx.spawn_workflows(child, range(3), key=str)
        try:
            await ctx.join(children)
        except ChildrenFailed as failed:
            [error] = failed.exceptions
            assert isinstance(error, ChildFailed)
            with pytest.raises(ChildFailed, match="InvalidOutput"):
                await children[1].result()
            return [error.status, error.key or "", error.error_type, error.error_message]
        raise NonRetryable("it has joined what it cannot read")

    assert await result(client, worker, parent) == ["failed", "1", "InvalidOutput", MESSAGE]


@pytest.mark.parametrize(
    ("policy", "met"),
    [
        (JoinPolicy.collect(), True),
        (JoinPolicy.tolerate(1), True),
        (JoinPolicy.of_quorum(2), True),
        (JoinPolicy.of_quorum(3), False),
        (JoinPolicy.all_succeed(), False),
    ],
    ids=str,
)
async def test_for_a_policy_it_has_failed(client: Client, worker: MakeWorker, policy: JoinPolicy, met: bool) -> None:
    done = asyncio.Event()

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> list[Any]:
        children = await ctx.spawn_workflows(child, range(3))
        await ctx.join(children, policy=JoinPolicy.collect())  # so that all have ended, and not just a quorum
        ended = await ctx.join(children, policy=policy)
        done.set()
        failed = [one.error.type for one in ended.failed if one.error]
        return [ended.met, sorted(one["number"] for one in ended.outputs), failed]

    assert await result(client, worker, parent) == [met, [0, 2], ["InvalidOutput"]]


async def test_a_later_step_reads_the_others(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("parent")

    @flow.step
    async def spawn(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, range(3))

    @flow.step(after=spawn, retry=ONCE)
    async def read(_: None, ctx: Context) -> list[int]:
        children = await ctx.children(spawn, child)
        [bad] = [one for one in children if one.status == "failed"]
        with pytest.raises(ChildFailed, match="InvalidOutput"):
            str(bad.output)
        return sorted(one.output["number"] for one in children if one.status == "succeeded")

    assert await result(client, worker, flow) == [0, 2]


async def test_a_large_output_that_is_lost_fails_its_child(client: Client, worker: MakeWorker, stored: Stored) -> None:
    lost = asyncio.Event()

    @workflow("large")
    async def large(size: int) -> str:
        return "x" * size

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> list[str]:
        children = await ctx.spawn_workflows(large, [1, 1024 * 1024])
        await lost.wait()
        ended = await ctx.join(children, return_exceptions=True)
        return [one.error_type if isinstance(one, ChildFailed) else one for one in ended]

    async with worker([parent, large]):
        run = await client.trigger(parent)
        await until(lambda: have_ended(stored, run.id))
        await stored.session.connection.api(f"STREAM.PURGE.{stored.names.values_stream}")
        lost.set()
        assert await run.result(PATIENCE) == ["x", "LostValue"]


async def have_ended(stored: Stored, run: str) -> bool:
    return len(await stored.subjects(stored.names.records_stream, f"jf.*.run.{run}.{run}.>")) == 2


async def test_a_client_gets_it_by_name(client: Client, worker: MakeWorker) -> None:
    async with worker([newer_child]):
        run = await client.trigger("child", 1)
        with pytest.raises(InvalidOutput, match=r"Expected `int`, got `str` - at `\$"):
            await client.run(run.id, child).result(PATIENCE)
