"""Values beyond one message: by reference, in chunks, in both directions, checked when they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import KeyConflict, PayloadTooLarge
from jetflow.runs.trace import Totals
from jetflow.runs.values import LARGEST, LostValue
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
KIB, MIB = 1024, 1024 * 1024
SIZES = [256 * KIB, 300 * KIB, MIB, 20 * MIB]


@workflow("echo", retry=Retry(attempts=1))
async def echo(text: str) -> str:
    return text


@workflow("repeat", retry=Retry(attempts=1))
async def repeat(size: int) -> str:
    return "x" * size


@pytest.mark.parametrize("size", SIZES)
async def test_in_and_out_of_a_root_run(client: Client, worker: MakeWorker, size: int) -> None:
    text = "ü" * (size // 2)
    async with worker([echo]):
        run = await client.trigger(echo, text)
        assert await run.result(PATIENCE) == text
        assert await client.run(run.id, echo).result(PATIENCE) == text
        assert (await client.describe(run.id)).output == text
        assert await run.status() == "succeeded"


@pytest.mark.parametrize("size", SIZES)
async def test_in_and_out_of_a_child(client: Client, worker: MakeWorker, size: int) -> None:
    @workflow("parent")
    async def parent(_: None, ctx: Context) -> bool:
        return await (await ctx.spawn_workflow(echo, "x" * size)).result() == "x" * size

    async with worker([parent, echo]):
        assert await (await client.trigger(parent)).result(PATIENCE)


@pytest.mark.parametrize("park_after", [60, 0])
async def test_in_bulk_and_by_key(client: Client, worker: MakeWorker, park_after: float) -> None:
    sizes = [10, 300 * KIB, 20, MIB]

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        texts = [str(number) * size for number, size in enumerate(sizes)]
        children = await ctx.spawn_workflows(echo, texts, key=lambda text: text[0])
        return [len(text) for text in await ctx.join(children)]

    async with worker([parent, echo], options=WorkerOptions(park_after=park_after)):
        assert await (await client.trigger(parent)).result(PATIENCE) == sizes


async def test_the_same_large_input_is_the_same_child(client: Client, worker: MakeWorker) -> None:
    """Identity is the digest of the input, wherever it travels."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[bool]:
        one, same, other = [await ctx.spawn_workflow(repeat_text, text * MIB) for text in "aab"]
        await ctx.join([one, same, other])
        return [one.id == same.id, one.id == other.id]

    @workflow("repeat-text")
    async def repeat_text(_: str) -> None: ...

    async with worker([parent, repeat_text]):
        assert await (await client.trigger(parent)).result(PATIENCE) == [True, False]


async def test_a_key_with_another_large_input_is_refused(client: Client) -> None:
    await client.trigger(echo, "a" * MIB, key="taken")
    await client.trigger(echo, "a" * MIB, key="taken")
    with pytest.raises(KeyConflict):
        await client.trigger(echo, "b" * MIB, key="taken")


async def test_at_the_boundary(client: Client, worker: MakeWorker) -> None:
    """A sealed step's own output, and what `ctx.children` reads."""
    flow = Workflow("flow")

    @flow.step
    async def scatter(_: None, ctx: Context) -> str:
        await ctx.spawn_workflows(repeat, [300 * KIB, MIB, 5])
        return "s" * MIB

    @flow.step(after=[scatter])
    async def gather(_: None, ctx: Context) -> list[int]:
        return [len(ctx.output(scatter)), *sorted([len(one.output) async for one in ctx.children(scatter, repeat)])]

    async with worker([flow, repeat]):
        assert await (await client.trigger(flow)).result(PATIENCE) == [MIB, 5, 300 * KIB, MIB]


async def test_from_several_last_steps(client: Client, worker: MakeWorker) -> None:
    """Outputs that are small alone, and large together; and such that are large alone."""
    flow = Workflow("diamond")

    @flow.step
    async def first(size: int) -> str:
        return "f" * size

    @flow.step(after=[first])
    async def left(size: int, ctx: Context) -> str:
        return "l" * len(ctx.output(first))

    @flow.step(after=[first])
    async def right(size: int) -> str:
        return "r" * size

    async with worker([flow]):
        for size in (200 * KIB, MIB):
            assert await (await client.trigger(flow, size)).result(PATIENCE) == {
                "left": "l" * size,
                "right": "r" * size,
            }


async def test_a_retry_reads_its_input_again(client: Client, worker: MakeWorker) -> None:
    @workflow("retried", retry=Retry(attempts=2, initial=0))
    async def retried(text: str, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise OSError
        return len(text)

    async with worker([retried]):
        assert await (await client.trigger(retried, "x" * MIB)).result(PATIENCE) == MIB


async def test_of_an_early_child_seen_by_a_policy(client: Client, worker: MakeWorker) -> None:
    @workflow("parent")
    async def parent(_: None, ctx: Context) -> list[int]:
        return [len(await child.result()) async for child in ctx.as_completed([await ctx.spawn_workflow(repeat, MIB)])]

    async with worker([parent, repeat]):
        assert await (await client.trigger(parent)).result(PATIENCE) == [MIB]


async def test_more_than_the_largest_is_refused(client: Client, worker: MakeWorker) -> None:
    with pytest.raises(PayloadTooLarge, match=r"67,108,864"):
        await client.trigger(echo, "x" * LARGEST)
    async with worker([repeat]):
        with pytest.raises(RunFailed, match="PayloadTooLarge"):
            await (await client.trigger(repeat, LARGEST)).result(PATIENCE)


async def replace_chunk(client: Client, subject: str, body: bytes) -> None:
    session = client._session
    await session.connection.api(f"STREAM.PURGE.{session.names.values_stream}", {"filter": subject})
    await session.publisher.store(subject, body)


async def test_a_changed_input_is_noticed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    run = await client.trigger(echo, "x" * MIB)
    values = await stored.subjects(stored.names.values_stream)
    await replace_chunk(client, values[0], b"y" * 256 * KIB)
    async with worker([echo]):
        with pytest.raises(RunFailed, match="was changed") as caught:
            await run.result(PATIENCE)
    assert caught.value.error_type == "LostValue"


async def test_a_changed_output_is_noticed(client: Client, worker: MakeWorker, stored: Stored) -> None:
    async with worker([repeat]):
        run = await client.trigger(repeat, MIB)
        await run.result(PATIENCE)
    values = await stored.subjects(stored.names.values_stream)
    await replace_chunk(client, values[0], b"y" * 256 * KIB)
    with pytest.raises(LostValue, match="was changed"):
        await run.result(PATIENCE)


async def test_a_step_whose_upstream_output_is_lost_fails_by_name(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    flow, began, go = Workflow("flow"), asyncio.Event(), asyncio.Event()

    @flow.step
    async def first() -> str:
        return "x" * MIB

    @flow.step(after=[first], retry=Retry(attempts=2, initial=0))
    async def second(_: None, ctx: Context) -> None:
        began.set()
        await go.wait()
        raise OSError

    async with worker([flow]):
        run = await client.trigger(flow)
        await began.wait()
        purge = f"STREAM.PURGE.{stored.names.values_stream}"
        await stored.session.connection.api(purge, {"filter": stored.names.values_of_tree(run.id)})
        go.set()
        with pytest.raises(RunFailed, match="is gone") as caught:
            await run.result(PATIENCE)
    assert (caught.value.error_type, caught.value.step) == ("LostValue", "second")


async def test_a_run_of_several_last_steps_fails_by_name(client: Client, worker: MakeWorker, stored: Stored) -> None:
    flow, go = Workflow("two-ends"), asyncio.Event()

    @flow.step
    async def large() -> str:
        return "x" * MIB

    @flow.step
    async def slow() -> None:
        await go.wait()

    async with worker([flow]):
        run = await client.trigger(flow)
        await until(lambda: stored.subjects(stored.names.records_stream, f"jf.*.step.*.{run.id}.large"))
        purge = f"STREAM.PURGE.{stored.names.values_stream}"
        await stored.session.connection.api(purge, {"filter": stored.names.values_of_tree(run.id)})
        go.set()
        with pytest.raises(RunFailed, match="is gone") as caught:
            await run.result(PATIENCE)
    assert caught.value.error_type == "LostValue"


async def test_the_child_that_finds_an_output_of_its_parent_lost_is_well(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """Its end is the last that its parent's run waits for; that run fails by name, and the child does not."""
    flow, go = Workflow("two-ends"), asyncio.Event()

    @workflow("child")
    async def child() -> None:
        await go.wait()

    @flow.step
    async def large() -> str:
        return "x" * MIB

    @flow.step
    async def spawns(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(child)

    async def are_stored() -> bool:
        records = stored.names.records_stream
        return bool(await stored.subjects(records, "jf.*.step.>") and await stored.subjects(records, "jf.*.join.>"))

    async with worker([flow, child]):
        run = await client.trigger(flow)
        await until(are_stored)
        await stored.session.connection.api(f"STREAM.PURGE.{stored.names.values_stream}")
        go.set()
        with pytest.raises(RunFailed, match="is gone") as caught:
            await run.result(PATIENCE)
        await until(stored.all_acknowledged)
    assert (caught.value.error_type, caught.value.step) == ("LostValue", "large")
    assert (await client.describe(run.id)).totals == Totals(spawned=1, succeeded=1)


async def test_a_bulk_spawn_of_inputs_of_all_sizes(client: Client, worker: MakeWorker) -> None:
    """Batches end by their bytes or their number: each input arrives in its place."""
    sizes = [1, 200 * KIB, 30, 900 * KIB] * 40 + [10] * 700

    @workflow("measure")
    async def measure(text: str) -> int:
        return len(text) - 5

    @workflow("spawner", retry=Retry(attempts=1))
    async def spawner(_: None, ctx: Context) -> list[int]:
        texts = (f"{at:05d}" + "x" * size for at, size in enumerate(sizes))
        return await ctx.join(await ctx.spawn_workflows(measure, texts))

    async with worker([spawner, measure]):
        assert await (await client.trigger(spawner)).result(PATIENCE) == sizes
