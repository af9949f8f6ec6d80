"""The workflows of the chaos run.

What they do is drawn from their input alone, by the functions of `plan`, so that `model` can tell how each run must
end. Between them they go through every kind of join: in a step, at a step's boundary, parked, behind gates, borrowed
from another step, in the order of completion; with keyed and hash-keyed children; with failures that a retry mends
and failures that none does. Runs of several steps fail in several places, attempts wait for a time in memory and by
timers of the broker, and joins with a deadline park. What waits for times and events stands in `moments`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from jetflow import (
    Child,
    ChildFailed,
    ChildrenFailed,
    Context,
    InvalidInput,
    JoinPolicy,
    NonRetryable,
    RetryAfter,
    Workflow,
)
from jetflow.errors import RunTimeout
from tests.chaos.leaves import LEAVES, PATIENT, leaf, sync_leaf, work
from tests.chaos.limited import LIMITS
from tests.chaos.mending import MENDING
from tests.chaos.moments import MOMENTS
from tests.chaos.plan import (
    GRAPHS,
    KINDS,
    POISONED,
    Leaf,
    Node,
    Total,
    bound,
    draw,
    fate,
    join_style,
    leaf_value,
    leaves,
    pause,
    second_batch,
    shared_leaf,
    subtrees,
)

# --- trees -----------------------------------------------------------------------------------------------------

branch = Workflow("branch", input=Node, output=Total, retry=PATIENT)
scatter = Workflow("scatter", input=Node, output=Total, retry=PATIENT)
diamond = Workflow("diamond", input=Node, retry=PATIENT)
narrow = Workflow("narrow", input=Node, output=Total, retry=PATIENT)

several = Workflow("several", input=Node, retry=PATIENT)
hasty = Workflow("hasty", input=Node, output=int, retry=PATIENT, fail_fast=True)
timely = Workflow("timely", input=Node, output=Total, retry=PATIENT)

TREES: dict[str, Workflow[Any, Any]] = {
    one.name: one for one in (branch, scatter, diamond, narrow, several, hasty, timely)
}
WORKFLOWS: list[Workflow[Any, Any]] = [
    *LEAVES.values(),
    *TREES.values(),
    *MOMENTS.values(),
    *LIMITS.values(),
    *MENDING.values(),
]


async def spawn_all(kind: str, node: Node, ctx: Context) -> list[Child[Any]]:
    """Spawn what the plan of a node asks for: leaves in bulk, keyed or not, and trees one by one."""
    children: list[Child[Any]] = []
    for child, seeds, keyed in leaves(kind, node):
        inputs = [Leaf(seed) for seed in seeds]
        children += await ctx.spawn_workflows(
            LEAVES[child], inputs, key=(lambda one: f"leaf {one.seed}") if keyed else None
        )
    for child, below in subtrees(kind, node):
        children.append(await ctx.spawn_workflow(TREES[child], below, key=f"tree {below.seed}"))
    return children


async def joined(ctx: Context, children: list[Child[Any]]) -> Total:
    """Join children of which none may fail: another attempt would find the same failures."""
    try:
        return summed(await ctx.join(children))
    except ChildrenFailed as error:
        raise InvalidInput(f"a child failed: {error}") from None


def add(total: Total, value: Any) -> Total:
    """Add what a child returned: a number, a total, or the outputs of several last steps."""
    if isinstance(value, int):
        return Total(total.total + value, total.failed)
    if isinstance(value, Total):
        return Total(total.total + value.total, total.failed + value.failed)
    if set(value) == {"total", "failed"}:
        return add(total, msgspec.convert(value, Total))
    return add(total, sum(value.values()))


def summed(results: Sequence[Any]) -> Total:
    total = Total(0, 0)
    for result in results:
        failed = isinstance(result, ChildFailed)
        total = Total(total.total, total.failed + 1) if failed else add(total, result)
    return total


@branch.step
async def fan(node: Node, ctx: Context) -> Total:
    """Join in the step, in one of three styles; then spawn a second batch that depends on what came out."""
    children = await spawn_all("branch", node, ctx)
    style = join_style(node.seed)
    if style == "all":
        total = summed(await ctx.join(children, return_exceptions=True))
    else:
        total = Total(0, 0)
        ordered = [child async for child in ctx.as_completed(children)] if style == "completed" else children
        for child in ordered:
            try:
                total = add(total, await child.result())
            except ChildFailed:
                total = Total(total.total, total.failed + 1)
    more = [Leaf(seed) for seed in second_batch(node.seed, total.total)]
    return add(total, summed(await ctx.join(await ctx.spawn_workflows(leaf, more))))


@scatter.step
async def throw(node: Node, ctx: Context) -> int:
    """Return without joining: the next step begins when all children have ended."""
    return len(await spawn_all("scatter", node, ctx))


@scatter.step(after=throw)
async def gather(node: Node, ctx: Context) -> Total:
    results = await ctx.children(throw)
    if len(results) != ctx.output(throw):
        raise AssertionError(f"{len(results)} children of {ctx.output(throw)}")
    return summed([result.output for result in results])


@diamond.step
async def left(node: Node, ctx: Context) -> Total:
    children = await spawn_all("diamond", node, ctx)
    shared = await ctx.spawn_workflow(leaf, Leaf(shared_leaf(node.seed)))
    return add(await joined(ctx, children), await shared.result())


@diamond.step
async def right(node: Node, ctx: Context) -> int:
    """Spawn a child that the other step spawns, too, and return without joining."""
    await work()
    await ctx.spawn_workflow(leaf, Leaf(shared_leaf(node.seed)))
    await ctx.spawn_workflow(sync_leaf, Leaf(node.seed), key="right")
    return leaf_value(node.seed)


@diamond.step(after=[left, right])
async def middle(node: Node, ctx: Context) -> int:
    await work()
    return ctx.output(left).total + ctx.output(right)


@diamond.step(after=[left, middle])
def up(node: Node, ctx: Context) -> int:
    return ctx.output(middle) + ctx.output(left).failed


@diamond.step(after=middle)
async def down(node: Node, ctx: Context) -> int:
    """A last step that has children of its own."""
    await ctx.spawn_workflows(leaf, [Leaf(node.seed + 1)])
    return -leaf_value(node.seed)


@narrow.step(max_running=2)
async def squeeze(node: Node, ctx: Context) -> Total:
    """Parks at each wait, for a waiting step must not count as running."""
    return await joined(ctx, await spawn_all("narrow", node, ctx))


# --- several steps, of which some fail -------------------------------------------------------------------------


def meet(kind: str, node: Node, step: str, ctx: Context) -> int:
    """End as it is planned for a step; return its own part of its output if that is well."""
    planned = fate(kind, node.seed, step)
    if ctx.attempt <= planned.tries:
        raise RetryAfter(pause(node.seed, step, ctx.attempt))
    if planned.status == "failed":
        raise NonRetryable(f"step {step} of {node.seed} fails")
    if planned.status == "timed_out":
        raise RunTimeout(f"step {step} of {node.seed} takes too long")
    before: Any = GRAPHS[kind][step]
    return draw(node.seed, f"value {step}", 1000) + sum(ctx.output(one) for one in before)


async def tolerated(ctx: Context, children: list[Child[Any]]) -> int:
    return summed(await ctx.join(children, return_exceptions=True)).total


def told(ctx: Context) -> list[str]:
    """Return the steps whose failures are final."""
    return sorted({error.step or "" for error in ctx.errors if error.type in ("NonRetryable", "RunTimeout")})


@several.step(max_running=4)
async def a(node: Node, ctx: Context) -> int:
    """Parks for a child that another step has borrowed, or borrows it; another one ends while it waits for a time."""
    shared = await ctx.spawn_workflow(leaf, Leaf(shared_leaf(node.seed)))
    await ctx.spawn_workflow(LEAVES["late"], Leaf(node.seed), key="of a")
    await shared.result()
    return meet("several", node, "a", ctx)


@several.step
async def b(node: Node, ctx: Context) -> int:
    """Joins its children in the step, before it fails."""
    total = await tolerated(ctx, await spawn_all("several", node, ctx))
    return total + meet("several", node, "b", ctx)


@several.step
async def c(node: Node, ctx: Context) -> int:
    """Leaves its children to the boundary, one of another step's among them."""
    await ctx.spawn_workflow(LEAVES["late"], Leaf(node.seed), key="of c")
    await ctx.spawn_workflow(leaf, Leaf(shared_leaf(node.seed)))
    return meet("several", node, "c", ctx)


@several.step(after=a)
async def d(node: Node, ctx: Context) -> int:
    return meet("several", node, "d", ctx)


@several.step(after=[a, b])
async def e(node: Node, ctx: Context) -> int:
    await ctx.spawn_workflows(leaf, [Leaf(node.seed + 1)])
    return meet("several", node, "e", ctx)


@several.step(after=[b, c], max_running=2)
async def f(node: Node, ctx: Context) -> int:
    """Holds no place while it waits for its next attempt: each of its pauses is a timer of the broker."""
    return meet("several", node, "f", ctx)


@several.step(after=d)
def g(node: Node, ctx: Context) -> int:
    return meet("several", node, "g", ctx)


@several.step(after=[e, f])
async def h(node: Node, ctx: Context) -> int:
    await ctx.spawn_workflows(sync_leaf, [Leaf(node.seed + 2)])
    return meet("several", node, "h", ctx)


@several.step(after=c)
async def i(node: Node, ctx: Context) -> int:
    return meet("several", node, "i", ctx)


@several.on_failure
async def mend(node: Node, ctx: Context) -> list[str]:
    return told(ctx)


@hasty.step
async def x(node: Node, ctx: Context) -> int:
    await ctx.spawn_workflow(LEAVES["late"], Leaf(node.seed), key="of x")
    return meet("hasty", node, "x", ctx)


@hasty.step
async def y(node: Node, ctx: Context) -> int:
    total = await tolerated(ctx, await spawn_all("hasty", node, ctx))
    return total + meet("hasty", node, "y", ctx)


@hasty.step(after=[x, y])
async def z(node: Node, ctx: Context) -> int:
    return meet("hasty", node, "z", ctx)


@hasty.on_failure
async def give_up(node: Node, ctx: Context) -> list[str]:
    return told(ctx)


# --- joins with a deadline -------------------------------------------------------------------------------------

CLOCKS_DIFFER = 0.05
"""Seconds."""


@timely.step(max_running=4)
async def bounded(node: Node, ctx: Context) -> Total:
    """Parks until its children have ended or its time is up, and then for the rest of them."""
    begun = await ctx.once("begun", time.time)
    children = await spawn_all("timely", node, ctx)
    seconds = bound(node.seed)
    first = await ctx.join(children, policy=JoinPolicy.collect().within(seconds))
    if first.open and time.time() < begun + seconds - CLOCKS_DIFFER:
        raise NonRetryable("the join went on before its time, without all of its children")
    return summed(await ctx.join(children, return_exceptions=True))


assert POISONED in LEAVES
assert set(KINDS) == set(TREES)
