"""Spawning is idempotent: a child's id follows from its parent run, its workflow, and its key or input."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from patience import PATIENCE, until

from jetflow import ChildFailed, Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import InvalidInput, KeyConflict

AT_ONCE = Retry(attempts=3, initial=0)


class Source(msgspec.Struct):
    path: str
    size: int = 0


async def has_parked(client: Client, run_id: str) -> bool:
    return any(step.status == "waiting" for step in (await client.describe(run_id)).steps)


class Ran:
    """A child workflow that notes what it was run with."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        flow = Workflow[Source, str]("index-file", input=Source, output=str)

        @flow.step
        async def index(source: Source) -> str:
            self.paths.append(source.path)
            return source.path.upper()

        self.flow = flow


async def test_equal_inputs_are_one_child(client: Client, worker: Callable[..., Worker]) -> None:
    """Without a key the input is the identity: the digest of its canonical JSON."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> list[str]:
        children = await ctx.spawn_workflows(ran.flow, [Source("a"), Source("b"), Source("a")])
        assert children[0].id == children[2].id != children[1].id
        single = await ctx.spawn_workflow(ran.flow, Source("b"))
        assert single.id == children[1].id
        return await ctx.join(children)

    async with worker([tree, ran.flow]):
        assert await (await client.trigger(tree)).result(PATIENCE) == ["A", "B", "A"]
    assert sorted(ran.paths) == ["a", "b"]


async def test_equal_means_equal_as_json(client: Client, worker: Callable[..., Worker]) -> None:
    """The order of keys, fields left at their default, or a dict in place of a Struct make no difference."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> int:
        spellings = [Source("a", 0), {"path": "a"}, {"size": 0, "path": "a"}, {"path": "a", "size": 0}]
        children = [await ctx.spawn_workflow(ran.flow, source) for source in spellings]
        return len({child.id for child in children})

    async with worker([tree, ran.flow]):
        assert await (await client.trigger(tree)).result(PATIENCE) == 1
    assert ran.paths == ["a"]


@pytest.mark.parametrize("keyed", [False, True], ids=["by input", "keyed"])
async def test_a_new_field_with_a_default_changes_no_child(
    client: Client, worker: Callable[..., Worker], keyed: bool
) -> None:
    """A field is added between a parent's first turn and its second: the children are those that it has spawned."""
    ran: list[str] = []
    spawned = asyncio.Event()

    def edition(kind: type[Any]) -> tuple[Workflow[Any, Any], Workflow[Any, Any]]:
        @workflow("child")
        async def child(job: kind) -> str:  # pyright: ignore[reportInvalidTypeForm]
            ran.append(job.path)
            return job.path

        @workflow("parent")
        async def parent(_: None, ctx: Context) -> list[str]:
            jobs = [kind(path=path) for path in "abc"]
            children = await ctx.spawn_workflows(child, jobs, key=(lambda job: job.path) if keyed else None)
            spawned.set()
            return await ctx.join(children)

        return parent, child

    before, _ = edition(msgspec.defstruct("Job", [("path", str)]))
    async with worker([before], options=WorkerOptions(park_after=0)):
        run = await client.trigger(before)
        await spawned.wait()
        await until(lambda: has_parked(client, run.id))
    after = edition(msgspec.defstruct("Job", [("path", str), ("priority", int, 0), ("ratio", float, 1)]))
    async with worker(after):
        assert await run.result(PATIENCE) == ["a", "b", "c"]
    assert sorted(ran) == ["a", "b", "c"]
    assert len((await client.describe(run.id)).children) == 3


async def test_a_new_field_with_a_default_is_no_conflict(client: Client, worker: Callable[..., Worker]) -> None:
    """Nor does it change what a key of a root run stands for: by the older type, the newer one, or by name."""

    def edition(kind: type[Any]) -> Workflow[Any, Any]:
        flow = Workflow("nightly", input=kind)

        @flow.step
        async def run(job: Any) -> str:
            return job["day"]

        return flow

    older = edition(msgspec.defstruct("Night", [("day", str)]))
    newer = edition(msgspec.defstruct("Night", [("day", str), ("full", bool, False), ("ratio", float, 0.5)]))
    async with worker([newer]):
        runs = [
            await client.trigger(workflow, input, key="monday")
            for workflow, input in [
                (older, {"day": "mon"}),
                (newer, {"day": "mon"}),
                ("nightly", {"day": "mon"}),
                ("nightly", {"day": "mon", "full": False, "ratio": 0.5}),
            ]
        ]
        assert len({run.id for run in runs}) == 1
        assert await runs[0].result(PATIENCE) == "mon"
        with pytest.raises(KeyConflict):
            await client.trigger("nightly", {"day": "mon", "full": True}, key="monday")


async def test_one_number_is_one_input(client: Client, worker: Callable[..., Worker]) -> None:
    """Of a field that is a float: how a number is written makes no difference, by object and by name."""

    class Ratio(msgspec.Struct):
        x: float

    @workflow("child")
    async def child(ratio: Ratio) -> float:
        return ratio.x

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[float]:
        ratios: list[Any] = [Ratio(1), Ratio(1.0), {"x": 1}]
        children = [await ctx.spawn_workflow(child, ratio) for ratio in ratios]
        by_name = [await ctx.spawn_workflow("child", {"x": x}) for x in (1, 1.0)]
        assert len({one.id for one in [*children, *by_name]}) == 1
        return await ctx.join(children)

    async with worker([parent, child]):
        assert await (await client.trigger(parent)).result(PATIENCE) == [1.0, 1.0, 1.0]


async def test_what_json_cannot_hold_is_refused_by_name(client: Client, worker: Callable[..., Worker]) -> None:
    """NaN would become null, and half of a surrogate pair a replacement character: neither travels."""
    ran = Ran()
    async with worker([ran.flow]):
        for value, message in (
            (float("nan"), r"nan cannot be written as JSON - at `\$\.path`"),
            ("\ud800", r"holds surrogates, .* - at `\$\.path`"),
        ):
            flows: list[Any] = [ran.flow, "index-file"]
            for flow in flows:
                with pytest.raises(InvalidInput, match=rf"^input of workflow 'index-file': .*{message}"):
                    await client.trigger(flow, {"path": value})
        with pytest.raises(InvalidInput, match=r"the key .* cannot be written as UTF-8"):
            await client.trigger(ran.flow, Source("a"), key="\ud800")
    assert ran.paths == []


async def test_equal_keys_are_one_child(client: Client, worker: Callable[..., Worker]) -> None:
    """A key names the child; spawning it again attaches to it."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> list[str]:
        one = await ctx.spawn_workflow(ran.flow, Source("a"), key="the one")
        bulk = await ctx.spawn_workflows(ran.flow, [Source("a")], key=lambda source: "the one")
        assert one.id == bulk[0].id
        return await ctx.join()

    async with worker([tree, ran.flow]):
        assert await (await client.trigger(tree)).result(PATIENCE) == ["A", "A"]
    assert ran.paths == ["a"]


async def test_a_key_overrides_the_input(client: Client, worker: Callable[..., Worker]) -> None:
    """Equal inputs under different keys are different children; so are a keyed and an unkeyed one."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> int:
        children = [await ctx.spawn_workflow(ran.flow, Source("a"), key=key) for key in ("one", "two", None)]
        return len({child.id for child in children})

    async with worker([tree, ran.flow]):
        assert await (await client.trigger(tree)).result(PATIENCE) == 3
    assert ran.paths == ["a", "a", "a"]


@pytest.mark.parametrize("bulk", [False, True], ids=["one by one", "bulk"])
async def test_a_key_with_another_input_is_a_conflict(
    client: Client, worker: Callable[..., Worker], bulk: bool
) -> None:
    """A key never silently stands for another input. The error shows both digests; the first child stands."""
    ran = Ran()
    errors: list[KeyConflict] = []

    async def spawn_again(ctx: Context) -> None:
        if bulk:
            await ctx.spawn_workflows(ran.flow, [Source("b")], key=lambda source: "k")
        else:
            await ctx.spawn_workflow(ran.flow, Source("b"), key="k")

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> str:
        first = await ctx.spawn_workflow(ran.flow, Source("a"), key="k")
        with pytest.raises(KeyConflict) as caught:
            await spawn_again(ctx)
        errors.append(caught.value)
        assert caught.value.run_id == first.id
        return await first.result()

    async with worker([tree, ran.flow]):
        assert await (await client.trigger(tree)).result(PATIENCE) == "A"
    assert ran.paths == ["a"]
    [conflict] = errors
    assert conflict.stored_digest != conflict.given_digest
    assert conflict.stored_digest in str(conflict)
    assert conflict.given_digest in str(conflict)


async def test_a_conflict_that_is_not_caught_fails_the_run_at_once(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """Another attempt would only repeat it, so none is made; the run's error shows both digests, too."""
    ran = Ran()
    attempts: list[int] = []

    @workflow("tree", retry=AT_ONCE)
    async def tree(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await ctx.spawn_workflows(ran.flow, [Source("a"), Source("b")], key=lambda source: "same")

    async with worker([tree, ran.flow]):
        with pytest.raises(RunFailed, match=r"stored digest 2-\w+, given digest 2-\w+") as caught:
            await (await client.trigger(tree)).result(PATIENCE)
    assert caught.value.error_type == "KeyConflict"
    assert attempts == [1]


async def test_children_of_different_parents_are_different(client: Client, worker: Callable[..., Worker]) -> None:
    """The parent run is part of the identity: two runs never share a child."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> str:
        return (await ctx.spawn_workflow(ran.flow, Source("a"), key="k")).id

    async with worker([tree, ran.flow]):
        ids = [await (await client.trigger(tree)).result(PATIENCE) for _ in range(2)]
    assert len(set(ids)) == 2
    assert ran.paths == ["a", "a"]


@pytest.mark.parametrize("state", ["queued", "running", "finished"])
async def test_spawning_again_attaches_to_a_child_in_any_state(
    client: Client, worker: Callable[..., Worker], state: str
) -> None:
    """Whether the child waits in the queue, runs, or has ended: there is one child, and one output."""
    began, may_end, attached = asyncio.Event(), asyncio.Event(), asyncio.Event()
    runs = 0

    @workflow("child")
    async def child(number: int) -> int:
        nonlocal runs
        runs += 1
        began.set()
        await may_end.wait()
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        first = await ctx.spawn_workflow(child, 7)
        if state != "queued":
            await began.wait()
        if state == "finished":
            may_end.set()
            await first.result()
        again = await ctx.spawn_workflow(child, 7)
        bulk = await ctx.spawn_workflows(child, [7])
        assert first.id == again.id == bulk[0].id
        attached.set()
        may_end.set()
        return [await again.result(), *await ctx.join(bulk)]

    async with worker([parent]):
        run = await client.trigger(parent)
        if state == "queued":
            await asyncio.wait_for(attached.wait(), PATIENCE)
        async with worker([child]):
            assert await run.result(PATIENCE) == [7, 7]
    assert runs == 1


@pytest.mark.parametrize("bulk", [False, True], ids=["one by one", "bulk"])
async def test_a_retried_parent_spawns_each_child_once(
    client: Client, worker: Callable[..., Worker], bulk: bool
) -> None:
    """The first attempt fails after 50 of 100 children: the second attaches to these, and spawns the others."""
    ran: Counter[int] = Counter()

    @workflow("child")
    async def child(number: int) -> int:
        ran[number] += 1
        return number

    @workflow("parent", retry=AT_ONCE)
    async def parent(count: int, ctx: Context) -> int:
        async def spawn(numbers: range) -> None:
            if bulk:
                await ctx.spawn_workflows(child, numbers)
            else:
                for number in numbers:
                    await ctx.spawn_workflow(child, number)

        await spawn(range(count // 2))
        if ctx.attempt == 1:
            raise RuntimeError("half way")
        await spawn(range(count // 2, count))
        return sum(await ctx.join())

    async with worker([parent, child]):
        run = await client.trigger(parent, 100)
        assert await run.result(PATIENCE) == sum(range(100))
    assert ran == dict.fromkeys(range(100), 1)
    trace = await client.describe(run.id)
    assert (trace.totals.spawned, trace.totals.succeeded) == (100, 100)


async def test_a_retried_parent_that_returns_at_once_waits_for_all_children(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """The same at the step's boundary: the join counts the children of both attempts, each once."""
    flow = Workflow("boundary", retry=AT_ONCE)
    ran: Counter[int] = Counter()

    @workflow("child")
    async def child(number: int) -> int:
        ran[number] += 1
        return number

    @flow.step
    async def scan(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(child, range(count // 2))
        if ctx.attempt == 1:
            raise RuntimeError("half way")
        await ctx.spawn_workflows(child, range(count))

    @flow.step(after=[scan])
    async def report(_: int, ctx: Context) -> list[int]:
        return sorted([result.output async for result in ctx.children(scan, child)])

    async with worker([flow, child]):
        assert await (await client.trigger(flow, 100)).result(PATIENCE) == list(range(100))
    assert ran == dict.fromkeys(range(100), 1)


@pytest.mark.parametrize("orphan_ends", ["before", "after"])
async def test_children_of_a_failed_attempt_do_not_count(
    client: Client, worker: Callable[..., Worker], orphan_ends: str
) -> None:
    """An attempt that failed may have spawned what the next one does not want: the join is about the latter's only."""
    flow = Workflow("changed-mind", retry=AT_ONCE)
    may_end = asyncio.Event()

    @workflow("child")
    async def child(name: str) -> str:
        if name == "orphan":
            await may_end.wait()
        return name

    @flow.step
    async def scan(_: None, ctx: Context) -> None:
        if ctx.attempt == 1:
            orphan = await ctx.spawn_workflow(child, "orphan")
            if orphan_ends == "before":
                may_end.set()
                await orphan.result()
            raise RuntimeError("changed my mind")
        await ctx.spawn_workflow(child, "wanted")

    @flow.step(after=[scan])
    async def report(_: None, ctx: Context) -> list[str]:
        return [result.output for result in await ctx.children(scan, child)]

    async with worker([flow, child]):
        run = await client.trigger(flow)
        assert await run.result(PATIENCE) == ["wanted"]
        may_end.set()


async def test_two_steps_of_one_run_share_a_child(client: Client, worker: Callable[..., Worker]) -> None:
    """The parent *run* names the child: parallel steps that spawn the same input get the same child, and both wait."""
    flow = Workflow("shared")
    spawned = asyncio.Barrier(2)
    runs = 0

    @workflow("child")
    async def child(number: int) -> int:
        nonlocal runs
        runs += 1
        return number

    @flow.step
    async def left(_: None, ctx: Context) -> tuple[str, int]:
        one = await ctx.spawn_workflow(child, 7)
        await spawned.wait()
        return one.id, await one.result()

    @flow.step
    async def right(_: None, ctx: Context) -> tuple[str, int]:
        one = await ctx.spawn_workflow(child, 7)
        await spawned.wait()
        return one.id, await one.result()

    async with worker([flow]):
        run = await client.trigger(flow)
        async with worker([child]):
            output = await run.result(PATIENCE)
    assert output["left"] == output["right"]
    assert output["left"][1] == 7
    assert runs == 1


@pytest.mark.parametrize("owner_ends", ["first", "last"])
async def test_a_shared_child_holds_back_both_steps(
    client: Client, worker: Callable[..., Worker], owner_ends: str
) -> None:
    """At the boundary, too: neither step is complete before the child is, whichever spawned it first."""
    flow = Workflow("shared-boundary")
    owned, borrowed, may_return = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @workflow("child")
    async def child(number: int) -> int:
        return number

    @flow.step
    async def owner(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(child, 7)
        owned.set()
        if owner_ends == "last":
            await may_return.wait()

    @flow.step
    async def borrower(_: None, ctx: Context) -> None:
        await owned.wait()
        await ctx.spawn_workflow(child, 7)
        borrowed.set()
        if owner_ends == "first":
            await may_return.wait()

    @flow.step(after=[owner])
    async def after_owner(_: None, ctx: Context) -> list[int]:
        return [result.output for result in await ctx.children(owner, child)]

    @flow.step(after=[borrower])
    async def after_borrower(_: None, ctx: Context) -> list[int]:
        return [result.output for result in await ctx.children(borrower, child)]

    async with worker([flow]):
        run = await client.trigger(flow)
        await asyncio.wait_for(borrowed.wait(), PATIENCE)
        may_return.set()
        async with worker([child]):
            assert await run.result(PATIENCE) == {"after_owner": [7], "after_borrower": [7]}


@pytest.mark.parametrize("park_after", [0, 60], ids=["cold", "warm"])
@pytest.mark.parametrize("waits", [False, True], ids=["at the boundary", "in the step"])
async def test_a_shared_child_may_be_given_up_by_the_step_that_spawned_it(
    client: Client, worker: Callable[..., Worker], waits: bool, park_after: float
) -> None:
    """Its first attempt spawned it and failed, its second does not want it: the step beside it waits for it still."""
    flow = Workflow("given-up", retry=AT_ONCE)
    spawned, attached = asyncio.Event(), asyncio.Event()

    @workflow("child")
    async def child(number: int) -> int:
        return number

    async def has_ended(run_id: str, step: str) -> bool:
        return any(trace.name == step and trace.ended for trace in (await client.describe(run_id)).steps)

    @flow.step
    async def fickle(_: None, ctx: Context) -> None:
        if ctx.attempt == 1:
            await ctx.spawn_workflow(child, 7)
            spawned.set()
            await attached.wait()
            raise RuntimeError("changed my mind")

    @flow.step
    async def faithful(_: None, ctx: Context) -> None:
        await spawned.wait()
        shared = await ctx.spawn_workflow(child, 7)
        attached.set()
        if waits:
            assert await shared.result() == 7

    async with worker([flow], options=WorkerOptions(park_after=park_after)):
        run = await client.trigger(flow)
        await until(lambda: has_ended(run.id, "fickle"))
        async with worker([child]):
            assert await run.result(PATIENCE) == {"fickle": None, "faithful": None}


async def test_a_failed_child_is_attached_to_and_not_run_again(client: Client, worker: Callable[..., Worker]) -> None:
    """An outcome is written once: the retry of the parent finds the child failed, as the first attempt did."""
    runs = 0
    attempts: list[int] = []

    @workflow("child", retry=Retry(attempts=1))
    async def child(number: int) -> None:
        nonlocal runs
        runs += 1
        raise ValueError(f"no luck with {number}")

    @workflow("parent", retry=Retry(attempts=2, initial=0))
    async def parent(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        try:
            await (await ctx.spawn_workflow(child, 13)).result()
        except ChildFailed as error:
            raise RuntimeError("the parent fails of itself") from error

    async with worker([parent, child]):
        with pytest.raises(RunFailed, match="of itself"):
            await (await client.trigger(parent)).result(PATIENCE)
    assert attempts == [1, 2]
    assert runs == 1


STRANGE_KEYS = [
    "dots.in.it",
    "jf.*.>",
    "two words",
    " ",
    "",
    "line\r\nbreak: x",
    "Zoë ☃ 日本",
    "\x00\x7f",
    'quote " and \\',
    "k" * 10_000,
    "k" * 10_000 + "!",
]


async def test_a_key_may_be_any_text(client: Client, worker: Callable[..., Worker]) -> None:
    """Keys are hashed into the id, so nothing in them can break a subject or a header; long ones are shown cut."""
    ran = Ran()

    @workflow("tree")
    async def tree(_: None, ctx: Context) -> int:
        children = await ctx.spawn_workflows(ran.flow, map(Source, STRANGE_KEYS), key=lambda source: source.path)
        again = [await ctx.spawn_workflow(ran.flow, Source(key), key=key) for key in STRANGE_KEYS]
        assert [child.id for child in children] == [child.id for child in again]
        await ctx.join(children)
        return len({child.id for child in children})

    async with worker([tree, ran.flow]):
        run = await client.trigger(tree, key=STRANGE_KEYS[0])
        assert await run.result(PATIENCE) == len(STRANGE_KEYS)
    assert sorted(ran.paths) == sorted(STRANGE_KEYS)
    shown = {child.key for child in (await client.describe(run.id)).children}
    assert shown >= {key for key in STRANGE_KEYS if len(key) < 200}


@pytest.mark.parametrize("key", STRANGE_KEYS, ids=range(len(STRANGE_KEYS)))
async def test_a_root_run_may_have_any_key(client: Client, worker: Callable[..., Worker], key: str) -> None:
    """The same holds for the key of a trigger."""
    ran = Ran()
    async with worker([ran.flow]):
        first = await client.trigger(ran.flow, Source("a"), key=key)
        again = await client.trigger(ran.flow, Source("a"), key=key)
        assert first.id == again.id
        assert await again.result(PATIENCE) == "A"
    assert ran.paths == ["a"]


async def test_a_key_that_is_no_text_is_refused(client: Client, worker: Callable[..., Worker]) -> None:
    """A number would have to be spelled somehow, and two programs might spell it differently."""
    ran = Ran()

    @workflow("tree", retry=Retry(attempts=1))
    async def tree(_: None, ctx: Context) -> None:
        number: object = 7
        await ctx.spawn_workflow(ran.flow, Source("a"), key=number)  # pyright: ignore

    async with worker([tree]):
        with pytest.raises(RunFailed, match="the key of a child is a str, not int: 7"):
            await (await client.trigger(tree)).result(PATIENCE)
