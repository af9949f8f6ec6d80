"""The wire format as other languages see it: nothing but nats-py and docs/wire.md on one side, jetflow on the other."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from jetflow import Client, Context, Worker, Workflow, connect
from jetflow.server import NatsServer
from jetflow.worker.options import WorkerOptions

SEAL = 2**40
BOUND = 10.0
"""Seconds in which everything here must have happened. The sweeper is slower, so that it cannot help."""

OPTIONS = WorkerOptions(slots=4, sweep_every=600, ack_wait=2, grace=1)


def new_run_id() -> str:
    return uuid.uuid4().hex


class RawWorker:
    """A worker of the one-step workflow ``raw-child``, as docs/wire.md describes a simple one."""

    def __init__(self, client: Nats, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.handled: list[str] = []
        self.looks = 0
        self.busy = asyncio.Lock()

    async def api(self, operation: str, body: Any) -> dict[str, Any]:
        reply = await self.client.request(f"$JS.API.{operation}", json.dumps(body).encode(), timeout=5)
        return json.loads(reply.data)

    async def publish(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Publish and return the PubAck, or its error."""
        reply = await self.client.request(subject, body, timeout=5, headers=headers)
        return json.loads(reply.data)

    async def declare(self) -> None:
        graph = {"workflow": "raw-child", "nodes": [{"name": "run", "after": []}]}
        bucket = f"$KV.jf_{self.namespace}_workflows"
        await self.publish(f"{bucket}.raw-child.v1", json.dumps(graph).encode())
        await self.publish(f"{bucket}.raw-child", json.dumps({"graph": graph, "version": "v1"}).encode())
        stream, name, subject = (
            f"JF_{self.namespace}_tasks",
            "raw-child=run",
            f"jf.{self.namespace}.task.raw-child.run.>",
        )
        config = {
            "durable_name": name,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": 5_000_000_000,
            "max_ack_pending": -1,
            "max_deliver": -1,
        }
        answer = await self.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", {"stream_name": stream, "config": config})
        assert "error" not in answer

    async def work(self) -> None:
        """Pull and handle tasks until cancelled."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        request = json.dumps({"batch": 1, "expires": 1_000_000_000}).encode()
        try:
            while True:
                await self.client.publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.JF_{self.namespace}_tasks.raw-child=run", request, reply=inbox
                )
                try:
                    message = await subscription.next_msg(timeout=2)
                except NatsTimeoutError:
                    continue
                if message.reply.startswith("$JS.ACK."):
                    async with self.busy:
                        await self.handle(message)
        finally:
            await subscription.unsubscribe()

    async def handle(self, message: Msg) -> None:
        _, _, _, _, _, root, parent, run, _ = message.subject.split(".")
        headers = message.headers or {}
        parent_step = headers["Jf-Parent-Step"]
        outcome = self.outcome(json.loads(message.data))
        where = f"{root}.{parent}.{parent_step}"
        if outcome["status"] != "succeeded":
            await self.publish(f"jf.{self.namespace}.mark.{where}.{outcome['status']}.raw-child.{run}")
        stored = await self.publish(f"jf.{self.namespace}.run.{where}.{run}", json.dumps(outcome).encode())
        assert "seq" in stored or taken(stored)
        counter = f"$KV.jf_{self.namespace}_counters.join.{where}"
        counted = await self.publish(counter, headers={"Nats-Incr": "+1"})
        if int(counted["val"]) >= SEAL:
            self.looks += 1
            assert "seq" in await self.publish(f"jf.{self.namespace}.in.look.{where}")
        await self.client.publish(message.reply, b"+ACK")
        self.handled.append(run)

    @staticmethod
    def outcome(value: dict[str, int]) -> dict[str, Any]:
        if value["n"] < 0:
            return {"status": "failed", "error": {"type": "Negative", "message": f"{value['n']} is below 0"}}
        return {"status": "succeeded", "output": value["n"] ** 2}


def taken(answer: dict[str, Any]) -> bool:
    error = answer.get("error", {})
    return (error.get("err_code"), error.get("description")) == (10077, "maximum messages per subject exceeded")


# --- the jetflow side

joins = Workflow("joins", output=list[int])
returns = Workflow("returns", output=int)
count = Workflow("count", output=int)


@joins.step
async def in_step(numbers: list[int], ctx: Context) -> list[int]:
    children = await ctx.spawn_workflows("raw-child", [{"n": number} for number in numbers])
    return await ctx.join(children)


@returns.step
async def spawn(numbers: list[int], ctx: Context) -> None:
    await ctx.spawn_workflows("raw-child", [{"n": number} for number in numbers], key=lambda value: str(value["n"]))


@returns.step(after=[spawn])
async def add(numbers: list[int], ctx: Context) -> int:
    return sum([child.output async for child in ctx.children(spawn)])


@count.step
async def length(numbers: list[int]) -> int:
    return len(numbers)


@pytest_asyncio.fixture
async def raw(nats_server: NatsServer) -> AsyncGenerator[Nats]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Client]:
    async with connect(nats_server.url, namespace=namespace) as client:
        yield client


@pytest_asyncio.fixture
async def worker(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Worker]:
    async with Worker([joins, returns, count], server=nats_server.url, namespace=namespace, options=OPTIONS) as worker:
        yield worker


@asynccontextmanager
async def raw_worker(raw: Nats, namespace: str) -> AsyncIterator[RawWorker]:
    worker = RawWorker(raw, namespace)
    await worker.declare()
    working = asyncio.create_task(worker.work())
    try:
        yield worker
    finally:
        async with worker.busy:  # a parent may go on as soon as an outcome is stored, before its task is acknowledged
            working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def trigger(raw: Nats, namespace: str, workflow: str, body: bytes, **headers: str) -> dict[str, Any]:
    named = {f"Jf-{name.capitalize()}": value for name, value in headers.items()}
    reply = await raw.request(f"jf.{namespace}.in.trigger.{workflow}", body, timeout=5, headers=named or None)
    return json.loads(reply.data)


async def outcome_of(raw: Nats, namespace: str, run: str) -> dict[str, Any]:
    """Wait for the outcome of a root run: its live copy, or what is stored."""
    subscription = await raw.subscribe(f"jf.{namespace}.live.run.{run}.-.-.{run}")
    try:
        async with asyncio.timeout(BOUND):
            while True:
                stored = await raw.request(
                    f"$JS.API.DIRECT.GET.JF_{namespace}_records.jf.{namespace}.run.{run}.-.-.{run}", b"", timeout=5
                )
                if "Status" not in (stored.headers or {}):
                    return json.loads(stored.data)
                try:
                    return json.loads((await subscription.next_msg(timeout=1)).data)
                except NatsTimeoutError:
                    continue
    finally:
        await subscription.unsubscribe()


# --- children that a raw worker completes


@pytest.mark.parametrize(("workflow", "expected"), [("joins", [1, 4, 9]), ("returns", 14)])
async def test_a_run_of_raw_children(
    raw: Nats, namespace: str, client: Client, worker: Worker, workflow: str, expected: object
) -> None:
    run = new_run_id()
    async with raw_worker(raw, namespace) as children:
        await trigger(raw, namespace, workflow, b"[1, 2, 3]", run=run, metadata='{"by": "hand"}')
        outcome = await outcome_of(raw, namespace, run)
    assert outcome["status"] == "succeeded"
    assert outcome["output"] == expected
    assert len(children.handled) == 3
    trace = await client.describe(run)
    assert trace.metadata == {"by": "hand"}
    assert trace.totals.succeeded == 3
    assert worker.counts.swept == 0


async def test_the_last_raw_child_asks_for_the_look(raw: Nats, namespace: str, worker: Worker) -> None:
    """Its parent has sealed the join before a raw worker exists, so only the request can move the run on."""
    run = new_run_id()
    await RawWorker(raw, namespace).declare()
    counted = await raw.subscribe(f"$KV.jf_{namespace}_counters.join.{run}.{run}.spawn")
    await trigger(raw, namespace, "returns", b"[2, 3]", run=run)
    assert (await counted.next_msg(timeout=BOUND)).headers == {"Nats-Incr": f"+{SEAL - 2}"}
    async with raw_worker(raw, namespace) as children:
        outcome = await outcome_of(raw, namespace, run)
    assert outcome["output"] == 13
    assert children.looks == 1
    assert worker.counts.swept == 0


async def test_a_raw_child_that_fails_fails_its_parent(raw: Nats, namespace: str, worker: Worker) -> None:
    run = new_run_id()
    async with raw_worker(raw, namespace):
        await trigger(raw, namespace, "returns", b"[2, -3]", run=run)
        outcome = await outcome_of(raw, namespace, run)
    assert outcome["status"] == "failed"
    assert outcome["error"]["type"] == "ChildrenFailed"
    assert "Negative: -3 is below 0" in outcome["error"]["message"]


async def test_an_outcome_that_is_stored_twice_stands(raw: Nats, namespace: str, client: Client) -> None:
    worker = RawWorker(raw, namespace)
    subject = f"jf.{namespace}.run.{'1' * 32}.-.-.{'1' * 32}"
    assert "seq" in await worker.publish(subject, b'{"status":"succeeded","output":1}')
    assert taken(await worker.publish(subject, b'{"status":"succeeded","output":2}'))
    assert (await client.describe("1" * 32)).output == 1


# --- spawning


async def test_a_raw_client_spawns_as_the_wire_format_says(raw: Nats, namespace: str, worker: Worker) -> None:
    """The ids that a raw spawner derives are those that jetflow derives: the parent finds its children spawned."""
    run = new_run_id()
    raw_side = RawWorker(raw, namespace)
    await raw_side.declare()

    def derived(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    body = b'{"n":2}'
    digest = f"2-{derived(body.decode())}"
    child = derived(f"{run}\nraw-child\nhash\n{digest}")
    headers = {
        "Nats-Msg-Id": f"{child}.in_step",
        "Jf-Parent-Step": "in_step",
        "Jf-Version": "v1",
        "Jf-Depth": "1",
        "Jf-Digest": digest,
    }
    subject = f"jf.{namespace}.task.raw-child.run.{run}.{run}.{child}.0"
    assert "seq" in await raw_side.publish(subject, body, headers)
    assert (await raw_side.publish(subject, body, headers))["duplicate"], "the message id is recognised"
    assert taken(await raw_side.publish(subject, body, headers | {"Nats-Msg-Id": "another"})), "and so is the subject"
    async with raw_worker(raw, namespace) as children:
        await trigger(raw, namespace, "joins", b"[2]", run=run)
        assert (await outcome_of(raw, namespace, run))["output"] == [4]
    assert children.handled == [child]


# --- triggers


async def test_a_key_names_a_run(raw: Nats, namespace: str, client: Client, worker: Worker) -> None:
    await trigger(raw, namespace, "count", b"[ 7 ]", key="nightly")
    run = hashlib.sha256(b"-\ncount\nkey\nnightly").hexdigest()[:32]
    assert (await outcome_of(raw, namespace, run))["output"] == 1
    again = await client.trigger(count, [7], key="nightly")
    assert again.id == run
    assert (await client.describe(run)).key == "nightly"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not json", "JSON is malformed"),
        (b"[1e400]", "Number out of range"),
        (b"[" * 101 + b"]" * 101, "more than 100 arrays and objects"),
    ],
    ids=["malformed", "out of range", "deep"],
)
async def test_a_body_that_is_not_json_is_a_failed_run(
    raw: Nats, namespace: str, client: Client, worker: Worker, body: bytes, message: str
) -> None:
    run = new_run_id()
    await trigger(raw, namespace, "joins", body, run=run)
    outcome = await outcome_of(raw, namespace, run)
    assert outcome["status"] == "failed"
    assert outcome["error"]["type"] == "InvalidInput"
    trace = await client.describe(run)
    assert trace.status == "failed"
    assert trace.error is not None
    assert message in trace.error.message


async def test_a_body_that_does_not_fit_is_a_failed_run(
    raw: Nats, namespace: str, client: Client, worker: Worker
) -> None:
    run = new_run_id()
    await trigger(raw, namespace, "joins", b'[1, "two"]', run=run)
    await outcome_of(raw, namespace, run)
    error = (await client.describe(run)).error
    assert error is not None
    assert (error.type, error.step) == ("InvalidInput", "in_step")
    assert "$[1]" in error.message


async def test_an_unknown_workflow_is_a_failed_run(raw: Nats, namespace: str, client: Client, worker: Worker) -> None:
    run = new_run_id()
    await trigger(raw, namespace, "jions", b"[1]", run=run, key="k")
    outcome = await outcome_of(raw, namespace, run)
    assert outcome["status"] == "failed"
    trace = await client.describe(run)
    assert (trace.status, trace.workflow, trace.key) == ("failed", "jions", "k")
    assert trace.error is not None
    assert trace.error.type == "UnknownWorkflow"
    assert "did you mean 'joins'?" in trace.error.message


@pytest.mark.parametrize(
    "metadata", ["not json", "[1]", '{"large": "' + "x" * 20_000 + '"}'], ids=["text", "list", "large"]
)
async def test_metadata_that_does_not_fit_is_a_failed_run(
    raw: Nats, namespace: str, client: Client, worker: Worker, metadata: str
) -> None:
    run = new_run_id()
    await trigger(raw, namespace, "count", b"[1]", run=run, metadata=metadata)
    assert (await outcome_of(raw, namespace, run))["error"]["type"] in ("InvalidInput", "PayloadTooLarge")
    assert (await client.describe(run)).status == "failed"


@pytest.mark.parametrize(("workflow", "metadata"), [("unknown", "{}"), ("count", "not json")])
async def test_a_trigger_that_fails_does_not_end_a_run_that_exists(
    raw: Nats, namespace: str, client: Client, worker: Worker, workflow: str, metadata: str
) -> None:
    run, later = new_run_id(), new_run_id()
    await RawWorker(raw, namespace).declare()
    counted = await raw.subscribe(f"$KV.jf_{namespace}_counters.join.{run}.{run}.spawn")
    await trigger(raw, namespace, "returns", b"[2, 3]", run=run)
    await counted.next_msg(timeout=BOUND)
    await trigger(raw, namespace, workflow, b"[1]", run=run, metadata=metadata)
    await trigger(raw, namespace, "count", b"[1]", run=later)
    await outcome_of(raw, namespace, later)  # so the trigger before it has been taken, too
    async with raw_worker(raw, namespace):
        assert (await outcome_of(raw, namespace, run))["output"] == 13
