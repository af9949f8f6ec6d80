"""Children that are spawned in a window: sources that change, workers that leave, windows that hold, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from jetflow import (
    Client,
    Context,
    JoinPolicy,
    KeyConflict,
    NonRetryable,
    Retry,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.engine.identity import keyed_root_id
from jetflow.engine.tasks import StepAddress
from tests.endings.stored import PATIENCE, until

MakeWorker = Callable[..., Worker]
AT_ONCE = Retry(attempts=3, initial=0)


class Places:
    """Children that are open, by their own account."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.open = self.most = 0

    async def take(self, number: int, seconds: float = 0.01) -> None:
        self.bodies.append(number)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(seconds)
        self.open -= 1


@workflow("noop")
async def noop(number: int) -> int:
    return number


async def failure_of(client: Client, flow: Any, value: Any = None) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await (await client.trigger(flow, value)).result(PATIENCE)
    return caught.value


@pytest.mark.parametrize("given", [lambda n: n + 1, lambda n: n if n < 400 else None])
async def test_a_source_that_gives_other_inputs_is_named(
    client: Client, worker: MakeWorker, given: Callable[[int], int | None]
) -> None:
    @workflow("changing", retry=AT_ONCE)
    async def changing(count: int, ctx: Context) -> None:
        def read() -> Iterator[int]:
            for number in range(count):
                if ctx.attempt == 1:
                    if number == 600:
                        raise OSError
                    yield number
                elif (other := given(number)) is not None:
                    yield other

        await ctx.spawn_stream(noop, read(), window=10)

    async with worker([noop, changing]):
        failed = await failure_of(client, changing, 1000)
    assert failed.error_type == "SourceChanged"
    assert "same inputs in the same order" in failed.error_message


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"window": 0}, "from 1 to"),
        ({"window": 2.5}, "from 1 to"),
        ({"window": 2, "budget": -1}, "budget"),
        ({"window": 2, "policy": JoinPolicy.first()}, "quorum"),
        ({"window": 2, "policy": JoinPolicy.collect().within(3)}, "end in time"),
        ({"window": 2, "key": "one for all"}, "function of the input"),
        ({"window": 2, "position": lambda number: number}, "a source that is a function"),
        ({"window": 2, "source": 7}, "generator, a list"),
        ({"window": 2, "source": lambda after: []}, "position="),
        ({"window": 2, "source": "text"}, "generator, a list"),
    ],
)
async def test_what_cannot_be_done_is_named(
    client: Client, worker: MakeWorker, asked: dict[str, Any], said: str
) -> None:
    @workflow("asking")
    async def asking(_: None, ctx: Context) -> None:
        given: dict[str, Any] = {"source": [1]} | asked
        await ctx.spawn_stream(noop, **given)

    async with worker([noop, asking]):
        failed = await failure_of(client, asking)
    assert failed.error_type == "InvalidInput"
    assert said in failed.error_message


async def test_an_input_that_does_not_fit_and_a_key_that_is_taken(client: Client, worker: MakeWorker) -> None:
    @workflow("wrong-input")
    async def wrong_input(_: None, ctx: Context) -> None:
        inputs: Any = [1, "two"]
        await ctx.spawn_stream(noop, inputs, window=5)

    @workflow("taken-key")
    async def taken_key(_: None, ctx: Context) -> bool:
        try:
            await ctx.spawn_stream(noop, [1, 2], window=5, key=lambda _: "one")
        except KeyConflict:
            return True
        return False

    async with worker([noop, wrong_input, taken_key]):
        assert (await failure_of(client, wrong_input)).error_type == "InvalidInput"
        assert await (await client.trigger(taken_key)).result(PATIENCE)


async def test_equal_inputs_are_one_child_however_far_apart(client: Client, worker: MakeWorker) -> None:
    """Nobody hears of the second one's end: it is read in the next silence."""
    places = Places()

    @workflow("few")
    async def few(number: int) -> None:
        await places.take(number)

    @workflow("repeating")
    async def repeating(count: int, ctx: Context) -> int:
        return (await ctx.spawn_stream(few, (number % 5 for number in range(count)), window=3)).spawned

    async with worker([few, repeating]):
        assert await (await client.trigger(repeating, 20)).result(PATIENCE) == 20
    assert sorted(places.bodies) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options", [WorkerOptions(park_after=0), WorkerOptions(slots=1), WorkerOptions()])
async def test_a_window_holds_through_workers_that_leave(
    client: Client, worker: MakeWorker, options: WorkerOptions
) -> None:
    places = Places()

    @workflow("kept-child")
    async def kept_child(number: int) -> None:
        await places.take(number, 0.02)

    @workflow("kept-parent")
    async def kept_parent(count: int, ctx: Context) -> int:
        async def read() -> AsyncIterator[int]:
            for number in range(count):
                yield number

        return (await ctx.spawn_stream(kept_child, read(), window=6)).succeeded

    flows = [kept_child, kept_parent]
    async with worker(flows, options=options):
        run = await client.trigger(kept_parent, 120)
        await asyncio.sleep(0.3)
    async with worker(flows, options=options), worker(flows, options=options):
        await asyncio.sleep(0.2)
    async with worker(flows, options=options):
        assert await run.result(PATIENCE) == 120
    assert set(places.bodies) == set(range(120))
    assert places.most <= 6


async def test_a_step_with_max_running_streams_as_well(client: Client, worker: MakeWorker) -> None:
    """It is parked at each wait, for a waiting step does not count as running."""
    places = Places()

    @workflow("counted-child")
    async def counted_child(number: int) -> None:
        await places.take(number)

    @workflow("counted-parent", max_running=1)
    async def counted_parent(count: int, ctx: Context) -> int:
        return (await ctx.spawn_stream(counted_child, range(count), window=5)).spawned

    async with worker([counted_child, counted_parent]):
        runs = [await client.trigger(counted_parent, 30, key=str(number)) for number in range(2)]
        assert [await run.result(PATIENCE) for run in runs] == [30, 30]
    assert len(places.bodies) == 60


async def test_nothing_is_spawned_of_a_run_that_is_cancelled(client: Client, worker: MakeWorker) -> None:
    places = Places()

    @workflow("endless-child")
    async def endless_child(number: int) -> None:
        await places.take(number, 0.02)

    @workflow("endless-stream")
    async def endless_stream(_: None, ctx: Context) -> None:
        def count() -> Iterator[int]:
            number = 0
            while True:
                yield number
                number += 1

        await ctx.spawn_stream(endless_child, count(), window=4)

    async with worker([endless_child, endless_stream]):
        run = await client.trigger(endless_stream)

        async def has_begun() -> bool:
            return len(places.bodies) > 20

        await until(has_begun)
        assert await client.cancel(run.id)
        assert await run.status() == "cancelled"
        begun = len(places.bodies)
        await asyncio.sleep(0.3)
        assert len(places.bodies) <= begun + 4


async def test_two_steps_stream_the_same_children(client: Client, worker: MakeWorker) -> None:
    places = Places()
    both: Workflow[int, dict[str, int]] = Workflow("both", input=int, output=dict[str, int])

    @workflow("shared-child")
    async def shared_child(number: int) -> None:
        await places.take(number, 0.02)

    @both.step
    async def one(count: int, ctx: Context) -> int:
        return (await ctx.spawn_stream(shared_child, range(count), window=3)).spawned

    @both.step
    async def other(count: int, ctx: Context) -> int:
        return (await ctx.spawn_stream(shared_child, range(count), window=7)).spawned

    async with worker([shared_child, both]):
        assert await (await client.trigger(both, 40)).result(PATIENCE) == {"one": 40, "other": 40}
    assert sorted(places.bodies) == list(range(40))


@pytest.mark.parametrize("options", [WorkerOptions(park_after=0), WorkerOptions()])
async def test_children_of_a_stream_and_others_are_read_by_the_next_step(
    client: Client, worker: MakeWorker, options: WorkerOptions
) -> None:
    mixed: Workflow[int, list[int]] = Workflow("mixed", input=int, output=list[int], retry=AT_ONCE)

    @workflow("late")
    async def late(number: int) -> int:
        await asyncio.sleep(0.1)
        return number

    @mixed.step
    async def spread(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(late, [1000, 2000])
        await ctx.spawn_stream(noop, range(count), window=3)
        if ctx.attempt == 1:
            raise OSError

    @mixed.step(after=[spread])
    async def read(count: int, ctx: Context) -> list[int]:
        return sorted([child.output async for child in ctx.children(spread, noop)])

    async with worker([noop, late, mixed], options=options):
        assert await (await client.trigger(mixed, 10)).result(PATIENCE) == [*range(10), 1000, 2000]


async def test_a_child_that_fails_at_the_boundary_fails_the_step_still(client: Client, worker: MakeWorker) -> None:
    mixed: Workflow[int, int] = Workflow("mixed-failing", input=int, output=int)

    @workflow("failing-child")
    async def failing_child(number: int) -> int:
        raise NonRetryable("on purpose")

    @mixed.step
    async def spread(count: int, ctx: Context) -> None:
        await ctx.spawn_workflow(failing_child, 1)
        await ctx.spawn_stream(noop, range(count), window=3)

    @mixed.step(after=[spread])
    async def read(count: int, ctx: Context) -> int:
        return count

    async with worker([noop, failing_child, mixed]):
        assert (await failure_of(client, mixed, 10)).error_type == "ChildrenFailed"


async def test_a_page_that_cannot_be_read_costs_a_beginning(client: Client, worker: MakeWorker) -> None:
    @workflow("torn-page", retry=AT_ONCE)
    async def torn_page(count: int, ctx: Context) -> int:
        def read() -> Iterator[int]:
            for number in range(count):
                if ctx.attempt == 1 and number == 7:
                    raise OSError
                yield number

        return (await ctx.spawn_stream(noop, read(), window=3)).spawned

    run_id = keyed_root_id("torn-page", "it")
    session = client._session
    subject = session.names.page(StepAddress(run_id, run_id, "run"), "_stream-noop-1", 5)
    await session.publisher.store(subject, b"no page")
    async with worker([noop, torn_page]):
        run = await client.trigger(torn_page, 20, key="it")
        assert (run.id, await run.result(PATIENCE)) == (run_id, 20)


async def test_what_is_folded_may_be_large(client: Client, worker: MakeWorker) -> None:
    """A page that is too large for a message is kept as a value."""

    @workflow("gather-text", retry=AT_ONCE)
    async def gather_text(count: int, ctx: Context) -> int:
        def read() -> Iterator[int]:
            for number in range(count):
                if ctx.attempt == 1 and number == 600:
                    raise OSError
                yield number

        def add(text: str, number: int) -> str:
            return text + "x" * 1000

        return len(await ctx.reduce(noop, read(), add, "", window=50))

    async with worker([noop, gather_text]):
        assert await (await client.trigger(gather_text, 700)).result(PATIENCE) == 700_000
