"""The workflows of the chaos run that wait for times and events, or are started by them."""

from __future__ import annotations

import time
from typing import Any

from jetflow import (
    Context,
    Event,
    NonRetryable,
    RetryAfter,
    Signal,
    Workflow,
    all_of,
    any_of,
    output_of,
    sleep,
    workflow,
)
from tests.chaos.leaves import PATIENT, leaf
from tests.chaos.plan import (
    CHOOSES,
    DECIDES,
    DOZES,
    LISTENS,
    ORDERED,
    TICKED,
    Leaf,
    doze,
    draw,
    is_small,
    late_attempts,
    leaf_value,
    pause,
    shared_leaf,
    signals,
)

SIGNAL = "go"
"""The signal that runs of `listens` wait for, with numbers from 0 on as payloads, and a step of `decides`."""

STOP = "stop"
"""The signal that cancels that step."""

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


# --- conditions between steps

decides = Workflow(DECIDES, input=Leaf, output=int, retry=PATIENT)


@decides.step
async def measure(one: Leaf, ctx: Context) -> int:
    if ctx.attempt < late_attempts(one.seed):
        raise RetryAfter(pause(one.seed, "measure", ctx.attempt))
    return leaf_value(one.seed)


@decides.step(after=measure, skip_if=output_of(measure, is_small))
async def surplus(one: Leaf) -> int:
    return leaf_value(one.seed + 1)


@decides.step(after=measure, wait_for=lambda one: sleep(doze(one.seed, 1)))
async def rest(one: Leaf) -> None:
    """Begins when its time has come."""


@decides.step(after=measure, cancel_if=Signal(STOP), wait_for=Signal(SIGNAL))
async def agree(one: Leaf) -> None:
    """Runs, or is cancelled, by which signal is sent."""


@decides.step(after=measure, skip_if=lambda one: sleep(doze(one.seed, 2)), wait_for=Event(TIDE))
async def race(one: Leaf) -> None:
    """Runs if an event comes before its time is over."""


@decides.step(after=race)
async def follow(one: Leaf) -> None:
    """Is left out if that step was skipped."""


@decides.step(after=[measure, surplus, rest, agree, follow])
async def tell(one: Leaf, ctx: Context) -> int:
    return ctx.output(measure) + (0 if ctx.was_skipped(surplus) else ctx.output(surplus))


MOMENTS: dict[str, Workflow[Any, Any]] = {one.name: one for one in (dozes, listens, chooses, ordered, ticked, decides)}
