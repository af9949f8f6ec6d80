"""What a worker tells while it runs: log records, spans and measures of each step, probes, and being a NATS service."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import nats
import pytest
from nats.errors import NoRespondersError
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from patience import PATIENCE, until
from prometheus_client import CollectorRegistry, generate_latest

import jetflow
import jetflow.telemetry
from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, hooks, logs, workflow
from jetflow.server import NatsServer
from jetflow.telemetry.catalogue import CATALOGUE

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
log = logging.getLogger("of.a.user")


@workflow("leaf")
async def leaf(number: int) -> int:
    log.warning("leaf %d", number)
    return number


@workflow("plain-leaf")
def plain_leaf(number: int) -> int:
    log.warning("plain leaf %d in %s", number, threading.current_thread().name, extra={"step": "of mine", "n": 1})
    return number


@workflow("falls", retry=Retry(attempts=2, initial=0))
async def falls() -> None:
    raise LookupError("nothing there")


tree = Workflow("tree", input=int)


@tree.step
async def scan(upto: int, ctx: Context) -> int:
    children = await ctx.spawn_workflows(leaf, range(upto))
    one = await ctx.spawn_workflow(plain_leaf, 1)
    return sum(await ctx.join(children)) + await one.result()


@tree.step(after=[scan])
async def report(upto: int, ctx: Context) -> int:
    return ctx.output(scan)


# --- log records


async def test_records_tell_of_their_step(client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture) -> None:
    """On the event loop and in threads alike, in `%(run)s` and as attributes. What the user gives himself is kept."""
    async with worker([tree, leaf, plain_leaf]):
        run = await client.trigger(tree, 3)
        await run.result(PATIENCE)
    of_user = [record for record in caplog.records if record.name == "of.a.user"]
    assert len(of_user) == 4
    for record in of_user:
        told: Any = record
        assert (told.root, told.attempt) == (run.id, 1)
        assert told.run != run.id
        [fields] = [logging.Formatter("%(run)s %(workflow)s %(step)s %(attempt)d").format(record).split()]
        assert fields[0] == told.run
        assert fields[1] == told.workflow
        assert (told.workflow, told.step) in (("leaf", "run"), ("plain-leaf", "of mine"))
    assert logs.fields() == {}
    assert not hasattr(logging.makeLogRecord({}), "run")


async def test_who_tells_of_a_step_is_free_for_the_next_one(client: Client, worker: MakeWorker) -> None:
    """What log records tell is taken back, or each task would need a new task of the event loop, and no group forms."""
    runners: list[asyncio.Task[Any] | None] = []

    @workflow("counted")
    async def counted(number: int) -> int:
        runners.append(asyncio.current_task())
        return number

    @workflow("counting")
    async def counting(upto: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(counted, range(upto))))

    async with worker([counting, counted]):
        await (await client.trigger(counting, 400)).result(PATIENCE)
    assert len(runners) == 400
    assert len(set(runners)) < 100


def test_records_as_lines_of_json() -> None:
    logs.install()
    logs.install()

    def formatted(**extra: Any) -> dict[str, Any]:
        factory = logging.getLogRecordFactory()
        record = factory("name", logging.WARNING, "file", 1, "said %s", ("this",), None)
        vars(record).update(extra)
        return json.loads(logs.JsonFormatter().format(record))

    outside = formatted(number=5, odd=object, nan=float("nan"))
    assert {"level": "warning", "logger": "name", "message": "said this", "number": 5}.items() <= outside.items()
    assert outside["time"].endswith("+00:00")
    assert "run" not in outside
    token = logs.current.set(logs.InStep("r", "o", "w", "s", 2))
    try:
        assert logs.fields() == {"run": "r", "root": "o", "workflow": "w", "step": "s", "attempt": 2}
        assert logs.fields().items() <= formatted().items()
        assert formatted(step=7)["step"] == 7
    finally:
        logs.current.reset(token)


# --- spans


class Live(SpanProcessor):
    """Counts the spans that are open at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def on_end(self, span: ReadableSpan) -> None:
        self.now -= 1


class Spans:
    def __init__(self, sampler: Any = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.live = Live()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider.add_span_processor(self.live)

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    end = jetflow.telemetry.instrument(tracer_provider=made.provider, metrics=False)
    yield made
    end()
    assert hooks.tracer is None


def below(span: ReadableSpan, above: ReadableSpan) -> bool:
    return span.parent is not None and above.context is not None and span.parent.span_id == above.context.span_id


async def test_one_trace_over_a_trigger_a_parent_and_100_children(
    client: Client, worker: MakeWorker, spans: Spans
) -> None:
    tracer = spans.provider.get_tracer("of a user")
    async with worker([tree, leaf, plain_leaf]):
        with tracer.start_as_current_span("a request"):
            run = await client.trigger(tree, 100)
        assert await run.result(PATIENCE) == sum(range(100)) + 1
        await until(lambda: spans.live.now == 0)
    assert len({span.context.trace_id for span in spans.all if span.context is not None}) == 1
    counted = Counter(span.name for span in spans.all)
    assert counted == {
        "a request": 1,
        "trigger tree": 1,
        "queue tree scan": 1,
        "tree scan": 1,
        "spawn leaf": 1,
        "spawn plain-leaf": 1,
        "join": 2,
        "queue leaf run": 100,
        "leaf run": 100,
        "queue plain-leaf run": 1,
        "plain-leaf run": 1,
        "queue tree report": 1,
        "tree report": 1,
    }
    [trigger], [scanned] = spans.named("trigger tree"), spans.named("tree scan")
    [reported], [spawned] = spans.named("tree report"), spans.named("spawn leaf")
    assert below(trigger, spans.named("a request")[0])
    assert below(scanned, trigger)
    assert below(reported, trigger)
    assert below(spawned, scanned)
    assert all(below(span, spawned) for span in spans.named("leaf run") + spans.named("queue leaf run"))
    assert all(below(span, scanned) for span in spans.named("join"))
    linked = {link.context.span_id for span in spans.named("join") for link in span.links}
    assert spawned.context is not None
    assert spawned.context.span_id in linked
    attributes = scanned.attributes or {}
    assert (attributes["jetflow.run"], attributes["jetflow.attempt"]) == (run.id, 1)
    assert (spawned.attributes or {})["jetflow.children"] == 100
    [queued] = spans.named("queue tree scan")
    assert queued.start_time is not None
    assert queued.end_time is not None
    assert scanned.start_time is not None
    assert queued.start_time <= queued.end_time <= scanned.start_time + 1_000_000


async def test_spans_are_as_many_as_what_goes_on(client: Client, worker: MakeWorker, spans: Spans) -> None:
    """And not as children: with 10 slots, the parent, its spawn or join, and what runs on the slots."""
    async with worker([tree, leaf, plain_leaf], slots=10):
        assert await (await client.trigger(tree, 1000)).result(PATIENCE) == sum(range(1000)) + 1
        await until(lambda: spans.live.now == 0)
    assert len(spans.named("leaf run")) == 1000
    assert spans.live.most <= 10 + 3


async def test_a_step_that_waits_in_thousands_of_places_has_few_spans(
    client: Client, worker: MakeWorker, spans: Spans
) -> None:
    @workflow("gathers")
    async def gathers(upto: int, ctx: Context) -> int:
        children = await ctx.spawn_workflows(leaf, range(upto))
        return sum(await asyncio.gather(*(child.result() for child in children)))

    async with worker([gathers, leaf], slots=10):
        assert await (await client.trigger(gathers, 500)).result(PATIENCE) == sum(range(500))
        await until(lambda: spans.live.now == 0)
    assert spans.live.most <= 10 + 2 + 100


async def test_what_a_user_spans_in_a_step_is_below_it(client: Client, worker: MakeWorker, spans: Spans) -> None:
    tracer = spans.provider.get_tracer("of a user")

    @workflow("plain-spans")
    def plain_spans(_: int) -> None:
        with tracer.start_as_current_span("in a thread"):
            pass

    async with worker([plain_spans]):
        await (await client.trigger(plain_spans, 1)).result(PATIENCE)
        await until(lambda: bool(spans.named("plain-spans run")))
    assert below(spans.named("in a thread")[0], spans.named("plain-spans run")[0])


async def test_failed_attempts_are_errors(client: Client, worker: MakeWorker, spans: Spans) -> None:
    async with worker([falls]):
        with pytest.raises(RunFailed):
            await (await client.trigger(falls)).result(PATIENCE)
        await until(lambda: len(spans.named("falls run")) == 2)
    assert [(span.attributes or {})["jetflow.attempt"] for span in spans.named("falls run")] == [1, 2]
    for span in spans.named("falls run"):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description == "LookupError: nothing there"
        assert [event.name for event in span.events] == ["exception"]


async def test_sampling_is_respected(client: Client, worker: MakeWorker) -> None:
    """Who has not sampled the trigger has not sampled the children, whoever runs them."""
    unsampled, sampled = Spans(ParentBased(ALWAYS_OFF)), Spans()
    end = jetflow.telemetry.instrument(tracer_provider=unsampled.provider, metrics=False)
    run = await client.trigger(tree, 5)
    end()
    end = jetflow.telemetry.instrument(tracer_provider=sampled.provider, metrics=False)
    async with worker([tree, leaf, plain_leaf]):
        assert await run.result(PATIENCE) == 11
    end()
    assert unsampled.all == sampled.all == []


# --- measures


async def test_measures_are_the_same_for_both(client: Client, worker: MakeWorker) -> None:
    """Each that the catalogue has, under the name and with the labels that it says."""
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    ends = [
        jetflow.telemetry.instrument(meter_provider=MeterProvider([reader]), traces=False),
        jetflow.telemetry.prometheus(registry),
    ]
    async with worker([tree, leaf, plain_leaf, falls], slots=7):
        await (await client.trigger(tree, 10)).result(PATIENCE)
        with pytest.raises(RunFailed):
            await (await client.trigger(falls)).result(PATIENCE)
        await until(lambda: hooks.totals("jetflow.worker.steps.running")[0][1] == 0)
        text = generate_latest(registry).decode()
        data = reader.get_metrics_data()
    for end in ends:
        end()
    assert hooks.meters == ()
    assert data is not None
    collected = {
        metric.name: metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics
    }
    assert set(collected) == {one.name for one in CATALOGUE}
    for one in CATALOGUE:
        assert collected[one.name].unit == one.unit
        points = list(collected[one.name].data.data_points)
        assert points, one.name
        assert all(tuple(dict(point.attributes or {})) == one.labels for point in points)
        assert f"# HELP {one.prometheus_name}" in text
    for line in (
        'jetflow_runs_triggered_total{workflow="tree"} 1.0',
        'jetflow_children_spawned_total{workflow="leaf"} 10.0',
        'jetflow_step_duration_seconds_count{status="succeeded",step="run",workflow="leaf"} 10.0',
        'jetflow_step_duration_seconds_count{status="failed",step="run",workflow="falls"} 2.0',
        'jetflow_step_queue_duration_seconds_count{step="run",workflow="falls"} 2.0',
        'jetflow_worker_tasks_total{event="retried"} 1.0',
        "jetflow_worker_slots 7.0",
        "jetflow_worker_steps_running 0.0",
        "jetflow_worker_steps_waiting 0.0",
    ):
        assert line in text.splitlines()
    points_of: list[Any] = list(collected["jetflow.children.spawned"].data.data_points)
    spawned = {point.attributes["workflow"]: point.value for point in points_of}
    assert spawned == {"leaf": 10, "plain-leaf": 1}


# --- probes


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_probes_and_metrics_over_http(client: Client, worker: MakeWorker) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    @workflow("slow")
    async def slow() -> None:
        began.set()
        await go_on.wait()

    running = worker([slow], options=WorkerOptions(health_port=0))
    async with running:
        assert running.health_address is not None
        url = "http://{}:{}".format(*running.health_address)
        assert await asyncio.to_thread(_get, f"{url}/livez") == (200, "ok\n")
        assert await asyncio.to_thread(_get, f"{url}/readyz") == (200, "ok\n")
        status, text = await asyncio.to_thread(_get, f"{url}/metrics?x=1")
        assert status == 200
        assert "\njetflow_worker_slots 100.0\n" in text
        assert (await asyncio.to_thread(_get, f"{url}/other"))[0] == 404
        run = await client.trigger(slow)
        await began.wait()
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        assert await asyncio.to_thread(_get, f"{url}/readyz") == (503, "it stops\n")
        assert await asyncio.to_thread(_get, f"{url}/livez") == (200, "ok\n")
        go_on.set()
        await stopping
        await run.result(PATIENCE)
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(_get, f"{url}/livez")
    assert hooks.meters == ()


async def test_a_health_port_that_is_taken_ends_the_start(worker: MakeWorker) -> None:
    async with worker([leaf], options=WorkerOptions(health_port=0)) as first:
        assert first.health_address is not None
        taken = WorkerOptions(health_port=first.health_address[1])
        with pytest.raises(OSError, match=r"health_port: 127\.0\.0\.1:\d+ cannot be listened on"):
            async with worker([leaf], options=taken):
                pass


# --- a NATS service


async def test_workers_are_a_nats_service(
    client: Client, worker: MakeWorker, nats_server: NatsServer, namespace: str
) -> None:
    """As ADR-32 has it: `nats service ls`, `info` and `stats` ask like this."""

    async def asked(subject: str) -> list[dict[str, Any]]:
        inbox = connection.new_inbox()
        subscription = await connection.subscribe(inbox)
        await connection.publish(subject, b"", reply=inbox)
        answers: list[dict[str, Any]] = [json.loads((await subscription.next_msg(PATIENCE)).data)]
        await connection.flush()
        answers += [json.loads((await subscription.next_msg(PATIENCE)).data) for _ in range(subscription.pending_msgs)]
        await subscription.unsubscribe()
        return answers

    async with await nats.connect(nats_server.url) as connection, worker([tree, leaf, plain_leaf]) as running:
        await (await client.trigger(tree, 4)).result(PATIENCE)
        await until(lambda: running.counts.succeeded == 7)
        [ping] = [one for one in await asked("$SRV.PING") if one["metadata"]["namespace"] == namespace]
        assert (ping["type"], ping["name"]) == ("io.nats.micro.v1.ping_response", "jetflow")
        assert ping["metadata"] == {
            "namespace": namespace,
            "worker": running.name,
            "workflows": "leaf,plain-leaf,tree",
        }
        [info] = await asked(f"$SRV.INFO.jetflow.{ping['id']}")
        assert {endpoint["name"] for endpoint in info["endpoints"]} >= {"tree-scan", "tree-report", "leaf-run"}
        [stats] = await asked(f"$SRV.STATS.jetflow.{ping['id']}")
        [tasks] = stats["endpoints"]
        assert (tasks["num_requests"], tasks["num_errors"], tasks["data"]["succeeded"]) == (7, 0, 7)
        assert tasks["processing_time"] > 0
        with pytest.raises(NoRespondersError):
            await connection.request("$SRV.PING.another", b"", timeout=PATIENCE)


async def test_a_worker_that_is_not_discoverable_answers_nobody() -> None:
    hidden = WorkerOptions(discoverable=False)
    async with (
        NatsServer() as server,  # one on which nobody else answers
        await nats.connect(server.url) as connection,
        jetflow.connect(server.url) as client,
        Worker([leaf], server=server.url, options=hidden),
    ):
        await (await client.trigger(leaf, 0)).result(PATIENCE)  # what its start sent has arrived before this outcome
        with pytest.raises(NoRespondersError):
            await connection.request("$SRV.PING", b"", timeout=PATIENCE)
