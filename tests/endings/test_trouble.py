"""The broker's troubles: each gives a named error, or waits and goes on; none is met with silence."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest

import jetflow
from jetflow import Client, Context, Retry, RetryAfter, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import (
    BrokerError,
    BrokerRefused,
    BrokerTimeout,
    JetStreamUnavailable,
    PermissionDenied,
    ServerUnreachable,
)
from jetflow.server import NatsServer, ServerOptions
from tests.endings.stored import GRACE, PATIENCE, Stored, until
from tests.inside import recording, services

MakeWorker = Callable[..., Worker]
OPTIONS = WorkerOptions(grace=GRACE, ack_wait=1)


@workflow("square")
async def square(number: int) -> int:
    return number * number


sum_of_squares = Workflow[int, int]("sum-of-squares", input=int, output=int)


@sum_of_squares.step
async def scatter(count: int, ctx: Context) -> None:
    await ctx.spawn_workflows(square, range(count))


@sum_of_squares.step(after=[scatter])
async def gather(_: int, ctx: Context) -> int:
    return sum([child.output async for child in ctx.children(scatter, square)])


def expected(count: int) -> int:
    return sum(number * number for number in range(count))


# --- the server goes away and comes back -----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["restart", "kill"])
async def test_a_fan_out_outlives_its_server(own_server: NatsServer, end: str) -> None:
    """Publishes that were under way are sent again, and recognised: nothing is lost, nothing is counted twice."""
    ran: Counter[int] = Counter()
    half = asyncio.Event()

    @workflow("counted")
    async def counted(number: int) -> int:
        ran[number] += 1
        if len(ran) == 1000:
            half.set()
        return number

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(counted, range(2000))))

    async with (
        jetflow.connect(own_server.url) as client,
        Worker([parent, counted], server=own_server.url, options=OPTIONS) as worker,
    ):
        run = await client.trigger(parent)
        await asyncio.wait_for(half.wait(), PATIENCE)
        if end == "kill":
            await own_server.kill()
            await own_server.start()
        else:
            await own_server.restart()
        assert await run.result(PATIENCE) == sum(range(2000))
        await until(Stored(client).is_idle)
        assert (await client.describe(run.id, children=1)).totals.succeeded == 2000
    assert worker.counts.swept == 0


async def test_a_step_that_waits_outlives_its_server_without_losing_an_attempt(own_server: NatsServer) -> None:
    go, waits, attempts = asyncio.Event(), asyncio.Event(), list[int]()

    @workflow("child")
    async def child() -> int:
        waits.set()
        await go.wait()
        return 7

    @workflow("parent", retry=Retry(attempts=1))
    async def parent(_: None, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        return await (await ctx.spawn_workflow(child)).result()

    async with (
        jetflow.connect(own_server.url) as client,
        Worker([parent, child], server=own_server.url, options=OPTIONS),
    ):
        run = await client.trigger(parent)
        await waits.wait()
        await own_server.kill()
        go.set()
        await own_server.start()
        assert await run.result(PATIENCE) == 7
        await until(Stored(client).is_idle)
    assert attempts == [1]


async def test_a_worker_without_a_server_starts_nothing(own_server: NatsServer) -> None:
    """What it has fetched may be somebody else's by now."""
    began: list[int] = []
    first, go = asyncio.Event(), asyncio.Event()

    @workflow("one-at-a-time")
    async def one_at_a_time(number: int) -> None:
        began.append(number)
        first.set()
        await go.wait()

    async with (
        jetflow.connect(own_server.url) as client,
        Worker([one_at_a_time], server=own_server.url, slots=1, options=OPTIONS) as worker,
    ):
        runs = [await client.trigger(one_at_a_time, number) for number in range(20)]
        await first.wait()
        await own_server.kill()
        await until(lambda: _disconnected(worker))
        go.set()
        await until(lambda: _true(recording(worker) == 1))
        await asyncio.sleep(0)
        assert len(began) == 1
        await own_server.start()
        await asyncio.gather(*(run.result(PATIENCE) for run in runs))
        await until(Stored(client).is_idle)
    assert set(began) == set(range(20))


async def test_what_was_fetched_before_a_long_outage_is_run_after_it(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gives it up, and must not keep it alive any more."""
    options = msgspec.structs.replace(OPTIONS, ack_wait=3)
    first, go = asyncio.Event(), asyncio.Event()

    @workflow("one-at-a-time")
    async def one_at_a_time(_: int) -> None:
        first.set()
        await go.wait()

    async with (
        jetflow.connect(own_server.url) as client,
        Worker([one_at_a_time], server=own_server.url, slots=1, options=options) as worker,
    ):
        runs = [await client.trigger(one_at_a_time, number) for number in range(5)]
        await first.wait()
        await until(lambda: _true(len(services(worker).deliveries.held()) == 5))
        monkeypatch.setattr("jetflow.worker.fetching.HAND_BACK_AFTER", 0.0)
        await own_server.kill()
        await until(lambda: _true(worker.counts.handed_back == 4))
        await own_server.start()
        go.set()
        await asyncio.gather(*(run.result(PATIENCE) for run in runs))
        await until(Stored(client).is_idle)


async def test_a_worker_whose_server_is_gone_stops_at_once(own_server: NatsServer) -> None:
    """It waits neither for its heartbeat to connect nor for acknowledgements."""
    began, go = asyncio.Event(), asyncio.Event()

    @workflow("held")
    async def held() -> None:
        began.set()
        await go.wait()

    worker = Worker([held], server=own_server.url, options=OPTIONS)
    async with jetflow.connect(own_server.url) as client:
        await worker.start()
        await client.trigger(held)
        await asyncio.wait_for(began.wait(), PATIENCE)
        await own_server.kill()
        await until(lambda: _disconnected(worker))
        go.set()
        await until(lambda: _true(recording(worker) == 1))
        async with asyncio.timeout(GRACE + 2):
            await worker.stop()


async def test_a_worker_stops_soon_after_its_grace_time_though_the_broker_takes_nothing(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """What it does for a message from outside is left to another worker."""
    one = worker([square])
    await one.start()
    await client.trigger(square, 1)
    await until(stored.is_idle)
    await limit(client, stored.names.tasks_stream, 1)
    stored.session.connection.send(f"{stored.names.prefix}.in.trigger.square", b"2")
    await until(lambda: _true(any(errands.busy for errands in services(one).errands)))
    async with asyncio.timeout(GRACE + 10):
        await one.stop()
    await limit(client, stored.names.tasks_stream, -1)
    async with worker([square]):
        await until(lambda: _stored_runs(stored, 2))


async def _stored_runs(stored: Stored, count: int) -> bool:
    return len(await stored.subjects(stored.names.records_stream, f"{stored.names.prefix}.run.>")) == count


async def _disconnected(worker: Worker) -> bool:
    return not services(worker).executor._session.connection.is_connected


async def _true(value: bool) -> bool:
    return value


async def test_a_worker_needs_a_server_to_start() -> None:
    async with NatsServer() as gone:
        url = gone.url
    with pytest.raises(ServerUnreachable, match="no NATS server answers"):
        await Worker([square], server=url, options=WorkerOptions(connect_timeout=0.3)).start()


async def test_a_worker_starts_while_the_server_does(own_server: NatsServer) -> None:
    """It waits for as long as `connect_timeout` allows."""
    async with jetflow.connect(own_server.url) as client:
        run = await client.trigger(square, 3)
        await own_server.kill()
        worker = Worker([square], server=own_server.url, options=OPTIONS)
        starting = asyncio.create_task(worker.start())
        await asyncio.sleep(0)
        await own_server.start()
        await starting
        assert await run.result(PATIENCE) == 9
        await worker.stop()


# --- full streams ----------------------------------------------------------------------------------------------


async def limit(client: Client, stream: str, messages: int) -> None:
    """Set how many messages a stream may hold; -1 lifts the limit."""
    connection = client._session.connection
    config: dict[str, Any] = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
    await connection.api(f"STREAM.UPDATE.{stream}", config | {"max_msgs": messages})


@pytest.mark.parametrize("stream", ["tasks_stream", "records_stream"])
async def test_a_full_stream_holds_work_up_until_there_is_room(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture, stored: Stored, stream: str
) -> None:
    name = getattr(stored.names, stream)
    caplog.set_level(logging.WARNING, "jetflow.broker")
    async with worker([sum_of_squares, square]):
        await limit(client, name, 50)
        run = await client.trigger(sum_of_squares, 200)
        await until(lambda: _is_full(client, name, 50))
        await limit(client, name, -1)
        assert await run.result(PATIENCE) == expected(200)
        await until(stored.is_idle)


async def _is_full(client: Client, stream: str, messages: int) -> bool:
    info = await client._session.connection.api(f"STREAM.INFO.{stream}")
    return info["state"]["messages"] >= messages


async def test_a_trigger_into_a_full_stream_says_so(
    client: Client, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetflow.triggering.TRIGGER_TIMEOUT", 0.5)
    await client.trigger(square, 1)
    await limit(client, stored.names.tasks_stream, 1)
    with pytest.raises(BrokerTimeout, match="maximum messages exceeded"):
        await client.trigger(square, 2)
    await limit(client, stored.names.tasks_stream, -1)
    await client.trigger(square, 2)


# --- a full account --------------------------------------------------------------------------------------------

SMALL_ACCOUNT = """
accounts { A: { jetstream: { max_file: 4M }, users: [ { user: a, password: a } ] } }
no_auth_user: a
"""


async def fill(client: Client) -> None:
    """Store in a stream of somebody else until the account takes nothing more, not even one byte."""
    connection = client._session.connection
    await connection.api("STREAM.CREATE.filler", {"name": "filler", "subjects": ["filler"], "storage": "file"})
    for size in (256 * 1024, 4 * 1024, 64, 1):
        answer = msgspec.json.decode((await connection.request("filler", b"x" * size)).data)
        while "error" not in answer:
            answer = msgspec.json.decode((await connection.request("filler", b"x" * size)).data)
        assert answer["error"]["err_code"] == 10002


async def make_room(client: Client) -> None:
    await client._session.connection.api("STREAM.DELETE.filler")


@pytest.mark.parametrize("count", [1, 200])
async def test_what_is_known_waits_for_room_in_a_full_account(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """Outcomes, one by one and in batches: no body runs again, no attempt is counted, and the runs end well."""
    began, attempts, go = asyncio.Event(), list[int](), asyncio.Event()
    caplog.set_level(logging.WARNING, "jetflow.broker")

    @workflow("careful", retry=Retry(attempts=1))
    async def careful(_: int, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) == count:
            began.set()
        await go.wait()
        return ctx.attempt

    server = NatsServer(tmp_path / "store", ServerOptions(config=SMALL_ACCOUNT))
    async with (
        server,
        jetflow.connect(server.url) as client,
        Worker([careful], server=server.url, slots=count, options=OPTIONS) as worker,
    ):
        runs = [await client.trigger(careful, number) for number in range(count)]
        await asyncio.wait_for(began.wait(), PATIENCE)
        await fill(client)
        go.set()
        await until(lambda: _true("until it is taken: resource limits exceeded for account" in caplog.text))
        await make_room(client)
        assert {await run.result(PATIENCE) for run in runs} == {1}
        await until(Stored(client).is_idle)
    assert (worker.counts.executed, worker.counts.handed_back, worker.counts.failed) == (count, 0, 0)


async def test_a_spawn_waits_for_room_in_a_full_account(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full, attempts, began = asyncio.Event(), list[int](), asyncio.Event()
    caplog.set_level(logging.WARNING, "jetflow.broker")

    @workflow("parent", retry=Retry(attempts=1))
    async def parent(count: int, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        began.set()
        await full.wait()
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))

    server = NatsServer(tmp_path / "store", ServerOptions(config=SMALL_ACCOUNT))
    async with (
        server,
        jetflow.connect(server.url) as client,
        Worker([parent, square], server=server.url, options=OPTIONS),
    ):
        run = await client.trigger(parent, 100)
        await asyncio.wait_for(began.wait(), PATIENCE)
        await fill(client)
        full.set()
        await until(lambda: _true("until it is taken: resource limits exceeded for account" in caplog.text))
        await make_room(client)
        assert await run.result(PATIENCE) == expected(100)
        await until(Stored(client).is_idle)
    assert attempts == [1]


async def test_a_timer_that_is_due_while_the_account_is_full_fires_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server drops what the timer becomes, and would not try again."""
    monkeypatch.setattr("jetflow.worker.overdue.LATE", 0.5)

    @workflow("later", retry=Retry(attempts=2))
    async def later(_: None, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise RetryAfter(2.0)  # too long to be held in memory
        return ctx.attempt

    server = NatsServer(tmp_path / "store", ServerOptions(config=SMALL_ACCOUNT))
    options = WorkerOptions(grace=GRACE, ack_wait=1, sweep_every=0.2)
    async with (
        server,
        jetflow.connect(server.url) as client,
        Worker([later], server=server.url, options=options) as worker,
    ):
        run = await client.trigger(later)
        await until(lambda: timers_of(client))
        await fill(client)
        due = time() + 2.0
        await until(lambda: _true(time() > due + 0.5))
        assert await timers_of(client)
        await make_room(client)
        assert await run.result(PATIENCE) == 2
        await until(Stored(client).is_idle)
    assert "timers that should have fired are armed again" in caplog.text
    assert worker.counts.executed == 2


async def timers_of(client: Client) -> bool:
    """Tell whether a timer is armed."""
    names = client._session.names
    return await client._session.store.leader_count(names.timers_stream, names.all_timers[0]) > 0


async def test_a_trigger_into_a_full_account_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetflow.triggering.TRIGGER_TIMEOUT", 0.5)
    server = NatsServer(tmp_path / "store", ServerOptions(config=SMALL_ACCOUNT))
    async with server, jetflow.connect(server.url) as client:
        await fill(client)
        with pytest.raises(BrokerTimeout, match="resource limits exceeded for account"):
            await client.trigger(square, 2)
        await make_room(client)
        await client.trigger(square, 2)


# --- trouble behind a body -------------------------------------------------------------------------------------


@workflow("large", retry=Retry(attempts=1))
async def large() -> str:
    return "x" * 300_000  # travels by reference, which is read again before it counts


def trouble_behind_the_body(monkeypatch: pytest.MonkeyPatch, errors: list[BrokerError]) -> None:
    """Let the broker fail in so many ways, one after the other, once the output of a body is stored."""

    def after(point: str) -> None:
        if point == "store_output" and errors:
            raise errors.pop()

    monkeypatch.setattr("jetflow.runs.points.after", after)


async def test_trouble_that_passes_costs_no_attempt_and_no_other_body(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [
        BrokerTimeout("no answer"),
        BrokerRefused("STREAM.MSG.GET", 503, 10008, "JetStream system temporarily unavailable"),
        JetStreamUnavailable("nobody answers"),
    ]
    trouble_behind_the_body(monkeypatch, errors)
    async with worker([large]) as one:
        assert len(await (await client.trigger(large)).result(PATIENCE)) == 300_000
        await until(stored.is_idle)
    assert not errors
    assert (one.counts.executed, one.counts.handed_back, one.counts.failed) == (1, 0, 0)


async def test_what_the_server_never_takes_fails_the_step_by_name(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried for ever."""
    trouble_behind_the_body(monkeypatch, [BrokerRefused("publish", 400, 10054, "message size exceeds maximum allowed")])
    async with worker([large]) as one:
        with pytest.raises(RunFailed, match="message size exceeds maximum allowed") as caught:
            await (await client.trigger(large)).result(PATIENCE)
        await until(stored.is_idle)
    assert caught.value.error_type == "BrokerRefused"
    assert (one.counts.executed, one.counts.handed_back) == (1, 0)


# --- a server that takes only small messages -------------------------------------------------------------------


async def test_a_failure_fits_into_what_the_server_takes(tmp_path: Path) -> None:
    """Of one step, after an attempt, and of many steps in one record."""
    several = Workflow[int, dict[str, None]]("several", input=int, output=dict[str, None])

    async def fail(count: int) -> None:
        raise ValueError("é" * count)

    for number in range(10):
        several.step(name=f"step-{number}", retry=Retry(attempts=1))(fail)

    @workflow("one", retry=Retry(attempts=2, initial=0.01))
    async def one(count: int) -> None:
        await fail(count)

    server = NatsServer(tmp_path / "store", ServerOptions(max_payload=16 * 1024))
    async with (
        server,
        jetflow.connect(server.url) as client,
        Worker([one, several], server=server.url, options=OPTIONS) as worker,
    ):
        for flow in (one, several):
            with pytest.raises(RunFailed, match="ééé") as caught:
                await (await client.trigger(flow, 20_000)).result(PATIENCE)
            assert caught.value.error_type == "ValueError"
        await until(Stored(client).is_idle)
    assert worker.counts.executed == 12


# --- missing streams -------------------------------------------------------------------------------------------


async def test_a_missing_stream_is_named(client: Client, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetflow.triggering.TRIGGER_TIMEOUT", 0.5)
    run = await client.trigger(square, 1)
    for stream in (stored.names.records_stream, stored.names.tasks_stream):
        await stored.session.connection.api(f"STREAM.DELETE.{stream}")
    for failing in (client.trigger(square, 2), client.describe(run.id), client.cancel(run.id)):
        with pytest.raises(BrokerError, match=r"stream|nobody answers"):
            await failing
    async with jetflow.connect(stored.session.connection.servers, namespace=client.namespace):
        pass  # makes the streams again, for the check after the test


# --- permissions -----------------------------------------------------------------------------------------------

USERS = """
authorization {
  users: [
    { user: operator, password: secret }
    { user: limited, password: secret, permissions: { publish: { allow: [">"], deny: [%s] } } }
  ]
}
"""


async def serve_with(tmp_path: Path, denied: str) -> tuple[NatsServer, str, str]:
    server = NatsServer(tmp_path / "store", ServerOptions(config=USERS % denied))
    await server.start()
    operator, limited = (server.url.replace("//", f"//{user}:secret@") for user in ("operator", "limited"))
    return server, operator, limited


async def test_a_trigger_that_is_not_allowed_is_refused_by_name(tmp_path: Path) -> None:
    """Neither to start a run, nor to ask a worker for one."""
    server, operator, limited = await serve_with(tmp_path, '"jf.default.task.>", "jf.default.in.>"')
    async with server, jetflow.connect(operator), jetflow.connect(limited) as client:
        with pytest.raises(PermissionDenied, match=r"may not publish on jf\.default\.in\.trigger\.square"):
            await asyncio.wait_for(client.trigger(square, 1), PATIENCE)


async def test_spawning_what_is_not_allowed_fails_the_step_by_name(tmp_path: Path) -> None:
    """One by one and in bulk."""

    @workflow("one", retry=Retry(attempts=1))
    async def one(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow(square, 1)

    @workflow("many", retry=Retry(attempts=1))
    async def many(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(square, range(10))

    server, operator, limited = await serve_with(tmp_path, '"jf.default.task.square.>"')
    async with (
        server,
        jetflow.connect(operator) as client,
        Worker([one, many], server=limited, options=OPTIONS),
    ):
        for flow in (one, many):
            with pytest.raises(RunFailed, match="may not publish") as caught:
                await (await client.trigger(flow)).result(PATIENCE)
            assert caught.value.error_type == "PermissionDenied"


async def test_a_next_step_that_may_not_be_started_fails_the_run_by_name(tmp_path: Path) -> None:
    """The body runs once, and the step on its way is told; it is not tried for ever."""
    server, operator, limited = await serve_with(tmp_path, '"jf.default.task.sum-of-squares.gather.>"')
    async with (
        server,
        jetflow.connect(operator) as client,
        Worker([sum_of_squares, square], server=limited, options=OPTIONS) as worker,
    ):
        with pytest.raises(RunFailed, match=r"may not publish on jf\.default\.task\.sum-of-squares\.gather") as caught:
            await (await client.trigger(sum_of_squares, 0)).result(PATIENCE)
        assert caught.value.error_type == "PermissionDenied"
    assert worker.counts.executed == 1


# --- limits ----------------------------------------------------------------------------------------------------


async def test_a_tree_that_grows_without_end_is_stopped(client: Client, worker: MakeWorker, stored: Stored) -> None:
    """Each run spawns a few and is over before its counter answers; the worker remembers the tree."""

    @workflow("bomb", retry=Retry(attempts=1))
    async def bomb(path: str, ctx: Context) -> None:
        await ctx.spawn_workflows(bomb, [path + "a", path + "b"])

    async with worker([bomb], options=WorkerOptions(max_descendants=100, slots=10)):
        run = await client.trigger(bomb, "")
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        await until(stored.is_idle)
    assert len(await stored.subjects(stored.names.tasks_stream)) < 300


async def test_a_bulk_spawn_is_refused_beyond_the_limit(client: Client, worker: MakeWorker) -> None:
    @workflow("wide", retry=Retry(attempts=1))
    async def wide(_: None, ctx: Context) -> None:
        for number in range(100):
            await ctx.spawn_workflow(square, number)

    async with worker([wide, square], options=WorkerOptions(max_descendants=10)):
        with pytest.raises(RunFailed, match="more than 10 descendants") as caught:
            await (await client.trigger(wide)).result(PATIENCE)
        await until(Stored(client).is_idle)
    assert caught.value.error_type == "TreeTooLarge"
