"""A running step spawns child runs, as many as it likes, and joins their outputs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
from patience import PATIENCE

from jetflow import Client, Context, Retry, RunFailed, Worker, Workflow, workflow
from tests.inside import services


class Leaf(msgspec.Struct):
    number: int


@workflow("square")
async def square(number: int) -> int:
    return number * number


@workflow("make-leaf")
async def make_leaf(number: int) -> Leaf:
    return Leaf(number)


async def test_a_step_joins_the_outputs_of_its_children(client: Client, worker: Callable[..., Worker]) -> None:
    """``join`` returns typed outputs in the order in which the children were spawned."""

    @workflow("collect")
    async def collect(count: int, ctx: Context) -> list[int]:
        children = await ctx.spawn_workflows(make_leaf, range(count))
        leaves = await ctx.join(children)
        assert all(isinstance(leaf, Leaf) for leaf in leaves)
        return [leaf.number for leaf in leaves]

    async with worker([collect, make_leaf]):
        assert await (await client.trigger(collect, 200)).result(PATIENCE) == list(range(200))


async def test_join_without_arguments_waits_for_all_that_the_step_has_spawned(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """One by one or in bulk, of one workflow or of several."""

    @workflow("mixed")
    async def mixed(_: None, ctx: Context) -> int:
        await ctx.spawn_workflow(square, 3)
        await ctx.spawn_workflows(make_leaf, [1, 2])
        nine, *leaves = await ctx.join()
        assert leaves == [Leaf(1), Leaf(2)]
        return nine

    async with worker([mixed, square, make_leaf]):
        assert await (await client.trigger(mixed)).result(PATIENCE) == 9


async def test_one_child_can_be_waited_for_alone(client: Client, worker: Callable[..., Worker]) -> None:
    """``child.result()`` is the output of one child."""

    @workflow("one")
    async def one(number: int, ctx: Context) -> int:
        child = await ctx.spawn_workflow(square, number)
        assert len(child.id) == 32
        return await child.result()

    async with worker([one, square]):
        assert await (await client.trigger(one, 12)).result(PATIENCE) == 144


async def test_children_can_be_taken_as_they_end(client: Client, worker: Callable[..., Worker]) -> None:
    """``as_completed`` yields the quick ones first: here each child waits until the one after it was seen."""
    count = 5
    may_end = [asyncio.Event() for _ in range(count)]
    may_end[-1].set()

    @workflow("in-turn")
    async def in_turn(number: int) -> int:
        await may_end[number].wait()
        return number

    @workflow("watch")
    async def watch(_: None, ctx: Context) -> list[int]:
        seen: list[int] = []
        children = await ctx.spawn_workflows(in_turn, range(count))
        async for child in ctx.as_completed(children):
            seen.append(await child.result())
            may_end[seen[-1] - 1].set()
        return seen

    async with worker([watch, in_turn]):
        assert await (await client.trigger(watch)).result(PATIENCE) == [4, 3, 2, 1, 0]


async def test_bulk_spawn_takes_any_iterable(client: Client, worker: Callable[..., Worker]) -> None:
    """Lists, generators and async generators; inputs are taken as they come, so a million need not fit in memory."""

    async def slowly() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            await asyncio.sleep(0)
            yield number

    @workflow("iterate")
    async def iterate(_: None, ctx: Context) -> list[list[int]]:
        spawned = [
            await ctx.spawn_workflows(square, [1, 2, 3]),
            await ctx.spawn_workflows(square, (number for number in (1, 2, 3))),
            await ctx.spawn_workflows(square, slowly()),
            await ctx.spawn_workflows(square, []),
        ]
        return [await ctx.join(children) for children in spawned]

    async with worker([iterate, square]):
        assert await (await client.trigger(iterate)).result(PATIENCE) == [[1, 4, 9], [1, 4, 9], [1, 4, 9], []]


async def test_a_child_starts_before_the_next_input_is_there(client: Client, worker: Callable[..., Worker]) -> None:
    """A bulk spawn collects what is ready, and waits for no more: inputs may come from a slow source."""
    ran: list[int] = []
    has_run = asyncio.Event()

    @workflow("note")
    async def note(n: int) -> int:
        ran.append(n)
        has_run.set()
        return n

    async def one_after_the_other() -> AsyncIterator[int]:
        for number in range(3):
            has_run.clear()
            yield number
            await has_run.wait()

    @workflow("streaming")
    async def streaming(_: None, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(note, one_after_the_other())))

    async with worker([streaming, note]):
        assert await (await client.trigger(streaming)).result(PATIENCE) == 3
    assert ran == [0, 1, 2]


async def test_an_error_of_the_source_is_the_steps_error(client: Client, worker: Callable[..., Worker]) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    @workflow("reading", retry=Retry(attempts=1))
    async def reading(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(square, broken())

    async with worker([reading, square]):
        with pytest.raises(RunFailed, match="LookupError: no more"):
            await (await client.trigger(reading)).result(PATIENCE)


async def test_children_are_a_sequence(client: Client, worker: Callable[..., Worker]) -> None:
    """What a bulk spawn returns can be counted, indexed and sliced, and parts of it joined."""

    @workflow("slices")
    async def slices(_: None, ctx: Context) -> list[int]:
        children = await ctx.spawn_workflows(square, range(10))
        assert len(children) == 10
        assert children[-1].id == list(children)[9].id
        return [await children[3].result(), *await ctx.join(children[::4])]

    async with worker([slices, square]):
        assert await (await client.trigger(slices)).result(PATIENCE) == [9, 0, 16, 64]


async def test_a_child_may_be_named_only(client: Client, worker: Callable[..., Worker]) -> None:
    """Its code lives in another service: here in a worker that the parent's worker knows nothing of."""

    @workflow("by-name")
    async def by_name(number: int, ctx: Context) -> int:
        child = await ctx.spawn_workflow("square", number)
        return await child.result()

    async with worker([square]), worker([by_name]):
        assert await (await client.trigger(by_name, 5)).result(PATIENCE) == 25


async def test_children_have_children(client: Client, worker: Callable[..., Worker]) -> None:
    """Three levels deep, and each level joins the next: a count of 1 + 3 + 9 + 27 runs."""

    @workflow("level")
    async def level(path: str, ctx: Context) -> int:
        if len(path) == 3:
            return 1
        children = await ctx.spawn_workflows(level, [path + letter for letter in "abc"])
        return 1 + sum(await ctx.join(children))

    async with worker([level]):
        assert await (await client.trigger(level, "")).result(PATIENCE) == 40


async def test_a_child_may_be_a_graph_of_its_own(client: Client, worker: Callable[..., Worker]) -> None:
    """The parent joins the whole run, whatever its shape: roots, a step between, and two last steps."""
    flow = Workflow("child-graph")

    @flow.step
    async def left(n: int) -> int:
        return n

    @flow.step
    async def right(n: int) -> int:
        return -n

    @flow.step(after=[left, right])
    async def middle(_: int, ctx: Context) -> list[int]:
        return [ctx.output(left), ctx.output(right)]

    @flow.step(after=[middle])
    async def up(_: int, ctx: Context) -> int:
        return max(ctx.output(middle))

    @flow.step(after=[middle])
    async def down(_: int, ctx: Context) -> int:
        return min(ctx.output(middle))

    @workflow("outer")
    async def outer(_: None, ctx: Context) -> list[dict[str, int]]:
        return await ctx.join(await ctx.spawn_workflows(flow, [1, 2]))

    async with worker([outer, flow]):
        assert await (await client.trigger(outer)).result(PATIENCE) == [
            {"up": 1, "down": -1},
            {"up": 2, "down": -2},
        ]


async def test_a_step_is_complete_when_its_children_are(client: Client, worker: Callable[..., Worker]) -> None:
    """A step need not join: the next step begins after all children have ended, and reads them."""
    flow = Workflow("fan-out")
    ended: list[int] = []

    @workflow("child")
    async def child(number: int) -> Leaf:
        ended.append(number)
        return Leaf(number)

    @flow.step
    async def scan(count: int, ctx: Context) -> str:
        await ctx.spawn_workflows(child, range(count), key=lambda number: f"n{number}")
        return "spawned"

    @flow.step(after=[scan])
    async def gather(count: int, ctx: Context) -> int:
        assert ctx.output(scan) == "spawned"
        assert sorted(ended) == list(range(count))
        results = await ctx.children(scan, child)
        assert {result.key for result in results} == {f"n{number}" for number in range(count)}
        assert {result.status for result in results} == {"succeeded"}
        return sum(result.output.number for result in results)

    async with worker([flow, child]):
        assert await (await client.trigger(flow, 60)).result(PATIENCE) == sum(range(60))


async def test_children_of_an_earlier_step_are_read_in_pages(client: Client, worker: Callable[..., Worker]) -> None:
    """``async for`` holds one page in memory, ``await`` makes a list; untyped outputs are plain JSON."""
    flow = Workflow("paged")

    @flow.step
    async def scan(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(make_leaf, range(count))

    @flow.step(after=[scan])
    async def gather(count: int, ctx: Context) -> int:
        total = 0
        async for result in ctx.children(scan):
            total += result.output["number"]
        assert len(await ctx.children("scan")) == count
        return total

    async with worker([flow, make_leaf]):
        assert await (await client.trigger(flow, 1500)).result(PATIENCE) == sum(range(1500))


async def test_waiting_at_the_end_of_a_step_costs_nothing(client: Client, worker: Callable[..., Worker]) -> None:
    """After the function has returned no slot, no coroutine and not even a worker waits for the children.

    The worker that ran the parent is gone when its child runs; the child's worker, which has none of the parent's
    code, completes the join.
    """

    @workflow("late")
    async def late(number: int) -> int:
        return number

    @workflow("spawn-and-go")
    async def spawn_and_go(_: None, ctx: Context) -> str:
        await ctx.spawn_workflow(late, 1)
        return "gone"

    @workflow("other")
    async def other() -> str:
        return "the only slot was free"

    async with worker([spawn_and_go, other], slots=1) as first:
        run = await client.trigger(spawn_and_go)
        assert await (await client.trigger(other)).result(PATIENCE) == "the only slot was free"
        assert first.counts.succeeded == 2
        assert not services(first).fetcher.running
    assert (await client.describe(run.id)).steps[0].status == "waiting"
    async with worker([late]):
        assert await run.result(PATIENCE) == "gone"


async def test_metadata_reaches_every_descendant(client: Client, worker: Callable[..., Worker]) -> None:
    """What was given at the trigger is seen by children and grandchildren, as it was given."""
    metadata = {"tenant": "Zoë & Cie: ☃", "lines": "one\r\ntwo", "deep": {"list": [1, None, True]}}

    @workflow("descend")
    async def descend(depth: int, ctx: Context) -> list[Any]:
        if depth == 2:
            return [dict(ctx.metadata)]
        [below] = await ctx.join(await ctx.spawn_workflows(descend, [depth + 1]))
        return [dict(ctx.metadata), *below]

    async with worker([descend]):
        run = await client.trigger(descend, 0, metadata=metadata)
        assert await run.result(PATIENCE) == [metadata] * 3


async def test_a_plain_def_step_spawns_and_joins_with_block_on(client: Client, worker: Callable[..., Worker]) -> None:
    """In a thread nothing can be awaited: ``ctx.block_on`` runs it on the worker's loop."""

    @workflow("in-thread")
    def in_thread(count: int, ctx: Context) -> int:
        children = ctx.block_on(ctx.spawn_workflows(square, range(count)))
        return sum(ctx.block_on(ctx.join(children)))

    async with worker([in_thread, square], slots=1):
        assert await (await client.trigger(in_thread, 4)).result(PATIENCE) == 14


async def test_block_on_refuses_to_block_the_loop(client: Client, worker: Callable[..., Worker]) -> None:
    """In an async step it could only wait for ever; the error says what to write instead."""

    @workflow("mistaken")
    async def mistaken(_: None, ctx: Context) -> str:
        joining = ctx.join([])
        with pytest.raises(RuntimeError, match="use await"):
            ctx.block_on(joining)
        return str(await joining)

    async with worker([mistaken]):
        assert await (await client.trigger(mistaken)).result(PATIENCE) == "[]"


_noted = ContextVar("noted", default="nothing")


async def test_a_child_finds_nothing_that_another_has_left(client: Client, worker: Callable[..., Worker]) -> None:
    """Neither its context variables nor its cancelling, whether it waits for something or not."""

    @workflow("careless")
    async def careless(n: int) -> tuple[str, int]:
        task = asyncio.current_task()
        assert task is not None
        found = _noted.get(), task.cancelling()
        _noted.set(f"by {n}")
        if n % 3 == 0:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0) if n % 5 == 0 else None
        return found

    @workflow("careful")
    async def careful(_: None, ctx: Context) -> list[tuple[str, int]]:
        return await ctx.join(await ctx.spawn_workflows(careless, range(60)))

    async with worker([careful, careless]):
        assert await (await client.trigger(careful)).result(PATIENCE) == [("nothing", 0)] * 60
