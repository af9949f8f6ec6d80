"""A workflow is a DAG of steps: a step begins when all the steps before it are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest
from patience import PATIENCE

from jetflow import Client, Context, Retry, RunFailed, Worker, Workflow, workflow


class Total(msgspec.Struct):
    value: int


async def test_a_step_reads_the_output_of_the_step_before(client: Client, worker: Callable[..., Worker]) -> None:
    """Every step takes the run's input; ``ctx.output(step)`` is the other step's output, in its declared type."""
    flow = Workflow("sum-up")

    @flow.step
    async def add(numbers: list[int]) -> Total:
        return Total(sum(numbers))

    @flow.step(after=[add])
    async def show(numbers: list[int], ctx: Context) -> str:
        total = ctx.output(add)
        assert isinstance(total, Total)
        return f"{' + '.join(map(str, numbers))} = {total.value}"

    async with worker([flow]):
        assert await (await client.trigger(flow, [1, 2, 3])).result(PATIENCE) == "1 + 2 + 3 = 6"


async def test_every_step_before_is_readable_not_only_the_last(client: Client, worker: Callable[..., Worker]) -> None:
    """A step may read whatever surely ended before it, by step or by name."""
    flow = Workflow("chain")

    @flow.step
    async def first(n: int) -> int:
        return n + 1

    @flow.step(after=[first])
    async def second(_: int, ctx: Context) -> int:
        return 10 * ctx.output(first)

    @flow.step(after="second")
    async def third(_: int, ctx: Context) -> list[int]:
        return [ctx.output(first), ctx.output("second")]

    async with worker([flow]):
        assert await (await client.trigger(flow, 1)).result(PATIENCE) == [2, 20]


async def test_a_step_that_does_not_come_before_cannot_be_read(client: Client, worker: Callable[..., Worker]) -> None:
    """It may have ended or not: reading it would be a race, and is an error."""
    flow = Workflow("beside", retry=Retry(attempts=1))

    @flow.step
    async def left() -> int:
        return 1

    @flow.step
    async def right(_: None, ctx: Context) -> int:
        return ctx.output(left)

    async with worker([flow]):
        with pytest.raises(RunFailed, match="name it in after="):
            await (await client.trigger(flow)).result(PATIENCE)


async def test_a_diamond_joins_its_branches(client: Client, worker: Callable[..., Worker]) -> None:
    """The step behind two branches begins once, when both have ended."""
    flow = Workflow("diamond")
    ran: list[str] = []

    @flow.step
    async def top(n: int) -> int:
        ran.append("top")
        return n

    @flow.step(after=[top])
    async def left(_: int, ctx: Context) -> int:
        ran.append("left")
        return ctx.output(top) + 1

    @flow.step(after=[top])
    async def right(_: int, ctx: Context) -> int:
        ran.append("right")
        return ctx.output(top) * 10

    @flow.step(after=[left, right])
    async def bottom(_: int, ctx: Context) -> tuple[int, int]:
        ran.append("bottom")
        return ctx.output(left), ctx.output(right)

    async with worker([flow]):
        assert await (await client.trigger(flow, 4)).result(PATIENCE) == (5, 40)
    assert ran[0] == "top"
    assert sorted(ran[1:3]) == ["left", "right"]
    assert ran[3:] == ["bottom"]


async def test_several_first_steps_run_side_by_side(client: Client, worker: Callable[..., Worker]) -> None:
    """Steps that wait for none all begin with the run: these two can only end together."""
    flow = Workflow("meeting")
    meet = asyncio.Barrier(2)

    @flow.step
    async def left(name: str) -> str:
        await meet.wait()
        return f"left {name}"

    @flow.step
    async def right(name: str) -> str:
        await meet.wait()
        return f"right {name}"

    @flow.step(after=[left, right])
    async def both(_: str, ctx: Context) -> str:
        return f"{ctx.output(left)}, {ctx.output(right)}"

    async with worker([flow]):
        assert await (await client.trigger(flow, "hand")).result(PATIENCE) == "left hand, right hand"


async def test_several_last_steps_make_an_output_by_step_name(client: Client, worker: Callable[..., Worker]) -> None:
    """With one last step its output is the run's; with several it is a dict of theirs."""
    flow = Workflow("split")

    @flow.step
    async def start(n: int) -> int:
        return n

    @flow.step(after=start)
    async def half(_: int, ctx: Context) -> float:
        return ctx.output(start) / 2

    @flow.step(after=start, name="twice-as-much")
    async def twice(_: int, ctx: Context) -> int:
        return ctx.output(start) * 2

    async with worker([flow]):
        assert await (await client.trigger(flow, 5)).result(PATIENCE) == {"half": 2.5, "twice-as-much": 10}


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_wide_graph_runs_every_step_once(client: Client, worker: Callable[..., Worker], workers: int) -> None:
    """Roots, layers with every edge between them, and sinks: however many workers race, each step runs once."""
    flow = Workflow("lattice")
    ran: list[str] = []

    def declare(name: str, after: list[str]) -> None:
        async def step(_: int, ctx: Context) -> int:
            ran.append(name)
            return 1 + sum(ctx.output(upstream) for upstream in after)

        flow.step(name=name, after=after)(step)

    before: list[str] = []
    for layer in range(4):
        names = [f"s{layer}-{column}" for column in range(4)]
        for name in names:
            declare(name, before)
        before = names

    async def run_workers(count: int) -> dict[str, Any]:
        if not count:
            return await (await client.trigger(flow, 0)).result(PATIENCE)
        async with worker([flow]):
            return await run_workers(count - 1)

    # each step adds 1 to the sum of the four steps of the layer before
    assert await run_workers(workers) == {f"s3-{column}": 85 for column in range(4)}
    assert len(ran) == len(set(ran)) == 16


async def test_a_failed_step_ends_the_run(client: Client, worker: Callable[..., Worker]) -> None:
    """What comes after it never begins."""
    flow = Workflow("broken-chain", retry=Retry(attempts=1))

    @flow.step
    async def first() -> None:
        raise RuntimeError("out of ink")

    @flow.step(after=[first])
    async def second() -> None:
        raise AssertionError("not reached")

    async with worker([flow]):
        run = await client.trigger(flow)
        with pytest.raises(RunFailed, match="out of ink"):
            await run.result(PATIENCE)
    trace = await client.describe(run.id)
    assert [(step.name, step.status) for step in trace.steps] == [("first", "failed"), ("second", "cancelled")]


async def test_a_plain_def_runs_in_a_thread(client: Client, worker: Callable[..., Worker]) -> None:
    """It may block: the event loop, and with it every other step, goes on."""
    loop = asyncio.get_running_loop()
    opened = asyncio.Event()

    @workflow("blocking")
    def blocking(seconds: float) -> str:
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(opened.wait(), seconds), loop).result()
        return "the loop was free"

    @workflow("opener")
    async def opener() -> None:
        opened.set()

    async with worker([blocking, opener]):
        run = await client.trigger(blocking, PATIENCE)
        await client.trigger(opener)
        assert await run.result(PATIENCE) == "the loop was free"


async def test_a_step_needs_neither_input_nor_context(client: Client, worker: Callable[..., Worker]) -> None:
    """A step names what it uses: ``()``, ``(input)``, ``(ctx)`` or ``(input, ctx)``."""
    flow = Workflow("short")

    @flow.step
    def nothing() -> int:
        return 1

    @flow.step(after=nothing)
    def context_only(ctx: Context) -> int:
        return ctx.output(nothing) + 1

    async with worker([flow]):
        assert await (await client.trigger(flow)).result(PATIENCE) == 2


class Counted(msgspec.Struct):
    day: date
    lines: int


async def test_outputs_of_several_last_steps_have_their_types(client: Client, worker: Callable[..., Worker]) -> None:
    """For a client, and for a parent that joins the run. By name it is plain JSON."""
    flow = Workflow("two-ends")

    @flow.step
    def count() -> Counted:
        return Counted(date(2026, 1, 1), 3)

    @flow.step
    def name() -> str:
        return "a"

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> bool:
        return await (await ctx.spawn_workflow(flow)).result() == expected

    expected = {"count": Counted(date(2026, 1, 1), 3), "name": "a"}
    async with worker([flow, parent]):
        run = await client.trigger(flow)
        assert await run.result(PATIENCE) == expected
        assert await (await client.trigger(parent)).result(PATIENCE)
        plain = {"count": {"day": "2026-01-01", "lines": 3}, "name": "a"}
        assert await client.run(run.id).result(PATIENCE) == plain
