"""Waiting for events: nothing is held meanwhile, early ones are found, each is taken once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from patience import PATIENCE, until

import jetflow.testing
from jetflow import (
    Client,
    Context,
    Event,
    InvalidInput,
    Retry,
    Run,
    RunFailed,
    Signal,
    WaitTimeout,
    Worker,
    WorkerOptions,
    all_of,
    any_of,
    sleep,
    workflow,
)

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


class Approval(msgspec.Struct):
    by: str
    yes: bool = True


@workflow("order", retry=ONCE)
async def order(number: str, ctx: Context) -> str:
    approval = Event("order.approved", key=number, payload=Approval)
    happened = await ctx.wait_for(approval)
    return f"{number} approved by {happened.payload.by}"


@workflow("listens", retry=ONCE)
async def listens(times: int, ctx: Context) -> list[Any]:
    return [(await ctx.wait_for(Signal("said"))).payload for _ in range(times)]


async def parked(run: Run[Any]) -> None:
    async def waits() -> bool:
        return any(step.status == "waiting" for step in (await run_trace(run)).steps)

    await until(waits)


async def run_trace(run: Run[Any]) -> Any:
    return await Client(run._session).describe(run.id)


async def test_an_event_ends_a_wait(client: Client, worker: MakeWorker) -> None:
    async with worker([order]):
        run = await client.trigger(order, "a1")
        await parked(run)
        await client.publish("order.approved", Approval(by="bob"), key="another")
        await client.publish("order.approved", Approval(by="ann"), key="a1")
        assert await run.result(timeout=PATIENCE) == "a1 approved by ann"


async def test_a_waiting_step_holds_no_slot_and_no_worker(client: Client, worker: MakeWorker) -> None:
    async with worker([order], slots=1):
        runs = [await client.trigger(order, f"a{n}") for n in range(5)]
        for run in runs:
            await parked(run)
    async with worker([order], slots=1):  # another worker, which has heard of nothing
        for n in range(5):
            await client.publish("order.approved", Approval(by="ann"), key=f"a{n}")
        assert [await run.result(timeout=PATIENCE) for run in runs] == [f"a{n} approved by ann" for n in range(5)]


async def test_an_event_that_comes_before_it_is_waited_for_is_found(client: Client, worker: MakeWorker) -> None:
    run = await client.trigger(order, "a1")  # no worker has begun it
    await client.publish("order.approved", Approval(by="ann"), key="a1")
    async with worker([order]):
        assert await run.result(timeout=PATIENCE) == "a1 approved by ann"


async def test_an_event_from_before_the_run_counts_where_one_looks_back(client: Client, worker: MakeWorker) -> None:
    @workflow("looks-back", retry=ONCE)
    async def looks_back(seconds: float, ctx: Context) -> str:
        try:
            found = await ctx.wait_for(Event("door.opened", payload=str, lookback=seconds), timeout=0.1)
        except WaitTimeout:
            return "nobody"
        return found.payload

    await client.publish("door.opened", "ann")
    await asyncio.sleep(1.2)  # more than the clocks of servers may differ
    async with worker([looks_back]):
        results = [await (await client.trigger(looks_back, s)).result(timeout=PATIENCE) for s in (0.0, 60.0)]
    assert results == ["nobody", "ann"]


async def test_signals_are_taken_once_and_in_order(client: Client, worker: MakeWorker) -> None:
    async with worker([listens]):
        run, other = await client.trigger(listens, 3), await client.trigger(listens, 1)
        await run.signal("said", 1)
        await run.signal("said", 2)
        await parked(run)
        await run.signal("other", "to nobody")
        await run.signal("said", 3)
        assert await run.result(timeout=PATIENCE) == [1, 2, 3]
        await other.signal("said", "mine")
        assert await other.result(timeout=PATIENCE) == ["mine"]


async def test_a_wait_gives_up_and_an_event_that_comes_late_is_for_the_next_one(
    client: Client, worker: MakeWorker
) -> None:
    @workflow("impatient", retry=ONCE)
    async def impatient(nothing: None, ctx: Context) -> list[Any]:
        try:
            first = (await ctx.wait_for(Signal("go"), timeout=0.2)).payload
        except WaitTimeout:
            first = "late"
        return [first, (await ctx.wait_for(Signal("go"))).payload]

    async with worker([impatient]):
        run = await client.trigger(impatient)
        await asyncio.sleep(1.0)
        await run.signal("go", "now")
        assert await run.result(timeout=PATIENCE) == ["late", "now"]


async def test_a_wait_that_nobody_catches_fails_the_step_once(client: Client, worker: MakeWorker) -> None:
    @workflow("gives-up", retry=Retry(attempts=3, initial=0))
    async def gives_up(nothing: None, ctx: Context) -> None:
        await ctx.wait_for(Signal("go"), timeout=0.1)

    async with worker([gives_up]):
        run = await client.trigger(gives_up)
        with pytest.raises(RunFailed, match=r"Signal\('go'\) has not come within 0.1 s") as caught:
            await run.result(timeout=PATIENCE)
    assert caught.value.error_type == "WaitTimeout"


async def test_of_alternatives_the_first_counts_and_says_which_it_is(client: Client, worker: MakeWorker) -> None:
    @workflow("chooses", retry=ONCE)
    async def chooses(seconds: float, ctx: Context) -> list[Any]:
        yes, no, late = Signal("yes", payload=str), Signal("no"), sleep(seconds)
        came = await ctx.wait_for(any_of(yes, no, late))
        return [{yes: "yes", no: "no", late: "late"}[came.condition], came.payload]

    async with worker([chooses]):
        runs = [await client.trigger(chooses, seconds) for seconds in (60.0, 60.0, 0.3)]
        await runs[0].signal("yes", "of course")
        await parked(runs[1])
        await runs[1].signal("no")
        results = [await run.result(timeout=PATIENCE) for run in runs]
    assert results == [["yes", "of course"], ["no", None], ["late", None]]


async def test_all_of_them_are_waited_for_in_whichever_order_they_come(client: Client, worker: MakeWorker) -> None:
    @workflow("needs-both", retry=ONCE)
    async def needs_both(nothing: None, ctx: Context) -> list[Any]:
        both = all_of(Signal("paid"), any_of(Signal("packed"), Signal("skipped")), Signal("paid"))
        return [came.payload for came in await ctx.wait_for(both)]

    async with worker([needs_both]):
        run = await client.trigger(needs_both)
        for name, payload in (("skipped", 1), ("paid", 2), ("packed", 3)):
            await parked(run)
            await run.signal(name, payload)
        await asyncio.sleep(0.3)
        assert await run.status() == "running"
        await run.signal("paid", 4)
        assert await run.result(timeout=PATIENCE) == [2, 1, 4]


async def test_conditions_on_the_payload(client: Client, worker: MakeWorker) -> None:
    @workflow("is-picky", retry=ONCE)
    async def is_picky(nothing: None, ctx: Context) -> Any:
        return (await ctx.wait_for(Event("bid", if_=[["amount", ">=", 100]]))).payload["amount"]

    async with worker([is_picky]):
        run = await client.trigger(is_picky)
        await client.publish("bid", {"amount": 1})
        await parked(run)
        await client.publish("bid", {"amount": 99})
        await client.publish("bid", {"amount": 100})
        await client.publish("bid", {"amount": 101})
        assert await run.result(timeout=PATIENCE) == 100


async def test_a_payload_that_does_not_fit_fails_that_wait_and_no_other(client: Client, worker: MakeWorker) -> None:
    @workflow("checks", retry=ONCE)
    async def checks(nothing: None, ctx: Context) -> list[str]:
        signal = Signal("approval", payload=Approval)
        try:
            await ctx.wait_for(signal)
        except InvalidInput as error:
            return [str(error), (await ctx.wait_for(signal)).payload.by]
        return []

    async with worker([checks]):
        run = await client.trigger(checks)
        await run.signal("approval", {"by": 7})
        await run.signal("approval", {"by": "ann"})
        error, by = await run.result(timeout=PATIENCE)
    assert "Signal('approval')" in error
    assert "$.by" in error
    assert by == "ann"


async def test_an_event_wakes_all_that_wait_for_it(client: Client, worker: MakeWorker) -> None:
    @workflow("waits-for-the-bell", retry=ONCE)
    async def waits_for_the_bell(number: int, ctx: Context) -> str:
        return (await ctx.wait_for(Event("bell", payload=str))).payload

    async with worker([waits_for_the_bell]), worker([waits_for_the_bell]):
        runs = await client.trigger_many(waits_for_the_bell, range(200))
        for run in runs:
            await parked(run)
        await client.publish("bell", "ding")
        assert [await run.result(timeout=PATIENCE) for run in runs] == ["ding"] * 200
    names = client.session.names
    assert await client.session.store.leader_count(f"JF_{names.namespace}_waits", f"{names.prefix}.wait.>") == 0


async def test_a_worker_that_started_before_anybody_waited_wakes_steps_as_well(
    client: Client, worker: MakeWorker
) -> None:
    other = workflow("other")(listens.function)
    async with worker([other]):
        async with worker([listens]):
            run = await client.trigger(listens, 1)
            await parked(run)
        await run.signal("said", 1)  # only the worker of another workflow is there

        async def is_woken() -> bool:
            return (await run_trace(run)).steps[0].status == "queued"

        await until(is_woken)
        async with worker([listens]):
            assert await run.result(timeout=PATIENCE) == [1]


async def test_a_step_beside_other_work_waits_in_memory_and_goes_on(client: Client, worker: MakeWorker) -> None:
    @workflow("does-two-things", retry=ONCE)
    async def does_two_things(nothing: None, ctx: Context) -> list[Any]:
        async def heard(name: str) -> Any:
            return (await ctx.wait_for(Signal(name))).payload

        return list(await asyncio.gather(heard("a"), heard("b"), heard("a"), asyncio.sleep(0.1, "slept")))

    async with worker([does_two_things], options=WorkerOptions(park_after=30)):
        run = await client.trigger(does_two_things)
        for name, payload in (("b", 1), ("a", 2), ("a", 3)):
            await run.signal(name, payload)
        assert await run.result(timeout=PATIENCE) == [2, 1, 3, "slept"]


async def test_a_value_may_be_one_of_several(client: Client, worker: MakeWorker) -> None:
    @workflow("chooses", retry=ONCE)
    async def chooses(_: None, ctx: Context) -> Any:
        return (await ctx.wait_for(Event("came", if_=[["from", "in", ["de", "fr"]]]))).payload

    async with worker([chooses]):
        run = await client.trigger(chooses)
        await parked(run)
        await client.publish("came", {"from": "it"})
        await client.publish("came", {"from": "fr"})
        assert await run.result(PATIENCE) == {"from": "fr"}


async def test_a_run_whose_time_is_over_waits_no_more(client: Client, worker: MakeWorker) -> None:
    @workflow("bounded", retry=ONCE, deadline=1.0)
    async def bounded(_: None, ctx: Context) -> None:
        await ctx.wait_for(Event("never"))

    async with worker([bounded]):
        run = await client.trigger(bounded)
        with pytest.raises(RunFailed) as failed:
            await run.result(PATIENCE)
        assert failed.value.status == "timed_out"


async def test_a_cancelled_run_waits_no_more(client: Client, worker: MakeWorker) -> None:
    async with worker([listens]):
        run = await client.trigger(listens, 1)
        await parked(run)
        await client.cancel(run.id)
        await run.signal("said", 1)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(timeout=PATIENCE)


async def test_what_is_no_condition_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="topic"):
        Event("a b")
    with pytest.raises(InvalidInput, match="any_of"):
        any_of()
    with pytest.raises(InvalidInput, match="AnyOf"):
        all_of("order.paid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput, match=r"run\.signal"):
        await client.publish("run.approval", 1, key="x")


async def test_a_step_that_waits_is_called_in_a_test_without_a_broker() -> None:
    ctx = jetflow.testing.context(
        events=[("order.approved", {"by": "eve"}, "b2"), ("order.approved", {"by": "ann"}, "a1")]
    )
    assert await order("a1", ctx) == "a1 approved by ann"
