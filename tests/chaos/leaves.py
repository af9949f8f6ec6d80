"""The leaves of the chaos run's trees: workflows of one step without children."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from typing import Any

from jetflow import Batch, Context, Retry, RetryAfter, Workflow, workflow
from tests.chaos.diary import note_begun
from tests.chaos.plan import FRAIL, Leaf, fails_before, late_attempts, leaf_value, pause

PATIENT = Retry(attempts=1_000_000, initial=0.05, max_delay=1.0)
"""For steps whose worker may be killed any number of times."""

SHORT = Retry(attempts=3, initial=0.05, max_delay=0.2)


class Unlucky(RuntimeError):
    """Raised by plan."""


async def work(most: float = 0.05) -> None:
    await asyncio.sleep(random.random() * most)


@workflow("leaf", retry=PATIENT)
async def leaf(leaf: Leaf, ctx: Context) -> int:
    await work()
    if ctx.attempt <= fails_before(leaf.seed):
        raise Unlucky(f"attempt {ctx.attempt} of leaf {leaf.seed}")
    return leaf_value(leaf.seed)


@workflow("sync-leaf", retry=PATIENT, batch=Batch(size=4, wait=0.05))
def sync_leaf(leaves: list[Leaf]) -> list[int]:
    """Run in a thread, up to four in one call."""
    time.sleep(random.random() * 0.02)
    return [leaf_value(leaf.seed) for leaf in leaves]


@workflow("apart-leaf", retry=PATIENT, runs_in="process")
def apart_leaf(leaf: Leaf) -> int:
    """Run in a process, which may be killed by itself."""
    time.sleep(random.random() * 0.05)
    return leaf_value(leaf.seed)


@workflow("doomed", retry=SHORT)
async def doomed(leaf: Leaf) -> int:
    await work(0.01)
    raise Unlucky(f"leaf {leaf.seed} is doomed")


@workflow("late", retry=PATIENT)
async def late(leaf: Leaf, ctx: Context) -> int:
    """Is tried again after a time that is its own."""
    if ctx.attempt <= late_attempts(leaf.seed):
        raise RetryAfter(pause(leaf.seed, "late", ctx.attempt))
    return leaf_value(leaf.seed)


@workflow("poison", retry=Retry(attempts=2))
async def poison(leaf: Leaf) -> int:
    await asyncio.sleep(0.2)  # long enough for neighbours to be in the middle of something
    os.kill(os.getpid(), signal.SIGKILL)
    return leaf.seed


@workflow(FRAIL, retry=Retry(attempts=1))
async def frail(leaf: Leaf, ctx: Context) -> int:
    """Runs long enough for outages to begin before it, in it, and behind it."""
    note_begun(ctx.run_id)
    await work(2.0)
    return leaf_value(leaf.seed)


LEAVES: dict[str, Workflow[Any, Any]] = {
    one.name: one for one in (leaf, sync_leaf, apart_leaf, late, doomed, poison, frail)
}
