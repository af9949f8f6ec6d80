"""Workflows of what an older commit, in a paired run, does not have."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from inspect import signature
from time import time
from typing import Any, Final

from benchmarks.flows import Leaf, Planned, one_step
from jetflow import Context, Event, Limit, Workflow, workflow

LIMIT_KEYS: Final = 1000
LIMIT_MAX: Final = 10

LEVELED_FOR: Final = 0.02
"""Seconds for which a run holds its slot that has a level."""

_LEVELS: Final[dict[str, Any]] = (
    {"levels": ("urgent", "normal", "low"), "default_level": "normal"}
    if "levels" in signature(workflow).parameters
    else {}
)


@workflow(
    "bench-limited-by-key", limits=[Limit("bench-key", key=lambda leaf: str(leaf.index % LIMIT_KEYS), max=LIMIT_MAX)]
)
async def limited_by_key(item: Leaf) -> int:
    return item.index


@workflow("bench-limited-hot", limits=[Limit("bench-hot", max=LIMIT_MAX)])
async def limited_hot(item: Leaf) -> int:
    return item.index


@workflow("bench-leveled", limits=(), **_LEVELS)
async def leveled(item: Leaf) -> float:
    """Return when the body began, in seconds since the epoch."""
    began = time()
    await asyncio.sleep(LEVELED_FOR)
    return began


@workflow("bench-sleeping")
async def sleeping(planned: Planned, ctx: Context) -> int:
    """Sleep until a planned time."""
    await ctx.sleep(until=datetime.fromtimestamp(planned.at, UTC))
    return planned.index


@workflow("bench-waiting")
async def waiting(item: Leaf, ctx: Context) -> int:
    """Wait for an event that all wait for."""
    await ctx.wait_for(Event("bench.all"))
    return item.index


WORK: dict[str, list[Workflow[Any, Any]]] = {
    "limits": [one_step, limited_by_key, limited_hot],
    "waking": [sleeping, waiting, one_step],
    "priorities": [leveled],
}
"""What the worker of each workload runs."""
