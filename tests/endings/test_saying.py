"""What steps say, where something is in the way: processes, readers that are slow, streams that cannot be, zombies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

import jetflow
from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow
from jetflow.engine.output import Writing
from jetflow.engine.tasks import StepAddress
from jetflow.runs import listening
from jetflow.server import NatsServer
from jetflow.wire.output import OUT, OutputNames, Place, headers_of
from tests.endings import steps_in_processes as steps
from tests.endings.stored import PATIENCE, until

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


@workflow("counts", retry=ONCE)
async def counts(upto: int, ctx: Context) -> int:
    for number in range(upto):
        await ctx.stream(number)
    return upto


async def test_a_step_in_a_process_says_all_that_others_do(client: Client, worker: MakeWorker) -> None:
    async with worker([steps.said], options=WorkerOptions(processes=1, keep_logs=True)):
        run = await client.trigger(steps.said, 5)
        assert [chunk.value async for chunk in run.stream()] == [{"n": n} for n in range(5)]
        lines = [(line.logger, line.message, line.fields) async for line in run.logs()]
    told = (await run.progress())["say"]
    assert (told.fraction, told.text) == (0.8, "at 4")
    assert lines[:5] == [("", "said", {"n": n}) for n in range(5)]
    assert [line[:2] for line in lines[5:]] == [("of.a.step", "logged in a process")]


async def test_a_reader_that_stops_reading_holds_up_neither_the_step_nor_itself(
    client: Client, worker: MakeWorker
) -> None:
    many = 3 * listening.HEARD
    async with worker([counts]):
        run = await client.trigger(counts, many)
        async with aclosing(run.stream()) as chunks:
            first = await anext(chunks)  # and no other until the run has ended
            assert await run.result(timeout=PATIENCE) == many
            rest = [chunk.value async for chunk in chunks]
    assert [first.value, *rest] == list(range(many))


async def test_live_copies_that_were_lost_are_read_from_the_stream(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_live = listening.Listening._on_live
    heard = 0

    def lossy(self: listening.Listening, message: object) -> None:
        nonlocal heard
        heard += 1
        if heard % 3:
            on_live(self, message)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(listening.Listening, "_on_live", lossy)
    async with worker([counts]):
        run = await client.trigger(counts, 3000)
        assert [chunk.value async for chunk in run.stream()] == list(range(3000))
    assert heard


async def test_what_a_lost_worker_still_writes_is_not_taken_for_the_newer_attempt(
    client: Client, worker: MakeWorker
) -> None:
    gate = asyncio.Event()

    @workflow("waits-for-a-zombie", retry=ONCE)
    async def waits(nothing: None, ctx: Context) -> None:
        await ctx.stream("newer")
        await asyncio.wait_for(gate.wait(), PATIENCE)
        await ctx.stream("newest")

    session, names = client.session, OutputNames(client.session.names)

    async def write(run: str, value: bytes, writing: Writing, index: int) -> None:
        subject = names.said(OUT, StepAddress(run, run, "run"))
        headers = headers_of(Place(1, writing), f"{run}.zombie.{index}", index=index)
        await session.publisher.store(subject, value, headers)

    async with worker([waits]):
        run = await client.trigger(waits)
        async with asyncio.timeout(PATIENCE), aclosing(run.stream()) as chunks:
            seen = [(await anext(chunks)).value]
            await write(run.id, b'"of a zombie"', Writing(0, 0), 0)
            gate.set()
            seen += [chunk.value async for chunk in chunks]
        assert seen == ["newer", "newest"]


async def test_where_the_stream_cannot_be_made_a_step_goes_on_and_says_nothing(
    worker: MakeWorker, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with jetflow.connect(own_server.url) as client, Worker([counts], server=own_server.url):
        names = OutputNames(client.session.names)
        config = {"name": names.stream, "subjects": list(names.all)}  # somebody else's
        await client.session.connection.api(f"STREAM.CREATE.{names.stream}", config)
        run = await client.trigger(counts, 10)
        assert await run.result(timeout=PATIENCE) == 10
    assert sum("is not kept any more" in record.getMessage() for record in caplog.records) == 1


async def test_a_reader_goes_on_when_the_server_was_away(own_server: NatsServer) -> None:
    gate = asyncio.Event()

    @workflow("outlives-its-server", retry=Retry(attempts=5, initial=0))
    async def outlives(nothing: None, ctx: Context) -> None:
        await ctx.stream("before")
        await asyncio.wait_for(gate.wait(), PATIENCE)
        await ctx.stream("after")

    async with jetflow.connect(own_server.url) as client, Worker([outlives], server=own_server.url):
        run = await client.trigger(outlives)
        async with asyncio.timeout(2 * PATIENCE), aclosing(run.stream()) as chunks:
            first = await anext(chunks)
            await own_server.restart()
            gate.set()
            rest = [chunk.value async for chunk in chunks]
    assert (first.value, rest[-1]) == ("before", "after")


async def test_a_step_that_is_cancelled_leaves_what_it_has_said(client: Client, worker: MakeWorker) -> None:
    @workflow("says-and-waits", retry=ONCE)
    async def says_and_waits(nothing: None, ctx: Context) -> None:
        await ctx.stream("said")
        ctx.log("logged")
        await asyncio.Event().wait()

    async with worker([says_and_waits]):
        run = await client.trigger(says_and_waits)
        async with aclosing(run.stream()) as chunks:
            assert (await anext(chunks)).value == "said"
        await client.cancel(run.id)

        async def is_logged() -> bool:
            return [line.message async for line in run.logs()] == ["logged"]

        await until(is_logged)
        assert await run.status() == "cancelled"
