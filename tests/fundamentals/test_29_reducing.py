"""A step may fold what its children give while they end, and holds neither their outputs nor their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from patience import PATIENCE

from jetflow import Client, Context, JoinPolicy, NonRetryable, Retry, RunFailed, Worker, WorkerOptions, workflow


class Statistics(msgspec.Struct):
    """What a step wants to know of all outputs."""

    count: int = 0
    largest: int = 0


@workflow("square")
async def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("options", [WorkerOptions(), WorkerOptions(park_after=0)])
async def test_outputs_are_folded(client: Client, worker: Callable[..., Worker], options: WorkerOptions) -> None:
    """As children end, in whatever order; parked or not, each is folded once."""

    @workflow("sum-squares")
    async def sum_squares(count: int, ctx: Context) -> int:
        return await ctx.reduce(square, range(count), lambda total, one: total + one, 0, window=20)

    async with worker([square, sum_squares], options=options):
        assert await (await client.trigger(sum_squares, 100)).result(PATIENCE) == sum(n * n for n in range(100))


async def test_a_retry_folds_on(client: Client, worker: Callable[..., Worker]) -> None:
    """What was folded is kept with the position of the source; what has ended since is folded anew."""
    folded = 0

    @workflow("statistics", retry=Retry(attempts=2, initial=0))
    async def statistics(count: int, ctx: Context) -> list[int]:
        def read() -> Iterator[int]:
            yield from range(1200)
            if ctx.attempt == 1:
                raise OSError("the file is torn")
            yield from range(1200, count)

        async def add(so_far: Statistics, one: int) -> Statistics:
            nonlocal folded
            folded += 1
            return Statistics(so_far.count + 1, max(so_far.largest, one))

        found = await ctx.reduce(square, read(), add, Statistics(), window=50)
        return [found.count, found.largest]

    async with worker([square, statistics]):
        assert await (await client.trigger(statistics, 1500)).result(PATIENCE) == [1500, 1499 * 1499]
    assert 1500 <= folded <= 1500 + 700


async def test_children_that_fail_are_not_folded(client: Client, worker: Callable[..., Worker]) -> None:
    """They fail the step, unless its policy allows them."""

    @workflow("odd-fails")
    async def odd_fails(number: int) -> int:
        if number % 2:
            raise NonRetryable("odd")
        return number

    @workflow("reduce-some")
    async def reduce_some(lenient: bool, ctx: Context) -> int:
        policy = JoinPolicy.collect() if lenient else None
        return await ctx.reduce(odd_fails, range(10), lambda total, one: total + one, 0, window=5, policy=policy)

    async with worker([odd_fails, reduce_some]):
        assert await (await client.trigger(reduce_some, True)).result(PATIENCE) == 0 + 2 + 4 + 6 + 8
        with pytest.raises(RunFailed, match="5 of 10 children failed"):
            await (await client.trigger(reduce_some, False)).result(PATIENCE)
