"""How long it takes to cancel a root run with 100,000 queued descendants: ``python -m tests.endings.cancel_many``.

A worker spawns them, all the children of one run; ``--branches`` spreads them over as many parked parents. Nobody
runs them. Then the root is cancelled, and a worker that could run them starts. One JSON object is printed: seconds
that cancelling took, and how many of the descendants began afterwards. The exit status is 1 if that is not 0, or if
it took 2 seconds or more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from time import monotonic

import msgspec

import jetflow
from jetflow import Context, Worker, WorkerOptions, workflow
from jetflow.server import NatsServer
from tests.endings.stored import Stored, until
from tests.inside import recording

BOUND = 2.0
"""Seconds that cancelling may take."""


class Figure(msgspec.Struct):
    """What came of it."""

    descendants: int
    branches: int
    spawn_seconds: float
    cancel_seconds: float
    began_afterwards: int


@workflow("leaf")
async def leaf(number: int) -> None: ...


@workflow("branch")
async def branch(numbers: tuple[int, int], ctx: Context) -> None:
    await ctx.join(await ctx.spawn_workflows(leaf, range(*numbers)))


@workflow("root")
async def root(plan: tuple[int, int], ctx: Context) -> None:
    descendants, branches = plan
    if branches == 0:
        await ctx.join(await ctx.spawn_workflows(leaf, range(descendants)))
    share = descendants // max(1, branches)
    await ctx.join(await ctx.spawn_workflows(branch, [(at * share, (at + 1) * share) for at in range(branches)]))


async def measure(url: str, namespace: str, *, descendants: int, branches: int) -> Figure:
    """Spawn, cancel, and see what begins."""
    async with jetflow.connect(url, namespace=namespace) as client:
        stored = Stored(client)
        began = monotonic()
        async with Worker(
            [root, branch], server=url, namespace=namespace, options=WorkerOptions(park_after=0)
        ) as parents:
            run = await client.trigger(root, (descendants, branches))
            await until(lambda: _parked(parents, 1 + branches), patience=600)
        spawned = monotonic() - began
        began = monotonic()
        await client.cancel(run.id)
        took = monotonic() - began
        async with Worker([root, branch, leaf], server=url, namespace=namespace) as late:
            await until(stored.is_idle)
    return Figure(descendants, branches, round(spawned, 3), round(took, 3), late.counts.executed)


async def _parked(worker: Worker, steps: int) -> bool:
    return worker.counts.parked == steps and not recording(worker)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descendants", type=int, default=100_000)
    parser.add_argument("--branches", type=int, default=0)
    arguments = parser.parse_args()
    async with NatsServer() as server:
        figure = await measure(server.url, "default", descendants=arguments.descendants, branches=arguments.branches)
    sys.stdout.write(f"{msgspec.json.encode(figure).decode()}\n")
    return 1 if figure.began_afterwards or figure.cancel_seconds >= BOUND else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
