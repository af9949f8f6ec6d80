"""What ``client.describe`` tells: what went in and came out, every step and attempt, also when they ended otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.cli.tables import page_of
from jetflow.runs.trace import LOST, LargeValue, StepTrace
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_cancelling import text_of
from tests.endings.test_outcomes import end_of, take_and_die

MakeWorker = Callable[..., Worker]
LARGE = 400_000
"""Characters of a value that travels by reference."""


async def steps_of(client: Client, run: str) -> dict[str, StepTrace]:
    return {step.name: step for step in (await client.describe(run)).steps}


async def test_what_went_in_and_what_every_step_gave(client: Client, worker: MakeWorker) -> None:
    """A step that is not the last one tells its output, too."""
    sums = Workflow[int, int]("sums")

    @sums.step
    async def one(given: int) -> int:
        return given + 1

    @sums.step(after=[one])
    async def two(_: int, ctx: Context) -> int:
        return ctx.output(one) * 10

    async with worker([sums]):
        run = await client.trigger(sums, 4)
        await run.result(PATIENCE)
    trace = await client.describe(run.id)
    assert (trace.input, [step.output for step in trace.steps], trace.output) == (4, [5, 50], 50)
    assert "input         4" in text_of(page_of(trace)).replace("input      ", "input         ")


async def test_a_large_value_is_told_by_its_size_and_reference(client: Client, worker: MakeWorker) -> None:
    """What would have to be read from its chunks is not read to be shown. The run's own output is."""
    long = Workflow[str, str]("long")

    @long.step
    async def first(text: str) -> str:
        return text + "!"

    @long.step(after=[first])
    async def last(_: str, ctx: Context) -> str:
        return ctx.output(first)[-3:]

    async with worker([long]):
        run = await client.trigger(long, "x" * LARGE)
        await run.result(PATIENCE)
    trace = await client.describe(run.id)
    given, between = trace.large_input, trace.steps[0].large_output
    assert (trace.input, trace.steps[0].output, trace.output) == (None, None, "xx!")
    assert isinstance(given, LargeValue)
    assert isinstance(between, LargeValue)
    assert (given.size, between.size) == (LARGE + 2, LARGE + 3)  # as JSON, with its quotes
    assert given.reference in text_of(page_of(trace))


async def test_a_step_on_failure_is_told_once_it_was_started(client: Client, worker: MakeWorker) -> None:
    """Of a run that fails, it is one step more, with an end of its own."""
    flow = Workflow[bool, None]("flow", retry=Retry(attempts=1))

    @flow.step
    async def work(fails: bool) -> None:
        if fails:
            raise ValueError("it fails")

    @flow.on_failure
    async def clean_up() -> str:
        raise OSError("it fails as well")

    async with worker([flow]):
        well, ill = await client.trigger(flow, False), await client.trigger(flow, True)
        await well.result(PATIENCE)
        assert list(await steps_of(client, well.id)) == ["work"]

        async def has_ended() -> bool:
            step = (await steps_of(client, ill.id)).get("clean_up")
            return step is not None and step.status == "failed"

        await until(has_ended)
    trace = await client.describe(ill.id)
    assert trace.error is not None
    assert trace.error.type == "ValueError"
    error = trace.steps[1].error
    assert error is not None
    assert (error.type, error.message) == ("OSError", "it fails as well")


async def test_a_step_on_failure_that_runs_is_not_told_as_cancelled(client: Client, worker: MakeWorker) -> None:
    """It runs when its run has ended."""
    flow = Workflow[None, None]("flow", retry=Retry(attempts=1))
    began, may_end = asyncio.Event(), asyncio.Event()

    @flow.step
    async def work() -> None:
        raise ValueError("it fails")

    @flow.on_failure
    async def clean_up() -> None:
        began.set()
        await may_end.wait()

    async with worker([flow]):
        run = await client.trigger(flow)
        await asyncio.wait_for(began.wait(), PATIENCE)
        trace = await client.describe(run.id)
        may_end.set()
    assert (trace.status, [step.status for step in trace.steps]) == ("failed", ["failed", "running"])


async def test_a_cancelled_run_tells_when_it_was_triggered(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """Its first task is put back to hold its id; that is not when the run began, however often it is cancelled."""

    @workflow("queued")
    async def queued(_: str) -> None: ...

    run = await client.trigger(queued, "x")
    triggered = (await client.describe(run.id)).triggered
    for _ in range(2):
        later = time.time() + 0.05
        await until(lambda after=later: _is_after(after))
        await client.cancel(run.id)
        trace = await client.describe(run.id)
        assert trace.triggered == pytest.approx(triggered, abs=0.001)
        assert (trace.input, trace.steps[0].queued) == ("x", trace.triggered)
    async with worker([queued]):  # it drops what was put back
        await until(stored.is_idle)


async def _is_after(moment: float) -> bool:
    return time.time() > moment


async def test_an_attempt_that_was_lost_is_a_row(client: Client, worker: MakeWorker) -> None:
    """That it began was recorded, and nothing of its end."""
    options = WorkerOptions(ack_wait=0.2)

    @workflow("task", retry=Retry(attempts=3, initial=0))
    async def task(_: None, ctx: Context) -> int:
        if ctx.attempt == 2:
            raise ValueError("the second one")
        return ctx.attempt

    async with worker([task], options=options):
        pass
    run = await client.trigger(task)
    await take_and_die(client, "task", "run", times=2)
    async with worker([task], options=options):
        assert (await end_of(client, run.id)).output == 3
    step = (await steps_of(client, run.id))["run"]
    assert step.attempts == 3
    assert [(row.attempt, row.error and row.error.type) for row in step.failures] == [(1, LOST), (2, "ValueError")]
    assert "its worker was lost" in text_of(page_of(await client.describe(run.id)))


async def test_all_attempts_of_a_poisoned_task_are_rows(client: Client, worker: MakeWorker) -> None:
    """The delivery that told so is none of them."""
    options = WorkerOptions(ack_wait=0.2)

    @workflow("deadly", retry=Retry(attempts=2))
    async def deadly() -> None: ...

    async with worker([deadly], options=options):
        pass
    run = await client.trigger(deadly)
    await take_and_die(client, "deadly", "run", times=3)
    async with worker([deadly], options=options):
        assert (await end_of(client, run.id)).status == "failed"
    step = (await steps_of(client, run.id))["run"]
    assert step.attempts == 2
    assert [(row.attempt, row.error and row.error.type) for row in step.failures] == [(1, LOST), (2, LOST)]


async def test_a_turn_that_nobody_has_taken_yet_is_queued(client: Client, worker: MakeWorker) -> None:
    """A step that was parked has begun; but nobody runs it now."""

    @workflow("child")
    async def child() -> None: ...

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.join([await ctx.spawn_workflow(child)])

    async def state() -> str:
        return (await steps_of(client, run.id))["run"].status

    async def is_waiting() -> bool:
        return await state() == "waiting"

    async def is_queued() -> bool:
        return await state() == "queued"

    async with worker([parent], options=WorkerOptions(park_after=0)):
        run = await client.trigger(parent)
        await until(is_waiting)
    async with worker([child]):
        await until(is_queued)
    assert await run.status() == "running"
    async with worker([parent]):
        await run.result(PATIENCE)


@pytest.mark.parametrize("waits", [False, True], ids=["sealed", "waiting"])
async def test_a_parent_in_a_cancelled_tree_tells_its_children(
    client: Client, worker: MakeWorker, stored: Stored, waits: bool
) -> None:
    """Its tasks and theirs are gone; how many they were is recorded by the step that waits for them, or is stopped."""

    @workflow("leaf")
    async def leaf(_: int) -> None: ...

    @workflow("middle")
    async def middle(_: None, ctx: Context) -> None:
        leaves = await ctx.spawn_workflows(leaf, range(7))
        if waits:
            await ctx.join(leaves)

    @workflow("top")
    async def top(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(middle)

    async def goes_on() -> bool:
        return (await steps_of(client, child.id))["run"].status == ("running" if waits else "waiting")

    async def all_spawned() -> bool:
        return (await client.describe(child.id)).totals.open == 7

    async with worker([top, middle]):
        run = await client.trigger(top)
        await until(lambda: _has_children(client, run.id))
        [child] = (await client.describe(run.id)).children
        await until(goes_on)
        await until(all_spawned)
        await client.cancel(run.id if waits else child.id)
        with pytest.raises(RunFailed):
            await client.run(child.id).result(PATIENCE)
        await until(stored.all_acknowledged)
    trace = await client.describe(child.id)
    assert (trace.status, trace.totals.spawned, trace.totals.removed, trace.totals.open) == ("cancelled", 7, 7, 0)


async def _has_children(client: Client, run: str) -> bool:
    return bool((await client.describe(run)).children)
