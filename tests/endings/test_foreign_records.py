"""What other programs may have stored: versions that are no digests, fields left out, records that cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from jetflow import (
    ChildFailed,
    Client,
    Context,
    Retry,
    RunFailed,
    UnknownWorkflow,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.broker.connection import Message
from jetflow.broker.publisher import Receipt
from jetflow.engine.joins import SEAL
from jetflow.engine.tasks import NONE, StepAddress
from jetflow.errors import MalformedRecord
from jetflow.server import NatsServer
from jetflow.wire.headers import Header
from jetflow.wire.records import decode_mark, decode_outcome, header_block
from tests.endings.stored import GRACE, PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]

CHILD: Final = "c" * 32
GRAPH: Final = {"workflow": "foreign", "nodes": [{"name": "run"}]}
"""With `after` left out, as every field that holds its default may be."""

FOREIGN_TASKS: Final = "jf.*.task.foreign.>"

UNREADABLE: Final = {
    "no JSON": b"{",
    "fields that are missing": b'{"kind":"sealed"}',
    "another kind": b'{"kind":"open","turn":0,"task":"TASK","needed":1}',
    "a task of another run": b'{"kind":"sealed","turn":0,"task":"jf.x.task.a.b.c.-.d.0","needed":1}',
    "a value that is gone": b'{"kind":"sealed","turn":0,"task":"TASK","needed":1,"whole":"00-8.1"}',
}


@workflow("leaf")
async def leaf() -> int:
    return 1


class Foreign:
    """A program in another language: it publishes what `docs/wire.md` says, or what it should not."""

    def __init__(self, stored: Stored) -> None:
        self.session = stored.session
        self.names = stored.names

    async def put(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        block = header_block(headers) if headers else b""
        assert (await self.session.publisher.store(subject, body, block)).stored

    async def declare(self, version: str = "v1", graph: bytes = msgspec.json.encode(GRAPH)) -> None:
        declaration = msgspec.json.encode({"graph": GRAPH, "version": version})
        await self.put(self.names.workflow_version("foreign", version), graph)
        await self.put(self.names.workflow("foreign"), declaration)

    async def count(self, join: StepAddress, by: int) -> None:
        counted: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.session.publisher.count(self.names.counter("join", join), by, counted.set_result)
        assert (await counted).error is None

    async def seal(self, task: str, record: bytes) -> None:
        """Return from a step: with one child, whose task is published behind the record."""
        _, _, _, _, step, root, _, run, _ = task.split(".")
        join = StepAddress(root, run, step)
        await self.put(self.names.join(join, 0), record.replace(b"TASK", task.encode()))
        await self.count(join, SEAL - 1)
        headers = {Header.PARENT_STEP: step, Header.VERSION: leaf.graph.version, Header.DEPTH: "1"}
        await self.put(self.names.task("leaf", "run", root, run, CHILD), b"null", headers)

    async def take(self, workflow: str) -> Message:
        """Take a task as a worker does."""
        taken: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        connection = self.session.connection
        inbox = connection.new_inbox()
        subscription = await connection.subscribe(inbox, taken.set_result)
        consumer = f"{self.names.tasks_stream}.{self.names.consumer(workflow, 'run')}"
        connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", b'{"batch":1}', reply=inbox)
        try:
            return await asyncio.wait_for(taken, PATIENCE)
        finally:
            await connection.unsubscribe(subscription)


@pytest.fixture
def foreign(stored: Stored) -> Foreign:
    return Foreign(stored)


def sealed(**fields: Any) -> bytes:
    """The least record that a foreign worker may seal with."""
    return msgspec.json.encode({"kind": "sealed", "turn": 0, "task": "TASK", "needed": 1, "total": 1} | fields)


async def failure_of(client: Client, run: str) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await client.run(run).result(PATIENCE)
    return caught.value


# --- versions


async def test_runs_by_name_are_pinned_to_the_version_that_is_declared(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign
) -> None:
    """A version is an opaque token: triggered, spawned or through the inbox, a run has that of the registry."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows("foreign", [1])

    async def all_there() -> list[str] | None:
        found = await stored.subjects(stored.names.tasks_stream, FOREIGN_TASKS)
        return found if len(found) == 3 else None

    await foreign.declare("v1")
    async with worker([parent]):
        await client.trigger("foreign", 1)
        await client.trigger(parent)
        await foreign.put(stored.names.inbox_trigger("foreign"), b"1")
        for subject in await until(all_there):
            task = await stored.session.store.leader_last(stored.names.tasks_stream, subject)
            assert task is not None
            assert task.headers[Header.VERSION] == "v1"
    declared = await stored.subjects(stored.names.workflows_stream)
    assert {subject for subject in declared if "foreign" in subject} == {
        stored.names.workflow("foreign"),
        stored.names.workflow_version("foreign", "v1"),
    }


async def test_a_run_by_name_goes_on_behind_its_last_child(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign
) -> None:
    """Whoever ends the last child reads the graph under the version that the run is pinned to."""
    await foreign.declare("v1")
    async with worker([leaf]):
        run = await client.trigger("foreign", 1)
        (task,) = await stored.subjects(stored.names.tasks_stream, FOREIGN_TASKS)
        await foreign.seal(task, sealed(output=[7]))
        assert await run.result(PATIENCE) == [7]
    assert stored.session.registry.cached_graph("foreign", "v1") is not None


@pytest.mark.parametrize("version", ["v1.0", "a b", ""])
async def test_a_version_that_is_no_token_is_refused(client: Client, foreign: Foreign, version: str) -> None:
    await foreign.put(foreign.names.workflow("foreign"), msgspec.json.encode({"graph": GRAPH, "version": version}))
    with pytest.raises(MalformedRecord, match="is no token"):
        await client.trigger("foreign", 1)


@pytest.mark.parametrize("graph", [None, b'{"workflow":7}'], ids=["missing", "unreadable"])
async def test_a_join_whose_graph_is_lost_ends_its_run(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign, graph: bytes | None
) -> None:
    if graph is not None:
        await foreign.put(stored.names.workflow_version("foreign", "v2"), graph)
    run = "ab" * 16
    task = stored.names.task("foreign", "run", run, NONE, run)
    await foreign.put(task, b"1", {Header.VERSION: "v2"})
    async with worker([leaf]) as only:
        await foreign.seal(task, sealed())
        error = await failure_of(client, run)
    assert error.error_type == ("UnknownVersion" if graph is None else "MalformedRecord")
    assert error.step == "run"
    assert only.counts.swept == 0
    assert (await client.describe(run)).status == "failed"


@pytest.mark.parametrize("graph", [None, b"[]"], ids=["missing", "unreadable"])
async def test_a_task_whose_graph_is_lost_ends_its_run(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign, graph: bytes | None
) -> None:
    if graph is not None:
        await foreign.put(stored.names.workflow_version("leaf", "v2"), graph)
    run = "ab" * 16
    async with worker([leaf], options=WorkerOptions(unknown_step_grace=0)) as only:
        await foreign.put(stored.names.task("leaf", "run", run, NONE, run), b"null", {Header.VERSION: "v2"})
        error = await failure_of(client, run)
    assert error.error_type == ("UnknownVersion" if graph is None else "MalformedRecord")
    assert only.counts.executed == 0


# --- join records


@pytest.mark.parametrize("record", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_join_record_that_cannot_be_read_ends_its_run(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign, record: bytes
) -> None:
    """The look of its last child finds it: the run ends as every run does, stored, marked and counted."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> str:
        child = await ctx.spawn_workflow("foreign", 1, key="k")
        try:
            return await child.result()
        except ChildFailed as error:
            return f"{error.status}: {error.error_type}"

    await foreign.declare()
    async with worker([parent, leaf]) as only:
        run = await client.trigger(parent)
        task = (await until(lambda: stored.subjects(stored.names.tasks_stream, FOREIGN_TASKS)))[0]
        await foreign.seal(task, record)
        expected = "LostValue" if b"whole" in record else "MalformedRecord"
        assert await run.result(PATIENCE) == f"failed: {expected}"
        assert only.counts.swept == 0
    child = task.split(".")[7]
    (mark,) = await stored.subjects(stored.names.records_stream, f"jf.*.mark.*.*.*.failed.foreign.{child}")
    body = await stored.session.store.leader_last(stored.names.records_stream, mark)
    assert body is not None
    assert (decode_mark(body.body).type, decode_mark(body.body).key) == (expected, "k")
    trace = await client.describe(child)
    assert (trace.status, trace.totals.succeeded) == ("failed", 1)
    assert trace.error is not None
    assert (trace.error.type, trace.error.step) == (expected, "run")


async def test_a_join_record_of_a_run_that_has_ended_changes_nothing(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign
) -> None:
    await foreign.declare()
    run = await client.trigger("foreign", 1)
    (task,) = await stored.subjects(stored.names.tasks_stream, FOREIGN_TASKS)
    await foreign.put(stored.names.run(run.id, NONE, NONE, run.id), b'{"status":"succeeded","output":1}')
    async with worker([leaf]):
        await foreign.seal(task, b"{")
        assert await client.run(CHILD).result(PATIENCE) == 1
        await until(stored.all_acknowledged)
    assert await run.result(PATIENCE) == 1
    assert await stored.subjects(stored.names.records_stream, "jf.*.mark.>") == []


@pytest.mark.parametrize("again", [False, True], ids=["first", "redelivered"])
async def test_a_task_whose_join_record_cannot_be_read_ends_its_run(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign, again: bool
) -> None:
    ran: list[int] = []

    @workflow("spawns")
    async def spawns(number: int, ctx: Context) -> None:
        ran.append(number)
        await ctx.spawn_workflow(leaf)

    async with worker([spawns]):
        pass
    run = await client.trigger(spawns, 1)
    await foreign.put(stored.names.join(StepAddress(run.id, run.id, "run"), 0), b"{")
    if again:
        message = await foreign.take("spawns")
        foreign.session.connection.send(message.reply, b"-NAK")
    async with worker([spawns, leaf]):
        error = await failure_of(client, run.id)
    assert error.error_type == "MalformedRecord"
    assert ran == ([] if again else [1])


async def test_a_failure_step_whose_join_record_cannot_be_read_ends(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign
) -> None:
    """Its run has ended, so that a later delivery would begin it again, for ever."""
    flow, ran = Workflow[None, None]("flow", retry=Retry(attempts=1)), list[int]()

    @flow.step
    async def fails() -> None:
        raise ValueError("no")

    @flow.on_failure
    async def mourns(_: None, ctx: Context) -> None:
        ran.append(ctx.attempt)
        await ctx.spawn_workflow(leaf)

    run = await client.trigger(flow)
    join = StepAddress(run.id, run.id, "mourns")
    await foreign.put(stored.names.join(join, 0), b"{")
    async with worker([flow, leaf]):
        assert (await failure_of(client, run.id)).error_type == "ValueError"
        (subject,) = await until(lambda: stored.subjects(stored.names.records_stream, stored.names.step(join)))
        await until(stored.is_idle)
    outcome = await stored.session.store.leader_last(stored.names.records_stream, subject)
    assert outcome is not None
    error = decode_outcome(outcome.body).error
    assert error is not None
    assert (error.type, ran) == ("MalformedRecord", [1])


async def test_the_sweeper_ends_the_run_of_a_join_record_that_cannot_be_read(
    nats_server: NatsServer, namespace: str, client: Client, stored: Stored, foreign: Foreign
) -> None:
    """And goes on with the others: one whose last child was never counted."""
    await foreign.declare()
    broken, fine = await client.trigger("foreign", 1), await client.trigger("foreign", 2)
    for run, record in (broken, b"{"), (fine, sealed(output=7)):
        join = StepAddress(run.id, run.id, "run")
        task = stored.names.task("foreign", "run", run.id, NONE, run.id)
        await foreign.put(stored.names.join(join, 0), record.replace(b"TASK", task.encode()))
        await foreign.count(join, SEAL - 1)
        await foreign.put(stored.names.run(run.id, run.id, "run", CHILD), b'{"status":"succeeded"}')

    async def cleared() -> bool:
        return not await stored.subjects(stored.names.counters_stream, stored.names.join_counters)

    options = WorkerOptions(sweep_every=0.1, grace=GRACE)
    async with Worker([leaf], server=nats_server.url, namespace=namespace, options=options) as only:
        assert (await failure_of(client, broken.id)).error_type == "MalformedRecord"
        assert await fine.result(PATIENCE) == 7
        await until(cleared)
        assert only.counts.swept == 2


async def test_the_sweeper_goes_on_sweeping(
    nats_server: NatsServer, namespace: str, client: Client, stored: Stored, foreign: Foreign
) -> None:
    """Each join is stuck only when the one before was found."""
    await foreign.declare()
    options = WorkerOptions(sweep_every=0.1, grace=GRACE)
    async with Worker([leaf], server=nats_server.url, namespace=namespace, options=options):
        for number in (1, 2):
            run = await client.trigger("foreign", number)
            join = StepAddress(run.id, run.id, "run")
            task = stored.names.task("foreign", "run", run.id, NONE, run.id)
            await foreign.put(stored.names.join(join, 0), sealed(output=number).replace(b"TASK", task.encode()))
            await foreign.count(join, SEAL - 1)
            await foreign.put(stored.names.run(run.id, run.id, "run", CHILD), b'{"status":"succeeded"}')
            assert await run.result(PATIENCE) == number


# --- declarations


async def test_a_declaration_that_cannot_be_read(client: Client, worker: MakeWorker, foreign: Foreign) -> None:
    """Whoever starts a run by name is told; the worker that declares the workflow mends it."""
    await foreign.put(foreign.names.workflow("leaf"), b'{"graph":{"workflow":"leaf"}}')
    with pytest.raises(MalformedRecord, match=r"the stored declaration cannot be read: .*nodes"):
        await client.trigger("leaf")
    with pytest.raises(UnknownWorkflow, match="did you mean 'leaf'"):
        await client.trigger("leav")
    async with worker([leaf]):
        assert await (await client.trigger("leaf")).result(PATIENCE) == 1


async def test_a_trigger_of_a_declaration_that_cannot_be_read_is_a_failed_run(
    client: Client, worker: MakeWorker, foreign: Foreign
) -> None:
    await foreign.put(foreign.names.workflow("foreign"), b"[]")
    run = "cd" * 16
    async with worker([leaf]):
        await foreign.put(foreign.names.inbox_trigger("foreign"), b"1", {Header.RUN: run})
        assert (await failure_of(client, run)).error_type == "MalformedRecord"
    assert (await client.describe(run)).workflow == "foreign"


# --- attempts


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (b'{"attempt":1,"worker":"go","started":1,"ended":2,"error":{"type":"E","message":"m"}}', "E"),
        (b'{"error":{"type":"E","message":"m"}}', "E"),
        (b"{}", None),
        (b'{"attempt":"first"}', "MalformedAttempt"),
        (b"[1]", "MalformedAttempt"),
        (b"", "MalformedAttempt"),
    ],
)
async def test_an_attempt_of_another_program_counts(
    client: Client, worker: MakeWorker, stored: Stored, foreign: Foreign, attempt: bytes, error: str | None
) -> None:
    """Whatever it leaves out, and even if it cannot be read."""
    ran: list[int] = []

    @workflow("mixed", retry=Retry(attempts=2))
    async def mixed(_: None, ctx: Context) -> None:
        ran.append(ctx.attempt)

    async with worker([mixed]):
        pass
    run = await client.trigger(mixed)
    message = await foreign.take("mixed")
    await foreign.put(stored.names.attempt(StepAddress(run.id, run.id, "run"), 0, 1), attempt)
    foreign.session.connection.send(message.reply, b"-NAK")
    async with worker([mixed]):
        await run.result(PATIENCE)
    (step,) = (await client.describe(run.id)).steps
    assert (ran, step.attempts) == ([2], 2)
    assert [failure.error and failure.error.type for failure in step.failures] == [error]
