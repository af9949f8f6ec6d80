"""Each way to end: one recorded outcome with the right status, and all that went wrong in `describe`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, time
from typing import Any

from jetflow import (
    Client,
    Context,
    NonRetryable,
    Retry,
    RetryAfter,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.broker.connection import Message
from jetflow.broker.puller import Delivery
from jetflow.broker.store import collect
from jetflow.engine.tasks import NONE
from jetflow.runs.trace import RunTrace
from jetflow.wire.headers import Header
from jetflow.wire.records import decode_mark, header_block, parse_task
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
THRICE = Retry(attempts=3, initial=0)


async def end_of(client: Client, run_id: str) -> RunTrace:
    """Wait for a run to end somehow, check that it ended once, and return its trace."""
    try:
        await client.run(run_id).result(PATIENCE)
    except RunFailed as error:
        failed = error
    else:
        failed = None
    trace = await client.describe(run_id)
    assert trace.status == ("succeeded" if failed is None else failed.status)
    assert len(await Stored(client).subjects(client._session.names.records_stream, f"jf.*.run.*.*.*.{run_id}")) == 1
    return trace


async def test_success(client: Client, worker: MakeWorker) -> None:
    @workflow("works")
    async def works() -> int:
        return 1

    async with worker([works]):
        trace = await end_of(client, (await client.trigger(works)).id)
    assert (trace.status, trace.output, trace.error) == ("succeeded", 1, None)
    assert [(step.status, step.attempts, step.failures) for step in trace.steps] == [("succeeded", 1, ())]


async def test_failure_lists_the_attempts_before(client: Client, worker: MakeWorker) -> None:
    @workflow("fails", retry=THRICE)
    async def fails(_: None, ctx: Context) -> None:
        raise OSError(f"attempt {ctx.attempt}")

    async with worker([fails]):
        trace = await end_of(client, (await client.trigger(fails)).id)
    [step] = trace.steps
    assert trace.status == step.status == "failed"
    assert trace.error is not None
    assert (trace.error.type, trace.error.message, trace.error.step) == ("OSError", "attempt 3", "run")
    assert step.attempts == 3
    assert [attempt.error and attempt.error.message for attempt in step.failures] == ["attempt 1", "attempt 2"]


async def test_non_retryable_ends_at_once(client: Client, worker: MakeWorker) -> None:
    @workflow("hopeless", retry=THRICE)
    async def hopeless() -> None:
        raise NonRetryable("no such account")

    async with worker([hopeless]) as only:
        trace = await end_of(client, (await client.trigger(hopeless)).id)
    assert only.counts.executed == trace.steps[0].attempts == 1
    assert trace.error is not None
    assert (trace.error.type, trace.error.message) == ("NonRetryable", "no such account")


async def test_retry_after_waits_as_long_as_it_says(client: Client, worker: MakeWorker) -> None:
    began: list[float] = []

    @workflow("busy", retry=Retry(attempts=2, initial=60))
    async def busy() -> str:
        began.append(monotonic())
        if len(began) == 1:
            raise RetryAfter(0.3, "rate limit")
        return "done"

    async with worker([busy]):
        trace = await end_of(client, (await client.trigger(busy)).id)
    assert trace.output == "done"
    assert 0.3 <= began[1] - began[0] < 5
    assert [attempt.error and attempt.error.message for attempt in trace.steps[0].failures] == ["rate limit"]


async def test_retry_after_does_not_add_attempts(client: Client, worker: MakeWorker) -> None:
    @workflow("always-busy", retry=Retry(attempts=2))
    async def always_busy() -> None:
        raise RetryAfter(0)

    async with worker([always_busy]) as only:
        trace = await end_of(client, (await client.trigger(always_busy)).id)
    assert (trace.status, only.counts.executed) == ("failed", 2)


async def test_step_timeout(client: Client, worker: MakeWorker) -> None:
    @workflow("slow", retry=Retry(attempts=2, initial=0), timeout=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    async with worker([slow]):
        trace = await end_of(client, (await client.trigger(slow)).id)
    assert trace.status == trace.steps[0].status == "timed_out"
    assert trace.error is not None
    assert trace.error.type == "StepTimeout"
    assert [attempt.error and attempt.error.type for attempt in trace.steps[0].failures] == ["StepTimeout"]


async def test_the_deadline_ends_a_running_step_for_good(client: Client, worker: MakeWorker) -> None:
    @workflow("endless", retry=THRICE, deadline=0.2)
    async def endless() -> None:
        await asyncio.Event().wait()

    async with worker([endless]) as only:
        trace = await end_of(client, (await client.trigger(endless)).id)
    assert (trace.status, only.counts.executed) == ("timed_out", 1)
    assert trace.error is not None
    assert trace.error.type == "RunTimeout"


async def test_the_deadline_ends_a_step_between_two_attempts(client: Client, worker: MakeWorker) -> None:
    @workflow("retried-late", retry=Retry(attempts=3, initial=60), deadline=0.3)
    async def retried_late() -> None:
        raise OSError

    async with worker([retried_late]) as only:
        trace = await end_of(client, (await client.trigger(retried_late)).id)
    assert (trace.status, only.counts.executed) == ("timed_out", 1)
    assert trace.ended is not None
    assert trace.triggered is not None
    assert trace.ended - trace.triggered < 5


async def test_the_deadline_ends_a_run_that_is_not_begun_in_time(client: Client, worker: MakeWorker) -> None:
    @workflow("too-late", deadline=0.001)
    async def too_late() -> None:
        raise AssertionError("not reached")

    run = await client.trigger(too_late)
    async with worker([too_late]) as only:
        trace = await end_of(client, run.id)
    assert (trace.status, only.counts.executed) == ("timed_out", 0)


async def test_the_deadline_is_for_descendants_too(client: Client, worker: MakeWorker) -> None:
    """A child of a run with a deadline has no more time than the run, however long its own may be."""

    @workflow("child", deadline=60)
    async def child() -> None:
        await asyncio.Event().wait()

    @workflow("parent", deadline=0.3)
    async def parent(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(child)).result()

    async with worker([parent, child]):
        run = await client.trigger(parent)
        trace = await end_of(client, run.id)
        await until(lambda: _no_open_children(client, run.id))
    assert trace.status == "timed_out"
    assert (await client.describe(run.id)).totals.timed_out == 1


async def _no_open_children(client: Client, run: str) -> bool:
    return (await client.describe(run)).totals.open == 0


async def test_time_in_the_queue_is_limited(client: Client, worker: MakeWorker) -> None:
    """A task that waited for a worker longer than schedule_timeout is not run."""

    @workflow("stale", schedule_timeout=0.1)
    async def stale() -> None:
        raise AssertionError("not reached")

    run = await client.trigger(stale)
    triggered = (await client.describe(run.id)).triggered
    assert triggered is not None
    await until(lambda: _passed(triggered + 0.1))
    async with worker([stale]) as only:
        trace = await end_of(client, run.id)
    assert (trace.status, only.counts.executed) == ("timed_out", 0)
    assert trace.error is not None
    assert "schedule_timeout of 0.1 s" in trace.error.message


async def _passed(moment: float) -> bool:
    return time() > moment


async def test_a_retry_is_not_time_in_the_queue(client: Client, worker: MakeWorker) -> None:
    @workflow("retried", retry=Retry(attempts=2, initial=0.3, jitter=0), schedule_timeout=0.2)
    async def retried(_: None, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    async with worker([retried]):
        assert (await end_of(client, (await client.trigger(retried)).id)).output == 2


async def test_cancellation(client: Client, worker: MakeWorker) -> None:
    began = asyncio.Event()

    @workflow("endless")
    async def endless() -> None:
        began.set()
        await asyncio.Event().wait()

    async with worker([endless]):
        run = await client.trigger(endless)
        await began.wait()
        assert await client.cancel(run.id)
        trace = await end_of(client, run.id)
    assert trace.status == trace.steps[0].status == "cancelled"
    assert trace.error is not None
    assert trace.error.type == "Cancelled"


async def test_poison(client: Client, worker: MakeWorker) -> None:
    """Bodies that began and led to nothing count, but for the first: after the last attempt there is none again."""
    deadly_options = WorkerOptions(ack_wait=0.2)

    @workflow("deadly", retry=Retry(attempts=2))
    async def deadly() -> None:
        raise AssertionError("not reached")

    async with worker([deadly], options=deadly_options):
        pass  # from now on the consumer exists
    run = await client.trigger(deadly)
    await take_and_die(client, "deadly", "run", times=3)
    async with worker([deadly], options=deadly_options) as survivor:
        trace = await end_of(client, run.id)
    assert (trace.status, survivor.counts.executed) == ("failed", 0)
    assert trace.error is not None
    assert trace.error.type == "Poisoned"


async def take_and_die(client: Client, workflow: str, step: str, *, times: int, begins: bool = True) -> None:
    """Take a step's only task like a worker that is killed in its body, or, unless it ``begins``, before that."""
    session, taken = client._session, asyncio.Queue[Message]()
    inbox = session.connection.new_inbox()
    subscription = await session.connection.subscribe(inbox, taken.put_nowait)
    consumer = f"{session.names.tasks_stream}.{session.names.consumer(workflow, step)}"
    for _ in range(times):
        session.connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", reply=inbox)
        async with asyncio.timeout(PATIENCE):
            delivery = Delivery(await taken.get())
        if begins and delivery.count > 1:
            task = parse_task(delivery.subject, delivery.headers, delivery.body)
            await session.publisher.store(session.names.begun(task.join, task.turn, delivery.count), b"{}")
    await session.connection.unsubscribe(subscription)


async def test_a_step_that_nobody_knows(client: Client, worker: MakeWorker) -> None:
    """A run that was begun with code that is gone fails by name, after the time that a deploy may take."""
    before, after = Workflow("moved"), Workflow("moved")

    @before.step
    async def gone() -> None:
        raise AssertionError("not reached")

    @after.step
    async def came() -> None:
        raise AssertionError("not reached")

    async with worker([before]):
        pass
    run = await client.trigger(before)
    async with worker([after], options=WorkerOptions(unknown_step_grace=0)):
        trace = await end_of(client, run.id)
    assert trace.status == "failed"
    assert trace.error is not None
    assert trace.error.type == "UnknownStep"
    assert "'gone'" in trace.error.message


async def test_a_mark_tells_why(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """Lists and groups of failures read the marks alone, of one workflow or of all."""

    @workflow("fails", retry=ONCE)
    async def fails(number: int) -> None:
        raise ValueError(f"no {number}: {'x' * 1000}")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.join(
            await ctx.spawn_workflows(fails, range(2), key=lambda number: f"k{number}"), return_exceptions=True
        )

    async with worker([fails, parent]):
        run = await client.trigger(parent)
        await run.result(PATIENCE)
    marks = await collect(stored.session.store.pages(stored.names.records_stream, "jf.*.mark.*.*.*.failed.fails.*"))
    assert {mark.subject.split(".")[3:6] == [run.id, run.id, "run"] for mark in marks} == {True}
    told = sorted((decode_mark(mark.body) for mark in marks), key=lambda mark: str(mark.key))
    assert [(mark.type, mark.key, mark.step, mark.place) for mark in told] == [
        ("ValueError", "k0", "run", "test_outcomes.py:fails"),
        ("ValueError", "k1", "run", "test_outcomes.py:fails"),
    ]
    assert told[1].message == f"no 1: {'x' * 193}…"
    trace = await client.describe(run.id)
    assert (trace.totals.failed, trace.totals.succeeded) == (2, 0)
    assert [child.error and child.error.place for child in trace.children] == ["test_outcomes.py:fails"] * 2


async def test_an_input_that_is_not_json(client: Client, worker: MakeWorker) -> None:
    @workflow("reads", retry=THRICE)
    async def reads(_: int) -> None:
        raise AssertionError("not reached")

    names, run = client._session.names, "ab" * 16
    async with worker([reads]):
        headers = header_block({Header.VERSION: reads.graph.version, Header.PARENT_STEP: NONE, Header.DEPTH: "0"})
        await client._session.publisher.store(names.task("reads", "run", run, NONE, run), b"{not json", headers)
        trace = await end_of(client, run)
    assert trace.status == "failed"
    assert trace.error is not None
    assert trace.error.type == "InvalidInput"
    assert trace.steps[0].attempts == 1


async def test_a_task_with_a_broken_header_is_counted_and_kept_out(client: Client, worker: MakeWorker) -> None:
    @workflow("reads")
    async def reads(number: int) -> int:
        return number

    names, run = client._session.names, "cd" * 16
    async with worker([reads]) as only:
        headers = header_block({Header.VERSION: reads.graph.version, Header.DEPTH: "deep"})
        await client._session.publisher.store(names.task("reads", "run", run, NONE, run), b"1", headers)
        trace = await end_of(client, (await client.trigger(reads, 2)).id)
        assert (trace.output, only.counts.rejected) == (2, 1)


async def test_an_output_that_does_not_fit(client: Client, worker: MakeWorker) -> None:
    @workflow("writes", retry=THRICE)
    async def writes() -> Any:
        return object()

    async with worker([writes]):
        trace = await end_of(client, (await client.trigger(writes)).id)
    assert trace.error is not None
    assert (trace.status, trace.error.type, trace.steps[0].attempts) == ("failed", "InvalidOutput", 1)
