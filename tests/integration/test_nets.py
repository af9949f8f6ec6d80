"""What nobody notices while all goes well: what is read again, forgotten or made again after trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

import jetflow
from jetflow import Client, Retry, Worker, WorkerOptions, Workflow, workflow
from jetflow.broker.session import Session
from jetflow.broker.topology import Retention, ensure_streams
from jetflow.engine.effects import Effect, ReadEnded, StoreRun
from jetflow.engine.joins import JoinRecord, id_sum
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.runs.looks import Looks
from jetflow.runs.marks import TREE
from jetflow.runs.performer import Performer
from jetflow.server import NatsServer
from jetflow.wire.events import EventNames
from jetflow.wire.records import encode
from jetflow.worker.cancellation import Cancellations
from tests.endings.stored import GRACE, PATIENCE, Stored, until

ROOT: Final = "a" * 32
CHILD: Final = "c" * 32


def task_of(run: str, parent: str = NONE, parent_step: str = NONE) -> Task:
    return Task(
        workflow="flow",
        step="run",
        root=ROOT,
        parent=parent,
        run=run,
        turn=0,
        parent_step=parent_step,
        version="",
        depth=0,
        digest="",
        input=b"null",
    )


def outcome_of(output: bytes) -> Outcome:
    return Outcome(status="succeeded", output=msgspec.Raw(output), workflow="flow", step="run")


@pytest_asyncio.fixture
async def session(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Session]:
    async with await Session.open(nats_server.url, namespace) as session:
        yield session


async def reconnected(session: Session, server: NatsServer) -> None:
    """Restart the server, and wait until all that was told of the connection before has heard of it."""
    again = asyncio.Event()
    session.connection.on_reconnect(again.set)
    await server.restart()
    async with asyncio.timeout(PATIENCE):
        await again.wait()


# --- after a reconnect


async def test_ids_of_outcomes_are_forgotten_at_a_reconnect(tmp_path: Any) -> None:
    """A server that was away may have lost outcomes that it had acknowledged: they are read, not remembered."""
    async with NatsServer(tmp_path / "store") as server, await Session.open(server.url, "test") as session:
        looks, child = Looks(session), bytes.fromhex(CHILD)
        join = task_of(ROOT).join
        record = JoinRecord(
            kind="sealed", turn=0, task=session.names.task_of(task_of(ROOT)), needed=1, id_sum=f"{id_sum(child):032x}"
        )
        looks.note_stored(task_of(CHILD, ROOT, "run"), child)
        assert (await looks._ended(join, record, likely=True))[0] == 1
        await reconnected(session, server)
        assert (await looks._ended(join, record, likely=True))[0] == 0


async def test_marks_that_were_missed_are_read_after_a_reconnect(tmp_path: Any) -> None:
    async with (
        NatsServer(tmp_path / "store") as server,
        await Session.open(server.url, "test") as session,
        await Session.open(server.url, "test") as other,
    ):
        told, cancellations = asyncio.Event(), Cancellations(session)
        await cancellations.start()
        cancellations.on_cancelled = told.set
        assert cancellations._subscription is not None
        await session.connection.unsubscribe(cancellations._subscription)  # it is away when the mark is stored
        await other.publisher.store(session.names.cancelled(ROOT, ROOT), TREE)
        assert not cancellations.covers(task_of(ROOT))
        await reconnected(session, server)
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        assert cancellations.covers(task_of(ROOT))
        await cancellations.stop()


# --- write-once, and read before anything is run again


async def test_who_comes_second_goes_on_by_the_outcome_that_is_stored(session: Session) -> None:
    await session.publisher.store(session.names.run_of(task_of(ROOT)), encode(outcome_of(b"1")))

    def store() -> Generator[Effect, Any, Outcome]:
        return (yield StoreRun(task_of(ROOT), outcome_of(b"2")))

    assert bytes((await Performer(session).run(store())).output) == b"1"


async def test_a_redelivered_task_finds_that_its_run_has_ended(session: Session) -> None:
    await session.publisher.store(session.names.run_of(task_of(ROOT)), encode(outcome_of(b"1")))

    def read() -> Generator[Effect, Any, Any]:
        return (yield ReadEnded(task_of(ROOT)))

    ended = await Performer(session).run(read())
    assert ended.run is not None
    assert bytes(ended.run.output) == b"1"


async def test_the_turns_of_a_step_are_numbered_without_gaps(nats_server: NatsServer, namespace: str) -> None:
    @workflow("thrice", retry=Retry(attempts=3, initial=0))
    async def thrice(_: None, ctx: jetflow.Context) -> int:
        if ctx.attempt < 3:
            raise OSError
        return ctx.attempt

    async with jetflow.connect(nats_server.url, namespace=namespace) as client, worker_of(thrice, client, nats_server):
        run = await client.trigger(thrice)
        assert await run.result(PATIENCE) == 3
        stored = Stored(client)
        tasks = await stored.subjects(stored.names.tasks_stream, stored.names.tasks_of_tree(run.id))
    assert sorted(int(subject.rpartition(".")[2]) for subject in tasks) == [0, 1, 2]


# --- made again


async def test_a_consumer_that_was_deleted_is_made_again(nats_server: NatsServer, namespace: str) -> None:
    @workflow("plain")
    async def plain() -> int:
        return 7

    async with jetflow.connect(nats_server.url, namespace=namespace) as client, worker_of(plain, client, nats_server):
        names = client._session.names
        assert await (await client.trigger(plain)).result(PATIENCE) == 7
        consumer = f"{names.tasks_stream}.{names.consumer('plain', 'run')}"
        await client._session.connection.api(f"CONSUMER.DELETE.{consumer}")
        assert await (await client.trigger(plain)).result(PATIENCE) == 7


async def test_events_that_were_never_given_to_anybody_start_runs_when_their_consumer_was_lost(
    nats_server: NatsServer, namespace: str
) -> None:
    took: list[int] = []
    takes = Workflow("takes", input=int)
    takes.on("came")

    @takes.step
    async def take(number: int) -> None:
        took.append(number)

    async with jetflow.connect(nats_server.url, namespace=namespace) as client, worker_of(takes, client, nats_server):
        events = EventNames(client._session.names)
        consumer, api = f"{events.stream}.{events.consumer('takes')}", client._session.connection.api
        await client.publish("came", 1)

        async def took_first() -> bool:
            return took == [1]

        await until(took_first)
        await api(f"CONSUMER.PAUSE.{consumer}", {"pause_until": "2100-01-01T00:00:00Z"})
        await client.publish("came", 2)
        await api(f"CONSUMER.DELETE.{consumer}")

        async def took_both() -> bool:
            return took == [1, 2]

        await until(took_both)


async def test_a_publish_that_nobody_answers_is_sent_again(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    names = session.names
    await session.connection.api(f"STREAM.DELETE.{names.records_stream}")
    storing = asyncio.create_task(session.publisher.store(names.run_of(task_of(ROOT)), b"{}"))

    async def told() -> bool:
        return "no stream answers" in caplog.text

    await until(told)
    await ensure_streams(session.connection, names, Retention())
    assert (await storing).stored
    assert await session.store.leader_last(names.records_stream, names.run_of(task_of(ROOT))) is not None


def worker_of(flow: Any, client: Client, server: NatsServer) -> Worker:
    return Worker(
        [flow], server=server.url, namespace=client._session.names.namespace, options=WorkerOptions(grace=GRACE)
    )
