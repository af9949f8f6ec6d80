"""``client.describe`` tells where a run stands: its steps, their attempts, its children."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from patience import PATIENCE, until

from jetflow import Client, Context, Retry, Worker, Workflow, workflow


async def test_a_trace_tells_how_a_run_went(client: Client, worker: Callable[..., Worker]) -> None:
    """Everything in it follows from what the protocol stores anyway."""
    flow = Workflow("report")

    @flow.step(retry=Retry(initial=0))
    async def gather(_: str, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise OSError("the line was busy")
        return 7

    @flow.step(after=[gather])
    async def write(_: str, ctx: Context) -> str:
        return f"{ctx.output(gather)} birds"

    before = time.time()
    async with worker([flow]) as only:
        run = await client.trigger(flow, "birds", key="today", metadata={"user": "Zoë"})
        await run.result(PATIENCE)
    trace = await client.describe(run.id)
    assert (trace.id, trace.workflow, trace.status, trace.output) == (run.id, "report", "succeeded", "7 birds")
    assert (trace.root, trace.parent, trace.depth) == (run.id, None, 0)
    assert (trace.key, trace.metadata) == ("today", {"user": "Zoë"})
    first, second = trace.steps
    assert (first.name, first.status, first.attempts, first.worker) == ("gather", "succeeded", 2, only.name)
    assert [failed.error and failed.error.message for failed in first.failures] == ["the line was busy"]
    assert (second.name, second.status, second.after) == ("write", "succeeded", ("gather",))
    times = [trace.triggered, first.started, first.ended, second.started, second.ended, trace.ended]
    assert None not in times
    assert sorted(times, key=lambda when: when or 0.0) == times
    assert before - 1 <= (trace.triggered or 0.0) <= (trace.ended or 0.0) <= time.time() + 1


async def test_a_step_is_pending_queued_running_waiting_or_done(client: Client, worker: Callable[..., Worker]) -> None:
    """The states of a step, in the order in which it goes through them."""
    flow = Workflow("states")
    began, may_end = asyncio.Event(), asyncio.Event()

    @workflow("child")
    async def child() -> None: ...

    @flow.step
    async def first(_: None, ctx: Context) -> None:
        began.set()
        await may_end.wait()
        await ctx.spawn_workflow(child)

    @flow.step(after=first)
    async def second() -> None: ...

    async def states() -> list[str]:
        return [step.status for step in (await client.describe(run.id)).steps]

    async def first_has_ended() -> bool:
        return (await states())[0] == "succeeded"

    run = await client.trigger(flow)
    assert await states() == ["queued", "pending"]
    assert await run.status() == "queued"
    async with worker([flow]):
        await asyncio.wait_for(began.wait(), PATIENCE)
        assert await states() == ["running", "pending"]
        assert await run.status() == "running"
        may_end.set()
    assert await states() == ["waiting", "pending"]
    assert await run.status() == "running"
    async with worker([child]):
        await until(first_has_ended)
    assert await states() == ["succeeded", "queued"]
    async with worker([flow]):
        await run.result(PATIENCE)
    assert await states() == ["succeeded", "succeeded"]


async def test_children_are_listed_in_pages(client: Client, worker: Callable[..., Worker]) -> None:
    """``totals`` counts them all by status; a page holds as many as are asked for, in the order of their spawning."""

    @workflow("child", retry=Retry(attempts=1))
    async def child(number: int) -> int:
        return 1 // (number % 10)

    @workflow("parent")
    async def parent(count: int, ctx: Context) -> None:
        children = await ctx.spawn_workflows(child, range(count), key=str)
        await ctx.join(children, return_exceptions=True)

    async with worker([parent, child]):
        run = await client.trigger(parent, 50)
        await run.result(PATIENCE)
    keys: list[str | None] = []
    after: str | None = None
    for size in (20, 20, 10):
        trace = await client.describe(run.id, children=20, after=after)
        totals = trace.totals
        assert (totals.spawned, totals.open, totals.succeeded, totals.failed) == (50, 0, 45, 5)
        assert len(trace.children) == size
        keys += [listed.key for listed in trace.children]
        after = trace.next_page
    assert after is None
    assert keys == [str(number) for number in range(50)]
    failed = next(listed for listed in trace.children if listed.key == "40")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.type == "ZeroDivisionError"


async def test_a_tree_is_walked_down_and_up(client: Client, worker: Callable[..., Worker]) -> None:
    """A child's trace is a run's trace; it knows its parent, the step that spawned it, its root and its depth."""

    @workflow("level")
    async def level(depth: int, ctx: Context) -> None:
        if depth < 3:
            await ctx.spawn_workflows(level, [depth + 1])

    async with worker([level]):
        run = await client.trigger(level, 0)
        await run.result(PATIENCE)
    path = [run.id]
    for depth in range(3):
        trace = await client.describe(path[-1])
        [child] = trace.children
        assert (trace.depth, child.workflow, child.step, child.status) == (depth, "level", "run", "succeeded")
        path.append(child.id)
    deepest = await client.describe(path[-1])
    assert (deepest.root, deepest.parent, deepest.parent_step, deepest.depth) == (path[0], path[-2], "run", 3)
    assert deepest.children == ()
    assert await client.run(path[-1]).result(PATIENCE) is None


async def test_a_run_that_waits_shows_its_open_children(client: Client, worker: Callable[..., Worker]) -> None:
    """Totals are right while the children run, too."""

    @workflow("child")
    async def child(number: int) -> None: ...

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, range(5))

    async with worker([parent]) as parents:
        run = await client.trigger(parent)
        await until(lambda: parents.counts.succeeded == 1)
    assert await run.status() == "running"
    trace = await client.describe(run.id)
    assert (trace.totals.spawned, trace.totals.open, trace.totals.succeeded) == (5, 5, 0)
    assert {listed.status for listed in trace.children} == {"open"}
    async with worker([child]):
        await run.result(PATIENCE)
