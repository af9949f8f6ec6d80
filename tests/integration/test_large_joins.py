"""Join records that do not fit into a message: on a server that takes small ones, so that few children are enough."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import jetflow
from jetflow import Context, Retry, Worker, Workflow, workflow
from jetflow.server import ServerOptions

CHILDREN = 1_500


@workflow("odd", retry=Retry(attempts=1))
async def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(n)
    return n


seen = Workflow("seen")


@seen.step
async def look_away(n: int, ctx: Context) -> int:
    """Half of the children fail, which the step has seen; it leaves one more open."""
    children = await ctx.spawn_workflows(odd, range(n))
    results = await ctx.join(children, return_exceptions=True)
    await ctx.spawn_workflow(odd, n + 1)
    return sum(isinstance(result, int) for result in results)


shared = Workflow("shared")


@shared.step(retry=Retry(attempts=1))
async def own(n: int, ctx: Context) -> None:
    await ctx.spawn_workflows(odd, range(1, 2 * n, 2))


@shared.step(after=[own])
async def borrow(n: int, ctx: Context) -> int:
    """All children of the step before, by another road: every one is named in this step's record."""
    await ctx.spawn_workflows(odd, range(1, 2 * n, 2))
    return n


@pytest.fixture
async def narrow_server() -> AsyncIterator[str]:
    async with jetflow.local_server(options=ServerOptions(max_payload=64 * 1024)) as server:
        yield server.url


async def test_many_failures_that_a_step_has_seen(narrow_server: str) -> None:
    worker = Worker([seen, odd], server=narrow_server)
    async with worker, jetflow.connect(narrow_server) as client:
        run = await client.trigger(seen, CHILDREN)
        assert await run.result(60) == CHILDREN // 2
        assert worker.counts.swept == 0


async def test_many_borrowed_children(narrow_server: str) -> None:
    worker = Worker([shared, odd], server=narrow_server)
    async with worker, jetflow.connect(narrow_server) as client:
        run = await client.trigger(shared, CHILDREN)
        assert await run.result(60) == CHILDREN
        assert worker.counts.executed == CHILDREN + 2
