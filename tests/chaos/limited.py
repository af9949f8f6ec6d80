"""The workflows of the chaos run that have limits: some run few at a time, some begin few in a stretch of time."""

from __future__ import annotations

from typing import Any

from jetflow import Context, Limit, RateLimit, Workflow, workflow
from tests.chaos.leaves import PATIENT, leaf, work
from tests.chaos.plan import (
    BEGIN,
    BEGIN_IN_ALL,
    IN_SECONDS,
    LIMITED,
    PACED,
    PLACES,
    PLACES_IN_ALL,
    Leaf,
    leaf_value,
    limit_key,
    shared_leaf,
)


@workflow(
    LIMITED,
    retry=PATIENT,
    limits=[
        Limit("key", key=lambda one: limit_key(one.seed), max=PLACES),
        Limit("all", max=PLACES_IN_ALL),
    ],
)
async def limited(one: Leaf, ctx: Context) -> int:
    """Keep two places while it waits for a child."""
    child = await ctx.spawn_workflow(leaf, Leaf(shared_leaf(one.seed)))
    await work()
    await child.result()
    return leaf_value(one.seed)


@workflow(
    PACED,
    retry=PATIENT,
    limits=[
        RateLimit("key-pace", key=lambda one: limit_key(one.seed), max=BEGIN, per=IN_SECONDS),
        RateLimit("pace", max=BEGIN_IN_ALL, per=IN_SECONDS),
    ],
)
async def paced(one: Leaf) -> int:
    await work()
    return leaf_value(one.seed)


LIMITS: dict[str, Workflow[Any, Any]] = {one.name: one for one in (limited, paced)}
