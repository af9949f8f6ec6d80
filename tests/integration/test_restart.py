"""The server is killed and started again on the same store, in the middle of a large join."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jetflow
from jetflow import Context, Retry, Worker, WorkerOptions, Workflow, workflow
from jetflow.broker.session import Session
from jetflow.engine.tasks import StepAddress
from jetflow.server import NatsServer

CHILDREN = 5_000
KILLED_AFTER = 1_000

begun: set[int] = set()
enough = asyncio.Event()


@workflow("square", retry=Retry(attempts=20))
async def square(n: int) -> int:
    begun.add(n)
    if len(begun) == KILLED_AFTER:
        enough.set()
    return n * n


squares = Workflow("squares", retry=Retry(attempts=20))


@squares.step
async def add(n: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(square, range(n))))


@squares.step(after=[add])
async def again_at_the_boundary(n: int, ctx: Context) -> int:
    await ctx.spawn_workflows(square, range(n, 2 * n))
    return ctx.output(add)


async def test_a_join_survives_a_killed_server(tmp_path: Path) -> None:
    """The join completes, every outcome is stored once, and nothing needed the sweeper."""
    server = NatsServer(tmp_path)
    await server.start()
    try:
        options = WorkerOptions(ack_wait=2, slots=50)
        worker = Worker([squares, square], server=server.url, options=options)
        async with worker, jetflow.connect(server.url) as client:
            run = await client.trigger(squares, CHILDREN)
            await asyncio.wait_for(enough.wait(), 30)
            await server.kill()
            await server.start()
            assert await run.result(90) == sum(n * n for n in range(CHILDREN))
            assert worker.counts.swept == 0
        async with await Session.open(server.url, "default") as session:
            names, outcomes = session.names, 0
            for step in ("add", "again_at_the_boundary"):
                children = names.runs_of_join(StepAddress(run.id, run.id, step))
                count = await session.store.leader_count(names.records_stream, children)
                assert count == CHILDREN
                outcomes += count
            info = await session.connection.api(f"STREAM.INFO.{names.records_stream}", {"subjects_filter": ">"})
            assert outcomes == 2 * CHILDREN
            assert set(info["state"]["subjects"].values()) == {1}
    finally:
        await server.stop()
