"""A child that two steps spawn ends once, even where its first task was removed between the two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from jetflow import Client, Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.runs.cancelling import purge
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import services

MakeWorker = Callable[..., Worker]
LARGE = "x" * 400_000


@pytest.mark.parametrize("output", ["small", LARGE], ids=["in the record", "by reference"])
async def test_a_shared_child_whose_task_was_removed_ends_once(
    client: Client, worker: MakeWorker, stored: Stored, output: str
) -> None:
    """Cancelling removes tasks. A step that has not heard of it spawns again, and two workers run the same child."""
    flow = Workflow("shared-twice")
    begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    removed = asyncio.Event()

    @workflow("child")
    async def child(number: int) -> str:
        await begun.put(may_end := asyncio.Event())
        await may_end.wait()
        return output

    @flow.step
    async def owner(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(child, 7)

    @flow.step
    async def other(_: None, ctx: Context) -> None:
        await removed.wait()
        await ctx.spawn_workflow(child, 7)

    options = WorkerOptions(slots=1)
    children = worker([child], options=options), worker([child], options=options)
    async with worker([flow]), children[0], children[1]:
        run = await client.trigger(flow)
        first = await asyncio.wait_for(begun.get(), PATIENCE)
        tasks = stored.names.tasks_of_parent(run.id, run.id)
        assert await purge(stored.session, stored.names.tasks_stream, [tasks]) == 1
        removed.set()
        second = await asyncio.wait_for(begun.get(), PATIENCE)
        ended = stored.names.runs_of_parent(run.id, run.id)
        second.set()
        await until(lambda: stored.subjects(stored.names.records_stream, ended))
        first.set()
        await until(lambda: _all_recorded(children, 2))
        await client.cancel(run.id)
        outcomes = await stored.subjects(stored.names.records_stream, ended)
    assert [outcome.split(".")[-2] for outcome in outcomes] == ["other"]


async def _all_recorded(workers: Sequence[Worker], bodies: int) -> bool:
    """Tell whether so many bodies have succeeded, and all that they came to is recorded, or refused."""
    executors = [services(one).executor for one in workers]
    ended = sum(executor.counts.succeeded for executor in executors)
    return ended == bodies and not any(executor.recorder.recording for executor in executors)


async def test_only_what_may_be_shared_is_compared_with_other_steps(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """The comparison costs the server something, so that children of steps that stand in line go without it."""
    flow = Workflow("in-line")

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(child, 7)

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> int:
        return len(await ctx.children(scatter, child))

    async with worker([flow, child]):
        run = await client.trigger(flow)
        assert await run.result(PATIENCE) == 1
    page = stored.session.store.pages(stored.names.tasks_stream, stored.names.tasks_of_parent(run.id, run.id))
    assert ["Jf-Shared" in task.headers async for tasks in page for task in tasks] == [False]
