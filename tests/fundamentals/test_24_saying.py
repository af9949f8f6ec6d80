"""What a step says while it runs: chunks that others read as they come, its progress, and a log that stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Any

import pytest
from patience import PATIENCE

import jetflow.sync
from jetflow import Client, Context, InvalidInput, Retry, UnknownRun, Worker, WorkerOptions, Workflow, workflow
from jetflow.engine.output import PROGRESS_EVERY
from jetflow.errors import PayloadTooLarge
from jetflow.server import NatsServer
from jetflow.wire.output import OutputNames

MakeWorker = Callable[..., Worker]

words = ["to", "be", "or", "not", "to", "be"]
log = logging.getLogger("of.a.user")

gate = asyncio.Event()


@workflow("answer")
async def answer(question: str, ctx: Context) -> int:
    for word in words:
        await ctx.stream(word)
    return len(words)


@workflow("slow-answer")
async def slow_answer(question: str, ctx: Context) -> int:
    await ctx.stream("first")
    await asyncio.wait_for(gate.wait(), PATIENCE)
    await ctx.stream("second")
    return 2


@workflow("again", retry=Retry(attempts=2, initial=0))
async def again(upto: int, ctx: Context) -> int:
    for number in range(upto):
        await ctx.stream(number)
    if ctx.attempt == 1:
        raise LookupError("once more")
    return upto


@pytest.fixture(autouse=True)
def _fresh() -> None:
    gate.clear()


async def test_what_a_step_streams_is_read_in_order_until_the_run_has_ended(client: Client, worker: MakeWorker) -> None:
    async with worker([answer]):
        run = await client.trigger(answer, "what?")
        async with aclosing(run.stream()) as chunks:
            assert [chunk.value async for chunk in chunks] == words
        assert await run.result(timeout=PATIENCE) == len(words)


async def test_who_comes_late_reads_all_of_it(client: Client, worker: MakeWorker) -> None:
    async with worker([answer]):
        run = await client.trigger(answer, "what?")
        await run.result(timeout=PATIENCE)
    chunks = [chunk async for chunk in run.stream()]
    assert [chunk.value for chunk in chunks] == words
    assert [chunk.index for chunk in chunks] == list(range(len(words)))
    assert {(chunk.step, chunk.attempt, chunk.turn) for chunk in chunks} == {("run", 1, 0)}


async def test_a_chunk_is_there_before_the_step_has_ended(client: Client, worker: MakeWorker) -> None:
    async with worker([slow_answer]):
        run = await client.trigger(slow_answer, "what?")
        read: list[Any] = []
        async with asyncio.timeout(PATIENCE), aclosing(run.stream()) as chunks:
            async for chunk in chunks:
                read.append(chunk.value)
                gate.set()  # the step goes on when its first chunk was read
        assert read == ["first", "second"]


async def test_a_reader_goes_on_behind_what_it_has_read(client: Client, worker: MakeWorker) -> None:
    async with worker([answer]):
        run = await client.trigger(answer, "what?")
        await run.result(timeout=PATIENCE)
    third = [chunk async for chunk in run.stream()][2]
    assert [chunk.value async for chunk in run.stream(after=third.sequence)] == words[3:]


async def test_a_later_attempt_begins_anew_and_can_be_told_from_the_first(client: Client, worker: MakeWorker) -> None:
    async with worker([again]):
        run = await client.trigger(again, 3)
        await run.result(timeout=PATIENCE)
    chunks = [(chunk.attempt, chunk.index, chunk.value) async for chunk in run.stream()]
    assert chunks == [(attempt, index, index) for attempt in (1, 2) for index in range(3)]


async def test_bytes_come_back_as_bytes_and_each_step_can_be_read_alone(client: Client, worker: MakeWorker) -> None:
    two = Workflow("two-speakers", input=int)

    @two.step
    async def first(number: int, ctx: Context) -> None:
        await ctx.stream(b"\x00\xff")

    @two.step(after=first)
    async def second(number: int, ctx: Context) -> None:
        await ctx.stream({"n": number})

    async with worker([two]):
        run = await client.trigger(two, 7)
        assert [chunk.value async for chunk in run.stream()] == [b"\x00\xff", {"n": 7}]
        assert [chunk.value async for chunk in run.stream(step="second")] == [{"n": 7}]


async def test_what_cannot_be_a_chunk_is_an_error_of_the_step(client: Client, worker: MakeWorker) -> None:
    @workflow("cannot-say", retry=Retry(attempts=1))
    async def cannot_say(nothing: None, ctx: Context) -> list[str]:
        refused: list[str] = []
        for chunk in (object(), "x" * 300_000):
            try:
                await ctx.stream(chunk)
            except (InvalidInput, PayloadTooLarge) as error:
                refused.append(type(error).__name__)
        return refused

    async with worker([cannot_say]):
        run = await client.trigger(cannot_say)
        assert await run.result(timeout=PATIENCE) == ["InvalidInput", "PayloadTooLarge"]
        assert [chunk async for chunk in run.stream()] == []


async def test_a_step_tells_how_far_it_is(client: Client, worker: MakeWorker) -> None:
    @workflow("copies", retry=Retry(attempts=1))
    async def copies(files: int, ctx: Context) -> int:
        for done in range(files):
            ctx.progress(done / files, f"file {done}")
        ctx.progress(1, "done")
        return files

    async with worker([copies]):
        run = await client.trigger(copies, 500)
        await run.result(timeout=PATIENCE)
    told = (await run.progress())["run"]
    assert (told.fraction, told.text, told.attempt) == (1.0, "done", 1)


async def test_progress_is_throttled_and_ends_with_the_last_value(client: Client, worker: MakeWorker) -> None:
    @workflow("hurries", retry=Retry(attempts=1))
    async def hurries(values: int, ctx: Context) -> float:
        began = monotonic()
        for value in range(values + 1):
            ctx.progress(value / values)
            await asyncio.sleep(0.002)
        return monotonic() - began

    async with worker([hurries]):
        run = await client.trigger(hurries, 300)
        took = await run.result(timeout=PATIENCE)
    names = OutputNames(client.session.names)
    stored = [page async for page in client.session.store.pages(names.stream, names.of_run("progress", run.id))]
    assert (await run.progress())["run"].fraction == 1.0
    assert sum(map(len, stored)) <= took / PROGRESS_EVERY + 2  # the first and the last are stored in any case


async def test_a_step_keeps_a_log_with_its_run(client: Client, worker: MakeWorker) -> None:
    @workflow("keeps")
    async def keeps(number: int, ctx: Context) -> int:
        ctx.log("begins", number=number)
        ctx.log("is odd", level="warning")
        return number

    async with worker([keeps]):
        run = await client.trigger(keeps, 3)
        lines = [line async for line in run.logs(follow=True)]
    assert [(line.level, line.message, line.fields) for line in lines] == [
        ("info", "begins", {"number": 3}),
        ("warning", "is odd", {}),
    ]


async def test_what_is_logged_by_the_standard_library_is_kept_if_the_worker_shall(
    client: Client, worker: MakeWorker
) -> None:
    @workflow("logs-plainly")
    def logs_plainly(number: int) -> int:  # in a thread, and without a context
        log.warning("number %d", number, extra={"n": number})
        return number

    async with worker([logs_plainly], options=WorkerOptions(keep_logs=True)):
        log.warning("of no step")
        runs = [await client.trigger(logs_plainly, number) for number in (1, 2)]
        lines = [[line async for line in run.logs(follow=True)] for run in runs]
    assert [[(line.logger, line.message, line.fields) for line in of_run] for of_run in lines] == [
        [("of.a.user", f"number {number}", {"n": number})] for number in (1, 2)
    ]


async def test_a_step_in_a_thread_streams_too(client: Client, worker: MakeWorker) -> None:
    @workflow("in-a-thread")
    def in_a_thread(number: int, ctx: Context) -> None:
        for word in words:
            ctx.block_on(ctx.stream(word))
        ctx.progress(0.5, "half")
        ctx.log("from a thread")

    async with worker([in_a_thread]):
        run = await client.trigger(in_a_thread, 1)
        assert [chunk.value async for chunk in run.stream()] == words
        assert [line.message async for line in run.logs()] == ["from a thread"]
        assert (await run.progress())["run"].text == "half"


async def test_a_step_that_says_too_much_is_not_held_up_and_a_line_says_what_was_dropped(
    client: Client, worker: MakeWorker
) -> None:
    @workflow("chatters")
    async def chatters(lines: int, ctx: Context) -> None:
        for line in range(lines):
            ctx.log(f"line {line}")

    async with worker([chatters]):
        run = await client.trigger(chatters, 5000)
        lines = [line async for line in run.logs(follow=True)]
    assert [line.message for line in lines[:1000]] == [f"line {n}" for n in range(1000)]
    assert [line.message for line in lines[1000:]] == ["4000 more lines of this step were dropped: there were too many"]


async def test_the_newest_chunks_of_a_step_are_kept(client: Client, worker: MakeWorker) -> None:
    async with worker([again]):
        run = await client.trigger(again, 6000)
        await run.result(timeout=PATIENCE)
    chunks = [(chunk.attempt, chunk.index) async for chunk in run.stream()]
    assert chunks == [(1, index) for index in range(2000, 6000)] + [(2, index) for index in range(6000)]


async def test_deleting_a_run_deletes_what_it_has_said(client: Client, worker: MakeWorker) -> None:
    async with worker([answer]):
        run, other = [await client.trigger(answer, "what?") for _ in range(2)]
        await run.result(timeout=PATIENCE)
        await other.result(timeout=PATIENCE)
        await client.delete(run.id)
    names = OutputNames(client.session.names)
    assert await client.session.store.leader_count(names.stream, names.of_run("out", run.id)) == 0
    assert [chunk.value async for chunk in other.stream()] == words
    with pytest.raises(UnknownRun):
        [chunk async for chunk in client.run(run.id).stream()]


async def test_a_namespace_that_says_nothing_has_no_stream_for_it(client: Client, worker: MakeWorker) -> None:
    @workflow("says-nothing")
    async def says_nothing(number: int, ctx: Context) -> int:
        return number

    async with worker([says_nothing]):
        run = await client.trigger(says_nothing, 1)
        assert [chunk async for chunk in run.stream()] == []
        assert [line async for line in run.logs()] == []
        assert await run.progress() == {}
    assert not any(stream.name.endswith("_output") for stream in (await client.storage()).streams)
    assert await client.drift() == []


async def test_plain_programs_read_as_they_iterate(client: Client, worker: MakeWorker, nats_server: NatsServer) -> None:
    def read(run_id: str) -> list[Any]:
        with jetflow.sync.connect(nats_server.url, namespace=client.namespace) as plain:
            return [chunk.value for chunk in plain.run(run_id).stream()]

    async with worker([answer]):
        run = await client.trigger(answer, "what?")
        assert await asyncio.to_thread(read, run.id) == words
