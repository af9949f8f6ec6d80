"""Small workflows that pass through the crash points between them, and how each must end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import uuid4

import msgspec

import jetflow
from jetflow import (
    Batch,
    ChildFailed,
    Client,
    Context,
    Event,
    Hedge,
    JoinPolicy,
    Limit,
    NonRetryable,
    RateLimit,
    Retry,
    RetryAfter,
    RunFailed,
    Running,
    Signal,
    UnknownRun,
    Workflow,
    all_of,
    any_of,
    output_of,
    sleep,
    workflow,
)
from jetflow.engine.elders import rerun_id
from jetflow.engine.events import run_of_event
from jetflow.engine.identity import keyed_root_id
from jetflow.engine.schedules import key_of
from jetflow.engine.tasks import NONE
from jetflow.errors import BrokerRefused, NothingToLoosen, ScheduleExists, UnknownSchedule
from jetflow.wire.events import EventNames
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block

LARGE = 400_000
"""Characters: more than travels in a message."""

NEVER = 3600.0
"""Seconds between sweeps of a worker that must do without."""

AGAIN = Retry(attempts=50, initial=0.05, max_delay=0.2)


class Number(msgspec.Struct, frozen=True):
    n: int


# --- children --------------------------------------------------------------------------------------------------


@workflow("double", retry=AGAIN)
async def double(number: Number) -> int:
    return number.n * 2


@workflow("flaky", retry=AGAIN)
async def flaky(number: Number, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return number.n * 2


@workflow("failing", retry=AGAIN)
async def failing(number: Number) -> int:
    raise NonRetryable(f"{number.n} fails")


@workflow("slow", retry=AGAIN)
async def slow(number: Number) -> int:
    await asyncio.sleep(number.n / 10)
    return number.n


@workflow("endless", retry=AGAIN)
async def endless(number: Number) -> int:
    await asyncio.sleep(3600)
    return number.n


@workflow("endless-parent", retry=AGAIN)
async def endless_parent(number: Number, ctx: Context) -> int:
    """Is cancelled while its child runs, which then has a cancelled parent."""
    return sum(await ctx.join(await ctx.spawn_workflows(endless, [number])))


@workflow("endless-one-by-one", retry=AGAIN, max_running=1)
async def endless_one_by_one(number: Number) -> int:
    await asyncio.sleep(3600)
    return number.n


@workflow("echo", retry=AGAIN)
async def echo(text: str) -> str:
    return text


# --- nested: joins in steps, two levels deep -------------------------------------------------------------------


@workflow("nested-inner", retry=AGAIN)
async def nested_inner(number: Number, ctx: Context) -> int:
    children = await ctx.spawn_workflows(double, [Number(n) for n in range(number.n)], key=lambda one: f"n{one.n}")
    more = await ctx.spawn_workflow(flaky, Number(number.n))
    return sum(await ctx.join(children)) + await more.result()


@workflow("nested", retry=AGAIN)
async def nested(number: Number, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(nested_inner, [Number(number.n), Number(number.n + 1)])))


# --- boundary: a step that returns before its children end -----------------------------------------------------

boundary = Workflow("boundary", input=Number, output=int, retry=AGAIN)


@boundary.step
async def throw(number: Number, ctx: Context) -> None:
    await ctx.spawn_workflows(slow, [Number(n) for n in range(number.n)])


@boundary.step(after=throw)
async def gather(number: Number, ctx: Context) -> int:
    return sum([result.output for result in await ctx.children(throw, slow)])


# --- parked: waits that leave no coroutine behind --------------------------------------------------------------

parked = Workflow("parked", input=Number, output=int, retry=AGAIN)


@parked.step(max_running=1)
async def park(number: Number, ctx: Context) -> int:
    first = sum(await ctx.join(await ctx.spawn_workflows(slow, [Number(n) for n in range(number.n)])))
    child = await ctx.spawn_workflow(double, Number(first))
    return await child.result()


# --- gates: two first steps, a gate, two last steps, a child that two steps share ------------------------------

gates = Workflow("gates", input=Number, retry=AGAIN)


@gates.step
async def left(number: Number, ctx: Context) -> int:
    child = await ctx.spawn_workflow(slow, Number(number.n))
    return await child.result()


@gates.step
async def right(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflow(slow, Number(number.n))
    await ctx.spawn_workflow(double, Number(1))
    return 1


@gates.step(after=[left, right])
def middle(number: Number, ctx: Context) -> int:
    return ctx.output(left) + ctx.output(right)


@gates.step(after=middle)
async def one_end(number: Number, ctx: Context) -> int:
    return ctx.output(middle)


@gates.step(after=[left, middle])
async def other_end(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflows(double, [Number(7)])
    return -ctx.output(left)


# --- failures --------------------------------------------------------------------------------------------------

failures = Workflow("failures", input=Number, output=int, retry=AGAIN)


@failures.step
async def some_fail(number: Number, ctx: Context) -> int:
    children = [
        *await ctx.spawn_workflows(failing, [Number(1), Number(2)]),
        *await ctx.spawn_workflows(double, [Number(number.n)]),
    ]
    results = await ctx.join(children, return_exceptions=True)
    return sum(1 if isinstance(result, ChildFailed) else result for result in results)


@failures.step(after=some_fail)
async def all_must_succeed(number: Number, ctx: Context) -> int:
    """Ends its run: one of its children fails."""
    await ctx.spawn_workflows(failing, [Number(9)])
    await ctx.spawn_workflows(double, [Number(9)])
    return ctx.output(some_fail)


@failures.on_failure
async def clean_up(number: Number, ctx: Context) -> int:
    return len(ctx.errors)


@workflow("tolerant", retry=AGAIN)
async def tolerant(number: Number, ctx: Context) -> str:
    child = await ctx.spawn_workflow("failures", number)
    try:
        return str(await child.result())
    except ChildFailed as error:
        return error.error_type


# --- once, large values, detached children ---------------------------------------------------------------------


@workflow("only-once", retry=AGAIN)
async def only_once(number: Number, ctx: Context) -> int:
    value = await ctx.once("value", lambda: number.n + 1)
    return value + await (await ctx.spawn_workflow(double, Number(value))).result()


@workflow("large", retry=AGAIN)
async def large(number: Number, ctx: Context) -> int:
    [text] = await ctx.join(await ctx.spawn_workflows(echo, ["x" * LARGE]))
    child = await ctx.spawn_workflow(large_boundary, number)
    return len(text) + len(await child.result())


large_boundary = Workflow("large-boundary", input=Number, output=str, retry=AGAIN)


@large_boundary.step
async def seal_large(number: Number, ctx: Context) -> str:
    await ctx.spawn_workflows(slow, [Number(1)])
    return "y" * LARGE


@large_boundary.step(after=seal_large)
async def return_large(number: Number, ctx: Context) -> str:
    return ctx.output(seal_large)


@workflow("detaching", retry=AGAIN)
async def detaching(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflow(double, number, key="detached", detached=True)
    return number.n


@workflow("in-a-window", retry=AGAIN, max_running=1)
async def in_a_window(number: Number, ctx: Context) -> int:
    """Spawns in a window, and is parked whenever that is full."""
    inputs = (Number(n) for n in range(number.n))
    streamed = await ctx.spawn_stream(slow, inputs, window=3, budget=1000)
    return 10 * streamed.spawned + streamed.failed


@workflow("folding", retry=AGAIN, max_running=1)
async def folding(number: Number, ctx: Context) -> int:
    """Folds what children give that are spawned in a window."""
    return await ctx.reduce(slow, (Number(n) for n in range(number.n)), lambda total, n: total + n, 0, window=3)


# --- policies: what is not needed is cancelled -----------------------------------------------------------------


@workflow("first-wins", retry=AGAIN)
async def first_wins(number: Number, ctx: Context) -> int:
    children = [
        await ctx.spawn_workflow(slow, number),
        await ctx.spawn_workflow(endless_parent, Number(1)),
        await ctx.spawn_workflow(endless, Number(2)),
    ]
    return sum((await ctx.join(children, policy=JoinPolicy.first())).outputs)


first_wins_later = Workflow("first-wins-later", input=Number, output=int, retry=AGAIN)


@first_wins_later.step(join=JoinPolicy.first())
async def race(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflow(slow, number)
    await ctx.spawn_workflow(endless, Number(1))
    return number.n


@first_wins_later.step(after=race)
async def after_race(number: Number, ctx: Context) -> int:
    return ctx.output(race)


# --- a worker that dies by itself, for its guard to see ------------------------------------------------------------


@workflow("dying", retry=AGAIN)
async def dying(number: Number) -> str:
    """End the first worker that it comes to."""
    if _is_first(os.environ["JETFLOW_CRASH_MARKER"] + ".died"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def _is_first(path: str) -> bool:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    return False


# --- cancelling: by a step, which may die at it ------------------------------------------------------------------


@workflow("cancelling", retry=AGAIN)
async def cancelling(number: Number) -> str:
    """Cancel another run, in each attempt, and tell what its key is bound to in the end."""
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        run = await client.trigger(endless_parent, number, key="to be cancelled")
        await client.cancel(run.id)
        while True:
            with contextlib.suppress(UnknownRun):  # until a worker has put back what was purged
                if (trace := await client.describe(run.id)).input is not None:
                    return trace.status
            await asyncio.sleep(0.05)


# --- several steps: they fail side by side, in a chain, and with a child that another step has borrowed --------


class Ruin(RuntimeError):
    """Raised on purpose."""


TWICE = Retry(attempts=50, initial=0.02, max_delay=0.1)

ruins = Workflow("ruins", input=Number, retry=TWICE)


@ruins.step
async def falls(number: Number, ctx: Context) -> int:
    """Fails for good after an attempt that is held in memory."""
    if ctx.attempt == 1:
        raise Ruin("at first")
    raise NonRetryable("in the end")


@ruins.step
async def lends(number: Number, ctx: Context) -> int:
    """Fails, and leaves a child to the step that has borrowed it."""
    await ctx.spawn_workflow(slow, Number(4))
    raise NonRetryable("and leaves a child")


@ruins.step
async def borrows(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflow(slow, Number(4))
    await ctx.spawn_workflow(double, number)
    return number.n


@ruins.step(after=falls)
async def behind(number: Number) -> int:
    raise AssertionError("not reached")


@ruins.step(after=[behind, borrows])
async def far_behind(number: Number) -> int:
    raise AssertionError("not reached")


@ruins.step(after=borrows)
async def beside(number: Number, ctx: Context) -> int:
    """Goes on beside the failures, and is tried again by a timer of the broker."""
    await ctx.spawn_workflow(double, Number(ctx.attempt))
    if ctx.attempt == 1:
        raise RetryAfter(1.1)
    return ctx.output(borrows)


@ruins.on_failure
async def clear(number: Number, ctx: Context) -> int:
    return len(ctx.errors)


chain = Workflow("chain", input=Number, output=int, retry=AGAIN)


@chain.step
async def link(number: Number, ctx: Context) -> int:
    if number.n:
        raise NonRetryable("the chain breaks")
    return 1


@chain.step(after=link)
async def second_link(number: Number) -> int:
    raise AssertionError("not reached")


@chain.step(after=second_link)
async def last_link(number: Number) -> int:
    raise AssertionError("not reached")


hasty = Workflow("hasty", input=Number, retry=AGAIN, fail_fast=True)


@hasty.step
async def trips(number: Number, ctx: Context) -> int:
    await (await ctx.spawn_workflow(slow, Number(2))).result()
    raise NonRetryable("the first to fail")


@hasty.step
async def runs_on(number: Number, ctx: Context) -> int:
    """Has a child that runs and some that are queued, when the run ends."""
    children = [
        await ctx.spawn_workflow(endless_parent, Number(1)),
        *await ctx.spawn_workflows(endless_one_by_one, [Number(1), Number(2), Number(3)]),
    ]
    return sum(await ctx.join(children))


@hasty.step(after=[trips, runs_on])
async def never(number: Number) -> int:
    raise AssertionError("not reached")


@hasty.on_failure
async def pick_up(number: Number, ctx: Context) -> int:
    await ctx.once("picked up", lambda: len(ctx.errors))
    return len(ctx.errors)


@workflow("forgiving", retry=AGAIN)
async def forgiving(number: Number, ctx: Context) -> list[list[str]]:
    """Joins children of several steps that fail, and tells their errors."""
    children = [
        await ctx.spawn_workflow(ruins, Number(1)),
        await ctx.spawn_workflow(chain, Number(1)),
        await ctx.spawn_workflow(hasty, Number(1)),
    ]
    results = await ctx.join(children, return_exceptions=True)
    return [[str(error.step) for error in one.errors] for one in results if isinstance(one, ChildFailed)]


# --- times -----------------------------------------------------------------------------------------------------

timed = Workflow("timed", input=Number, output=list[int], retry=AGAIN)


@timed.step(max_running=1)
async def bounded(number: Number, ctx: Context) -> int:
    """Parks with a deadline, and is woken by its children; then again, and is woken by its timer."""
    in_time = await ctx.spawn_workflows(slow, [Number(1), Number(2)])
    first = await ctx.join(in_time, policy=JoinPolicy.collect().within(4))
    late = [*in_time, await ctx.spawn_workflow(endless, number)]
    policy = msgspec.structs.replace(JoinPolicy.collect().within(1.3), cancel_rest=True)
    second = await ctx.join(late, policy=policy)
    return 10 * len(first.succeeded) + len(second.succeeded)


@timed.step(after=bounded)
async def tried_by_timer(number: Number, ctx: Context) -> int:
    """Spawns another child in each attempt, and waits for a timer of the broker, then in memory."""
    await ctx.spawn_workflow(double, Number(ctx.attempt))
    if ctx.attempt < 3:
        raise RetryAfter(1.1 if ctx.attempt == 1 else 0.2)
    return 1


@timed.step(after=tried_by_timer, max_running=1)
async def tried_without_a_place(number: Number, ctx: Context) -> list[int]:
    if ctx.attempt == 1:
        raise Ruin("while it waits, it holds no place")
    return [ctx.output(bounded), ctx.output(tried_by_timer)]


@workflow("asleep", retry=AGAIN, max_running=1)
async def asleep(number: Number, ctx: Context) -> int:
    """Sleeps in memory, then parked with a child open, and never for less than it says."""
    began = await ctx.once("began", time)
    await ctx.spawn_workflow(slow, number)
    await ctx.sleep(0.2)
    await ctx.sleep(1.3)
    if time() - began < 1.5:
        raise NonRetryable("it has slept for less than it was told to")
    return number.n


@workflow("scheduled", retry=AGAIN)
async def scheduled(number: Number) -> int:
    return number.n


@workflow("scheduling", retry=AGAIN)
async def scheduling(number: Number, ctx: Context) -> list[int]:
    """Makes a schedule and a run that begins later, in each attempt, and tells whether each tick has one run."""
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        later = await client.trigger(scheduled, number, key="later", delay=0.6)
        # A schedule begins behind the moment in which it is made: by another worker, if this one dies before.
        first = await ctx.once("first", lambda: float(int(time()) + 6))
        begin, end = datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(first + 4, UTC)
        with contextlib.suppress(ScheduleExists):
            await client.schedules.create("s", scheduled, number, every=1, start=begin, end=end, catch_up="all")
        found = [await later.result()]
        for tick in range(5):
            run = client.run(keyed_root_id("scheduled", key_of("s", first + tick)))
            while True:
                with contextlib.suppress(UnknownRun):  # until its time has come
                    found.append(await run.result())
                    break
                await asyncio.sleep(0.05)
        with contextlib.suppress(UnknownSchedule):
            await client.schedules.delete("s")
        return found


# --- pausing: what waits for too long in a paused queue is cancelled ------------------------------------------


@workflow("withheld", retry=AGAIN)
async def withheld(number: Number) -> int:
    return number.n


@workflow("withholding", retry=AGAIN)
async def withholding(number: Number, ctx: Context) -> list[Any]:
    """Pauses another workflow, has its runs cancelled, and lets it go on, in each attempt."""
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        await client.pause("withheld", queue_ttl=0.5)
        found: list[Any] = []
        for at in range(number.n):
            run = await client.trigger(withheld, Number(at), key=f"withheld {at}")
            try:
                found.append(await run.result())
            except RunFailed as error:
                found.append([error.status, "a queue that is paused" in error.error_message])
        await client.resume("withheld")
        found.append(await (await client.trigger(withheld, number, key="afterwards")).result())
        return found


# --- a run that goes on with a graph that the worker has not declared ------------------------------------------


def other_version() -> Workflow[Any, Any]:
    """Return the boundary workflow as an earlier version may have declared it: with one step less."""
    earlier = Workflow("boundary", input=Number)
    earlier.step(name="gather")(gather.function)
    return earlier


# --- expecting: events that wake steps, and start runs ---------------------------------------------------------


@workflow("expecting", retry=AGAIN)
async def expecting(number: Number, ctx: Context) -> int:
    """Wait for what is published by a child, before or after it is waited for."""
    await ctx.spawn_workflow(ringing, number)
    first = await ctx.wait_for(Event("bell", key="it", if_=[["n", ">", 0]]), timeout=60)
    second = await ctx.wait_for(any_of(Event("bell", key="it"), Event("bell.of.another"), sleep(60)))
    return first.payload["n"] * 10 + second.payload["n"]


@workflow("ringing", retry=AGAIN)
async def ringing(number: Number) -> None:
    await asyncio.sleep(0.5)  # until its parent is parked
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        for n in range(number.n + 1):
            await client.publish("bell", {"n": n}, key="it", id=str(n))


@workflow("started", retry=AGAIN)
async def started(payload: dict[str, int]) -> int:
    return payload["n"]


started.on("start.it", if_=[["n", ">", 0]])


# --- rerunning: a run that fails is run again, and adopts what had succeeded ------------------------------------


@workflow("mending", retry=AGAIN)
async def mending(number: Number, ctx: Context) -> int:
    """Fails, and succeeds when it is run again: what it has recorded is of another run then."""
    if await ctx.once("run", lambda: ctx.run_id) == ctx.run_id:
        raise NonRetryable("broken")
    return number.n


broken = Workflow("broken", input=Number, output=int)


@broken.step(retry=AGAIN)
async def holds(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflows(double, [Number(n) for n in range(number.n)])
    return number.n


@broken.step(after=[holds], retry=AGAIN)
async def breaks(number: Number, ctx: Context) -> int:
    numbers = [Number(n) for n in range(10, 10 + number.n)]
    children = await ctx.spawn_workflows(double, numbers, key=lambda one: f"n{one.n}")
    texts = await ctx.spawn_workflow(echo, "x" * LARGE)
    mended = await ctx.spawn_workflow(mending, Number(1))
    before = [child.output async for child in ctx.children(holds, double)]
    return sum(before) + sum(await ctx.join(children)) + len(await texts.result()) - LARGE + await mended.result()


@workflow("rerunning", retry=AGAIN)
async def rerunning(number: Number) -> int:
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        run = await client.trigger(broken, number, key="broken")
        with contextlib.suppress(RunFailed):
            await run.result()
        return await (await client.rerun(run)).result()


# --- deciding: steps that conditions skip, and have wait ---------------------------------------------------------

deciding = Workflow("deciding", input=Number, retry=AGAIN)


@deciding.step
async def counts(number: Number) -> int:
    return number.n


@deciding.step
async def rings(number: Number, ctx: Context) -> None:
    """Sends a signal when a step may have been parked for it."""
    await asyncio.sleep(1.6)
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        await client.signal(ctx.run_id, "go", number.n, id="go")


@deciding.step(after=counts, skip_if=output_of(counts, lambda n: n > 0))
async def left_aside(number: Number) -> None:
    raise AssertionError("not reached")


@deciding.step(after=counts, wait_for=all_of(sleep(1.1), output_of(counts, lambda n: n > 0)), skip_if=Signal("stop"))
async def at_its_time(number: Number) -> int:
    return number.n + 1


@deciding.step(after=[left_aside, at_its_time], wait_for=Signal("go"), cancel_if=sleep(60))
async def at_a_signal(number: Number, ctx: Context) -> list[int]:
    return [ctx.output(at_its_time), int(ctx.was_skipped(left_aside))]


# --- loosening: a child has its parent go on without it, and without one that never ends -------------------------

loosening = Workflow("loosening", input=Number, output=int, retry=AGAIN)


@loosening.step(max_running=1)
async def bears(number: Number, ctx: Context) -> int:
    children = await ctx.spawn_workflows(slow, [Number(n) for n in range(number.n)])
    others = [await ctx.spawn_workflow(endless, Number(0)), await ctx.spawn_workflow(loosens, (ctx.run_id, number.n))]
    result = await ctx.join([*children, *others], policy=JoinPolicy.all_succeed())
    return number.n if result.met else 0


@workflow("loosens", retry=AGAIN)
async def loosens(told: tuple[str, int]) -> None:
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        while True:
            with contextlib.suppress(NothingToLoosen):  # it is not parked yet, or goes on
                await client.loosen(told[0], policy=JoinPolicy.of_quorum(told[1]))
            await asyncio.sleep(0.1)


# --- hedging: one of three children hangs, and its twin ends its run ---------------------------------------------


@workflow("hangs", retry=AGAIN, idempotent=True)
async def hangs(number: Number, ctx: Context) -> int:
    own = uuid4().hex
    if number.n == 0 and await ctx.once("first", lambda: own) == own:
        await asyncio.sleep(3600)
    return number.n


@workflow("hedging", retry=AGAIN)
async def hedging(number: Number, ctx: Context) -> int:
    children = await ctx.spawn_workflows(hangs, [Number(n) for n in range(number.n)])
    return sum(await ctx.join(children, hedge=Hedge(after=0.6, at_least=0.1)))


# --- claiming: a key that stands for a run while that goes on ---------------------------------------------------


@workflow("claiming", retry=AGAIN)
async def claiming(number: Number) -> int:
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        run = await client.trigger(double, number, key="claimed", unless=Running)
        return await run.result()


# --- saying: chunks and progress while it runs -----------------------------------------------------------------


@workflow("saying", retry=AGAIN)
async def saying(number: Number, ctx: Context) -> int:
    for n in range(number.n):
        await ctx.stream(n)
        ctx.progress(n / number.n)
        ctx.log(f"at {n}")
    return number.n


# --- limiting: runs that wait at gates, take the places of others, and are cancelled there ------------------------


@workflow("one-by-one", retry=AGAIN, limits=[Limit("one", max=1)])
async def one_by_one(number: Number) -> int:
    await asyncio.sleep(0.05)
    return number.n


two_limits = Workflow(
    "two-limits",
    input=Number,
    retry=AGAIN,
    limits=[Limit("one", max=1), Limit("other", key=lambda number: str(number.n % 2), max=1)],
)


@two_limits.step
async def begins(number: Number) -> int:
    return number.n


@two_limits.step(after=begins)
async def ends(number: Number, ctx: Context) -> int:
    return ctx.output(begins)


@workflow("waits-below", retry=AGAIN, limits=[Limit("below", max=1)])
async def waits_below(number: Number) -> int:
    await asyncio.sleep(3600)
    return number.n


@workflow("newest", retry=AGAIN, limits=[Limit("newest", max=1, when_full="cancel_running")])
async def newest(number: Number, ctx: Context) -> int:
    if number.n == 0:
        await ctx.join(await ctx.spawn_workflows(waits_below, [Number(n) for n in range(3)]))
    return number.n


@workflow("limiting", retry=AGAIN)
async def limiting(number: Number, ctx: Context) -> list[Any]:
    """Has runs wait for places; has one replaced whose children wait, when those stand there."""
    replaced = await ctx.spawn_workflow(newest, Number(0))
    children = [
        *await ctx.spawn_workflows(one_by_one, [Number(n) for n in range(number.n)]),
        *await ctx.spawn_workflows(two_limits, [Number(n) for n in range(number.n)]),
    ]
    await ctx.sleep(1.0)
    newer = await ctx.spawn_workflow(newest, Number(1))
    results = await ctx.join([*children, newer])
    (gone,) = await ctx.join([replaced], return_exceptions=True)
    assert isinstance(gone, ChildFailed)
    return [sum(results), gone.status]


# --- limiting steps: runs whose steps wait at gates by themselves, keep their places, and are cancelled there ---------


one_in_a_step = Workflow("one-in-a-step", input=Number, retry=AGAIN)


@one_in_a_step.step
async def comes(number: Number) -> int:
    return number.n


@one_in_a_step.step(
    after=comes, limits=[Limit("one", max=1), Limit("other", key=lambda number: str(number.n % 2), max=1)]
)
async def is_alone(number: Number, ctx: Context) -> int:
    """Keeps its places while it sleeps, and is tried again; without end where its run is to be cancelled."""
    await ctx.sleep(3600 if number.n == 9 else 0.3)
    if number.n == 0 and ctx.attempt == 1:
        raise RuntimeError("once more")
    return number.n


@one_in_a_step.step(after=is_alone)
async def goes(number: Number, ctx: Context) -> int:
    return ctx.output(is_alone)


one_at_the_end = Workflow("one-at-the-end", input=Number, retry=AGAIN)


@one_at_the_end.step
async def arrives(number: Number) -> int:
    return number.n


@one_at_the_end.step(after=arrives, limits=[Limit("one", max=1)])
async def closes(number: Number) -> int:
    return number.n


@workflow("limiting-steps", retry=AGAIN)
async def limiting_steps(number: Number, ctx: Context) -> list[Any]:
    """Has steps wait for places; has one cancelled that has places, and sleeps, and one that waits behind it."""
    first = await ctx.spawn_workflow(one_in_a_step, Number(9))
    await ctx.sleep(0.5)
    children = [
        *await ctx.spawn_workflows(one_in_a_step, [Number(n) for n in range(number.n)]),
        *await ctx.spawn_workflows(one_at_the_end, [Number(n) for n in range(number.n)]),
    ]
    await ctx.sleep(1.0)
    policy = msgspec.structs.replace(JoinPolicy.collect().within(0.2), cancel_rest=True)
    await ctx.join([first], policy=policy)
    return [sum(await ctx.join(children))]


# --- pacing: runs that wait for their turn at a rate limit, parked, and held ----------------------------------------


@workflow("paced", retry=AGAIN, limits=[RateLimit("paced", max=1, per=1.5), RateLimit("both", max=2, per=2)])
async def paced(number: Number) -> int:
    return number.n


@workflow("pacing", retry=AGAIN)
async def pacing(number: Number, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(paced, [Number(n) for n in range(number.n)])))


# --- batches: one call for several runs, each of which spawns, and is waited for by its own parent -----------------


@workflow("batched", retry=AGAIN, batch=Batch(size=3, wait=0.2, key=lambda number: str(number.n % 2)))
async def batched(numbers: list[Number], ctxs: list[Context]) -> list[int]:
    for number, ctx in zip(numbers, ctxs, strict=True):
        await ctx.spawn_workflow(double, number)
    return [number.n for number in numbers]


@workflow("batching", retry=AGAIN)
async def batching(number: Number, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(batched, [Number(n) for n in range(number.n)])))


# --- giving up: a run that cancels itself, with what it has spawned ----------------------------------------------


@workflow("gives-up", retry=AGAIN)
async def gives_up(number: Number, ctx: Context) -> int:
    await ctx.spawn_workflow(endless_parent, number)
    await asyncio.sleep(0.1)
    await ctx.cancel()


@workflow("giving-up", retry=AGAIN)
async def giving_up(number: Number, ctx: Context) -> list[Any]:
    children = [await ctx.spawn_workflow(gives_up, number), await ctx.spawn_workflow(double, number)]
    results = await ctx.join(children, return_exceptions=True)
    return [one.status if isinstance(one, ChildFailed) else one for one in results]


# --- cheering: a step that runs when its run has succeeded -------------------------------------------------------

cheered = Workflow("cheered", input=Number, output=int, retry=AGAIN)


@cheered.step
async def counted(number: Number, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(double, [number])))


@cheered.on_success
async def cheer(number: Number, ctx: Context) -> int:
    """Records something, and is given what the step before has returned."""
    return await ctx.once("cheered", lambda: 2 * ctx.output(counted))


@workflow("cheering", retry=AGAIN)
async def cheering(number: Number, ctx: Context) -> int:
    child = await ctx.spawn_workflow(cheered, number)
    total = await child.result()
    async with jetflow.connect(os.environ["NATS_URL"], namespace=os.environ["CRASH_NAMESPACE"]) as client:
        while [step.output for step in (await client.describe(child.id)).steps] != [total, 2 * total]:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.05)
    return total


# --- an event that has run again what its key stands for ---------------------------------------------------------


@workflow("restarted", retry=AGAIN)
async def restarted(payload: dict[str, int], ctx: Context) -> int:
    if await ctx.once("run", lambda: ctx.run_id) == ctx.run_id:
        raise NonRetryable("broken")
    return payload["n"]


restarted.on("restart.it", run_key=lambda _: "it", within=3600, if_failed="rerun")


WORKFLOWS = [
    *(double, flaky, failing, slow, endless, endless_parent, endless_one_by_one, echo),
    *(nested_inner, nested, boundary, parked, gates, failures, tolerant),
    *(only_once, large, large_boundary, detaching, in_a_window, folding, first_wins, first_wins_later),
    *(ruins, chain, hasty, forgiving, timed, asleep, scheduled, scheduling, cancelling, dying, saying),
    *(withheld, withholding),
    *(expecting, ringing, started, deciding),
    *(one_by_one, two_limits, waits_below, newest, limiting, paced, pacing),
    *(one_in_a_step, one_at_the_end, limiting_steps),
    *(mending, broken, rerunning, claiming, batched, batching, gives_up, giving_up),
    *(cheered, cheering, restarted, loosening, loosens, hangs, hedging),
]

# --- how each is begun, and how it must end --------------------------------------------------------------------


async def from_outside(client: Client) -> jetflow.Run[Any]:
    """Trigger as any NATS client may, beside a message that is no task."""
    session = client._session
    names, publisher = session.names, session.publisher
    run = "ab" * 16
    await publisher.store(f"{names.prefix}.task.double.run.no-task", b"{}")
    await publisher.store(names.inbox_trigger("double"), b'{"n":4}', b"NATS/1.0\r\nJf-Run: %b\r\n\r\n" % run.encode())
    return client.run(run)


async def by_event(client: Client) -> jetflow.Run[Any]:
    """Publish an event, once somebody takes it, which starts a run; one that does not fit starts none."""
    names = EventNames(client.session.names)
    while True:
        with contextlib.suppress(BrokerRefused):  # no worker has declared it yet
            await client.session.connection.api(f"CONSUMER.INFO.{names.stream}.{names.consumer('started')}")
            break
        await asyncio.sleep(0.05)
    await client.publish("start.it", {"n": 0})
    event = await client.publish("start.it", {"n": 7}, id="it")
    return client.run(run_of_event("started", event.id))


async def by_another_event(client: Client) -> jetflow.Run[Any]:
    """Publish an event whose run fails, and then one that has that run again."""
    names = EventNames(client.session.names)
    while True:
        with contextlib.suppress(BrokerRefused):  # no worker has declared it yet
            await client.session.connection.api(f"CONSUMER.INFO.{names.stream}.{names.consumer('restarted')}")
            break
        await asyncio.sleep(0.05)
    first = await client.publish("restart.it", {"n": 7}, id="first")
    run = run_of_event("restarted", first.id)
    while True:
        with contextlib.suppress(UnknownRun):
            with contextlib.suppress(RunFailed):
                await client.run(run).result()
            break
        await asyncio.sleep(0.05)
    await client.publish("restart.it", {"n": 8}, id="second")
    return client.run(rerun_id("restarted", run, 1))


async def of_a_version_that_nobody_has(client: Client) -> jetflow.Run[Any]:
    """Store a task whose graph is not there: workers hand it back for a while, then end it by name."""
    session = client._session
    names, run = session.names, "cd" * 16
    headers = header_block({Header.VERSION: "0" * 16, Header.PARENT_STEP: NONE, Header.DEPTH: "0"})
    await session.publisher.store(names.task("double", "run", run, NONE, run), b'{"n":1}', headers)
    return client.run(run)


class Scenario(msgspec.Struct, frozen=True):
    """How a root run is begun, and its right output; of one that fails, its status and which steps failed.

    With ``keep``, seconds, its tree is deleted so long after its end, and nothing must be left of it. ``sweep_every``,
    seconds, is for what needs the sweeper: all others must do without. ``only_for`` are the points that may be armed
    where a worker dies by itself.
    """

    begin: Callable[[Client], Awaitable[jetflow.Run[Any]]]
    output: Any
    keep: float | None = None
    sweep_every: float = NEVER
    only_for: frozenset[str] = frozenset()


def told(error: RunFailed) -> list[Any]:
    """Return how a run failed, as a scenario's output says it."""
    return [error.status, {str(one.step): one.error_type for one in error.errors}]


def _trigger(flow: Workflow[Any, Any], n: int) -> Callable[[Client], Awaitable[jetflow.Run[Any]]]:
    return lambda client: client.trigger(flow, Number(n), key="it")


SCENARIOS: dict[str, Scenario] = {
    "nested": Scenario(_trigger(nested, 2), 6 + 12),
    "old": Scenario(_trigger(nested, 1), 2 + 6, keep=1.0, sweep_every=0.5),
    "dying": Scenario(_trigger(dying, 1), "done", only_for=frozenset({"guard_record", "guard_nak"})),
    "cancelling": Scenario(_trigger(cancelling, 1), "cancelled", sweep_every=0.2),
    "boundary": Scenario(_trigger(boundary, 3), 3),
    "parked": Scenario(_trigger(parked, 3), 6),
    "gates": Scenario(_trigger(gates, 2), {"one_end": 3, "other_end": -2}),
    "failures": Scenario(_trigger(tolerant, 3), "ChildrenFailed"),
    "once": Scenario(_trigger(only_once, 1), 6),
    "large": Scenario(_trigger(large, 1), 2 * LARGE),
    "detached": Scenario(_trigger(detaching, 5), 5),
    "window": Scenario(_trigger(in_a_window, 7), 70),
    "folding": Scenario(_trigger(folding, 7), 21),
    "policy": Scenario(_trigger(first_wins, 2), 2),
    "policy-boundary": Scenario(_trigger(first_wins_later, 2), 2),
    "outside": Scenario(from_outside, 8),
    "other-version": Scenario(lambda client: client.trigger(other_version(), Number(0), key="it"), 0),
    "chain": Scenario(_trigger(chain, 1), ["failed", {"link": "NonRetryable"}]),
    "no-graph": Scenario(of_a_version_that_nobody_has, ["failed", {"run": "UnknownVersion"}]),
    "fail-fast": Scenario(_trigger(hasty, 1), ["failed", {"trips": "NonRetryable"}]),
    "timed": Scenario(_trigger(timed, 1), [22, 1]),
    "asleep": Scenario(_trigger(asleep, 2), 2),
    "scheduling": Scenario(_trigger(scheduling, 3), [3] * 6),
    "withholding": Scenario(_trigger(withholding, 2), [*[["cancelled", True]] * 2, 2], sweep_every=0.2),
    "ruins": Scenario(_trigger(ruins, 3), ["failed", {"falls": "NonRetryable", "lends": "NonRetryable"}]),
    "expecting": Scenario(_trigger(expecting, 2), 10),
    "event": Scenario(by_event, 7),
    "limiting": Scenario(_trigger(limiting, 3), [7, "cancelled"]),
    "limiting-steps": Scenario(_trigger(limiting_steps, 3), [6]),
    "pacing": Scenario(_trigger(pacing, 3), 3),
    "deciding": Scenario(_trigger(deciding, 3), {"rings": None, "at_a_signal": [4, 1]}),
    "batching": Scenario(_trigger(batching, 8), 28),
    "saying": Scenario(_trigger(saying, 3), 3),
    "hedging": Scenario(_trigger(hedging, 3), 3),
    "loosening": Scenario(_trigger(loosening, 3), 3),
    "claiming": Scenario(_trigger(claiming, 3), 6),
    "cheering": Scenario(_trigger(cheering, 3), 6),
    "event-again": Scenario(by_another_event, 7),
    "giving-up": Scenario(_trigger(giving_up, 2), ["cancelled", 4]),
    "rerunning": Scenario(_trigger(rerunning, 3), 6 + 66 + 1),
    "forgiving": Scenario(_trigger(forgiving, 1), [["falls", "lends"], ["link"], ["trips"]]),
}
