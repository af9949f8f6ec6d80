"""Join policies on a real server: in a step and at its boundary, in memory and parked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jetflow import (
    ChildFailed,
    Client,
    Context,
    JoinPolicy,
    JoinResult,
    Retry,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.engine.tasks import Outcome, StepAddress
from jetflow.runs.trace import RunTrace
from jetflow.wire.records import encode
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import recording

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


@workflow("child", retry=ONCE)
async def child(how: str) -> str:
    """Ends as it is told: well, not well, or not at all."""
    if how.startswith("fail"):
        raise ValueError(how)
    if how.startswith("never"):
        await asyncio.Event().wait()
    return how


def summary(result: JoinResult[Any]) -> dict[str, Any]:
    """What came of a join. A step that was parked may find those cancelled that were open when it was decided."""
    return {
        "met": result.met,
        "succeeded": len(result.succeeded),
        "failed": len(result.failed),
        "open": len(result.open) + len(result.cancelled),
    }


async def no_open_children(client: Client, run: str) -> RunTrace | None:
    trace = await client.describe(run)
    return None if trace.totals.open else trace


IN_STEP = [
    (JoinPolicy.all_succeed(), ["a", "b"], (True, 2, 0, 0)),
    (JoinPolicy.all_succeed(), ["a", "fail"], (False, 1, 1, 0)),
    (JoinPolicy.collect(), ["a", "fail", "fail2"], (True, 1, 2, 0)),
    (JoinPolicy.tolerate(1), ["a", "b", "fail"], (True, 2, 1, 0)),
    (JoinPolicy.tolerate(1), ["a", "fail", "fail2"], (False, 1, 2, 0)),
    (JoinPolicy.tolerate(fraction=0.5), ["a", "fail"], (True, 1, 1, 0)),
    (JoinPolicy.fail_fast(), ["fail", "never", "never2"], (False, 0, 1, 2)),
    (JoinPolicy.first(), ["fail", "a", "never"], (True, 1, None, None)),
    (JoinPolicy.first(), ["fail", "fail2"], (False, 0, 2, 0)),
    (JoinPolicy.of_quorum(2), ["a", "b", "never"], (True, 2, 0, 1)),
    (JoinPolicy.of_quorum(2), ["fail", "fail2", "never"], (False, 0, 2, 1)),
    (JoinPolicy.of_quorum(4), ["never", "never2"], (False, 0, 0, 2)),
    (JoinPolicy.collect(), [], (True, 0, 0, 0)),
    (JoinPolicy.first(), [], (False, 0, 0, 0)),
]


@pytest.mark.parametrize("park_after", [60, 0])
@pytest.mark.parametrize(("policy", "children", "expected"), IN_STEP)
async def test_a_policy_in_a_step(
    client: Client,
    worker: MakeWorker,
    park_after: float,
    policy: JoinPolicy,
    children: list[str],
    expected: tuple[bool, int, int | None, int | None],
) -> None:
    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> dict[str, Any]:
        return summary(await ctx.join(await ctx.spawn_workflows(child, children), policy=policy))

    async with worker([parent, child], options=WorkerOptions(park_after=park_after)):
        run = await client.trigger(parent)
        result = await run.result(PATIENCE)
        if policy.cancel_rest:
            trace = await until(lambda: no_open_children(client, run.id))
            assert trace.totals.spawned == len(children)
        await until(Stored(client).all_acknowledged)
    found = (result["met"], result["succeeded"], result["failed"], result["open"])
    assert [one for one, wanted in zip(found, expected, strict=True) if wanted is not None] == [
        wanted for wanted in expected if wanted is not None
    ]


AT_BOUNDARY = [
    (JoinPolicy.all_succeed(), ["a", "b"], "succeeded"),
    (JoinPolicy.all_succeed(), ["a", "fail"], "failed"),
    (JoinPolicy.collect(), ["fail", "fail2"], "succeeded"),
    (JoinPolicy.tolerate(1), ["a", "fail"], "succeeded"),
    (JoinPolicy.tolerate(1), ["a", "fail", "fail2"], "failed"),
    (JoinPolicy.tolerate(fraction=0.5), ["a", "fail"], "succeeded"),
    (JoinPolicy.fail_fast(), ["fail", "never", "never2"], "failed"),
    (JoinPolicy.first(), ["a", "never", "fail"], "succeeded"),
    (JoinPolicy.first(), ["fail", "fail2"], "failed"),
    (JoinPolicy.of_quorum(2), ["a", "b", "never"], "succeeded"),
    (JoinPolicy.of_quorum(2), ["fail", "fail2", "never"], "failed"),
    (JoinPolicy.of_quorum(2, cancel_rest=False), ["a", "b", "c"], "succeeded"),
    (JoinPolicy.of_quorum(4), ["never", "never2"], "failed"),
    (JoinPolicy.collect().within(0.3), ["a", "never"], "succeeded"),
    (JoinPolicy.all_succeed().within(0.3), ["a", "never"], "failed"),
]


@pytest.mark.parametrize("children_first", [False, True])
@pytest.mark.parametrize(("policy", "children", "expected"), AT_BOUNDARY)
async def test_a_policy_at_the_boundary(
    client: Client,
    worker: MakeWorker,
    policy: JoinPolicy,
    children: list[str],
    expected: str,
    children_first: bool,
) -> None:
    """The same, whether children end before their parent's function returns or after."""
    flow, ended = Workflow("flow", retry=ONCE), asyncio.Event()

    @flow.step(join=policy)
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, children)
        if children_first:
            await ended.wait()

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> list[str]:
        return [one.status async for one in ctx.children(scatter, child)]

    open_at_first = sum(how.startswith("never") for how in children)
    async with worker([flow, child]):
        run = await client.trigger(flow)
        if children_first:
            await until(lambda: _open(client, run.id, len(children), open_at_first))
            ended.set()
        with contextlib.suppress(RunFailed):
            await run.result(PATIENCE)
        trace = await until(lambda: no_open_children(client, run.id))
        await until(Stored(client).all_acknowledged)
    assert trace.status == expected
    assert trace.error is None or trace.error.type == "ChildrenFailed"
    assert trace.totals.spawned == len(children)


async def _open(client: Client, run: str, spawned: int, open: int) -> bool:
    totals = (await client.describe(run)).totals
    return totals.spawned == spawned and totals.open <= open


async def test_a_join_has_partial_results_when_its_time_is_up(client: Client, worker: MakeWorker) -> None:
    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> dict[str, Any]:
        children = await ctx.spawn_workflows(child, ["a", "fail", "never"])
        return summary(await ctx.join(children, policy=JoinPolicy.collect().within(0.3)))

    async with worker([parent, child]):
        run = await client.trigger(parent)
        assert await run.result(PATIENCE) == {"met": True, "succeeded": 1, "failed": 1, "open": 1}
        await client.cancel((await client.describe(run.id)).children[2].id)


async def test_a_quorum_that_is_not_there_in_time_is_missed(client: Client, worker: MakeWorker) -> None:
    """Its rest is cancelled, as it would be otherwise."""

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> dict[str, Any]:
        children = await ctx.spawn_workflows(child, ["a", "never", "never2"])
        return summary(await ctx.join(children, policy=JoinPolicy.of_quorum(2).within(0.3)))

    async with worker([parent, child]):
        run = await client.trigger(parent)
        assert await run.result(PATIENCE) == {"met": False, "succeeded": 1, "failed": 0, "open": 2}
        trace = await until(lambda: no_open_children(client, run.id))
    assert trace.totals.cancelled == 2


async def test_the_time_of_a_join_goes_on_over_attempts(client: Client, worker: MakeWorker) -> None:
    """Its end is recorded when the join begins: a later attempt does not begin it again."""
    ends: list[float] = []

    @workflow("parent", retry=Retry(attempts=2, initial=0))
    async def parent(_: None, ctx: Context) -> int:
        children = await ctx.spawn_workflows(child, ["never"])
        await ctx.join(children, policy=JoinPolicy.fail_fast().within(0.3))
        ends.append(asyncio.get_running_loop().time())
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    async with worker([parent, child]):
        run = await client.trigger(parent)
        assert await run.result(PATIENCE) == 2
    assert ends[1] - ends[0] < 0.25


async def test_a_joins_time_does_not_stop_the_clock_of_the_step(client: Client, worker: MakeWorker) -> None:
    """Waiting is not counted against the timeout of the step; what comes after it is."""

    @workflow("parent", retry=ONCE, timeout=0.2)
    async def parent(_: None, ctx: Context) -> None:
        children = await ctx.spawn_workflows(child, ["never"])
        await ctx.join(children, policy=JoinPolicy.fail_fast().within(0.4))
        await asyncio.Event().wait()

    async with worker([parent, child]):
        with pytest.raises(RunFailed, match=r"timeout of 0\.2 s"):
            await (await client.trigger(parent)).result(5)


async def test_a_failure_that_was_known_before_decides_at_once(client: Client, worker: MakeWorker) -> None:
    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> dict[str, Any]:
        failing = await ctx.spawn_workflow(child, "fail")
        with pytest.raises(ChildFailed):
            await failing.result()
        endless = await ctx.spawn_workflow(child, "never")
        return summary(await ctx.join([failing, endless], policy=JoinPolicy.fail_fast()))

    async with worker([parent, child]):
        run = await client.trigger(parent)
        assert await run.result(5) == {"met": False, "succeeded": 0, "failed": 1, "open": 1}


async def test_what_a_policy_has_cancelled_does_not_fail_the_boundary(client: Client, worker: MakeWorker) -> None:
    """The join in the step has decided over them; the boundary is for the children that it has not seen."""

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> str:
        race = await ctx.spawn_workflows(child, ["a", "never", "never2"])
        await ctx.join(race, policy=JoinPolicy.first())
        await ctx.spawn_workflow(child, "b")
        return "well"

    async with worker([parent, child]):
        assert await (await client.trigger(parent)).result(PATIENCE) == "well"


async def test_what_a_policy_cancels_ends_to_its_leaves(client: Client, worker: MakeWorker) -> None:
    """Also below children that have returned, or are parked: nothing of them is in any worker's memory."""
    began, ended = asyncio.Event(), asyncio.Event()

    @workflow("level")
    async def level(depth: int, ctx: Context) -> None:
        if depth == 3:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        await ctx.spawn_workflow(level, depth + 1)

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> bool:
        deep = await ctx.spawn_workflow(level, 0)
        await began.wait()
        quick = await ctx.spawn_workflow(child, "a")
        return (await ctx.join([deep, quick], policy=JoinPolicy.first())).met

    async with worker([parent, level, child]):
        assert await (await client.trigger(parent)).result(PATIENCE)
        await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_failing_fast_while_parked(client: Client, worker: MakeWorker) -> None:
    """A parked step is woken by the first failure, though most children are still running."""
    go = asyncio.Event()

    @workflow("told")
    async def told() -> None:
        await go.wait()
        raise NotImplementedError

    @workflow("parent", retry=ONCE)
    async def parent(_: None, ctx: Context) -> dict[str, Any]:
        rest = await ctx.spawn_workflows(child, ["never", "never2"])
        failing = await ctx.spawn_workflow(told)
        return summary(await ctx.join([*rest, failing], policy=JoinPolicy.fail_fast()))

    told.steps["run"].retry = ONCE
    async with worker([parent, told, child], options=WorkerOptions(park_after=0)) as only:
        run = await client.trigger(parent)
        await until(lambda: _parked(only))
        go.set()
        assert await run.result(PATIENCE) == {"met": False, "succeeded": 0, "failed": 1, "open": 2}
        await until(lambda: no_open_children(client, run.id))
        await until(Stored(client).all_acknowledged)


async def _parked(worker: Worker) -> bool:
    return worker.counts.parked == 1 and not recording(worker)


async def test_cancelling_the_rest_of_many(client: Client, worker: MakeWorker) -> None:
    """The work grows with the children, and not with their square."""
    flow = Workflow("flow", retry=ONCE)

    @flow.step(join=JoinPolicy.fail_fast())
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, ["fail", *(f"never{number}" for number in range(1000))])

    async with worker([flow, child]):
        run = await client.trigger(flow)
        with pytest.raises(RunFailed, match="ChildrenFailed"):
            await run.result(PATIENCE)
        trace = await until(lambda: no_open_children(client, run.id))
        await until(Stored(client).all_acknowledged)
    assert trace.totals.cancelled == 1000


async def test_waits_side_by_side_need_one_slot(client: Client, worker: MakeWorker) -> None:
    """While a step waits anywhere it holds no slot, so that the child that it still waits for can have it."""

    @workflow("parent", retry=ONCE, timeout=0.5)
    async def parent(_: None, ctx: Context) -> list[str]:
        return await asyncio.gather(*[(await ctx.spawn_workflow(child, how)).result() for how in ("a", "b", "c")])

    async with worker([parent, child], slots=1):
        assert await (await client.trigger(parent)).result(5) == ["a", "b", "c"]


async def test_the_clock_of_a_step_stands_still_until_its_last_wait(client: Client, worker: MakeWorker) -> None:
    go = asyncio.Event()

    @workflow("late", retry=ONCE)
    async def late() -> str:
        await go.wait()
        return "late"

    @workflow("parent", retry=ONCE, timeout=0.2)
    async def parent(_: None, ctx: Context) -> list[str]:
        early, other = await ctx.spawn_workflow(child, "early"), await ctx.spawn_workflow(late)
        asyncio.get_running_loop().call_later(0.4, go.set)
        return list(await asyncio.gather(early.result(), other.result()))

    async with worker([parent, late, child]):
        assert await (await client.trigger(parent)).result(5) == ["early", "late"]


@pytest.mark.parametrize("forged", ["0" * 32, "5" * 32])
async def test_an_outcome_that_nobody_spawned_is_in_no_join(
    client: Client, worker: MakeWorker, stored: Stored, forged: str
) -> None:
    """Whatever its id adds to the sum of the ids, which is how a join knows its children."""
    flow = Workflow("flow", retry=ONCE)
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held", retry=ONCE)
    async def held(n: int) -> int:
        began.set()
        await go.wait()
        return n

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(held, range(3))

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> list[int]:
        return sorted([result.output async for result in ctx.children(scatter, held)])

    async with worker([flow, held]):
        run = await client.trigger(flow)
        await asyncio.wait_for(began.wait(), PATIENCE)
        await stored.session.publisher.store(stored.names.run(run.id, run.id, "scatter", forged), b"no outcome")
        go.set()
        assert await run.result(PATIENCE) == [0, 1, 2]
        await until(stored.is_idle)


async def test_an_outcome_that_nobody_spawned_stands_in_for_no_child(
    client: Client, worker: MakeWorker, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if it was counted, as by a worker that took a retry's other child for its own."""
    flow = Workflow("flow", retry=ONCE)
    began, go, forged = asyncio.Event(), asyncio.Event(), asyncio.Event()
    gathered: list[list[int]] = []

    @workflow("held", retry=ONCE)
    async def held(n: int) -> int:
        began.set()
        await (go if n == 2 else forged).wait()
        return n

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(held, range(3))

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> list[int]:
        gathered.append(sorted([result.output async for result in ctx.children(scatter, held)]))
        return gathered[-1]

    async def decided() -> bool:
        return bool(gathered) or "outcomes are stored that nobody spawned" in caplog.text

    async with worker([flow, held]):
        run = await client.trigger(flow)
        await asyncio.wait_for(began.wait(), PATIENCE)
        names, publisher = stored.names, stored.session.publisher
        body = encode(Outcome(status="succeeded", output=msgspec.Raw(b"7"), workflow="held", step="run"))
        await publisher.store(names.run(run.id, run.id, "scatter", "5" * 32), body)
        counted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        publisher.count(names.counter("join", StepAddress(run.id, run.id, "scatter")), 1, counted.set_result)
        await counted
        forged.set()
        await until(decided)
        assert gathered == []
        go.set()
        assert await run.result(PATIENCE) == [0, 1, 2]
        await until(stored.is_idle)
