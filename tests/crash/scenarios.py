"""Small workflows that pass through the crash points between them, and how each must end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

import jetflow
from jetflow import ChildFailed, Client, Context, JoinPolicy, NonRetryable, Retry, Workflow, workflow

LARGE = 400_000
"""Characters: more than travels in a message."""

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


# --- a run that goes on with a graph that the worker has not declared ------------------------------------------


def other_version() -> Workflow[Any, Any]:
    """Return the boundary workflow as an earlier version may have declared it: with one step less."""
    earlier = Workflow("boundary", input=Number)
    earlier.step(name="gather")(gather.function)
    return earlier


WORKFLOWS = [
    *(double, flaky, failing, slow, endless, endless_parent, echo),
    *(nested_inner, nested, boundary, parked, gates, failures, tolerant),
    *(only_once, large, large_boundary, detaching, first_wins, first_wins_later),
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


class Scenario(msgspec.Struct, frozen=True):
    """How a root run is begun, and its right output."""

    begin: Callable[[Client], Awaitable[jetflow.Run[Any]]]
    output: Any


def _trigger(flow: Workflow[Any, Any], n: int) -> Callable[[Client], Awaitable[jetflow.Run[Any]]]:
    return lambda client: client.trigger(flow, Number(n), key="it")


SCENARIOS: dict[str, Scenario] = {
    "nested": Scenario(_trigger(nested, 2), 6 + 12),
    "boundary": Scenario(_trigger(boundary, 3), 3),
    "parked": Scenario(_trigger(parked, 3), 6),
    "gates": Scenario(_trigger(gates, 2), {"one_end": 3, "other_end": -2}),
    "failures": Scenario(_trigger(tolerant, 3), "ChildrenFailed"),
    "once": Scenario(_trigger(only_once, 1), 6),
    "large": Scenario(_trigger(large, 1), 2 * LARGE),
    "detached": Scenario(_trigger(detaching, 5), 5),
    "policy": Scenario(_trigger(first_wins, 2), 2),
    "policy-boundary": Scenario(_trigger(first_wins_later, 2), 2),
    "outside": Scenario(from_outside, 8),
    "other-version": Scenario(lambda client: client.trigger(other_version(), Number(0), key="it"), 0),
}
