"""A step may spawn more children than anybody can hold: so many at a time, from a source that is read as they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from patience import PATIENCE

from jetflow import (
    Client,
    Context,
    JoinPolicy,
    NonRetryable,
    Retry,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)

PARKED = WorkerOptions(park_after=0)
"""Waits of a minute are parked; here all are."""


class Gauge:
    """How many are open, and how many were at most."""

    def __init__(self) -> None:
        self.begun = self.ended = self.most = 0

    async def run(self, seconds: float) -> None:
        self.begun += 1
        self.most = max(self.most, self.begun - self.ended)
        await asyncio.sleep(seconds)
        self.ended += 1


async def test_children_are_spawned_as_others_end(client: Client, worker: Callable[..., Worker]) -> None:
    """At most ``window`` of them are open; an input is not even taken before there is room for its child."""
    gauge, ahead = Gauge(), 0

    @workflow("count-page")
    async def count_page(page: int) -> int:
        await gauge.run(0.005)
        return page

    @workflow("count-book")
    async def count_book(pages: int, ctx: Context) -> list[int]:
        async def read() -> AsyncIterator[int]:
            nonlocal ahead
            for page in range(pages):
                ahead = max(ahead, page - gauge.ended)
                yield page

        streamed = await ctx.spawn_stream(count_page, read(), window=5)
        return [streamed.spawned, streamed.succeeded]

    async with worker([count_page, count_book]):
        assert await (await client.trigger(count_book, 200)).result(PATIENCE) == [200, 200]
    assert gauge.begun == 200
    assert 1 < gauge.most <= 5
    assert ahead <= 5


async def test_a_retry_goes_on_where_it_was(client: Client, worker: Callable[..., Worker]) -> None:
    """What a generator gave before is skipped: it has to give the same each time."""
    begun: list[int] = []

    @workflow("page")
    async def page(number: int) -> None:
        begun.append(number)

    @workflow("book", retry=Retry(attempts=2, initial=0))
    async def book(pages: int, ctx: Context) -> int:
        def read() -> Iterator[int]:
            yield from range(700)
            if ctx.attempt == 1:
                raise OSError("a page is torn")
            yield from range(700, pages)

        return (await ctx.spawn_stream(page, read(), window=20)).spawned

    async with worker([page, book]):
        assert await (await client.trigger(book, 1000)).result(PATIENCE) == 1000
    assert sorted(begun) == list(range(1000))


async def test_a_source_may_know_its_position(client: Client, worker: Callable[..., Worker]) -> None:
    """A function is told behind which input to go on: nothing is read again."""
    asked: list[int | None] = []

    @workflow("row")
    async def row(number: int) -> None:
        pass

    @workflow("table", retry=Retry(attempts=2, initial=0))
    async def table(rows: int, ctx: Context) -> int:
        async def read(after: int | None) -> AsyncIterator[int]:
            asked.append(after)
            for number in range(0 if after is None else after + 1, rows):
                if ctx.attempt == 1 and number == 900:
                    raise OSError("the connection is lost")
                yield number

        return (await ctx.spawn_stream(row, read, window=20, position=lambda number: number)).spawned

    async with worker([row, table]):
        assert await (await client.trigger(table, 1000)).result(PATIENCE) == 1000
    assert asked[0] is None
    assert asked[1] is not None
    assert 499 <= asked[1] < 900


async def test_it_waits_for_weeks_if_need_be(client: Client, worker: Callable[..., Worker]) -> None:
    """Parked, with nothing in memory, until half of its children have ended; and its window holds all the same."""
    gauge, turns = Gauge(), 0

    @workflow("slow-page")
    async def slow_page(page: int) -> None:
        await gauge.run(0.02)

    @workflow("slow-book")
    async def slow_book(pages: int, ctx: Context) -> int:
        nonlocal turns
        turns += 1
        return (await ctx.spawn_stream(slow_page, range(pages), window=8)).spawned

    async with worker([slow_page, slow_book], options=PARKED):
        assert await (await client.trigger(slow_book, 60)).result(PATIENCE) == 60
    assert gauge.begun == 60
    assert gauge.most <= 8
    assert turns > 3


async def test_the_next_step_reads_the_children(client: Client, worker: Callable[..., Worker]) -> None:
    """The stream keeps no results. They are stored, and the next step takes them page by page."""
    book = Workflow("read-later", output=int)

    @workflow("weigh-page")
    async def weigh_page(page: int) -> int:
        return page

    @book.step
    async def spread(pages: int, ctx: Context) -> None:
        await ctx.spawn_stream(weigh_page, range(pages), window=10)

    @book.step(after=[spread])
    async def total(pages: int, ctx: Context) -> int:
        return sum([child.output async for child in ctx.children(spread, weigh_page)])

    async with worker([book, weigh_page]):
        assert await (await client.trigger(book, 100)).result(PATIENCE) == sum(range(100))


async def test_failures_are_told_at_the_end(client: Client, worker: Callable[..., Worker]) -> None:
    """With a policy they are counted, and nothing is raised."""

    @workflow("sometimes")
    async def sometimes(number: int) -> None:
        if number % 10 == 3:
            raise NonRetryable("a three")

    @workflow("strict")
    async def strict(numbers: int, ctx: Context) -> None:
        await ctx.spawn_stream(sometimes, range(numbers), window=10)

    @workflow("lenient")
    async def lenient(numbers: int, ctx: Context) -> list[int | bool]:
        policy = JoinPolicy.tolerate(fraction=0.1)
        streamed = await ctx.spawn_stream(sometimes, range(numbers), window=10, policy=policy)
        return [streamed.succeeded, streamed.failed, streamed.met]

    async with worker([sometimes, strict, lenient]):
        assert await (await client.trigger(lenient, 100)).result(PATIENCE) == [90, 10, True]
        with pytest.raises(RunFailed, match="10 of 100 children failed"):
            await (await client.trigger(strict, 100)).result(PATIENCE)


async def test_the_first_failure_may_end_it(client: Client, worker: Callable[..., Worker]) -> None:
    """What is open then is cancelled, and nothing more is spawned."""

    @workflow("one-fails")
    async def one_fails(number: int) -> None:
        if number == 5:
            raise NonRetryable("the fifth")
        await asyncio.sleep(0 if number < 5 else 60)

    @workflow("hasty-stream")
    async def hasty(numbers: int, ctx: Context) -> list[str]:
        streamed = await ctx.spawn_stream(one_fails, range(numbers), window=10, policy=JoinPolicy.fail_fast())
        return [streamed.stopped, str(streamed.spawned < 100), str(streamed.met)]

    async with worker([one_fails, hasty]):
        run = await client.trigger(hasty, 100_000)
        assert await run.result(PATIENCE) == ["failure", "True", "False"]


async def test_a_budget_ends_a_tree_that_grows(client: Client, worker: Callable[..., Worker]) -> None:
    """It bounds all descendants of the root run, about: here each page has two more, for ever."""
    crawl: Workflow[int, None] = Workflow("crawl", input=int)
    visited: list[int] = []

    @crawl.step
    async def visit(page: int, ctx: Context) -> None:
        visited.append(page)
        links = (2 * page + one for one in (0, 1))
        await ctx.spawn_stream(crawl, links, window=2, budget=50)

    async with worker([crawl]):
        await (await client.trigger(crawl, 1)).result(PATIENCE)
    assert 51 <= len(visited) <= 150
