"""The kit in Python: the workflows that the cases ask for, on a jetflow worker, and a client on standard input.

``python -m conformance -- python -m conformance.kit`` tests jetflow itself. What each workflow does is told in
``conformance/README.md``, for kits in other languages; this one is the reference.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import msgspec

from jetflow import (
    Client,
    Context,
    Event,
    JoinPolicy,
    Limit,
    Retry,
    RetryAfter,
    RunFailed,
    WaitTimeout,
    Worker,
    WorkerOptions,
    Workflow,
    any_of,
    connect,
    output_of,
    sleep,
    workflow,
)
from jetflow.errors import JetflowError

PREFIX = os.environ.get("PREFIX", "")
AT_ONCE = Retry(attempts=1)
UNKNOWN_STEP_GRACE = 3.0
SHORT = Retry(attempts=3, initial=0.4, multiplier=1, jitter=0)


# --- one step


@workflow(f"{PREFIX}square", retry=SHORT)
async def square(number: int) -> int:
    return number * number


@workflow(f"{PREFIX}echo", retry=SHORT)
async def echo(value: Any) -> Any:
    return value


@workflow(f"{PREFIX}leveled", retry=SHORT, levels=("urgent", "normal", "low"), default_level="normal")
async def leveled(number: int, ctx: Context) -> int:
    if ctx.attempt <= number:
        raise ValueError(f"attempt {ctx.attempt} of {number} fails")
    return ctx.attempt


@workflow(f"{PREFIX}flaky", retry=SHORT)
async def flaky(number: int, ctx: Context) -> int:
    if ctx.attempt < 3:
        raise ValueError(f"attempt {ctx.attempt} of {number} fails")
    return ctx.attempt


@workflow(f"{PREFIX}fail", retry=AT_ONCE)
async def fail(number: int) -> int:
    if number % 10 == 3:
        raise ValueError(f"{number} ends in 3")
    return number


class Again(msgspec.Struct):
    seconds: float
    fails: int = 1


@workflow(f"{PREFIX}again", retry=Retry(attempts=5))
async def again(given: Again, ctx: Context) -> int:
    if ctx.attempt <= given.fails:
        raise RetryAfter(given.seconds, f"attempt {ctx.attempt} fails")
    return ctx.attempt


@workflow(f"{PREFIX}slow", retry=SHORT)
async def slow(seconds: float, ctx: Context) -> int:
    await asyncio.sleep(seconds)
    return ctx.attempt


class Big(msgspec.Struct):
    text: str
    n: int = 1


@workflow(f"{PREFIX}big", retry=AT_ONCE)
async def big(given: Big) -> str:
    return given.text * given.n


# --- children


class Spawn(msgspec.Struct):
    """``key`` is null (none), ``each`` (the input's JSON) or any other text (the same for all)."""

    child: str
    inputs: list[Any]
    key: str | None = None


async def spawn(ctx: Context, child: str, inputs: list[Any], key: str | None = None) -> Any:
    if key is None:
        return await ctx.spawn_workflows(child, inputs)
    return await ctx.spawn_workflows(child, inputs, key=lambda value: json.dumps(value) if key == "each" else key)


@workflow(f"{PREFIX}limited", limits=[Limit("conf", max=1)], retry=AT_ONCE)
async def limited(given: Spawn, ctx: Context) -> int:
    await spawn(ctx, given.child, given.inputs, given.key)
    return len(given.inputs)


async def outputs(ctx: Context, step: str) -> list[Any]:
    return [child.output async for child in ctx.children(step)]


fan: Workflow[Spawn, Any] = Workflow(f"{PREFIX}fan", retry=SHORT)


@fan.step(name="scatter")
async def fan_scatter(given: Spawn, ctx: Context) -> None:
    await spawn(ctx, given.child, given.inputs, given.key)


@fan.step(name="sum", after="scatter")
async def fan_sum(given: Spawn, ctx: Context) -> Any:
    return sum(await outputs(ctx, "scatter"))


class Park(msgspec.Struct):
    child: str
    inputs: list[Any]
    then: list[Any] = []


@workflow(f"{PREFIX}park", retry=SHORT)
async def park(given: Park, ctx: Context) -> list[Any]:
    results = await ctx.join(await spawn(ctx, given.child, given.inputs))
    if given.then:
        results += await ctx.join(await spawn(ctx, given.child, given.then))
    return results


class Bounded(msgspec.Struct):
    child: str
    inputs: list[Any]
    seconds: float


@workflow(f"{PREFIX}bounded", retry=SHORT)
async def bounded(given: Bounded, ctx: Context) -> int:
    children = await spawn(ctx, given.child, given.inputs)
    joined = await ctx.join(children, policy=JoinPolicy.collect().within(given.seconds))
    return len(joined.succeeded)


class Late(msgspec.Struct):
    child: str
    inputs: list[Any]
    again: list[Any]
    fails: int = 1


def late_workflow(name: str, lose: Any) -> Workflow[Late, Any]:
    """Return a workflow that is lost after it has spawned ``inputs``, and spawns ``again`` the next time."""
    made: Workflow[Late, Any] = Workflow(name, retry=Retry(attempts=2, initial=0.2, jitter=0))

    @made.step(name="scatter")
    async def scatter(given: Late, ctx: Context) -> None:
        await spawn(ctx, given.child, given.inputs if ctx.attempt == 1 else given.again)
        if ctx.attempt <= given.fails:
            lose()

    @made.step(name="sum", after="scatter")
    async def total(given: Late, ctx: Context) -> Any:
        return sum(await outputs(ctx, "scatter"))

    return made


def _raise() -> None:
    raise ValueError("lost after spawning")


late = late_workflow(f"{PREFIX}late", _raise)
crash = late_workflow(f"{PREFIX}crash", lambda: os._exit(1))


borrow: Workflow[Spawn, Any] = Workflow(f"{PREFIX}borrow", retry=SHORT)


@borrow.step(name="one")
async def borrow_one(given: Spawn, ctx: Context) -> None:
    await spawn(ctx, given.child, given.inputs, given.key)


@borrow.step(name="two")
async def borrow_two(given: Spawn, ctx: Context) -> None:
    await spawn(ctx, given.child, given.inputs, given.key)


@borrow.step(name="end", after=["one", "two"])
async def borrow_end(given: Spawn, ctx: Context) -> list[Any]:
    return [await outputs(ctx, "one"), await outputs(ctx, "two")]


@workflow(f"{PREFIX}nest", retry=SHORT)
async def nest(depth: int, ctx: Context) -> int:
    if depth == 0:
        return 0
    (below,) = await ctx.join(await spawn(ctx, f"{PREFIX}nest", [depth - 1]))
    return below + 1


class Detach(msgspec.Struct):
    child: str
    input: Any
    key: str | None = None


@workflow(f"{PREFIX}detach", retry=SHORT)
async def detach(given: Detach, ctx: Context) -> str:
    return (await ctx.spawn_workflow(given.child, given.input, key=given.key, detached=True)).id


# --- graphs


diamond: Workflow[int, Any] = Workflow(f"{PREFIX}diamond", retry=SHORT)


@diamond.step(name="left")
async def diamond_left(number: int) -> int:
    return number + 1


@diamond.step(name="right")
async def diamond_right(number: int) -> int:
    return number + 2


@diamond.step(name="sum", after=["left", "right"])
async def diamond_sum(number: int, ctx: Context) -> int:
    return ctx.output("left") + ctx.output("right")


@diamond.step(name="text", after=["left", "right"])
async def diamond_text(number: int) -> str:
    return "x" * number


class Steps(msgspec.Struct):
    """Which steps fail, and how many seconds steps take."""

    fail: list[str] = []
    seconds: dict[str, float] = {}


async def undo(given: Steps, ctx: Context) -> list[str]:
    return [str(error.step) for error in ctx.errors]


def steps_workflow(name: str, *, fail_fast: bool = False) -> Workflow[Steps, Any]:
    """Return a workflow of five steps: a and b begin; c comes after a, d after a and b, e after c."""
    made: Workflow[Steps, Any] = Workflow(name, retry=AT_ONCE, fail_fast=fail_fast)
    for step, after in (("a", ()), ("b", ()), ("c", ("a",)), ("d", ("a", "b")), ("e", ("c",))):
        made.step(name=step, after=after)(_step(step))
    if fail_fast:
        made.on_failure(undo)
    return made


def _step(step: str) -> Any:
    async def run(given: Steps) -> str:
        await asyncio.sleep(given.seconds.get(step, 0.0))
        if step in given.fail:
            raise ValueError(f"{step} fails")
        return step

    return run


steps = steps_workflow(f"{PREFIX}steps")
fast = steps_workflow(f"{PREFIX}fast", fail_fast=True)


saga: Workflow[Steps, Any] = Workflow(f"{PREFIX}saga", retry=SHORT)
saga.step(name="one", retry=AT_ONCE)(_step("one"))
saga.step(name="two", retry=AT_ONCE)(_step("two"))
saga.on_failure(undo)


# --- events and conditions


class Paid(msgspec.Struct):
    amount: int


paid: Workflow[Paid, int] = Workflow(f"{PREFIX}paid", retry=SHORT)
paid.on("conf.paid", if_=[["amount", ">", 10]])


@paid.step(name="run")
async def paid_run(given: Paid) -> int:
    return given.amount


class Wanted(msgspec.Struct):
    """Which events are waited for: of a topic, with a key, an amount above one; how many, and for how many seconds."""

    topic: str
    key: str | None = None
    above: float | None = None
    seconds: float | None = None
    n: int = 1


@workflow(f"{PREFIX}wait", retry=SHORT)
async def wait(given: Wanted, ctx: Context) -> list[Any]:
    event = Event(given.topic, key=given.key, if_=None if given.above is None else [["amount", ">", given.above]])
    came: list[Any] = []
    for _ in range(given.n):
        try:
            came.append((await ctx.wait_for(event, timeout=given.seconds)).payload)
        except WaitTimeout:
            came.append(None)
    return came


class Choice(msgspec.Struct):
    number: int
    key: str
    seconds: float = 60.0


choose: Workflow[Choice, Any] = Workflow(f"{PREFIX}choose", retry=SHORT)


@choose.step(name="first")
async def choose_first(given: Choice) -> int:
    return given.number


@choose.step(
    name="maybe",
    after="first",
    skip_if=output_of("first", lambda number: 1 / number < 0),
    cancel_if=lambda given: Event("conf.stop", key=given.key),
    wait_for=lambda given: any_of(Event("conf.go", key=given.key), sleep(given.seconds)),
)
async def choose_maybe(given: Choice) -> str:
    return "ran"


@choose.step(name="behind", after="maybe")
async def choose_behind(given: Choice) -> str:
    return "behind"


@choose.step(name="last", after=["first", "maybe"])
async def choose_last(given: Choice, ctx: Context) -> bool:
    return ctx.was_skipped("maybe")


async def cheer(given: Steps, ctx: Context) -> list[Any]:
    return [ctx.output("one"), ctx.output("two")]


cheered: Workflow[Steps, Any] = Workflow(f"{PREFIX}cheered", retry=AT_ONCE)
"""Of level *full* alone: it runs a step when a run has succeeded."""
cheered.step(name="one")(_step("one"))
cheered.step(name="two", after="one")(_step("two"))
cheered.on_success(cheer)


WORKFLOWS: list[Workflow[Any, Any]] = [
    square,
    echo,
    leveled,
    limited,
    flaky,
    fail,
    again,
    slow,
    big,
    fan,
    park,
    bounded,
    late,
    crash,
    borrow,
    nest,
    detach,
    diamond,
    steps,
    fast,
    saga,
    paid,
    wait,
    choose,
    cheered,
]


# --- the client


async def serve(client: Client) -> None:
    """Do what lines on standard input ask for, each by itself, until it ends."""
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    doing: set[asyncio.Task[None]] = set()
    async for line in reader:
        task = asyncio.create_task(answer(client, json.loads(line)))
        doing.add(task)
        task.add_done_callback(doing.discard)
    signal.raise_signal(signal.SIGTERM)  # who has started this is gone


async def answer(client: Client, command: dict[str, Any]) -> None:
    """Do one command, and print its answer."""
    try:
        said = await do(client, command)
    except JetflowError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps({"id": command["id"], **said}), flush=True)


async def do(client: Client, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command, and return its answer."""
    match command["do"]:
        case "trigger":
            run = await client.trigger(
                command["workflow"], command["input"], key=command.get("key"), metadata=command.get("metadata")
            )
            return {"run": run.id}
        case "result":
            try:
                return {"status": "succeeded", "output": await client.run(command["run"]).result(timeout=20)}
            except RunFailed as error:
                return {"status": error.status}
        case "cancel":
            return {"cancelled": await client.cancel(command["run"], tree=command.get("tree", True))}
        case "delete":
            await client.delete(command["run"])
            return {}
        case unknown:
            return {"error": "UnknownCommand", "message": str(unknown)}


async def main() -> None:
    """Run the worker and the client until SIGTERM."""
    server, namespace = os.environ["NATS_URL"], os.environ.get("JETFLOW_NAMESPACE", "default")
    options = WorkerOptions(
        slots=int(os.environ.get("SLOTS", "100")),
        sweep_every=float(os.environ.get("SWEEP_EVERY", "30")),
        park_after=0,
        grace=5,
        unknown_step_grace=UNKNOWN_STEP_GRACE,
    )
    worker = Worker(WORKFLOWS, server=server, namespace=namespace, options=options)
    async with connect(server, namespace=namespace) as client:
        serving = asyncio.create_task(serve(client))
        await worker.start()
        print("ready", flush=True)
        await worker.run()
        serving.cancel()


if __name__ == "__main__":
    asyncio.run(main())
