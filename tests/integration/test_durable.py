"""The durable mode: on a server that flushes before it acknowledges, records leave in atomic batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import jetflow
from jetflow import Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.broker.atomic import AtomicBatches
from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.server import ServerOptions

CHILDREN = 1_200


@workflow("double")
async def double(n: int) -> int:
    return 2 * n


fan = Workflow("fan")


@fan.step
async def spread(n: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(double, range(n))))


@fan.step(after=[spread])
async def again(n: int, ctx: Context) -> int:
    # The same children, asked for by another step: all exist, so every batch is refused and its parts are looked at.
    return ctx.output(spread) + sum(await ctx.join(await ctx.spawn_workflows(double, range(n))))


@pytest.fixture
async def flushing_server() -> AsyncIterator[str]:
    options = ServerOptions(config="jetstream { sync_interval: always }")
    async with jetflow.local_server(options=options) as server:
        yield server.url


async def test_a_join_on_a_server_that_flushes(flushing_server: str) -> None:
    worker = Worker([fan, double], server=flushing_server, options=WorkerOptions(durable=True))
    async with worker, jetflow.connect(flushing_server) as client:
        run = await client.trigger(fan, CHILDREN)
        assert await run.result(60) == 2 * CHILDREN * (CHILDREN - 1)
        assert worker.counts.executed == CHILDREN + 2


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(flushing_server: str) -> None:
    async with await Session.open(flushing_server, "batches") as session:
        batches = AtomicBatches(session.connection)
        await batches.start()
        items = [Item(f"jf.batches.mark.a.b.c.failed.{n}", b"", b"x") for n in range(3)]
        assert await asyncio.wait_for(batches.publish(items), 5)
        overlapping = [*items[2:], Item("jf.batches.mark.a.b.c.failed.9", b"", b"x")]
        assert not await asyncio.wait_for(batches.publish(overlapping), 5)
        assert await session.store.leader_count(session.names.records_stream, "jf.batches.mark.>") == 3
