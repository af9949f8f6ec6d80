"""Triggering a run from outside, and following it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from patience import PATIENCE

from jetflow import Client, Context, KeyConflict, Retry, RunFailed, UnknownRun, Worker, Workflow, workflow
from jetflow.errors import ResultTimeout


class Order(msgspec.Struct):
    item: str
    count: int = 1


class Receipt(msgspec.Struct):
    text: str


@workflow("buy")
async def buy(order: Order) -> Receipt:
    return Receipt(f"{order.count} x {order.item}")


async def test_a_run_returns_what_its_step_returned(client: Client, worker: Callable[..., Worker]) -> None:
    """Inputs and outputs are JSON on the wire and typed values in the code."""
    async with worker([buy]):
        run = await client.trigger(buy, Order("tea", 2))
        assert await run.result(PATIENCE) == Receipt("2 x tea")


async def test_a_run_may_be_triggered_before_any_worker_exists(client: Client, worker: Callable[..., Worker]) -> None:
    """The task lies in the stream until somebody pulls it."""
    run = await client.trigger(buy, Order("tea"))
    assert await run.status() == "queued"
    async with worker(buy):
        assert await run.result(PATIENCE) == Receipt("1 x tea")
    assert await run.status() == "succeeded"


async def test_a_name_is_enough_to_trigger(client: Client, worker: Callable[..., Worker]) -> None:
    """A client without the workflow's code sends JSON and receives JSON."""
    async with worker([buy]):
        run = await client.trigger("buy", {"item": "tea"})
        assert await run.result(PATIENCE) == {"text": "1 x tea"}


async def test_without_a_key_every_trigger_is_a_new_run(client: Client, worker: Callable[..., Worker]) -> None:
    """Dedup by input is for children: the same trigger twice means two runs."""
    async with worker([buy]):
        first, second = [await client.trigger(buy, Order("tea")) for _ in range(2)]
        assert first.id != second.id
        await asyncio.gather(first.result(PATIENCE), second.result(PATIENCE))


async def test_the_same_key_is_the_same_run(client: Client, worker: Callable[..., Worker]) -> None:
    """A key names a run for as long as its records are kept, finished or not."""
    runs = 0

    @workflow("nightly")
    async def nightly(day: str) -> int:
        nonlocal runs
        runs += 1
        return runs

    first = await client.trigger(nightly, "2026-11-22", key="nightly-2026-11-22")
    again = await client.trigger(nightly, "2026-11-22", key="nightly-2026-11-22")
    async with worker([nightly]):
        assert await first.result(PATIENCE) == 1
        late = await client.trigger(nightly, "2026-11-22", key="nightly-2026-11-22")
        assert first.id == again.id == late.id
        assert await late.result(PATIENCE) == 1
    assert runs == 1


async def test_the_same_key_with_another_input_is_refused(client: Client, worker: Callable[..., Worker]) -> None:
    """A key never silently stands for another input; the error shows both digests."""
    run = await client.trigger(buy, Order("tea"), key="order-7")
    with pytest.raises(KeyConflict) as caught:
        await client.trigger(buy, Order("coffee"), key="order-7")
    conflict = caught.value
    assert conflict.run_id == run.id
    assert conflict.stored_digest != conflict.given_digest
    assert conflict.stored_digest in str(conflict)
    assert conflict.given_digest in str(conflict)
    async with worker([buy]):
        assert await run.result(PATIENCE) == Receipt("1 x tea")


async def test_a_run_is_found_again_by_its_id(client: Client, worker: Callable[..., Worker]) -> None:
    """The id is all that another process needs; the workflow, if given, types the output."""
    async with worker([buy]):
        run = await client.trigger(buy, Order("tea"))
        assert await client.run(run.id).result(PATIENCE) == {"text": "1 x tea"}
        assert await client.run(run.id, buy).result(PATIENCE) == Receipt("1 x tea")


async def test_an_unknown_run_is_an_error(client: Client) -> None:
    """Neither what is no id, nor an id that names nothing, passes for a run."""
    with pytest.raises(UnknownRun, match="nonsense"):
        client.run("nonsense")
    with pytest.raises(UnknownRun):
        await client.run("0" * 32).status()
    with pytest.raises(UnknownRun):
        await client.describe("0" * 32)


async def test_result_waits_no_longer_than_it_is_told(client: Client, worker: Callable[..., Worker]) -> None:
    """ResultTimeout ends the wait, not the run. It is a TimeoutError."""
    go_on = asyncio.Event()

    @workflow("patient")
    async def patient() -> str:
        await go_on.wait()
        return "done"

    async with worker([patient]):
        run = await client.trigger(patient)
        with pytest.raises(ResultTimeout, match=run.id) as caught:
            await run.result(0.05)
        assert isinstance(caught.value, TimeoutError)
        go_on.set()
        assert await run.result(PATIENCE) == "done"


async def test_a_failed_run_raises_where_its_result_is_asked_for(client: Client, worker: Callable[..., Worker]) -> None:
    """RunFailed names the run, the workflow, the step, and the error with its traceback."""
    flow = Workflow("fragile", output=int, retry=Retry(attempts=1))

    @flow.step
    async def crash(reason: str) -> int:
        raise LookupError(reason)

    async with worker([flow]):
        run = await client.trigger(flow, "no such bird")
        with pytest.raises(RunFailed, match="no such bird") as caught:
            await run.result(PATIENCE)
    failed = caught.value
    assert (failed.run_id, failed.workflow, failed.step) == (run.id, "fragile", "crash")
    assert (failed.error_type, failed.error_message) == ("LookupError", "no such bird")
    assert "in crash" in failed.traceback
    assert await run.status() == "failed"


async def test_a_step_sees_the_metadata_of_its_run(client: Client, worker: Callable[..., Worker]) -> None:
    """Metadata is JSON that travels beside the input and does not count for its identity."""

    @workflow("who")
    async def who(_: None, ctx: Context) -> str:
        return ctx.metadata["user"]

    async with worker([who]):
        run = await client.trigger(who, metadata={"user": "Zoë"})
        assert await run.result(PATIENCE) == "Zoë"
