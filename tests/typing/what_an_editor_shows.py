"""What a user sees in an editor, checked by pyright (``make lint``); pytest does not collect it.

Lines that must be errors carry a ``pyright: ignore``; one that is not needed is an error itself.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCoroutine=false

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Annotated, Any, assert_type

import msgspec

import jetflow.sync
from jetflow import (
    Child,
    ChildFailed,
    Children,
    Client,
    Context,
    Depends,
    Retry,
    Run,
    Step,
    Streamed,
    Worker,
    Workflow,
    connect,
    workflow,
)


class Tree(msgspec.Struct):
    root: str


class Source(msgspec.Struct):
    path: str


class Report(msgspec.Struct):
    total: int


# --- declaring


@workflow("index-file", retry=Retry(attempts=5), timeout=30, max_running=4)
async def index_file(source: Source) -> dict[str, int]:
    return {source.path: 1}


@workflow("count")
def count(source: Source, ctx: Context) -> int:
    return ctx.attempt


@workflow("answer")
async def answer() -> int:
    return 42


@workflow("compute", runs_in="process", timeout=60)
def compute(source: Source, ctx: Context) -> int:
    return ctx.block_on(ctx.join(ctx.block_on(ctx.spawn_workflows(count, [source]))))[0]


def processes_are_named() -> None:
    computed: Workflow[Source, int] = compute
    workflow("w", runs_in="thread")  # pyright: ignore[reportArgumentType]
    index_tree.step(runs_in="thread")  # pyright: ignore[reportArgumentType]
    assert_type(compute(Source("a"), ctx_of_test()), int)
    _ = computed


def ctx_of_test() -> Context: ...


index_tree = Workflow("index-tree", input=Tree, output=Report)
untyped = Workflow("untyped")
only_input = Workflow("only-input", input=Tree)
only_output = Workflow("only-output", output=Report)

assert_type(index_tree, Workflow[Tree, Report])
assert_type(untyped, Workflow[Any, Any])
assert_type(only_input, Workflow[Tree, Any])
assert_type(only_output, Workflow[Any, Report])


@index_tree.step
async def scan(tree: Tree, ctx: Context) -> int:
    return len(tree.root)


@index_tree.step
def check(tree: Tree) -> str:
    return tree.root


@index_tree.step(after=[scan, check, "by-name"], retry=Retry(), timeout=1.5, max_running=1)
async def report(tree: Tree, ctx: Context) -> Report:
    assert_type(ctx.output(scan), int)
    assert_type(ctx.output(check), str)
    assert_type(ctx.output(crunch), dict[str, int])
    assert_type(ctx.output("scan"), Any)
    return Report(ctx.output(scan))


@index_tree.step(runs_in="process")
def crunch(tree: Tree) -> dict[str, int]:
    return {tree.root: 1}


@index_tree.step
def without_input() -> int:
    return 1


@index_tree.step
async def only_context(ctx: Context) -> str:
    return ctx.run_id


@index_tree.step(after=scan)
async def context_first(ctx: Context, tree: Tree) -> str:
    return ctx.run_id + tree.root


@index_tree.step
def anything(value: object, ctx: Context, extra: int = 1) -> int:
    return extra


class Scaler:
    async def __call__(self, number: int) -> int:
        return number

    def method(self, number: int) -> str:
        return str(number)


numbers = Workflow("numbers", input=int)
scaled = numbers.step(name="scaled")(Scaler())
by_method = numbers.step(Scaler().method)


def steps_take_the_input_of_their_workflow() -> None:
    one: Step[..., Any, int] = without_input
    two: Step[..., Any, str] = only_context
    three: Step[..., Any, str] = context_first
    four: Step[..., Any, int] = scaled
    five: Step[..., Any, str] = by_method
    _ = one, two, three, four, five

    @index_tree.step  # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    def other(source: Source) -> int:
        return len(source.path)

    @index_tree.step(after=scan)  # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator]
    async def another(text: str, ctx: Context) -> int:
        return len(text)

    _ = other, another


def declarations_are_typed() -> None:
    a_step: Step[..., Any, int] = scan
    another: Step[..., Any, str] = check
    a_report: Step[..., Any, Report] = report
    wrong: Step[..., Any, str] = scan  # pyright: ignore[reportAssignmentType]
    a_workflow: Workflow[Source, dict[str, int]] = index_file
    a_count: Workflow[Source, int] = count
    wrong_workflow: Workflow[Tree, int] = count  # pyright: ignore[reportAssignmentType]
    _ = a_step, another, a_report, wrong, a_workflow, a_count, wrong_workflow


# --- calling what was declared just runs it


async def called(ctx: Context) -> None:
    assert_type(index_file(Source("a")), Coroutine[Any, Any, dict[str, int]])
    assert_type(await index_file(Source("a")), dict[str, int])
    assert_type(count(Source("a"), ctx), int)
    assert_type(await scan(Tree("a"), ctx), int)
    assert_type(check(Tree("a")), str)
    index_file(Tree("a"))  # pyright: ignore[reportArgumentType]
    count(Source("a"))  # pyright: ignore[reportCallIssue]
    check("a")  # pyright: ignore[reportArgumentType]


# --- spawning and joining


async def sources() -> AsyncIterator[Source]:
    yield Source("a")


async def spawned(ctx: Context) -> None:
    child = await ctx.spawn_workflow(index_file, Source("a"), key="a")
    assert_type(child, Child[dict[str, int]])
    assert_type(child.id, str)
    assert_type(await child.result(), dict[str, int])
    assert_type(await ctx.spawn_workflow(index_tree, Tree("/")), Child[Report])
    assert_type(await ctx.spawn_workflow(untyped), Child[Any])
    assert_type(await ctx.spawn_workflow(only_output, {"any": "input"}), Child[Report])
    assert_type(await ctx.spawn_workflow("by-name", {"a": 1}), Child[Any])
    await ctx.spawn_workflow(index_file)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.spawn_workflow(index_file, Tree("/"))  # pyright: ignore[reportCallIssue, reportArgumentType]

    children = await ctx.spawn_workflows(index_file, [Source("a")], key=lambda source: source.path)
    assert_type(children, Children[dict[str, int]])
    assert_type(children[0], Child[dict[str, int]])
    assert_type(children[1:], Children[dict[str, int]])
    assert_type(len(children), int)
    assert_type(await ctx.spawn_workflows(count, sources()), Children[int])
    assert_type(await ctx.spawn_stream(count, sources(), window=10), Streamed)
    assert_type(await ctx.reduce(count, sources(), lambda total, one: f"{total}{one:d}", "", window=10), str)
    assert_type(await ctx.spawn_workflows("by-name", (n for n in range(3))), Children[Any])
    await ctx.spawn_workflows(index_file, [Source("a")], key=lambda source: source.other)  # pyright: ignore[reportUnknownLambdaType, reportAttributeAccessIssue, reportUnknownMemberType]
    await ctx.spawn_workflows(index_file, ["a"])  # pyright: ignore[reportCallIssue, reportArgumentType]

    for one in children:
        assert_type(one, Child[dict[str, int]])


async def joined(ctx: Context, children: Children[int], some: list[Child[int]]) -> None:
    assert_type(await ctx.join(children), list[int])
    assert_type(await ctx.join(some), list[int])
    assert_type(await ctx.join(children[:2]), list[int])
    assert_type(await ctx.join(), list[Any])
    assert_type(await ctx.join(children, return_exceptions=True), list[int | ChildFailed])
    async for child in ctx.as_completed(children):
        assert_type(child, Child[int])
        assert_type(await child.result(), int)


async def read_later(ctx: Context) -> None:
    async for child in ctx.children(scan, index_file):
        assert_type(child.output, dict[str, int])
        assert_type(child.key, str | None)
    for child in await ctx.children("scan"):
        assert_type(child.output, Any)


def in_a_thread(ctx: Context) -> None:
    child = ctx.block_on(ctx.spawn_workflow(count, Source("a")))
    assert_type(child, Child[int])
    assert_type(ctx.block_on(child.result()), int)


def seen(ctx: Context) -> None:
    assert_type(ctx.run_id, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.idempotency_key, str)
    assert_type(ctx.metadata, Mapping[str, Any])


# --- from outside


async def triggered() -> None:
    async with connect("nats://localhost:4222", namespace="n") as client:
        assert_type(client, Client)
        run = await client.trigger(index_tree, Tree("/"), key="nightly", metadata={"by": "me"})
        assert_type(run, Run[Report])
        assert_type(run.id, str)
        assert_type(await run.result(timeout=5), Report)
        assert_type(await client.trigger(index_file, Source("a")), Run[dict[str, int]])
        assert_type(await client.trigger("index-tree", {"root": "/"}), Run[Any])
        await client.trigger(index_tree)  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert_type(await client.trigger(answer), Run[int])
        assert_type(await client.trigger(untyped), Run[Any])
        await client.trigger(index_tree, Source("a"))  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert_type(client.run(run.id), Run[Any])
        assert_type(client.run(run.id, index_tree), Run[Report])
        trace = await client.describe(run.id)
        assert_type(trace.steps[0].name, str)


async def worked() -> None:
    async with Worker([index_tree, index_file, count], slots=10) as worker:
        assert_type(worker, Worker)
    await Worker(index_tree, namespace="n").run()


# --- what steps share


class Pool: ...


def pool() -> Pool:
    return Pool()


@workflow("shares")
async def shares(source: Source, ctx: Context, pool: Annotated[Pool, Depends(pool)]) -> int:
    return len(source.path)


def what_steps_share_is_typed() -> None:
    shared: Workflow[Source, int] = shares
    assert_type(shares(Source("a"), ctx_of_test(), Pool()), Coroutine[Any, Any, int])
    shares(Source("a"), ctx_of_test())  # pyright: ignore[reportCallIssue]
    shares(Source("a"), ctx_of_test(), 5)  # pyright: ignore[reportArgumentType]
    Depends(5)  # pyright: ignore[reportArgumentType]
    Depends(pool, per="run")  # pyright: ignore[reportArgumentType]
    Worker([shares], lifespan=lambda: 5)  # pyright: ignore[reportArgumentType]
    _ = shared


# --- plain programs


def plain_programs_are_typed(plain: jetflow.sync.Client) -> None:
    assert_type(plain.trigger(index_file, Source("a")), jetflow.sync.Run[dict[str, int]])
    assert_type(plain.trigger(index_file, Source("a")).result(), dict[str, int])
    assert_type(plain.trigger("by-name", 1).result(), Any)
    assert_type(plain.trigger(answer).result(5), int)
    assert_type(plain.trigger_many(count, [Source("a")], key=lambda source: source.path), list[jetflow.sync.Run[int]])
    assert_type(plain.run("id", count).result(), int)
    assert_type([seen.rate for seen in plain.watch("id")], list[float | None])
    plain.trigger(index_file)  # pyright: ignore[reportCallIssue, reportArgumentType]
    plain.trigger(index_file, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    plain.trigger_many(count, ["a"])  # pyright: ignore[reportCallIssue, reportArgumentType]
    with jetflow.sync.connect() as client:
        assert_type(client, jetflow.sync.Client)


async def many_runs_are_typed(client: Client) -> None:
    runs = await client.trigger_many(count, [Source("a")], key=lambda source: source.path)
    assert_type(runs, list[Run[int]])
    assert_type(runs[0].created, bool | None)
