"""The jetflow workflows that the workloads run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec

from jetflow import Context, NonRetryable, Retry, RetryAfter, Workflow, workflow

BROKEN: Final = 37
"""Children that fail in a run which is run again."""

IDLE_STEPS = 20
"""Steps of the worker that is left idle."""

PAUSE = 0.02
"""Seconds that a child takes which is to be waited for."""

SLOW = 0.11
"""Seconds that a child takes which is looked at."""

PAUSED = 0.05
"""Seconds that a child takes where its worker is killed."""

SIBLINGS = 9
"""Children that end before the last one, when a parent's going on is measured."""

SHORT_DELAY = 0.5
"""Seconds before another attempt that a worker may hold in memory."""

LONG_DELAY = 1.5
"""Seconds before another attempt that a timer of the broker waits for."""

SHORTEST_TIMER = 1.0
"""Seconds from which on a step waits for a timer of the broker, and not in a worker's memory."""


WINDOW: Final = 1000
"""Children that are open at most, where they are spawned in a window."""

FOLD_WINDOW: Final = 500
"""The same, where they are folded."""

COMPUTED: Final = 1_500_000
"""Rounds of a loop that take about a tenth of a second."""


class FailedOnce(Exception):
    """What the first attempt of a run raises that is to be tried again."""


class Leaf(msgspec.Struct):
    """The input of a no-op."""

    index: int


class Branch(msgspec.Struct):
    """The input of a node of a tree."""

    index: int
    level: int
    width: int


class Noted(msgspec.Struct):
    """The input of a fan-out that writes something down for the bench, in a file."""

    count: int
    file: str


class Counted(msgspec.Struct):
    """The input of a fan-out, and of its children, whose bodies are counted: each adds a byte to a file."""

    count: int
    file: str
    bodies: str


class Planned(msgspec.Struct):
    """The input of a run that waits for a time, in seconds since the epoch."""

    index: int
    at: float


class Began(msgspec.Struct):
    """When a run that waited for a time went on, in seconds since the epoch."""

    index: int
    at: float


def leaves(count: int) -> Iterator[Leaf]:
    """Yield the inputs of ``count`` children."""
    return (Leaf(index) for index in range(count))


@workflow("bench-leaf")
async def leaf(item: Leaf) -> int:
    """Do nothing: what a child costs is jetflow's own."""
    return item.index


@workflow("bench-fanout")
async def fanout(count: int, ctx: Context) -> int:
    """Spawn, join, and sum."""
    return sum(await ctx.join(await ctx.spawn_workflows(leaf, leaves(count))))


@workflow("bench-gather")
async def gather(count: int, ctx: Context) -> int:
    """Spawn, wait for each child in a place of its own, and sum."""
    children = await ctx.spawn_workflows(leaf, leaves(count))
    return sum(await asyncio.gather(*(child.result() for child in children)))


@workflow("bench-windowed")
async def windowed(count: int, ctx: Context) -> int:
    """Spawn in a window."""
    return (await ctx.spawn_stream(leaf, leaves(count), window=WINDOW)).succeeded


@workflow("bench-folded", retry=Retry(attempts=50, initial=0))
async def folded(noted: Noted, ctx: Context) -> int:
    """Spawn in a window and fold; each call of the function adds a byte to a file."""
    calls = os.open(noted.file, os.O_WRONLY | os.O_APPEND)

    def add(total: int, one: int) -> int:
        os.write(calls, b".")
        return total + one

    try:
        return await ctx.reduce(leaf, leaves(noted.count), add, 0, window=FOLD_WINDOW)
    finally:
        os.close(calls)


boundary: Workflow[int, int] = Workflow("bench-boundary", input=int, output=int)


@boundary.step
async def spread(count: int, ctx: Context) -> int:
    """Spawn, and leave the join to the step's boundary."""
    return len(await ctx.spawn_workflows(leaf, leaves(count)))


@boundary.step(after=[spread])
async def gathered(ctx: Context) -> int:
    """Go on behind the join."""
    return ctx.output(spread)


@workflow("bench-tree")
async def tree(node: Branch, ctx: Context) -> int:
    """Spawn ``width`` nodes of the level below, and sum what they return; level 0 returns its index."""
    if node.level == 0:
        return node.index
    below = (Branch(index, node.level - 1, node.width) for index in range(node.width))
    return sum(await ctx.join(await ctx.spawn_workflows(tree, below)))


one_step: Workflow[Leaf, int] = Workflow("bench-one-step", input=Leaf, output=int)
three_steps: Workflow[Leaf, int] = Workflow("bench-three-steps", input=Leaf, output=int)


@one_step.step
async def only(item: Leaf) -> int:
    """Do nothing, once."""
    return item.index


@three_steps.step
async def first(item: Leaf) -> int:
    """Do nothing, first."""
    return item.index


@three_steps.step(after=[first])
async def second(item: Leaf) -> int:
    """Do nothing, second."""
    return item.index


@three_steps.step(after=[second])
async def third(item: Leaf) -> int:
    """Do nothing, third."""
    return item.index


@workflow("bench-pause")
async def pause(item: Leaf) -> int:
    """Take long enough for the parent to be waiting; the siblings of the last child end at once."""
    if item.index == SIBLINGS:
        await asyncio.sleep(PAUSE)
    return item.index


@workflow("bench-resume")
async def resume(round: int, ctx: Context) -> int:
    """Return the time, in nanoseconds since the epoch, at which the step went on behind its join."""
    await ctx.join(await ctx.spawn_workflows(pause, leaves(SIBLINGS + 1)))
    return time.time_ns()


resume_boundary: Workflow[int, int] = Workflow("bench-resume-boundary", input=int, output=int)


@resume_boundary.step
async def leave(round: int, ctx: Context) -> None:
    """Spawn, and return."""
    await ctx.spawn_workflows(pause, leaves(SIBLINGS + 1))


@resume_boundary.step(after=[leave])
async def go_on(round: int) -> int:
    """Return the time, in nanoseconds since the epoch, at which the next step began."""
    return time.time_ns()


@workflow("bench-never-run")
async def never_run(item: Leaf) -> int:
    """Stay queued: no worker runs this workflow."""
    return item.index


@workflow("bench-spawn")
async def spawn_only(asked: Noted, ctx: Context) -> None:
    """Write down the seconds that the spawn alone took. The run never ends: nobody runs its children."""
    began = perf_counter()
    await ctx.spawn_workflows(never_run, leaves(asked.count))
    note(asked.file, perf_counter() - began)


@workflow("bench-paused")
async def paused(item: Counted) -> int:
    """Take a while, and leave a byte for each time that it has begun."""
    with open(item.bodies, "ab") as bodies:  # noqa: ASYNC230, PTH123 - it is in memory, or as good as that
        bodies.write(b".")
    await asyncio.sleep(PAUSED)
    return item.count


@workflow("bench-pausing")
async def pausing(asked: Counted, ctx: Context) -> int:
    """Spawn, join and sum, and write down which process does."""
    note(asked.file, os.getpid())
    kids = (Counted(index, "", asked.bodies) for index in range(asked.count))
    return sum(await ctx.join(await ctx.spawn_workflows(paused, kids)))


@workflow("bench-failing-never")
async def failing_never(item: Leaf, ctx: Context) -> int:
    """Ask which attempt it is, and succeed: what the others are compared with."""
    return item.index if ctx.attempt else -1


@workflow("bench-failing-short", retry=Retry(initial=SHORT_DELAY, jitter=0.0))
async def failing_short(item: Leaf, ctx: Context) -> int:
    """Fail once, for a short time."""
    if ctx.attempt == 1:
        raise FailedOnce
    return item.index


@workflow("bench-failing-long", retry=Retry(initial=LONG_DELAY, jitter=0.0))
async def failing_long(item: Leaf, ctx: Context) -> int:
    """Fail once, for a longer time."""
    if ctx.attempt == 1:
        raise FailedOnce
    return item.index


@workflow("bench-timed", retry=Retry(attempts=10))
async def timed(planned: Planned, ctx: Context) -> Began:
    """Fail until a planned time, long ahead; then say when that was. Later attempts are those of lost deliveries."""
    now = time.time()
    if ctx.attempt > 1:
        return Began(planned.index, now)
    if planned.at - now < SHORTEST_TIMER:
        raise NonRetryable("it began too late to wait for a timer of the broker")
    raise RetryAfter(planned.at - now)


def computed(index: int) -> int:
    """Compute for about a tenth of a second, and return what was given."""
    total = 0
    for number in range(COMPUTED):
        total += number * number % 7
    return index + (total < 0)


@workflow("bench-compute")
def compute(item: Leaf) -> int:
    return computed(item.index)


_APART: Final[dict[str, Any]] = {"runs_in": "process"} if "runs_in" in signature(workflow).parameters else {}
"""What has a step run in a process; an older commit, in a paired run, has no such thing."""

_apart: Any = workflow("bench-compute-apart", **_APART)


def _compute_apart(item: Leaf) -> int:
    return computed(item.index)


compute_apart: Workflow[Leaf, int] = _apart(_compute_apart)


@workflow("bench-cpu-threads")
async def cpu_threads(count: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(compute, leaves(count))))


@workflow("bench-cpu-processes")
async def cpu_processes(count: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(compute_apart, leaves(count))))


def _idle_workflow(number: int) -> Workflow[Leaf, int]:
    idle: Workflow[Leaf, int] = Workflow(f"bench-idle-{number}", input=Leaf, output=int)

    @idle.step
    async def run(item: Leaf) -> int:
        return item.index

    return idle


@workflow("bench-slow-leaf")
async def slow_leaf(item: Leaf) -> int:
    """Take so long that a hundred at once make a fan-out of 100,000 last for two minutes."""
    await asyncio.sleep(SLOW)
    return item.index


@workflow("bench-slowly")
async def slowly(count: int, ctx: Context) -> int:
    """Spawn what is looked at while it goes on."""
    return sum(
        await ctx.join(await ctx.spawn_workflows(slow_leaf, leaves(count), key=lambda leaf: f"leaf-{leaf.index}"))
    )


def add_byte(file: str) -> None:
    """Make a file longer by a byte, which two that do so at once do by two."""
    with Path(file).open("ab", buffering=0) as opened:
        opened.write(b".")


def is_there(file: str) -> bool:
    """Tell whether there is a file."""
    return Path(file).exists()


class Breaking(msgspec.Struct):
    """The input of a fan-out of which each ``every``-th child fails, 37 at most, while the file ``broken`` is there."""

    count: int
    every: int
    broken: str
    bodies: str


class Fragile(msgspec.Struct):
    """The input of a child of it."""

    index: int
    broken: str
    bodies: str


@workflow("bench-fragile-leaf")
async def fragile(item: Fragile) -> int:
    """Note that its body runs, and fail if there is a file that says so."""
    add_byte(item.bodies)
    if item.broken and is_there(item.broken):
        raise NonRetryable("broken")
    return item.index


@workflow("bench-breaking")
async def breaking(asked: Breaking, ctx: Context) -> int:
    """Spawn, join and sum children of which some fail."""
    children = (
        Fragile(
            index,
            asked.broken if index % asked.every == 0 and index // asked.every < BROKEN else "",
            asked.bodies,
        )
        for index in range(asked.count)
    )
    return sum(await ctx.join(await ctx.spawn_workflows(fragile, children)))


WORK: dict[str, list[Workflow[Any, Any]]] = {
    "fanout": [fanout, leaf],
    "rerun": [breaking, fragile],
    "reduce": [folded, leaf],
    "window": [boundary, windowed, leaf],
    "gather": [fanout, gather, leaf],
    "boundary": [boundary, leaf],
    "latency": [one_step],
    "history": [one_step],
    "resume": [resume, resume_boundary, pause],
    "chain": [one_step, three_steps],
    "tree": [tree],
    "spawn": [spawn_only],
    "retries": [failing_never, failing_short, failing_long],
    "timers": [timed, failing_short],
    "cpu": [cpu_threads, cpu_processes, compute, compute_apart],
    "dashboard": [slowly, slow_leaf],
    "idle": [_idle_workflow(number) for number in range(IDLE_STEPS)],
}
"""What the worker of each workload runs."""


def note(file: str, value: float) -> None:
    """Write a number down, so that a reader finds all of it or nothing."""
    written = Path(f"{file}.new")
    written.write_text(str(value))
    written.rename(file)
