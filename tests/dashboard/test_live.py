"""Events: each topic tells its state and then its changes, one producer for all who listen, and the newest wins."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

import jetflow
from jetflow import Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.dashboard import Access, Dashboard
from jetflow.dashboard.live import Event, Listener
from jetflow.dashboard.topics import MOST_IDS, RootChanges, merged
from jetflow.server import NatsServer
from tests.dashboard.serving import ACTION, serve
from tests.dashboard.world import PATIENCE


class Opened:
    """Lets children of a test go on."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()


OPENED: list[Opened] = []


@workflow("gated")
async def gated(number: int) -> int:
    await OPENED[-1].gate.wait()
    return number


@workflow("many")
async def many(count: int, ctx: Context) -> int:
    return len(await ctx.join(await ctx.spawn_workflows(gated, range(count))))


two_steps = Workflow("two-steps")


@two_steps.step
async def one(number: int) -> int:
    return number


@two_steps.step(after=[one])
async def other(number: int) -> int:
    return number


async def events(client: httpx.AsyncClient, *topics: str) -> AsyncGenerator[tuple[str, Any]]:
    name = ""
    async with client.stream("GET", "/api/v1/live", params={"topic": list(topics)}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def first(found: AsyncGenerator[tuple[str, Any]], topic: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        async for name, data in found:
            if name == topic:
                return data
    raise AssertionError(f"no event of {topic}")


async def test_a_run_is_told_from_its_begin_to_its_end(nats_server: NatsServer, namespace: str) -> None:
    OPENED.append(Opened())
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Dashboard(client) as dashboard,
        serve(dashboard) as http,
        Worker([many, gated], server=nats_server.url, namespace=namespace, options=WorkerOptions(grace=1)),
    ):
        run = await client.trigger(many, 5)
        looks = [events(http, f"totals:{run.id}", f"run:{run.id}") for _ in range(3)]
        for found in looks:
            totals = await first(found, f"totals:{run.id}")
            assert (totals["run"], totals["status"] in ("queued", "running")) == (run.id, True)
        assert len(dashboard.hub._topics) == 2
        OPENED[-1].gate.set()
        assert await run.result(PATIENCE) == 5
        for found in looks:
            ended: dict[str, Any] = {}
            async with asyncio.timeout(PATIENCE):
                async for name, data in found:
                    if data.get("status") == "succeeded":
                        ended[name] = data
                    if len(ended) == 2:
                        break
            assert ended[f"totals:{run.id}"]["totals"]["succeeded"] == 5
            assert ended[f"run:{run.id}"]["steps"][0]["status"] == "succeeded"
            await found.aclose()
        await _quiet(dashboard)


async def _quiet(dashboard: Dashboard) -> None:
    """Wait until no topic is left: the last one ends a moment after its last listener."""
    async with asyncio.timeout(PATIENCE):
        while dashboard.hub._topics:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.05)


async def test_new_runs_and_ends_are_told(nats_server: NatsServer, namespace: str) -> None:
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Dashboard(client) as dashboard,
        serve(dashboard) as http,
        Worker([two_steps], server=nats_server.url, namespace=namespace),
        contextlib.aclosing(events(http, "runs")) as found,
    ):
        assert (await first(found, "runs"))["more"]
        runs = [await client.trigger(two_steps, 1) for _ in range(2)]
        await runs[0].result(PATIENCE)
        later = await client.trigger(two_steps, 2)
        began, ended = list[str](), list[str]()
        while later.id not in began or later.id not in ended:
            told = await first(found, "runs")
            began += told["began"]
            ended += told["ended"]
        assert sorted(began) == sorted(ended) == sorted(run.id for run in (*runs, later))
        async with contextlib.aclosing(events(http, "runs")) as late:
            told = await first(late, "runs")
            assert (told["more"], told["began"], told["ended"]) == (True, [], [])


async def test_a_job_is_told(nats_server: NatsServer, namespace: str) -> None:
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Dashboard(client, access=Access.full()) as dashboard,
        serve(dashboard) as http,
    ):
        body = {"action": "cancel", "ids": ["0" * 32]}
        job = (await http.post("/api/v1/bulk", json=body, headers=ACTION)).json()["job"]
        async with contextlib.aclosing(events(http, f"bulk:{job}")) as found:
            assert (await first(found, f"bulk:{job}"))["state"] == "ready"
            await http.post(f"/api/v1/bulk/{job}/start", json={}, headers=ACTION)
            told = await first(found, f"bulk:{job}")
            while told["state"] != "done":
                told = await first(found, f"bulk:{job}")
            assert told["skipped"] == 1


async def test_what_cannot_be_told_is_a_problem_of_its_topic(nats_server: NatsServer, namespace: str) -> None:
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Dashboard(client) as dashboard,
        serve(dashboard) as http,
    ):
        nobody = "0" * 32
        for _ in range(2):  # whoever comes later is told, too
            async with contextlib.aclosing(events(http, f"run:{nobody}", "queues", f"totals:{nobody}")) as found:
                told = [await anext(found) for _ in range(3)]
            assert ("queues", []) in told
            problems = [data for name, data in told if name == "problem"]
            assert {problem["topic"] for problem in problems} == {f"run:{nobody}", f"totals:{nobody}"}
            assert {problem["type"] for problem in problems} == {"urn:jetflow:unknown-run"}
        for topics in ("weather", "run:", "overview:1", "bulk:nosuch", ""):
            answer = await http.get("/api/v1/live", params={"topic": topics})
            assert answer.headers["content-type"] == "application/problem+json", topics
        assert (await http.get("/api/v1/live")).status_code == 400
        assert (await http.get("/api/v1/live", params={"topic": ["queues"] * 30})).status_code == 400


async def test_a_stream_ends_with_its_dashboard(nats_server: NatsServer, namespace: str) -> None:
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        dashboard = Dashboard(client)
        async with serve(dashboard) as http, contextlib.aclosing(events(http, "queues")) as found:
            assert await first(found, "queues") == []
            await dashboard.close()
            async with asyncio.timeout(PATIENCE):
                assert [event async for event in found] == []


async def test_whoever_reads_slowly_gets_the_newest() -> None:
    listener = Listener()
    for number in range(5):
        listener.tell(Event("totals:x", number, str(number).encode()))
        listener.tell(Event("runs", RootChanges(at=number, began=(str(number),)), b""))
    async with contextlib.aclosing(listener.events()) as found:
        one, other = await anext(found), await anext(found)
    assert one is not None
    assert other is not None
    assert one.data == b"4"
    assert json.loads(other.data)["began"] == ["0", "1", "2", "3", "4"]


def test_changes_are_put_together_until_they_are_too_many() -> None:
    few = merged(RootChanges(at=1, began=("a",)), RootChanges(at=2, ended=("a",)))
    assert few == RootChanges(at=2, began=("a",), ended=("a",))
    much = merged(RootChanges(at=1, began=("a",) * MOST_IDS), RootChanges(at=2, ended=("b",)))
    assert much == RootChanges(at=2, more=True)
    assert merged(None, 5) == 5


@pytest.mark.parametrize("value", [1, [], {}])
def test_a_state_takes_the_place_of_the_one_before(value: Any) -> None:
    assert merged({"old": 1}, value) == value
