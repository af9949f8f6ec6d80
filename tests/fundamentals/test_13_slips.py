"""Slips that everybody makes once: each is told in one sentence that says what to do."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportUnusedCoroutine=false, reportUnknownMemberType=false, reportIndexIssue=false

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from patience import PATIENCE

import jetflow
from jetflow import (
    Client,
    Context,
    InvalidDeclaration,
    InvalidInput,
    Retry,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.errors import StepEnded, UnknownWorkflow

ONCE = Retry(attempts=1)


@workflow("echo")
async def echo(number: int) -> int:
    return number


async def plain(number: int) -> int:
    return number


async def error_of(client: Client, flow: Workflow[Any, Any]) -> str:
    with pytest.raises(RunFailed) as failed:
        await (await client.trigger(flow)).result(PATIENCE)
    return f"{failed.value.error_type}: {failed.value.error_message}"


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


async def test_a_decorator_that_knows_nothing_of_async_does_no_harm(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """It is called in a thread, as any plain function is; the coroutine that it returns runs on the event loop."""

    @logged
    async def sum_of_children(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(echo, range(count))))

    flow = workflow("sum")(sum_of_children)
    async with worker([flow, echo]):
        assert await (await client.trigger(flow, 4)).result(PATIENCE) == 6


async def test_what_a_decorator_hands_over_can_be_cancelled(client: Client, worker: Callable[..., Worker]) -> None:
    """As any async step: by CancelledError, and not only by ``ctx.cancelled``."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    @logged
    async def wait(_: None) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    flow = workflow("waits")(wait)
    async with worker([flow]):
        run = await client.trigger(flow)
        await asyncio.wait_for(began.wait(), PATIENCE)
        assert await client.cancel(run.id)
        await asyncio.wait_for(cancelled.wait(), PATIENCE)


async def test_a_forgotten_await_is_pointed_out(client: Client, worker: Callable[..., Worker]) -> None:
    """In an async step and in a plain one, which has `ctx.block_on`."""

    @workflow("not-awaited", retry=ONCE)
    async def not_awaited(_: None, ctx: Context) -> int:
        with closing(ctx.spawn_workflows(echo, [1])) as children:  # closed for the sake of the tests after this one
            return len(list(children))

    @workflow("in-a-def", retry=ONCE)
    def in_a_def(_: None, ctx: Context) -> int:
        with closing(ctx.spawn_workflow(echo, 1)) as child:
            return child.result()

    async with worker([not_awaited, in_a_def, echo]):
        for flow in (not_awaited, in_a_def):
            assert "(is an await missing? in a plain def step" in await error_of(client, flow)


async def test_one_key_for_many_children_is_refused(client: Client, worker: Callable[..., Worker]) -> None:
    """It would make one child of them. Nothing is spawned."""

    @workflow("one-key", retry=ONCE)
    async def one_key(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(echo, [1, 2], key="a")

    async with worker([one_key, echo]):
        error = await error_of(client, one_key)
    assert error.startswith("InvalidInput: the key of spawn_workflows is a function of the input, such as key=lambda")
    assert error.endswith("a str is for spawn_workflow")


@pytest.mark.parametrize(
    ("inputs", "kind"), [("abc", "str"), (b"abc", "bytes"), (5, "int"), (None, "NoneType")], ids=repr
)
async def test_one_input_for_many_children_is_refused(
    client: Client, worker: Callable[..., Worker], inputs: Any, kind: str
) -> None:
    """A text would be one child a character."""

    @workflow("one-input", retry=ONCE)
    async def one_input(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(echo, inputs)

    async with worker([one_input]):
        error = await error_of(client, one_input)
    assert error.startswith(f"InvalidInput: the inputs of spawn_workflows are a list or the like, not one {kind}: ")


async def test_one_child_is_no_list_of_children(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("joins-one", retry=ONCE)
    async def joins_one(_: None, ctx: Context) -> None:
        child = await ctx.spawn_workflow(echo, 1)
        await child.result()
        await ctx.join(child)

    async with worker([joins_one, echo]):
        error = await error_of(client, joins_one)
    assert re.match(r"InvalidInput: a join takes several children: put <Child \w+ of 'echo'> into a list, or", error)


async def test_equal_inputs_are_said_to_be_one_child(
    client: Client, worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each step, however often it runs, and not if there are keys."""
    caplog.set_level("INFO", "jetflow.worker")

    @workflow("equal-inputs")
    async def equal_inputs(_: int, ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(echo, [5, 5, 5, 6]))

    @workflow("equal-keys")
    async def equal_keys(_: int, ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(echo, [5, 5], key=str))

    async with worker([equal_inputs, equal_keys, echo]):
        for number in range(3):
            assert await (await client.trigger(equal_inputs, number)).result(PATIENCE) == [5, 5, 5, 6]
        assert await (await client.trigger(equal_keys, 1)).result(PATIENCE) == [5, 5]
    told = [record.getMessage() for record in caplog.records if "equal inputs are one child" in record.getMessage()]
    assert told == [
        "step 'run' of 'equal-inputs' has spawned 'echo' with 4 inputs, 2 children: equal inputs are one child; "
        "give key= if each is to have its own"
    ]


async def test_a_function_is_no_workflow(client: Client, worker: Callable[..., Worker]) -> None:
    """Neither where a run is triggered nor where a child is spawned."""
    with pytest.raises(InvalidDeclaration, match=r"what is started takes workflows, and <function plain .*@workflow"):
        await client.trigger(plain, 1)

    @workflow("spawns-a-function")
    async def spawns_a_function(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(plain, 1)

    async with worker([spawns_a_function]):
        assert (await error_of(client, spawns_a_function)).startswith("InvalidDeclaration: what is started takes")


async def test_a_key_of_a_run_is_text(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"^the key of a run is a str, not int: 7$"):
        await client.trigger(echo, 1, key=7)
    with pytest.raises(InvalidInput, match=r"a function of the input is for spawn_workflows"):
        await client.trigger(echo, 1, key=str)


async def test_connecting_is_entered() -> None:
    """Or awaited (see `test_12_connecting.py`), and not used without."""
    with pytest.raises(AttributeError, match=r"^connect\(\) has no 'trigger' before it is entered: write `async with"):
        _ = jetflow.connect().trigger


async def test_where_nothing_is_declared_it_may_be_the_wrong_place(client: Client) -> None:
    with pytest.raises(UnknownWorkflow, match=r"'echo' is declared .*, nor is any other: is it the right server and"):
        await client.trigger("echo", 1)


async def test_a_run_is_named_by_its_id(client: Client) -> None:
    """And not by the object that was got for it."""
    run = await client.trigger(echo, 1)
    for using in (client.describe, client.cancel, client.delete, client.run):
        with pytest.raises(InvalidInput, match=r"^a run is named by its id, a str, and not by <Run \w+>: give its id"):
            await using(run)


async def test_a_type_is_no_value_of_it(client: Client) -> None:
    with pytest.raises(InvalidInput, match="the type Retry itself cannot be written as JSON: is a value of it meant"):
        await client.trigger(echo, Retry)


async def test_what_happens_once_is_given_as_a_function(client: Client, worker: Callable[..., Worker]) -> None:
    @workflow("called-already", retry=ONCE)
    async def called_already(_: None, ctx: Context) -> int:
        return await ctx.once("number", len("abc"))

    async with worker([called_already]):
        error = await error_of(client, called_already)
    assert error == (
        "InvalidInput: once('number') calls a function, and int is none: write ctx.once('number', function, argument), "
        "and not function(argument)"
    )


def test_a_worker_runs_workflows_of_different_names() -> None:
    with pytest.raises(InvalidDeclaration, match=r"^two workflows are named 'echo': a worker runs no two of one name$"):
        Worker([echo, workflow("echo")(plain)])
    with pytest.raises(InvalidDeclaration, match=r"^a worker runs at least one workflow: "):
        Worker([])


def test_numbers_are_numbers() -> None:
    """Not the text of an environment variable."""
    with pytest.raises(TypeError, match=r"^Retry\(attempts='3'\): a number$"):
        Retry(attempts="3")
    with pytest.raises(TypeError, match=r"^WorkerOptions\(slots='20'\): a number$"):
        Worker([echo], slots="20")
    with pytest.raises(TypeError, match=r"^WorkerOptions\(grace='1'\): a number$"):
        WorkerOptions(grace="1")


async def test_a_context_that_outlives_its_step_says_so(client: Client, worker: Callable[..., Worker]) -> None:
    """What it spawned would be in no join: its run would end, and nobody would wait for it."""
    told: asyncio.Future[Context] = asyncio.get_running_loop().create_future()

    @workflow("hasty")
    async def hasty(number: int, ctx: Context) -> int:
        child = await ctx.spawn_workflow(echo, number)
        told.set_result(ctx)
        return await child.result()

    async with worker([hasty, echo]):
        run = await client.trigger(hasty, 1)
        assert await run.result(PATIENCE) == 1
        ctx = await told
        for using in (
            ctx.spawn_workflow(echo, 2),
            ctx.spawn_workflows(echo, [2]),
            ctx.join(),
            ctx.once("now", lambda: 1),
        ):
            with pytest.raises(StepEnded, match=f"step 'run' of run {run.id} has ended"):
                await using
    assert (await client.describe(run.id)).totals.spawned == 1
