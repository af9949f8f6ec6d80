"""Runs of several steps: what goes on beside a step that failed, what does not, and how the run tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import pytest

from jetflow import (
    ChildFailed,
    ChildrenFailed,
    Client,
    Context,
    NonRetryable,
    Retry,
    RunFailed,
    StepFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.engine.tasks import Failure, Outcome, StepAddress
from jetflow.runs.marks import rest_but
from jetflow.runs.trace import RunTrace
from jetflow.wire.records import encode
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
PARKED = WorkerOptions(park_after=0)


async def failure_of(run: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await run.result(PATIENCE)
    return caught.value


def statuses(trace: RunTrace) -> dict[str, str]:
    return {step.name: step.status for step in trace.steps}


async def step_is(client: Client, run: str, step: str, status: str) -> bool:
    return statuses(await client.describe(run)).get(step) == status


# --- what goes on


async def test_steps_beside_one_that_failed_go_on(client: Client, worker: MakeWorker) -> None:
    """With all that is behind them. The run ends with the last of them, and nothing begins after that."""
    flow, go = Workflow("details", retry=ONCE), asyncio.Event()
    ran: list[str] = []

    @flow.step
    async def fails() -> None:
        raise ValueError("at once")

    @flow.step
    async def slow() -> None:
        await go.wait()

    @flow.step(after=[slow])
    async def charge() -> None:
        ran.append("charge")

    @flow.step(after=[charge])
    async def ship() -> None:
        ran.append("ship")

    async with worker([flow]):
        run = await client.trigger(flow)
        await until(lambda: step_is(client, run.id, "fails", "failed"))
        assert await run.status() == "running"
        go.set()
        failed = await failure_of(run)
        assert ran == ["charge", "ship"]
        trace = await client.describe(run.id)
    assert (failed.status, failed.step, failed.error_message) == ("failed", "fails", "at once")
    assert statuses(trace) == {"fails": "failed", "slow": "succeeded", "charge": "succeeded", "ship": "succeeded"}


async def test_what_is_tried_again_is_tried_again_beside_a_failure(client: Client, worker: MakeWorker) -> None:
    """Both errors are told, and no step is left that seems to run."""
    flow = Workflow("no-retry", retry=Retry(attempts=2, initial=0.3))

    @flow.step
    def final() -> None:
        raise NonRetryable("final")

    @flow.step
    def wrong_type() -> None:
        raise TypeError("to be tried again")

    @flow.step
    def well() -> None: ...

    async with worker([flow]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        trace = await client.describe(run.id)
    assert [(one.step, one.error_type) for one in failed.errors] == [
        ("final", "NonRetryable"),
        ("wrong_type", "TypeError"),
    ]
    assert statuses(trace) == {"final": "failed", "wrong_type": "failed", "well": "succeeded"}
    assert [step.attempts for step in trace.steps] == [1, 2, 1]


async def test_children_that_are_spawned_beside_a_failure_end_before_the_run(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Whoever hears that a run has failed may start it anew: nothing of it runs any more."""
    flow, go = Workflow("campaign", retry=ONCE), asyncio.Event()
    sent: list[int] = []

    @workflow("send-mail")
    async def send_mail(number: int) -> None:
        sent.append(number)

    @flow.step
    async def check_budget() -> None:
        raise ValueError("no budget")

    @flow.step
    async def load_addresses() -> list[int]:
        await go.wait()
        return [1, 2, 3]

    @flow.step(after=[load_addresses])
    async def send(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(send_mail, ctx.output(load_addresses))

    async with worker([flow, send_mail]):
        run = await client.trigger(flow)
        await until(lambda: step_is(client, run.id, "check_budget", "failed"))
        go.set()
        await failure_of(run)
        assert sorted(sent) == [1, 2, 3]
        names, store = stored.names, stored.session.store
        [end] = [await store.leader_last(names.records_stream, names.run_by_id(run.id))]
        children = [child.id for child in (await client.describe(run.id)).children]
        ends = [await store.leader_last(names.records_stream, names.run_by_id(child)) for child in children]
    assert end is not None
    assert all(one is not None and one.sequence < end.sequence for one in ends)


async def test_a_step_that_failed_waits_for_none_of_its_children(client: Client, worker: MakeWorker) -> None:
    flow, go = Workflow("impatient", retry=ONCE), asyncio.Event()

    @workflow("held")
    async def held() -> None:
        await go.wait()

    @flow.step
    async def fails(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(held)
        raise ValueError

    @flow.step
    async def well() -> None: ...

    async with worker([flow, held]):
        run = await client.trigger(flow)
        await failure_of(run)
        assert (await client.describe(run.id)).totals.open == 1
        go.set()
        await until(lambda: _all_ended(client, run.id))
    assert (await client.describe(run.id)).totals.succeeded == 1


async def _all_ended(client: Client, run: str) -> bool:
    return (await client.describe(run)).totals.open == 0


# --- what does not


async def test_what_is_behind_a_failure_is_cancelled_down_the_graph(client: Client, worker: MakeWorker) -> None:
    """Each of these steps says why it was not run."""
    flow = Workflow("dominoes", retry=ONCE)

    def not_reached() -> None:
        raise AssertionError("not reached")

    @flow.step
    async def fails() -> None:
        raise ValueError

    @flow.step
    async def well() -> None: ...

    flow.step(name="second", after=["fails"])(not_reached)
    flow.step(name="third", after=["second"])(not_reached)
    flow.step(name="gate", after=["well", "third"])(not_reached)

    async with worker([flow]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        trace = await client.describe(run.id)
    assert [one.step for one in failed.errors] == ["fails"]
    told = {step.name: step.error and (step.error.type, step.error.message) for step in trace.steps}
    assert {step: told[step] for step in ("second", "third", "gate")} == {
        "second": ("Cancelled", "not run: step 'fails' failed"),
        "third": ("Cancelled", "not run: step 'second' was cancelled"),
        "gate": ("Cancelled", "not run: step 'third' was cancelled"),
    }
    assert {step.name for step in trace.steps if step.status == "cancelled"} == {"second", "third", "gate"}
    assert {step.turns for step in trace.steps if step.status == "cancelled"} == {0}


async def test_what_is_behind_a_step_whose_children_failed_is_cancelled(client: Client, worker: MakeWorker) -> None:
    """The step has returned; its children decide."""
    flow = Workflow("boundary", retry=ONCE)

    @workflow("doomed", retry=ONCE)
    async def doomed() -> None:
        raise ValueError("doomed")

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(doomed)

    @flow.step(after=[scatter])
    async def gather() -> None:
        raise AssertionError("not reached")

    @flow.step
    async def beside() -> None: ...

    async with worker([flow, doomed]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        trace = await client.describe(run.id)
    assert (failed.step, failed.error_type) == ("scatter", "ChildrenFailed")
    assert statuses(trace) == {"scatter": "failed", "gather": "cancelled", "beside": "succeeded"}


# --- what is told


def two_errors() -> Workflow[Any, Any]:
    flow = Workflow("two-errors", retry=ONCE)

    @flow.step
    async def divides() -> float:
        return 1 / 0

    @flow.step
    async def looks_up() -> str:
        return {}["key"]

    @flow.step
    async def well() -> None: ...

    return flow


async def test_all_errors_are_told_as_a_group(client: Client, worker: MakeWorker) -> None:
    async with worker([two_errors()]):
        failed = await failure_of(await client.trigger(two_errors()))
    assert isinstance(failed, ExceptionGroup)
    assert [(one.step, one.error_type, one.error_message) for one in failed.errors] == [
        ("divides", "ZeroDivisionError", "division by zero"),
        ("looks_up", "KeyError", "'key'"),
    ]
    assert ["1 / 0" in failed.errors[0].traceback, '["key"]' in failed.errors[1].traceback] == [True, True]
    assert "in 2 steps: step 'divides': ZeroDivisionError: division by zero; step 'looks_up'" in str(failed)
    assert (failed.step, failed.error_type) == ("divides", "ZeroDivisionError")


async def test_a_group_is_taken_apart_by_except_star(client: Client, worker: MakeWorker) -> None:
    caught: list[Any] = []
    async with worker([two_errors()]):
        run = await client.trigger(two_errors())
        try:
            await run.result(PATIENCE)
        except* StepFailed as group:
            caught += group.exceptions
            _, rest = group.split(lambda error: isinstance(error, StepFailed) and error.error_type == "KeyError")
            assert isinstance(rest, RunFailed)
            assert (rest.run_id, rest.error_type) == (run.id, "ZeroDivisionError")
    assert [error.step for error in caught] == ["divides", "looks_up"]


@pytest.mark.parametrize(("also_fails", "status"), [(False, "timed_out"), (True, "failed")])
async def test_a_run_has_timed_out_if_that_is_all(
    client: Client, worker: MakeWorker, also_fails: bool, status: str
) -> None:
    flow = Workflow("slow", retry=ONCE)

    @flow.step(timeout=0.05)
    async def too_long() -> None:
        await asyncio.Event().wait()

    @flow.step
    async def other() -> None:
        if also_fails:
            raise ValueError

    @flow.step(after=[too_long])
    async def behind() -> None:
        raise AssertionError("not reached")

    async with worker([flow]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        trace = await client.describe(run.id)
    assert failed.status == trace.status == status
    assert [one.step for one in failed.errors] == ["too_long", *(["other"] if also_fails else [])]
    assert statuses(trace)["too_long"] == "timed_out"
    assert trace.steps[2].error is not None
    assert trace.steps[2].error.message == "not run: step 'too_long' timed out"


async def test_describe_tells_where_each_step_stands(client: Client, worker: MakeWorker) -> None:
    """While the run is under way: failed, cancelled behind it, tried again at a time, and still to come."""
    flow = Workflow("under-way", retry=Retry(attempts=2, initial=60, jitter=0))

    @flow.step
    async def fails() -> None:
        raise NonRetryable("final")

    @flow.step(after=[fails])
    async def behind() -> None:
        raise AssertionError("not reached")

    @flow.step
    async def later() -> None:
        raise OSError("not yet")

    @flow.step(after=[later])
    async def after_later() -> None:
        raise AssertionError("not reached")

    async with worker([flow]):
        began = time()
        run = await client.trigger(flow)
        for step, status in (("behind", "cancelled"), ("later", "retrying")):
            await until(lambda step=step, status=status: step_is(client, run.id, step, status))
        trace = await client.describe(run.id)
        assert trace.status == "running"
        assert statuses(trace) == {
            "fails": "failed",
            "behind": "cancelled",
            "later": "retrying",
            "after_later": "pending",
        }
        again = {step.name: step.again for step in trace.steps}
        assert began + 60 <= (again.pop("later") or 0) <= time() + 60
        assert set(again.values()) == {None}
        await client.cancel(run.id)
        assert statuses(await client.describe(run.id)) == {
            "fails": "failed",
            "behind": "cancelled",
            "later": "cancelled",
            "after_later": "cancelled",
        }


# --- what follows a failure


async def test_a_step_for_failures_runs_once_after_the_end(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """It is told all errors."""
    flow, go = Workflow("mended", retry=ONCE), asyncio.Event()
    mended: list[tuple[str, list[tuple[str | None, str]]]] = []

    @flow.step
    async def first() -> None:
        raise ValueError("one")

    @flow.step
    async def second() -> None:
        await go.wait()
        raise TypeError("two")

    @flow.on_failure
    async def mend(_: None, ctx: Context) -> None:
        status = (await client.describe(ctx.run_id)).status
        mended.append((status, [(error.step, error.type) for error in ctx.errors]))

    async with worker([flow]):
        run = await client.trigger(flow)
        await until(lambda: step_is(client, run.id, "first", "failed"))
        assert mended == []
        go.set()
        await failure_of(run)
        step = StepAddress(run.id, run.id, "mend")
        await until(lambda: stored.session.store.leader_last(stored.names.records_stream, stored.names.step(step)))
        await until(stored.is_idle)
    assert mended == [("failed", [("first", "ValueError"), ("second", "TypeError")])]


async def test_failing_fast_ends_the_run_at_once(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """What runs beside is cancelled, queued children are removed, and the step for failures runs."""
    flow = Workflow("hasty", retry=ONCE, fail_fast=True)
    began, cancelled, mended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @workflow("queued")
    async def queued(_: int) -> None:
        raise AssertionError("not reached")

    @flow.step
    async def fails() -> None:
        await began.wait()
        raise ValueError("the first")

    @flow.step
    async def runs(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(queued, range(3))
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @flow.step(after=[fails, runs])
    async def never() -> None:
        raise AssertionError("not reached")

    @flow.on_failure
    async def mend() -> None:
        mended.set()

    async with worker([flow]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        await asyncio.wait_for(cancelled.wait(), PATIENCE)
        await asyncio.wait_for(mended.wait(), PATIENCE)
        await until(stored.is_idle)
        trace = await client.describe(run.id)
    async with worker([queued]) as late:
        await until(stored.is_idle)
    assert [(one.step, one.error_message) for one in failed.errors] == [("fails", "the first")]
    expected = {"fails": "failed", "runs": "cancelled", "never": "cancelled", "mend": "succeeded"}
    assert statuses(trace) == expected
    assert late.counts.executed == 0


# --- trees


async def test_the_step_on_failure_runs_though_who_failed_fast_died_before_it_was_asked_for(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Its task comes back to a worker that knows the run as cancelled, and goes on where the first one ended."""
    flow, ran = Workflow("fast", retry=ONCE, fail_fast=True), list[str]()

    @flow.step
    async def fails() -> None:
        ran.append("fails")

    @flow.step
    async def beside() -> None:
        ran.append("beside")

    @flow.on_failure
    async def mend() -> None:
        ran.append("mend")

    run = (await client.trigger(flow)).id
    names, publisher = stored.names, stored.session.publisher
    ended = Outcome(status="failed", error=Failure("ValueError", "at once", "fails"), workflow="fast", step="fails")
    await publisher.store(names.run(run, "-", "-", run), encode(ended))
    await publisher.store(names.cancelled(run, run), rest_but("mend"))
    async with worker([flow]):
        await until(lambda: step_ended(stored, run, "mend"))
        await until(stored.all_acknowledged)
    assert ran == ["mend"]


async def step_ended(stored: Stored, run: str, step: str) -> bool:
    subject = stored.names.step(StepAddress(run, run, step))
    return await stored.session.store.leader_last(stored.names.records_stream, subject) is not None


async def test_the_step_on_failure_of_a_run_that_failed_fast_may_wait_for_children(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """What it spawns is not of what was left open."""

    @workflow("tidy")
    async def tidy(number: int) -> int:
        return number

    flow, sums = Workflow("fast", retry=ONCE, fail_fast=True), list[int]()

    @flow.step
    async def fails() -> None:
        raise ValueError("at once")

    @flow.step
    async def beside() -> None:
        await asyncio.Event().wait()

    @flow.on_failure
    async def mend(_: None, ctx: Context) -> None:
        sums.append(sum(await ctx.join(await ctx.spawn_workflows(tidy, [1, 2, 3]))))

    async with worker([flow, tidy]):
        run = await client.trigger(flow)
        failed = await failure_of(run)
        await until(lambda: step_is(client, run.id, "beside", "cancelled"))
        await until(stored.all_acknowledged)
    assert [one.step for one in failed.errors] == ["fails"]
    assert sums == [6]


@pytest.mark.parametrize("joins", [True, False])
async def test_a_child_that_another_step_has_borrowed_outlives_the_failure_of_its_owner(
    client: Client, worker: MakeWorker, joins: bool
) -> None:
    """The borrower goes on when the child ends, whether it waits for it in its body or at its boundary."""
    flow, go = Workflow("sharing", retry=ONCE), asyncio.Event()
    owned, borrowed = asyncio.Event(), asyncio.Event()

    @workflow("held")
    async def held() -> str:
        await go.wait()
        return "held"

    @flow.step
    async def owner(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(held)
        owned.set()
        await borrowed.wait()
        raise ValueError

    @flow.step
    async def borrower(_: None, ctx: Context) -> str:
        await owned.wait()
        child = await ctx.spawn_workflow(held)
        borrowed.set()
        return await child.result() if joins else "returned"

    async with worker([flow, held], options=PARKED):
        run = await client.trigger(flow)
        await until(lambda: step_is(client, run.id, "owner", "failed"))
        await until(lambda: step_is(client, run.id, "borrower", "waiting"))
        assert await run.status() == "running"
        go.set()
        failed = await failure_of(run)
        trace = await client.describe(run.id)
    assert [one.step for one in failed.errors] == ["owner"]
    assert statuses(trace) == {"owner": "failed", "borrower": "succeeded"}
    assert trace.totals.spawned == 1


def several(name: str) -> Workflow[str, Any]:
    """Return a workflow of several steps: those fail that its input names."""
    flow = Workflow(name, input=str, retry=ONCE)

    @flow.step
    async def x(failing: str) -> int:
        if "x" in failing:
            raise ValueError("x fails")
        return 1

    @flow.step
    async def y(failing: str) -> int:
        if "y" in failing:
            raise TypeError("y fails")
        return 2

    @flow.step(after=[x, y])
    async def z(_: str, ctx: Context) -> int:
        return ctx.output(x) + ctx.output(y)

    @flow.step(after=[x])
    async def w(_: str, ctx: Context) -> int:
        return ctx.output(x)

    return flow


@pytest.mark.parametrize("failing", ["", "x", "xy"])
async def test_a_child_of_several_steps_is_one_child(
    client: Client, worker: MakeWorker, stored: Stored, failing: str
) -> None:
    """To the join of its parent, in however many steps it fails: it stands in for no child that is still open."""
    flow, child, go = Workflow("parent", retry=ONCE), several("several"), asyncio.Event()

    @workflow("held")
    async def held() -> None:
        await go.wait()

    @flow.step
    async def scatter(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(child, failing)
        await ctx.spawn_workflow(held)

    @flow.step(after=[scatter])
    async def gather() -> None: ...

    async with worker([flow, child, held]):
        run = await client.trigger(flow)
        await until(lambda: _one_of_two_is_open(client, stored, run.id))
        assert await step_is(client, run.id, "scatter", "waiting")
        go.set()
        if failing:
            failed = await failure_of(run)
            assert "1 of 2 children failed" in failed.error_message
        else:
            await run.result(PATIENCE)
        totals = (await client.describe(run.id)).totals
    assert (totals.spawned, totals.succeeded, totals.failed) == (2, 1 + (not failing), int(bool(failing)))


async def _one_of_two_is_open(client: Client, stored: Stored, run: str) -> bool:
    """Whether the other has ended and is counted: only the held one keeps a task."""
    totals = (await client.describe(run)).totals
    consumers = await stored._consumers()
    left = sum(consumer["num_pending"] + consumer["num_ack_pending"] for consumer in consumers)
    return (totals.spawned, totals.open, left) == (2, 1, 1)


async def test_a_parent_is_told_every_error_of_its_children(client: Client, worker: MakeWorker) -> None:
    """Two levels deep, in one group; each error knows its step, each group its run."""
    flow = several("several")
    caught: list[ChildrenFailed] = []

    @workflow("middle", retry=ONCE)
    async def middle(_: None, ctx: Context) -> None:
        children = await ctx.spawn_workflows(flow, ["xy", "", "y"], key=lambda failing: f"fails {failing}")
        try:
            await ctx.join(children)
        except ChildrenFailed as error:
            caught.append(error)
            raise

    @workflow("top", retry=ONCE)
    async def top(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(middle)).result()

    async with worker([top, middle, flow]):
        failed = await failure_of(await client.trigger(top))
    [group] = caught
    told = {
        one.key: [(error.step, error.error_type) for error in one.errors]
        for one in group.exceptions
        if isinstance(one, ChildFailed)
    }
    assert told == {"fails xy": [("x", "ValueError"), ("y", "TypeError")], "fails y": [("y", "TypeError")]}
    assert failed.error_type == "ChildFailed"
    for text in ("2 of 3 children failed", "ChildrenFailed"):
        assert text in failed.error_message
