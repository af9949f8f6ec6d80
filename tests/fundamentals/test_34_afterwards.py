"""What runs when a run has ended: a step on failure, or one on success. It changes the run no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidDeclaration, NonRetryable, Retry, RunFailed, Worker, Workflow

MakeWorker = Callable[..., Worker]


def ordered(told: list[object]) -> Workflow[int, int]:
    flow = Workflow("order", input=int, output=int)

    @flow.step
    async def reserve(number: int) -> int:
        return number + 1

    @flow.step(after=reserve)
    async def pay(number: int, ctx: Context) -> int:
        if number < 0:
            raise NonRetryable("no money")
        return ctx.output(reserve) * 10

    @flow.on_success
    async def thank(number: int, ctx: Context) -> None:
        told.append(("thank", number, ctx.output(reserve), ctx.output(pay)))

    @flow.on_failure
    async def mourn(number: int, ctx: Context) -> None:
        told.append(("mourn", number, ctx.errors[0].message))

    return flow


async def test_a_step_runs_when_its_run_has_succeeded(client: Client, worker: MakeWorker) -> None:
    """It is given the input, and the outputs of all steps. A run that fails has its step on failure in its place."""
    told: list[object] = []
    flow = ordered(told)
    async with worker([flow]):
        run = await client.trigger(flow, 4)
        assert await run.result(PATIENCE) == 50
        await until(lambda: len(told) == 1)
        failed = await client.trigger(flow, -1)
        with pytest.raises(RunFailed):
            await failed.result(PATIENCE)
        await until(lambda: len(told) == 2)
    assert told == [("thank", 4, 5, 50), ("mourn", -1, "no money")]
    trace = await client.describe(run.id)
    assert (trace.status, trace.on_success) == ("succeeded", "thank")
    assert [step.name for step in trace.steps] == ["reserve", "pay", "thank"]


async def test_it_may_fail_and_the_run_has_succeeded_all_the_same(client: Client, worker: MakeWorker) -> None:
    """It has attempts of its own, and its own time: the deadline of the run is over with that."""
    begun: list[int] = []
    flow = Workflow("order", input=int, retry=Retry(attempts=2, initial=0), deadline=1.0)

    @flow.step
    async def left(_: int) -> int:
        return 1

    @flow.step
    async def right(_: int) -> int:
        return 2

    @flow.on_success
    async def thank(_: int, ctx: Context) -> None:
        if ctx.attempt == 1:
            await asyncio.sleep(1.1)
        begun.append(ctx.output(left) + ctx.output("right"))
        raise OSError("no mail")

    async with worker([flow]):
        run = await client.trigger(flow, 1)
        assert await run.result(PATIENCE) == {"left": 1, "right": 2}
        await until(lambda: len(begun) == 2)

        async def has_failed() -> bool:
            trace = await client.describe(run.id)
            return [step.status for step in trace.steps] == ["succeeded", "succeeded", "failed"]

        await until(has_failed)
        assert await run.status() == "succeeded"
    assert begun == [3, 3]


async def test_of_a_child_too_and_it_may_spawn(client: Client, worker: MakeWorker) -> None:
    """Nobody waits for it: the parent has its child's outcome before."""
    told = asyncio.Event()
    letter = Workflow("letter", input=str)

    @letter.step
    async def write(_: str) -> None:
        told.set()

    child = Workflow("child", input=int, output=int)

    @child.step
    async def double(number: int) -> int:
        return 2 * number

    @child.on_success
    async def tell(number: int, ctx: Context) -> None:
        await ctx.join([await ctx.spawn_workflow(letter, f"{number} is {ctx.output(double)}")])

    parent = Workflow("parent", output=int)

    @parent.step
    async def ask(_: None, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(child, 4)).result()

    async with worker([parent, child, letter]):
        assert await (await client.trigger(parent)).result(PATIENCE) == 8
        await asyncio.wait_for(told.wait(), PATIENCE)


def test_what_cannot_be_declared() -> None:
    flow = ordered([])
    with pytest.raises(InvalidDeclaration, match="has an on_success step already"):
        flow.on_success(lambda: None)
    twice = Workflow("twice", input=int)
    twice.step(name="thank")(lambda: None)

    @twice.on_success
    def thank() -> None: ...

    with pytest.raises(InvalidDeclaration, match="uses the name 'thank' for two steps"):
        _ = twice.graph
