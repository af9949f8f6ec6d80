"""The workflows of the chaos run that wait for times and events, or are started by them."""

from __future__ import annotations

import time
from typing import Any

from jetflow import Context, Event, NonRetryable, Signal, Workflow, all_of, any_of, sleep, workflow
from tests.chaos.leaves import PATIENT, leaf
from tests.chaos.plan import (
    CHOOSES,
    DOZES,
    LISTENS,
    ORDERED,
    TICKED,
    Leaf,
    doze,
    draw,
    leaf_value,
    shared_leaf,
    signals,
)

SIGNAL = "go"
"""The signal that runs of `listens` wait for; the payloads are numbers from 0 on."""

TIDE = "chaos.tide"
"""The topic of events that wake many at once."""

ORDER = "chaos.order"
"""The topic of events of which each starts a run."""

CLOCKS_DIFFER = 0.05
"""Seconds."""


def check_not_early(until: float) -> None:
    if time.time() < until - CLOCKS_DIFFER:
        raise NonRetryable(f"the step went on {until - time.time():.3f} s before its time")


@workflow(DOZES, retry=PATIENT)
async def dozes(one: Leaf, ctx: Context) -> int:
    """Sleep three times, with a child between that ends meanwhile."""
    child = await ctx.spawn_workflow(leaf, Leaf(shared_leaf(one.seed)))
    for number in range(3):
        begun = await ctx.once(f"begun {number}", time.time)
        await ctx.sleep(doze(one.seed, number))
        check_not_early(begun + doze(one.seed, number))
    return leaf_value(one.seed) + await child.result()


@workflow(LISTENS, retry=PATIENT)
async def listens(one: Leaf, ctx: Context) -> list[int]:
    """Take signals in their order: one after the other, or all at once."""
    count = signals(one.seed)
    if draw(one.seed, "at once", 2):
        return [came.payload for came in await ctx.wait_for(all_of(*(Signal(SIGNAL) for _ in range(count))))]
    return [(await ctx.wait_for(Signal(SIGNAL))).payload for _ in range(count)]


@workflow(CHOOSES, retry=PATIENT)
async def chooses(one: Leaf, ctx: Context) -> int:
    """Wait for a time, or for an event that many others wait for, too."""
    begun = await ctx.once("begun", time.time)
    late = sleep(doze(one.seed, 0))
    came = await ctx.wait_for(any_of(late, Event(TIDE)))
    if came.condition is late:
        check_not_early(begun + doze(one.seed, 0))
    return leaf_value(one.seed)


@workflow(ORDERED, retry=PATIENT)
async def ordered(one: Leaf) -> int:
    return leaf_value(one.seed)


ordered.on(ORDER)


@workflow(TICKED, retry=PATIENT)
async def ticked(one: Leaf) -> int:
    return leaf_value(one.seed)


MOMENTS: dict[str, Workflow[Any, Any]] = {one.name: one for one in (dozes, listens, chooses, ordered, ticked)}
