"""The Python side of a mixed fleet: ``python_side.py URL``. Prints ``ready``, and ends when its standard input ends.

``py-fan`` spawns ``n`` children of any workflow, and adds their outputs up; ``py-double`` is a child.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from jetflow import Context, RetryAfter, Worker, Workflow, workflow


class Fan(msgspec.Struct):
    child: str
    n: int
    keys: bool = False


@workflow("py-double")
async def double(number: int) -> int:
    return number * 2


fan: Workflow[Fan, int] = Workflow("py-fan")


@fan.step
async def scatter(given: Fan, ctx: Context) -> None:
    key = (lambda number: f"k{number}") if given.keys else None
    await ctx.spawn_workflows(given.child, range(given.n), key=key)


@fan.step(after=[scatter])
async def total(given: Fan, ctx: Context) -> int:
    return sum([child.output async for child in ctx.children(scatter)])


@workflow("py-park")
async def park(given: Fan, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(given.child, range(given.n))))


@workflow("py-later")
async def later(seconds: float, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise RetryAfter(seconds)
    return ctx.attempt


async def main() -> None:
    async with Worker([double, fan, park, later], server=sys.argv[1]):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
