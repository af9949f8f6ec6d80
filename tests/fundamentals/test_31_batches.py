"""One call of a step's function may handle the tasks of many runs. Each run has an outcome of its own all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from patience import PATIENCE

from jetflow import Batch, Client, Context, Retry, RunFailed, Worker, Workflow, workflow

ONCE = Retry(attempts=1)
AT_LAST = 600.0
"""Seconds: batches are full before."""


class Text(msgspec.Struct):
    language: str
    words: str


async def test_one_call_is_for_many_runs(client: Client, worker: Callable[..., Worker]) -> None:
    """It is made as soon as so many have come; whoever triggers them sees runs like any others."""
    calls: list[list[int]] = []

    @workflow("double", batch=Batch(size=3, wait=AT_LAST))
    async def double(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return [2 * number for number in numbers]

    async with worker([double]):
        runs = [await client.trigger(double, number) for number in (1, 2, 3)]
        assert [await run.result(PATIENCE) for run in runs] == [2, 4, 6]
    assert [sorted(call) for call in calls] == [[1, 2, 3]]


async def test_or_when_the_first_has_waited_long_enough(client: Client, worker: Callable[..., Worker]) -> None:
    """A batch that is not full is called all the same, ``wait`` seconds after its first task has come."""

    @workflow("lonely", batch=Batch(size=3, wait=0.2))
    async def lonely(numbers: list[int]) -> list[int]:
        return [len(numbers)] * len(numbers)

    async with worker([lonely]):
        runs = [await client.trigger(lonely, number) for number in (1, 2)]
        assert [await run.result(PATIENCE) for run in runs] == [2, 2]


async def test_what_has_another_key_is_in_another_call(client: Client, worker: Callable[..., Worker]) -> None:
    """Each key has batches of its own, full or due by themselves."""

    @workflow("translate", batch=Batch(size=2, wait=0.3, key=lambda text: text.language))
    async def translate(texts: list[Text]) -> list[str]:
        return ["+".join(sorted(one.language for one in texts))] * len(texts)

    async with worker([translate]):
        texts = [Text("de", "eins"), Text("fr", "un"), Text("de", "zwei")]
        runs = [await client.trigger(translate, text) for text in texts]
        assert [await run.result(PATIENCE) for run in runs] == ["de+de", "fr", "de+de"]


async def test_one_run_fails_and_the_others_do_not(client: Client, worker: Callable[..., Worker]) -> None:
    """An exception in the place of an output is how that run fails: it alone is tried again, if it may be."""

    @workflow("invert", batch=Batch(size=3, wait=0.2), retry=ONCE)
    async def invert(numbers: list[int]) -> list[float | Exception]:
        return [ZeroDivisionError("nothing to divide by") if number == 0 else 1 / number for number in numbers]

    async with worker([invert]):
        good, bad, fine = [await client.trigger(invert, number) for number in (1, 0, 2)]
        assert (await good.result(PATIENCE), await fine.result(PATIENCE)) == (1.0, 0.5)
        with pytest.raises(RunFailed, match="nothing to divide by"):
            await bad.result(PATIENCE)


async def test_an_error_that_is_raised_is_everybodys(client: Client, worker: Callable[..., Worker]) -> None:
    """Each of the runs has lost one attempt by it, and is tried again as its step says."""
    tried: list[int] = []

    @workflow("shaky", batch=Batch(size=2, wait=0.1), retry=Retry(attempts=2, initial=0.05, jitter=0))
    async def shaky(numbers: list[int], ctxs: list[Context]) -> list[int]:
        tried.extend(ctx.attempt for ctx in ctxs)
        if len(tried) == 2:
            raise ConnectionError("not now")
        return numbers

    async with worker([shaky]):
        runs = [await client.trigger(shaky, number) for number in (1, 2)]
        assert [await run.result(PATIENCE) for run in runs] == [1, 2]
    assert tried == [1, 1, 2, 2]


async def test_each_run_has_its_context(client: Client, worker: Callable[..., Worker]) -> None:
    """It tells what came before, and spawns: the children of each are waited for before its next step begins."""
    flow = Workflow("sums", input=int, output=int)

    @workflow("square", batch=Batch(size=4, wait=0.2))
    async def square(numbers: list[int]) -> list[int]:
        return [number**2 for number in numbers]

    @flow.step
    async def begin(number: int) -> int:
        return number + 1

    @flow.step(after=begin, batch=Batch(size=2, wait=AT_LAST))
    async def spread(numbers: list[int], ctxs: list[Context]) -> list[int]:
        before = [ctx.output(begin) for ctx in ctxs]
        for number, ctx in zip(before, ctxs, strict=True):
            await ctx.spawn_workflows(square, [number, number + 10])
        return before

    @flow.step(after=spread)
    async def total(number: int, ctx: Context) -> int:
        return sum([child.output async for child in ctx.children(spread, square)])

    async with worker([flow, square], slots=1):
        runs = [await client.trigger(flow, number) for number in (1, 2)]
        assert [await run.result(PATIENCE) for run in runs] == [4 + 144, 9 + 169]


async def test_one_output_for_all(client: Client, worker: Callable[..., Worker]) -> None:
    """A function that has one thing to say to all says it once. It may be a plain def, which runs in a thread."""

    @workflow("store", batch=Batch(size=2, wait=AT_LAST, broadcast=True))
    def store(rows: list[int]) -> str:
        return f"{len(rows)} rows"

    async with worker([store]):
        runs = [await client.trigger(store, row) for row in (1, 2)]
        assert await asyncio.gather(*(run.result(PATIENCE) for run in runs)) == ["2 rows", "2 rows"]
