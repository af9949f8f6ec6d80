"""Schedules with their ticks, events with what they have started, and what steps wait for, as the API tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import time
from typing import Any, NamedTuple

import httpx
import nats
import pytest

import jetflow
from jetflow import Client, Context, Event, Retry, Signal, Worker, any_of, workflow
from jetflow.dashboard import Access, Acted, Dashboard
from jetflow.server import NatsServer
from tests.dashboard.serving import ACTION, serve

PATIENCE = 30.0


@workflow("nightly", retry=Retry(attempts=1))
async def nightly(number: int) -> int:
    if number < 0:
        raise ValueError("below nothing")
    return number


@workflow("paid")
async def paid(payload: dict[str, Any]) -> int:
    return payload["amount"]


paid.on("order.paid", if_=[["amount", ">", 10]])


@workflow("sell")
async def sell(order: str, ctx: Context) -> str:
    waited = any_of(Event("order.approved", key=order, if_=[["yes", "==", True]]), Signal("stop"))
    await ctx.wait_for(waited, timeout=3600)
    return "sold"


class Place(NamedTuple):
    """A client, and the dashboards of those who may see everything, may see no payloads, and see what is left."""

    client: Client
    url: str
    api: httpx.AsyncClient
    blind: httpx.AsyncClient
    redacted: httpx.AsyncClient
    acted: list[Acted]


def _hidden(workflow: str, kind: str, value: Any) -> Any:
    return {"of": workflow, "kind": kind}


@pytest.fixture
async def place(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Place]:
    url, acted = nats_server.url, list[Acted]()
    async with (
        jetflow.connect(url, namespace=namespace) as client,
        Worker([nightly, paid, sell], server=url, namespace=namespace),
        Dashboard(client, access=Access.full("ann"), on_action=acted.append) as full,
        Dashboard(client, access=Access(payloads=False)) as blind,
        Dashboard(client, redact=_hidden) as redacted,
        serve(full) as one,
        serve(blind) as two,
        serve(redacted) as three,
    ):
        for api in (one, two, three):
            api.base_url = httpx.URL(f"{api.base_url}/api/v1/")
        yield Place(client, url, one, two, three, acted)


async def _until(api: httpx.AsyncClient, path: str, fits: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not fits(told := (await api.get(path)).json()):  # noqa: ASYNC110 - asked over HTTP
            await asyncio.sleep(0.1)
    return told


async def test_a_schedule_tells_its_last_ticks_and_its_next(place: Place) -> None:
    await place.client.schedules.create("often", nightly, 1, every=1)
    await place.client.schedules.create("bad", nightly, -1, every=1, overlap="skip")
    await place.client.schedules.create("rarely", nightly, 2, cron="30 3 * * 1-5", tz="Europe/Berlin")
    told = await _until(
        place.api,
        "schedules?upcoming=3&last=4",
        lambda found: [len([tick for tick in one["last"] if tick["status"]]) >= 2 for one in found].count(True) == 2,
    )
    bad, often, rarely = told
    assert [one["schedule"]["name"] for one in told] == ["bad", "often", "rarely"]
    assert {tick["status"] for tick in bad["last"]} <= {"failed", "open", None}
    assert {tick["status"] for tick in often["last"]} <= {"succeeded", "open", None}
    done = next(tick for tick in often["last"] if tick["status"] == "succeeded")
    run = await place.client.describe(done["run"])
    assert (run.workflow, run.metadata["jetflow_schedule"]) == ("nightly", "often")  # type: ignore[index]
    assert 0 <= done["took"] < PATIENCE
    assert often["upcoming"] == [often["upcoming"][0] + at for at in range(3)]
    assert often["schedule"]["words"] == "every second"
    assert rarely["schedule"]["words"] == "at 03:30 on weekdays, Europe/Berlin"
    assert (rarely["last"], len(rarely["upcoming"]), rarely["schedule"]["input"]) == ([], 3, 2)
    one = (await place.api.get("schedules/rarely?last=0&upcoming=1")).json()
    assert (one["last"], one["upcoming"]) == ([], rarely["upcoming"][:1])


async def test_a_schedule_is_paused_run_and_made_up_for(place: Place) -> None:
    await place.client.schedules.create("hourly", nightly, 7, every=3600)
    answer = await place.api.post("schedules/hourly/pause", json={}, headers=ACTION)
    assert (answer.status_code, answer.json()["paused"], answer.json()["next"]) == (200, True, None)
    [told] = (await place.api.get("schedules")).json()
    assert (told["upcoming"], told["last"]) == ([], [])
    assert not (await place.api.post("schedules/hourly/resume", json={}, headers=ACTION)).json()["paused"]
    begun = await place.api.post("schedules/hourly/trigger", json={}, headers=ACTION)
    assert begun.status_code == 201
    assert await place.client.run(begun.json()["id"]).result(PATIENCE) == 7
    span = {"since": time() - 3 * 3600, "until": time()}
    made = (await place.api.post("schedules/hourly/backfill", json=span, headers=ACTION)).json()
    assert (made["count"], len(made["ids"])) == (3, 3)
    again = (await place.api.post("schedules/hourly/backfill", json=span, headers=ACTION)).json()
    assert again == made
    for run in made["ids"]:
        await place.client.run(run).result(PATIENCE)
    [told] = (await place.api.get("schedules")).json()
    assert [tick["run"] for tick in told["last"]] == made["ids"]
    assert {tick["status"] for tick in told["last"]} == {"succeeded"}
    assert [one.action for one in place.acted] == ["pause", "pause", "trigger", "trigger", "trigger"]


async def test_what_a_schedule_is_not(place: Place) -> None:
    await place.client.schedules.create("hourly", nightly, 7, every=3600)
    for method, path, status, kind in (
        ("GET", "schedules/none", 404, "unknown-schedule"),
        ("POST", "schedules/none/pause", 404, "unknown-schedule"),
        ("GET", "schedules?last=101", 400, "invalid-query"),
        ("GET", "schedules?upcoming=-1", 400, "invalid-query"),
        ("GET", "schedules/a.b", 400, "invalid-query"),
    ):
        answer = await place.api.request(method, path, headers=ACTION)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:jetflow:{kind}"), path
    for body in ({"since": 1, "until": -1}, {"since": 1}, {"since": 2e20, "until": 3e20}, {"since": 10, "until": 5}):
        answer = await place.api.post("schedules/hourly/backfill", json=body, headers=ACTION)
        assert answer.status_code in (400, 422), body
    answer = await place.blind.post("schedules/hourly/trigger", json={}, headers=ACTION)
    assert answer.json()["type"] == "urn:jetflow:no-right"


async def test_inputs_and_payloads_are_withheld_or_redacted(place: Place) -> None:
    await place.client.schedules.create("hourly", nightly, 7, every=3600)
    await place.client.publish("order.paid", {"amount": 12})
    [told] = (await place.blind.get("schedules")).json()
    assert told["schedule"]["input"] is None
    [event] = (await place.blind.get("events")).json()["items"]
    assert (event["payload"], event["withheld"], event["size"]) == (None, True, 13)
    [told] = (await place.redacted.get("schedules")).json()
    assert told["schedule"]["input"] == {"of": "nightly", "kind": "input"}
    [event] = (await place.redacted.get("events")).json()["items"]
    assert event["payload"] == '{"of":"order.paid","kind":"event"}'


async def test_events_tell_what_they_have_started(place: Place) -> None:
    assert (await place.api.get("events")).json()["items"] == []
    await place.client.publish("order.paid", {"amount": 12}, key="ann", id="first", metadata={"shop": 3})
    await place.client.publish("order.paid", {"amount": 5})
    await place.client.publish("order.seen", "x" * 3000, key="bob")
    run = await place.client.trigger(sell, "o1")
    await place.client.signal(run.id, "other", {"n": 1})
    raw = await nats.connect(place.url)
    await raw.publish(f"jf.{place.client.namespace}.event._.order.raw", b"{no json")
    await raw.flush()
    await raw.close()
    told = await _until(
        place.api,
        "events",
        lambda found: (
            len(found["items"]) == 5 and [one["status"] for one in found["items"][-1]["started"]] == ["succeeded"]
        ),
    )
    broken, signal, seen, small, first = told["items"]
    assert (told["total"], told["next"], told["started_by"]) == (5, None, ["paid"])
    assert (first["id"], first["topic"], first["key"], first["metadata"]) == (
        *("order.paid/first", "order.paid", "ann"),
        {"shop": 3},
    )
    [started] = first["started"]
    assert (started["workflow"], first["payload"]) == ("paid", '{"amount":12}')
    assert await place.client.run(started["run"]).result(PATIENCE) == 12
    assert (small["key"], small["started"]) == (None, [])
    assert (len(seen["payload"]), seen["size"]) == (2000, 3002)
    assert (signal["topic"], signal["run"], signal["key"]) == ("other", run.id, None)
    assert (broken["read"], broken["started"]) == (False, [])
    page = (await place.api.get("events?limit=2")).json()
    assert [one["sequence"] for one in page["items"]] == [5, 4]
    older = (await place.api.get(f"events?limit=3&before={page['next']}")).json()
    assert ([one["sequence"] for one in older["items"]], older["next"]) == ([3, 2, 1], None)
    assert [one["sequence"] for one in (await place.api.get("events?topic=order.*&key=bob")).json()["items"]] == [3]
    for path in ("events?topic=a..b", "events?limit=201", "events?before=0"):
        answer = await place.api.get(path)
        assert answer.json()["type"] == "urn:jetflow:invalid-query", path


async def test_a_step_tells_what_it_waits_for(place: Place) -> None:
    run = await place.client.trigger(sell, "o7")
    told = await _until(
        place.api, f"runs/{run.id}", lambda found: found.get("run", {}).get("steps", [{}])[0].get("join") is not None
    )
    [step] = told["run"]["steps"]
    assert step["status"] == "waiting"
    event, signal = step["join"]["waits"]
    assert event == {"topic": "order.approved", "key": "o7", "signal": False, "conditions": [["yes", "==", True]]}
    assert (signal["topic"], signal["signal"], signal["key"]) == ("stop", True, None)
    assert time() - 30 < step["join"]["since"] <= time() + 1
    assert 3500 < step["join"]["until"] - time() < 3700
    await place.client.publish("order.approved", {"yes": True}, key="o7")
    assert await run.result(PATIENCE) == "sold"


async def test_new_events_and_schedules_are_told_live(place: Place) -> None:
    async with asyncio.timeout(PATIENCE), place.api.stream("GET", "live?topic=events&topic=schedules") as told:
        lines = told.aiter_lines()
        first = [line async for line in _some(lines, 2)]
        assert sorted(first) == ['data: {"newest":0}', "data: {}"]
        await place.client.publish("order.seen", 1)
        await place.client.schedules.create("hourly", nightly, 7, every=3600)
        news = [line async for line in _some(lines, 2)]
        assert 'data: {"newest":1}' in news
        assert any('{"hourly":[' in line for line in news)


async def _some(lines: Any, count: int) -> AsyncGenerator[str]:
    async for line in lines:
        if line.startswith("data:"):
            yield line
            count -= 1
        if not count:
            return
