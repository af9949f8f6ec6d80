"""The workflows behind the pages that the browser tests look at: every way to stand, and every way to end."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec

from jetflow import Context, Event, JoinPolicy, NonRetryable, Retry, Signal, Workflow, any_of, workflow

CHILDREN = 400
FAILED = 12
"""Children of the large run, and how many of them fail, in three ways."""

VERY_LARGE = 64 * 1024 * 1024
"""Bytes of the largest output."""

HOSTILE = "<img src=x onerror=alert(1)>"
"""What must be shown as the text that it is."""

FAST = Retry(attempts=2, initial=0.01)


class Job(msgspec.Struct):
    """What to index."""

    root: str
    files: Annotated[int, msgspec.Meta(ge=0, le=5000)] = 10
    mode: Literal["full", "broken"] = "full"
    note: str | None = None
    tags: list[str] = []


@workflow("index-file", retry=FAST)
async def index_file(number: int) -> dict[str, int]:
    """Read one file."""
    if number % 100 == 17:
        raise NonRetryable(f"cannot decode byte {number}")
    if number % 200 == 40:
        return count_words(number)
    if number % 400 in (3, 33, 133, 233, 303, 333):
        raise NonRetryable(f"no such file: /docs/{number}")
    return {"words": number}


def count_words(number: int) -> dict[str, int]:
    return {"words": {0: 1}[number]}


index_tree = Workflow("index-tree", input=Job, output=dict[str, int], retry=FAST)


@index_tree.step
async def load(job: Job) -> int:
    """Find what there is to read."""
    return job.files


@index_tree.step(after=[load], join=JoinPolicy.collect())
async def scan(job: Job, ctx: Context) -> int:
    """Begin a run for each file."""
    await ctx.spawn_workflows(index_file, range(job.files), key=lambda number: f"/docs/{number:03}")
    return job.files


@index_tree.step(after=[load])
async def check(job: Job, ctx: Context) -> int:
    if ctx.attempt < 2:
        raise ConnectionError("the catalogue answered 503")
    return 1


@index_tree.step(after=[scan, check])
async def report(job: Job, ctx: Context) -> dict[str, int]:
    if job.mode == "broken":
        raise ValueError(f"the sums of {job.root!r} do not add up")
    return {"files": ctx.output(scan)}


@workflow("level")
async def level(depth: int, ctx: Context) -> int:
    if depth == 0:
        return 0
    return 1 + await (await ctx.spawn_workflow(level, depth - 1, key=f"level-{depth - 1}")).result()


@workflow("patient")
async def patient(number: int) -> int:
    """Run for as long as the tests do."""
    await asyncio.sleep(3600)
    return number


@workflow("stubborn", retry=Retry(attempts=5, initial=3000, max_delay=3000))
async def stubborn(text: str) -> str:
    raise ConnectionError(f"refused: {text}")


@workflow("large")
async def large(size: int) -> str:
    return "x" * size


@workflow("unserved")
async def unserved(number: int) -> int:
    return number


@workflow("stuck")
async def stuck(count: int, ctx: Context) -> int:
    """Wait for what does not end."""
    return sum(await ctx.join(await ctx.spawn_workflows(patient, range(count), key=lambda number: f"held-{number}")))


@workflow("wavering", retry=Retry(attempts=3, initial=0.01))
async def wavering(text: str, ctx: Context) -> str:
    """Fail, each time otherwise."""
    raise ConnectionError(f"{text}: the mirror {ctx.attempt} answered {500 + ctx.attempt}")


@workflow("thank")
async def thank(payload: dict[str, Any]) -> str:
    """Begin by an event."""
    return f"thanks for {payload['amount']}"


thank.on("order.paid", if_=[["amount", ">", 10]])


@workflow("sell")
async def sell(order: str, ctx: Context) -> str:
    """Wait for a customer."""
    approved = Event("order.approved", key=order, if_=[["yes", "==", True]])
    await ctx.wait_for(any_of(approved, Signal("stop")), timeout=3 * 86400)
    return order


@workflow("doze")
async def doze(days: int, ctx: Context) -> None:
    """Sleep in no worker."""
    await ctx.sleep(days * 86400)


@workflow("tick")
async def tick(number: int) -> int:
    """Begin by a schedule."""
    if number < 0:
        raise ValueError("nothing to report")
    return number


MANY_STEPS = 70
"""Steps beside each other, more than are told apart at a glance."""

many_steps = Workflow("many-steps", input=int, output=int)


def _beside(number: int) -> None:
    @many_steps.step(name=f"beside-{number:02}", after=[begin])
    async def beside(given: int) -> int:
        return given + number


@many_steps.step
async def begin(given: int) -> int:
    return given


for number in range(MANY_STEPS - 1):
    _beside(number)


SERVED = [index_tree, index_file, level, patient, stubborn, large, stuck, many_steps, wavering, thank, sell, doze, tick]
