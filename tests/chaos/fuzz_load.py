"""The workflows that the fuzzer's good work runs, and that its bad messages are aimed at."""

from __future__ import annotations

import asyncio

import msgspec

from jetflow import Context, Retry, Workflow, workflow

SOON = Retry(attempts=3, initial=0.01, max_delay=0.05)


class Number(msgspec.Struct, frozen=True):
    n: int


@workflow("number", retry=SOON)
async def number(number: Number) -> int:
    return number.n % 1000


@workflow("pause", retry=SOON)
async def pause(number: Number) -> int:
    """Leaves time to forge its neighbours."""
    await asyncio.sleep(0.3)
    return number.n % 1000


@workflow("joining", retry=SOON)
async def joining(number: Number, ctx: Context) -> int:
    children = await ctx.spawn_workflows(pause, [Number(number.n % 1000 + n) for n in range(3)])
    return sum(await ctx.join(children))


pair = Workflow("pair", input=Number, output=list[int], retry=SOON)


@pair.step
async def throw(number: Number, ctx: Context) -> None:
    await ctx.spawn_workflows(pause, [Number(number.n % 1000 + n) for n in range(3)])


@pair.step(after=throw)
async def gather(number: Number, ctx: Context) -> list[int]:
    return sorted([result.output for result in await ctx.children(throw, pause)])


WORKFLOWS = [number, pause, joining, pair]


def right_output(flow: str, n: int) -> object:
    outputs = [(n % 1000 + one) % 1000 for one in range(3)]
    return sum(outputs) if flow == "joining" else sorted(outputs)
