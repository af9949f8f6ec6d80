"""Conditions: a step is skipped, cancelled or run by what comes first, and holds nothing while it waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import pytest
from patience import PATIENCE, until

import jetflow.testing
from jetflow import (
    Client,
    Context,
    Event,
    InvalidDeclaration,
    Retry,
    Run,
    RunFailed,
    Signal,
    StepSkipped,
    Worker,
    Workflow,
    all_of,
    any_of,
    output_of,
    sleep,
)

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


async def waiting(run: Run[Any], client: Client, step: str) -> None:
    """Wait until a step waits for its conditions."""

    async def is_waiting() -> bool:
        steps = {one.name: one for one in (await client.describe(run.id)).steps}
        return steps[step].status == "waiting"

    await until(is_waiting)


async def statuses(run: Run[Any], client: Client) -> dict[str, str]:
    return {step.name: step.status for step in (await client.describe(run.id)).steps}


async def fails(run: Run[Any]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        await run.result(PATIENCE)
    return failed.value


# --- what a step before has returned


def branching() -> Workflow[int, dict[str, Any]]:
    flow = Workflow("branching", input=int, retry=ONCE)

    @flow.step
    async def count(n: int) -> int:
        return n

    @flow.step(after=count, skip_if=output_of(count, lambda n: n > 10))
    async def few(n: int) -> str:
        return "few"

    @flow.step(after=count, skip_if=output_of(count, lambda n: n <= 10))
    async def many(n: int) -> str:
        return "many"

    @flow.step(after=[few, many])
    async def report(n: int, ctx: Context) -> str:
        return "few" if ctx.was_skipped(many) else ctx.output(many)

    return flow


@pytest.mark.parametrize(("n", "branch", "other"), [(3, "few", "many"), (30, "many", "few")])
async def test_an_output_chooses_a_branch(client: Client, worker: MakeWorker, n: int, branch: str, other: str) -> None:
    """A skipped step is no failure: what comes after it runs if any step before it has."""
    flow = branching()
    async with worker([flow]):
        run = await client.trigger(flow, n)
        assert await run.result(PATIENCE) == branch
        assert await statuses(run, client) == {
            "count": "succeeded",
            branch: "succeeded",
            other: "skipped",
            "report": "succeeded",
        }


async def test_the_output_of_a_skipped_step_is_none_that_could_be_read(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("reads", input=int, retry=ONCE)

    @flow.step(skip_if=lambda n: n == 0)
    async def maybe(n: int) -> int:
        return n

    @flow.step
    async def always(n: int) -> int:
        return n

    @flow.step(after=[maybe, always])
    async def last(n: int, ctx: Context) -> list[Any]:
        try:
            return [ctx.was_skipped(maybe), ctx.output(maybe)]
        except StepSkipped as error:
            return [ctx.was_skipped(maybe), error.step]

    async with worker([flow]):
        assert await (await client.trigger(flow, 0)).result(PATIENCE) == [True, "maybe"]
        assert await (await client.trigger(flow, 5)).result(PATIENCE) == [False, 5]


async def test_what_stands_behind_skipped_steps_alone_is_skipped(client: Client, worker: MakeWorker) -> None:
    """Unless it says itself what becomes of it. The last steps that were skipped are not in the run's output."""
    flow = Workflow("behind", input=int, retry=ONCE)

    @flow.step(skip_if=lambda n: n == 0)
    async def first(n: int) -> int:
        return n

    @flow.step(after=first)
    async def second(n: int) -> str:
        return "second"

    @flow.step(after=first, skip_if=output_of(first, lambda n: n > 7))
    async def judges(n: int, ctx: Context) -> str:
        return f"skipped {ctx.was_skipped(first)}"

    async with worker([flow]):
        run = await client.trigger(flow, 0)
        assert await run.result(PATIENCE) == {"judges": "skipped True"}
        assert await statuses(run, client) == {"first": "skipped", "second": "skipped", "judges": "succeeded"}
        assert await (await client.trigger(flow, 8)).result(PATIENCE) == {"second": "second"}


async def test_a_run_whose_last_step_was_skipped_has_no_output(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("nothing", input=int, retry=ONCE)

    @flow.step
    async def find(n: int) -> list[int]:
        return list(range(n))

    @flow.step(after=find, skip_if=output_of(find, lambda found: not found))
    async def handle(n: int, ctx: Context) -> int | None:
        return len(ctx.output(find))

    async with worker([flow]):
        run = await client.trigger(flow, 0)
        assert await run.result(PATIENCE) is None
        assert await run.status() == "succeeded"
        assert await (await client.trigger(flow, 3)).result(PATIENCE) == 3


async def test_a_cancelled_step_cancels_what_stands_behind_it_and_the_run(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("stops", input=int, retry=ONCE)
    ran = list[str]()

    @flow.step
    async def check(n: int) -> bool:
        return n > 0

    @flow.step(after=check, cancel_if=output_of(check, lambda ok: not ok))
    async def act(n: int) -> None:
        ran.append("act")

    @flow.step(after=act)
    async def tell(n: int) -> None:
        ran.append("tell")

    async with worker([flow]):
        run = await client.trigger(flow, 0)
        failed = await fails(run)
        assert (failed.status, ran) == ("cancelled", [])
        assert await statuses(run, client) == {"check": "succeeded", "act": "cancelled", "tell": "cancelled"}
        [act_ended] = [step for step in (await client.describe(run.id)).steps if step.name == "act"]
        assert act_ended.error is not None
        assert act_ended.error.message == "cancelled by its condition: output_of('check')"


async def test_a_condition_that_raises_fails_its_step_once(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("raises", input=int, retry=Retry(attempts=5, initial=0.01))
    asked = list[int]()

    def broken(n: int) -> bool:
        asked.append(n)
        return 1 / n > 0

    @flow.step
    async def first(n: int) -> int:
        return n

    @flow.step(after=first, skip_if=output_of(first, broken))
    async def second(n: int) -> int | None:
        return n

    async with worker([flow]):
        failed = await fails(await client.trigger(flow, 0))
        assert failed.errors[0].error_type == "PredicateFailed"
        assert "skip_if: ZeroDivisionError" in failed.errors[0].error_message
        assert asked == [0]


# --- times and events


def approving() -> Workflow[str, Any]:
    """Publish what was approved, unless somebody rejects it, or nobody cares for a while."""
    flow = Workflow("approving", input=str, retry=ONCE)

    @flow.step
    async def draft(order: str) -> str:
        return f"draft of {order}"

    @flow.step(
        after=draft,
        wait_for=lambda order: Event("approved", key=order),
        cancel_if=Signal("reject"),
        skip_if=sleep(600),
    )
    async def publish(order: str, ctx: Context) -> str | None:
        return ctx.output(draft)

    return flow


async def test_a_step_waits_for_an_event_and_holds_nothing_meanwhile(client: Client, worker: MakeWorker) -> None:
    """A key may come of the run's input. What is of another run does not count."""
    flow = approving()
    async with worker([flow], slots=1):
        first, second = await client.trigger(flow, "a"), await client.trigger(flow, "b")
        await waiting(first, client, "publish")
        await waiting(second, client, "publish")
        await client.publish("approved", key="b")
        assert await second.result(PATIENCE) == "draft of b"
        assert (await statuses(first, client))["publish"] == "waiting"
        await first.signal("reject")
        assert (await fails(first)).status == "cancelled"


async def test_what_a_step_waits_for_and_why_it_was_skipped_is_told(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("told", input=None, retry=ONCE)

    @flow.step(skip_if=any_of(Signal("stop"), Signal("halt")), wait_for=all_of(sleep(600), Event("go")))
    async def step(_: None) -> int | None:
        return 1

    async with worker([flow]):
        run = await client.trigger(flow)
        await waiting(run, client, "step")
        [told] = (await client.describe(run.id)).steps
        assert told.condition is not None
        assert (told.condition.skip, told.attempts) == ("Signal('stop') or Signal('halt')", 0)
        assert told.condition.run == "sleep(600) and Event('go')"
        await run.signal("halt")
        assert await run.result(PATIENCE) is None
        [told] = (await client.describe(run.id)).steps
        assert told.condition is not None
        assert (told.status, told.condition.verdict, told.condition.reason) == ("skipped", "skip", "Signal('halt')")


async def test_it_waits_without_a_worker(client: Client, worker: MakeWorker) -> None:
    flow = approving()
    async with worker([flow]):
        run = await client.trigger(flow, "a")
        await waiting(run, client, "publish")
    await client.publish("approved", key="a")
    async with worker([flow]):
        assert await run.result(PATIENCE) == "draft of a"


@pytest.mark.parametrize("comes", [True, False])
async def test_a_step_is_skipped_at_an_event_or_runs_after_a_time(
    client: Client, worker: MakeWorker, comes: bool
) -> None:
    flow = Workflow("timed", input=None, retry=ONCE)

    @flow.step(skip_if=Signal("stop"), wait_for=sleep(1.2))
    async def later(_: None) -> float | None:
        return time()

    async with worker([flow]):
        asked = time()
        run = await client.trigger(flow)
        await waiting(run, client, "later")
        if comes:
            await run.signal("stop")
            assert await run.result(PATIENCE) is None
            assert await statuses(run, client) == {"later": "skipped"}
        else:
            began = await run.result(PATIENCE)
            assert began is not None
            assert began >= asked + 1.2


async def test_what_came_first_decides_though_nobody_looked(client: Client, worker: MakeWorker) -> None:
    """The time is over as well when a worker is there again: the event came before."""
    flow = Workflow("late", input=None, retry=ONCE)

    @flow.step(skip_if=sleep(1.0), wait_for=Event("go"))
    async def goes(_: None) -> str | None:
        return "went"

    async with worker([flow]):
        run = await client.trigger(flow)
        await waiting(run, client, "goes")
    await client.publish("go")
    await asyncio.sleep(1.3)
    async with worker([flow]):
        assert await run.result(PATIENCE) == "went"


async def test_of_those_that_come_at_once_skipping_goes_first(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("at-once", input=int, retry=ONCE)

    @flow.step(skip_if=lambda n: n in (1, 3), cancel_if=lambda n: n in (2, 3))
    async def step(n: int) -> int | None:
        return n

    async with worker([flow]):
        assert await (await client.trigger(flow, 0)).result(PATIENCE) == 0
        assert await (await client.trigger(flow, 3)).result(PATIENCE) is None
        assert (await fails(await client.trigger(flow, 2))).status == "cancelled"


async def test_alternatives_and_all_of_them(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("both", input=None, retry=ONCE)

    @flow.step(wait_for=all_of(any_of(Signal("a"), Signal("b")), any_of(sleep(600), Signal("c"))))
    async def step(_: None) -> str:
        return "ran"

    async with worker([flow]):
        run = await client.trigger(flow)
        await waiting(run, client, "step")
        await run.signal("b")
        await asyncio.sleep(0.3)
        assert await run.status() == "running"
        await run.signal("c")
        assert await run.result(PATIENCE) == "ran"


async def test_events_count_from_when_the_steps_before_have_ended(client: Client, worker: MakeWorker) -> None:
    """So that two steps in a row may wait for the same. A signal to the run counts whenever it was sent."""
    flow = Workflow("in-a-row", input=None, retry=ONCE)

    @flow.step(wait_for=Event("next"))
    async def one(_: None) -> str:
        return "one"

    @flow.step(after=one, wait_for=Event("next"))
    async def two(_: None) -> str:
        return "two"

    @flow.step(after=two, wait_for=Signal("early"))
    async def three(_: None) -> str:
        return "three"

    async with worker([flow]):
        run = await client.trigger(flow)
        await run.signal("early")
        await waiting(run, client, "one")
        await client.publish("next")
        await waiting(run, client, "two")
        await client.publish("next")
        assert await run.result(PATIENCE) == "three"


async def test_what_can_never_come_skips_its_step(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("in-vain", input=int, retry=ONCE)

    @flow.step
    async def check(n: int) -> bool:
        return n > 0

    @flow.step(after=check, wait_for=all_of(output_of(check, lambda ok: ok), Signal("go")))
    async def act(n: int) -> str | None:
        return "acted"

    async with worker([flow]):
        assert await (await client.trigger(flow, 0)).result(PATIENCE) is None
        run = await client.trigger(flow, 1)
        await run.signal("go")
        assert await run.result(PATIENCE) == "acted"


async def test_the_first_decision_stays_through_attempts(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("stays", input=None, retry=Retry(attempts=3, initial=0.01))
    asked = list[int]()

    @flow.step
    async def first(_: None) -> int:
        return 1

    @flow.step(after=first, skip_if=output_of(first, lambda n: bool(asked.append(n)) or len(asked) > 1))
    async def second(_: None, ctx: Context) -> int | None:
        if ctx.attempt < 3:
            raise OSError("again")
        return ctx.attempt

    async with worker([flow]):
        assert await (await client.trigger(flow)).result(PATIENCE) == 3
        assert asked == [1]


async def test_a_run_is_cancelled_and_ends_in_time_while_a_step_waits(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("bounded", input=None, retry=ONCE, deadline=1.2)

    @flow.step(wait_for=Event("never"))
    async def step(_: None) -> None: ...

    async with worker([flow]):
        run, other = await client.trigger(flow), await client.trigger(flow)
        await waiting(run, client, "step")
        assert await client.cancel(run.id)
        assert (await fails(run)).status == "cancelled"
        assert (await fails(other)).status == "timed_out"


# --- declaring and testing


def _declare(**conditions: Any) -> Workflow[Any, Any]:
    flow = Workflow("declared")

    @flow.step
    async def first(n: int) -> int:
        return n

    @flow.step(after=first, **conditions)
    async def second(n: int) -> int:
        return n

    _ = flow.graph
    return flow


async def an_async_condition(n: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"wait_for": [sleep(1)]}, "wait_for is a list: write any_of"),
        ({"cancel_if": "first"}, "it takes an Event"),
        ({"cancel_if": an_async_condition}, "is an async def"),
        ({"cancel_if": output_of("second", bool)}, "which does not come before it"),
        ({"cancel_if": output_of("nobody", bool)}, "which does not come before it"),
        ({"skip_if": Signal("stop")}, "may be skipped, and the run has no output then"),
    ],
)
def test_what_makes_no_condition_is_refused_where_it_is_declared(conditions: Any, says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=says):
        _declare(**conditions)


def test_a_step_is_no_condition() -> None:
    flow = Workflow("declared")

    @flow.step
    async def first(n: int) -> bool:
        return n > 0

    given: Any = first
    with pytest.raises(InvalidDeclaration, match="output_of"):
        flow.step(name="second", after=first, skip_if=given)(lambda n: n)


async def test_steps_with_conditions_are_called_like_any_other() -> None:
    flow = branching()
    report = flow.steps["report"]
    assert await report(3, jetflow.testing.context(skipped=["many"])) == "few"
    assert await report(3, jetflow.testing.context(outputs={"many": "many"})) == "many"
    assert await flow.steps["few"](3) == "few"
