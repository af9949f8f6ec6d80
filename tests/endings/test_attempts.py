"""What counts as an attempt: a body that has begun, and neither an outage nor a delivery that reached nobody."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import jetflow
from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow
from jetflow.broker.connection import Message
from jetflow.broker.puller import Delivery
from jetflow.broker.store import collect
from jetflow.processes.table import HeldTable
from jetflow.server import NatsServer
from jetflow.wire.records import decode_attempt
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_outcomes import end_of, take_and_die
from tests.inside import services

MakeWorker = Callable[..., Worker]

SHORT = WorkerOptions(ack_wait=0.2)


async def test_deliveries_that_reach_nobody_are_no_attempts(client: Client, worker: MakeWorker) -> None:
    """As if a paused worker had swallowed them: the body begins for the first time, and so it is the first attempt."""

    @workflow("swallowed", retry=Retry(attempts=1))
    async def swallowed(_: None, ctx: Context) -> int:
        return ctx.attempt

    async with worker([swallowed], options=SHORT):
        pass  # from now on the consumer exists
    run = await client.trigger(swallowed)
    await take_and_die(client, "swallowed", "run", times=5, begins=False)
    async with worker([swallowed], options=SHORT):
        trace = await end_of(client, run.id)
    assert (trace.status, trace.output) == ("succeeded", 1)


async def test_a_failed_attempt_is_let_go_with_its_input(client: Client, worker: MakeWorker) -> None:
    """At once, not when the collector comes: thousands of retries of large inputs would fill the memory."""
    failed: list[weakref.ref[Loud]] = []

    class Loud(Exception):
        def __init__(self) -> None:
            failed.append(weakref.ref(self))

    @workflow("loud", retry=Retry(attempts=2, initial=0))
    async def loud(_: None, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise Loud
        return sum(one() is not None for one in failed)

    async with worker([loud]):
        gc.disable()
        try:
            assert await (await client.trigger(loud)).result(PATIENCE) == 0
        finally:
            gc.enable()


async def test_what_is_delivered_again_is_recorded_as_it_begins(client: Client, worker: MakeWorker) -> None:
    """Before its body; and a first delivery is not."""
    seen: dict[int, list[Any]] = {}

    @workflow("recorded", retry=Retry(attempts=1))
    async def recorded(number: int, ctx: Context) -> None:
        names, store = client._session.names, client._session.store
        kept = await collect(store.pages(names.records_stream, names.attempts_of_run(ctx.run_id, ctx.run_id)))
        seen[number] = [(one.subject.rpartition(".")[2], decode_attempt(one.body).attempt) for one in kept]

    async with worker([recorded], options=SHORT):
        pass
    first = await client.trigger(recorded, 1)
    await take_and_die(client, "recorded", "run", times=1)
    async with worker([recorded], options=SHORT):
        await first.result(PATIENCE)
        await (await client.trigger(recorded, 2)).result(PATIENCE)
    assert seen == {1: [("begun-2", 1)], 2: []}


async def test_what_is_delivered_again_while_it_runs_goes_on_under_the_new_delivery(
    client: Client, worker: MakeWorker
) -> None:
    """Its body is not run beside itself, and its heartbeats go to the delivery that the broker knows."""
    ran = 0
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held", retry=Retry(attempts=1))
    async def held() -> str:
        nonlocal ran
        ran += 1
        began.set()
        await go.wait()
        return "done"

    async with worker([held]) as only:
        run = await client.trigger(held)
        await asyncio.wait_for(began.wait(), PATIENCE)
        kept_alive = services(only).deliveries.held
        (first,) = kept_alive()
        client._session.connection.send(first, b"-NAK")  # as a broker sees it that has not heard of the task for long
        await until(lambda: _holds(kept_alive() != [first]))
        assert len(kept_alive()) == 1
        go.set()
        assert await run.result(PATIENCE) == "done"
    assert ran == 1


async def test_what_a_guard_does_not_see_its_worker_keeps_alive(client: Client) -> None:
    """An acknowledgement subject may be too long for the guard's table."""
    table = HeldTable.new()
    deliveries = Deliveries(client._session, Counts(), "one", table)
    acks = (f"$JS.ACK.tasks.{consumer}.1.1.1.1764314000123456789.0" for consumer in ("one", "one" * 80))
    short, long = (Delivery(Message("task", ack, b"")) for ack in acks)
    for one in (short, long):
        deliveries.hold(one)
    assert [one.reply for one in table.held()] == [short.reply]
    assert deliveries.held(guarded=True) == [long.reply]
    assert deliveries.held() == [short.reply, long.reply]
    for one in (short, long):
        deliveries.let_go(one)
    assert deliveries.held() == []
    table.close()


async def test_an_outage_is_no_attempt(own_server: NatsServer) -> None:
    """What was running, fetched or being recorded is delivered again after it, and none of it fails."""
    ran: Counter[int] = Counter()
    go = asyncio.Event()

    @workflow("once", retry=Retry(attempts=1))
    async def once(number: int) -> int:
        ran[number] += 1
        if number % 2:
            await go.wait()
        return number

    @workflow("all", retry=Retry(attempts=1))
    async def everything(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(once, range(count))))

    async with (
        jetflow.connect(own_server.url) as client,
        Worker([once, everything], server=own_server.url, slots=10, options=WorkerOptions(ack_wait=1.0)),
    ):
        run = await client.trigger(everything, 200)
        await until(lambda: _holds(len(ran) >= 10))
        await own_server.kill()
        away = monotonic() + 2.0
        await until(lambda: _holds(monotonic() > away))
        go.set()
        await own_server.start()
        assert await run.result(PATIENCE) == sum(range(200))
        await until(Stored(client).is_idle)
    assert set(ran) == set(range(200))


async def test_a_worker_with_a_shorter_ack_wait_takes_nothing_from_others(client: Client, worker: MakeWorker) -> None:
    """It leaves the consumer's as it is, since the other one's heartbeats go by it."""
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held", retry=Retry(attempts=1))
    async def held() -> str:
        began.set()
        await go.wait()
        return "done"

    async with worker([held], options=WorkerOptions(ack_wait=30.0)):
        run = await client.trigger(held)
        await began.wait()
        async with worker([held], options=SHORT) as other:
            assert services(other).deliveries.ack_wait == 30.0
            later = monotonic() + 1.0
            await until(lambda: _holds(monotonic() > later))
            assert (await consumer_of(client, "held"))["ack_wait"] == 30 * 10**9
            go.set()
            assert await run.result(PATIENCE) == "done"
    assert (other.counts.redelivered, other.counts.executed) == (0, 0)


async def test_a_consumer_that_somebody_made_is_used(client: Client, worker: MakeWorker) -> None:
    """Its ``max_waiting`` cannot be changed (10012), and need not be; a longer ``ack_wait`` may be asked for."""

    @workflow("made")
    async def made() -> str:
        return "done"

    await make_consumer(client, "made", {"ack_policy": "explicit", "ack_wait": 10**9, "max_waiting": 100})
    async with worker([made], options=WorkerOptions(ack_wait=2.0)):
        assert await (await client.trigger(made)).result(PATIENCE) == "done"
    kept = await consumer_of(client, "made")
    assert (kept["max_waiting"], kept["ack_wait"]) == (100, 2 * 10**9)


async def test_heartbeats_go_by_what_the_consumer_has(client: Client, worker: MakeWorker) -> None:
    """And not by what the worker has asked for: a ``backoff`` that an administrator has set counts before it."""

    @workflow("made")
    async def made() -> None:
        await asyncio.sleep(1.5)

    config = {"ack_policy": "explicit", "backoff": [5 * 10**8, 10**9], "max_deliver": -1}
    await make_consumer(client, "made", config)
    async with worker([made], options=WorkerOptions(ack_wait=30.0)) as only:
        await (await client.trigger(made)).result(PATIENCE)
        assert services(only).deliveries.ack_wait == 0.5
    names = client._session.names
    consumer = f"{names.tasks_stream}.{names.consumer('made', 'run')}"
    assert (await client._session.connection.api(f"CONSUMER.INFO.{consumer}"))["delivered"]["consumer_seq"] == 1


async def make_consumer(client: Client, flow: str, config: dict[str, Any]) -> None:
    """Make the consumer of a workflow's only step as an administrator might."""
    session, name = client._session, client._session.names.consumer(flow, "run")
    stream = session.names.tasks_stream
    config = {"durable_name": name, "filter_subject": session.names.tasks_of_step(flow, "run"), **config}
    await session.connection.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})


async def consumer_of(client: Client, flow: str) -> dict[str, Any]:
    names = client._session.names
    info = await client._session.connection.api(f"CONSUMER.INFO.{names.tasks_stream}.{names.consumer(flow, 'run')}")
    return info["config"]


async def _holds(value: bool) -> bool:
    return value


async def test_a_worker_that_runs_a_task_says_so_to_others(client: Client, worker: MakeWorker) -> None:
    """Before it is given up elsewhere: the broker had only lost the worker for a while."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    @workflow("held", retry=Retry(attempts=1))
    async def held() -> None:
        begun.set()
        await may_end.wait()

    holders, names = client._session.holders, client._session.names
    async with worker([held], options=SHORT) as one:
        run = await client.trigger(held)
        subject = names.task("held", "run", run.id, "-", run.id, 0)
        await begun.wait()
        assert await holders.is_held("held", subject)
        assert not await services(one).deliveries._session.holders.is_held("held", subject)
        may_end.set()
        await run.result(PATIENCE)
        await until(lambda: _is_free(one, subject))
        assert not await holders.is_held("held", subject)


async def test_what_a_live_worker_runs_is_not_begun_beside_it(client: Client, worker: MakeWorker) -> None:
    """The broker has lost sight of it, and gives its task to others, again and again: none of that is an attempt."""
    ran: list[int] = []
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held", retry=Retry(attempts=3))
    async def held(_: None, ctx: Context) -> str:
        ran.append(ctx.attempt)
        began.set()
        await go.wait()
        return "done"

    async with worker([held]) as holder:
        run = await client.trigger(held)
        await asyncio.wait_for(began.wait(), PATIENCE)
        (reply,) = services(holder).deliveries.held()
        await services(holder).fetcher.pullers[0].stop()
        async with worker([held]) as other:
            for times in (1, 2, 3):
                client._session.connection.send(reply, b"-NAK")
                await until(lambda times=times: _holds(other.counts.handed_back == times))
            go.set()
            assert await run.result(PATIENCE) == "done"
    assert (ran, other.counts.executed) == ([1], 0)


async def test_a_worker_that_comes_back_keeps_its_last_attempt(client: Client, worker: MakeWorker) -> None:
    """It was cut off while it was asked for first: a task is not given up at the first silence."""
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("last", retry=Retry(attempts=1))
    async def last(_: None, ctx: Context) -> str:
        began.set()
        await go.wait()
        return "done"

    async with worker([last], options=SHORT):
        pass  # from now on the consumer exists
    run = await client.trigger(last)
    await take_and_die(client, "last", "run", times=1, begins=False)
    async with worker([last], options=SHORT) as holder:  # it is a redelivery, so that it is recorded as begun
        await asyncio.wait_for(began.wait(), PATIENCE)
        (reply,) = services(holder).deliveries.held()
        presence = services(holder).presence
        await presence.stop()
        await services(holder).fetcher.pullers[0].stop()
        names, connection, asked = client._session.names, client._session.connection, asyncio.Event()
        await connection.subscribe(names.who("last"), lambda _: asked.set())
        async with worker([last], options=SHORT) as other:
            connection.send(reply, b"-NAK")
            await asyncio.wait_for(asked.wait(), PATIENCE)
            await presence.start()
            await until(lambda: _holds(other.counts.handed_back > 0))
            go.set()
            assert await run.result(PATIENCE) == "done"
    assert other.counts.executed == 0


async def test_many_tasks_that_are_delivered_again_are_asked_about_together(client: Client, worker: MakeWorker) -> None:
    """And once it is known that nobody else is there, nobody is waited for."""
    questions: list[bytes] = []
    names, connection = client._session.names, client._session.connection

    @workflow("again")
    async def again(number: int) -> int:
        return number

    async with worker([again], options=SHORT):
        pass
    runs = [await client.trigger(again, number) for number in range(300)]
    await take_all_and_die(client, "again", 300)
    listening = await connection.subscribe(names.who("again"), lambda message: questions.append(message.data))
    async with worker([again], options=SHORT) as only:
        assert [await run.result(PATIENCE) for run in runs] == list(range(300))
    await connection.unsubscribe(listening)
    assert only.counts.redelivered == 300
    assert 0 < len(questions) < 30
    assert sum(len(question.split(b"\n")) - 1 for question in questions) == 300


async def take_all_and_die(client: Client, flow: str, count: int) -> None:
    """Take so many tasks of a workflow's only step like a worker that is killed in their bodies."""
    session, taken = client._session, asyncio.Queue[Message]()
    inbox = session.connection.new_inbox()
    subscription = await session.connection.subscribe(inbox, taken.put_nowait)
    consumer = f"{session.names.tasks_stream}.{session.names.consumer(flow, 'run')}"
    body = f'{{"batch":{count}}}'.encode()
    session.connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", body, reply=inbox)
    async with asyncio.timeout(PATIENCE):
        for _ in range(count):
            await taken.get()
    await session.connection.unsubscribe(subscription)


async def test_of_two_workers_that_ask_one_another_one_goes_on(client: Client, worker: MakeWorker) -> None:
    """Who only asks for a task does not run it yet, but would be taken for its holder by the other one."""
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held")
    async def held() -> None:
        began.set()
        await go.wait()

    async with worker([held]) as one:
        run = await client.trigger(held)
        await began.wait()
        deliveries = services(one).deliveries
        subject = client._session.names.task("held", "run", run.id, "-", run.id, 0)
        deliveries._asking.add(subject)
        assert deliveries.runs(subject, "~")
        assert not deliveries.runs(subject, "!")
        go.set()
        await run.result(PATIENCE)


async def _is_free(worker: Worker, subject: str) -> bool:
    return not services(worker).deliveries.runs(subject)
