"""What changes something: it is done, it is refused to whoever may not, and it is told to whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio

import jetflow
from jetflow import Client, Worker, WorkerOptions
from jetflow.dashboard import ACTIONS, Access, Acted, Dashboard
from jetflow.server import NatsServer
from tests.dashboard.serving import ACTION, serve
from tests.dashboard.world import FLOWS, PATIENCE


class Place:
    """A namespace of a test's own, with a client, and a dashboard for each access that it asks for."""

    def __init__(self, url: str, namespace: str, client: Client, stack: contextlib.AsyncExitStack) -> None:
        self.client = client
        self.acted: list[Acted] = []
        self._url = url
        self._namespace = namespace
        self._stack = stack

    async def api(self, access: Access | None, **options: Any) -> httpx.AsyncClient:
        dashboard = Dashboard(
            self._url, namespace=self._namespace, access=access, on_action=self.acted.append, **options
        )
        await self._stack.enter_async_context(dashboard)
        client = await self._stack.enter_async_context(serve(dashboard))
        client.base_url = httpx.URL(f"{client.base_url}/api/v1/")
        client.headers.update(ACTION)
        return client

    def worker(self) -> Worker:
        return Worker(FLOWS, server=self._url, namespace=self._namespace, options=WorkerOptions(grace=1))


@pytest_asyncio.fixture
async def place(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Place]:
    async with (
        contextlib.AsyncExitStack() as stack,
        jetflow.connect(nats_server.url, namespace=namespace) as client,
    ):
        yield Place(nats_server.url, namespace, client, stack)


async def acted(api: httpx.AsyncClient, method: str, path: str, body: Any = None, *, status: int) -> Any:
    answer = await api.request(method, path, json={} if body is None else body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_run_is_triggered(place: Place) -> None:
    api = await place.api(Access.full("ann"))
    async with place.worker():
        body = {"workflow": "leaf", "input": 1, "key": "k", "metadata": {"customer": "acme"}}
        first = await acted(api, "POST", "runs", body, status=201)
        assert first["created"]
        assert await acted(api, "POST", "runs", body, status=201) == {"id": first["id"], "created": False}
        assert await place.client.run(first["id"]).result(PATIENCE) == 1
        conflict = await acted(api, "POST", "runs", body | {"input": 2}, status=409)
        assert (conflict["type"], conflict["run"]) == ("urn:jetflow:key-conflict", first["id"])
        assert conflict["stored_digest"] != conflict["given_digest"]
        unknown = await acted(api, "POST", "runs", {"workflow": "nosuch"}, status=404)
        assert unknown["type"] == "urn:jetflow:unknown-workflow"
        wrong = await acted(api, "POST", "runs", {"workflow": "leaf", "input": "x"}, status=422)
        assert wrong["errors"] == [{"pointer": "", "message": "'x' is not of type 'integer'"}]
        assert (await acted(api, "POST", "runs", {"input": 1}, status=422))["type"] == "urn:jetflow:invalid-body"
        assert (await acted(api, "POST", "runs", {"workflow": "leaf", "no": 1}, status=422))["detail"].count("`no`")
        not_json = await api.post("runs", content=b"{")
        assert (not_json.status_code, not_json.json()["type"]) == (400, "urn:jetflow:invalid-body")
    told = [(one.user, one.action, one.outcome) for one in place.acted[:4]]
    assert told == [("ann", "trigger", outcome) for outcome in ("done", "done", "key-conflict", "unknown-workflow")]


async def test_a_run_is_cancelled_and_deleted(place: Place) -> None:
    api = await place.api(Access.full("ann"))
    async with place.worker():
        pass
    run = await place.client.trigger("idle", 1)
    assert await acted(api, "POST", f"runs/{run.id}/cancel", status=202) == {"id": run.id, "changed": True}
    assert await acted(api, "POST", f"runs/{run.id}/cancel", status=202) == {"id": run.id, "changed": False}
    assert await acted(api, "DELETE", f"runs/{run.id}", status=202) == {"id": run.id, "changed": True}
    assert (await acted(api, "POST", f"runs/{run.id}/cancel", status=404))["type"] == "urn:jetflow:unknown-run"
    assert (await acted(api, "DELETE", f"runs/{'0' * 32}", status=404))["type"] == "urn:jetflow:unknown-run"
    assert [one.subject for one in place.acted[:2]] == [{"id": run.id}] * 2


async def test_a_run_is_run_again(place: Place) -> None:
    api = await place.api(Access.full("ann"))
    async with place.worker():
        pass
    run = await place.client.trigger("leaf", 4)
    told = await acted(api, "POST", f"runs/{run.id}/rerun", status=409)
    assert told["type"] == "urn:jetflow:run-not-ended"
    await place.client.cancel(run.id)
    again = await acted(api, "POST", f"runs/{run.id}/rerun", {"only": "failed"}, status=202)
    assert again["changed"]
    assert await acted(api, "POST", f"runs/{run.id}/rerun", status=202) == {"id": again["id"], "changed": False}
    told = await acted(api, "POST", f"runs/{run.id}/rerun", {"only": "all"}, status=409)
    assert (told["type"], told["run"]) == ("urn:jetflow:already-rerun", again["id"])
    assert (await api.get(f"runs/{run.id}")).json()["run"]["rerun_as"] == again["id"]
    async with place.worker():
        await place.client.run(again["id"]).result(PATIENCE)
    told = await acted(api, "POST", f"runs/{again['id']}/rerun", status=409)
    assert told["type"] == "urn:jetflow:nothing-to-rerun"
    assert (await acted(api, "POST", f"runs/{again['id']}/rerun", {"step": "no"}, status=422))["detail"]


async def test_many_runs_are_run_again(place: Place) -> None:
    api = await place.api(Access.full("ann"))
    async with place.worker():
        pass
    runs = [await place.client.trigger("idle", number) for number in range(6)]
    for run in runs:
        await place.client.cancel(run.id)
    await place.client.rerun(runs[0])
    query = {"action": "rerun", "query": {"workflow": "idle", "status": "cancelled"}}
    job = await acted(api, "POST", "bulk", query, status=202)
    assert (job["state"], job["found"]) == ("ready", 6)
    await acted(api, "POST", f"bulk/{job['job']}/start", status=202)
    told = await ended(api, job["job"])
    assert (told["state"], told["done"], told["skipped"], told["failed"]) == ("done", 5, 1, 0)


async def test_a_queue_is_paused_and_resumed(place: Place) -> None:
    api = await place.api(Access.full())
    async with place.worker():
        pass
    assert await acted(api, "POST", "queues/diamond/*/pause", status=200) == {
        "workflow": "diamond",
        "steps": ["begin", "end", "left", "middle", "right"],
    }
    assert len([row for row in await place.client.queues() if row.paused_until]) == 5
    assert (await acted(api, "POST", "queues/diamond/*/resume", status=200))["steps"][0] == "begin"
    assert [row for row in await place.client.queues() if row.paused_until] == []
    assert "is over" in (await acted(api, "POST", "queues/leaf/run/pause", {"until": 1}, status=400))["detail"]
    assert "no worker has ever run" in (await acted(api, "POST", "queues/no/run/pause", status=400))["detail"]


WRITES = [
    ("POST", "runs", {"workflow": "leaf", "input": 1}, "trigger"),
    ("POST", "runs/{run}/cancel", {}, "cancel"),
    ("POST", "runs/{run}/rerun", {}, "rerun"),
    ("DELETE", "runs/{run}", {}, "delete"),
    ("POST", "queues/idle/run/pause", {}, "pause"),
    ("POST", "queues/idle/run/resume", {}, "pause"),
    ("POST", "bulk", {"action": "cancel", "ids": ["{run}"]}, "bulk"),
    ("GET", "runs/{run}/stack", None, "stack"),
]


@pytest.mark.parametrize(("method", "path", "body", "right"), WRITES)
async def test_nobody_may_do_what_was_not_granted(place: Place, method: str, path: str, body: Any, right: str) -> None:
    run = await place.client.trigger("idle", 1) if await _declared(place) else None
    path = path.format(run=run.id if run else "")
    for access in (None, Access(actions=ACTIONS - {right})):  # pyright: ignore[reportArgumentType, reportOperatorIssue]
        api = await place.api(access)
        told = await acted(api, method, path, body, status=403)
        assert (told["type"], f"you may not {right}" in told["detail"]) == ("urn:jetflow:no-right", True)
        if method != "GET":
            assert (place.acted[-1].action, place.acted[-1].outcome) == (right, "no-right")
    assert run is not None
    assert await run.status() == "queued"


async def _declared(place: Place) -> bool:
    async with place.worker():
        return True


async def test_bulk_needs_the_right_to_the_action_too(place: Place) -> None:
    api = await place.api(Access(actions=frozenset({"bulk", "cancel"})))
    told = await acted(api, "POST", "bulk", {"action": "delete", "ids": ["0" * 32]}, status=403)
    assert told["detail"] == "you may not delete here"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Jetflow": "0"}, "X-Jetflow: 1"),
        ({"Content-Type": "text/plain"}, "'text/plain'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "application/json"),
        ({"Origin": "https://evil.example"}, "https://evil.example"),
        ({"Origin": "null"}, "null"),
        ({"Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"Sec-Fetch-Site": "same-site"}, "another site"),
    ],
)
async def test_what_another_sites_page_could_send_is_refused(place: Place, headers: dict[str, str], said: str) -> None:
    api = await place.api(Access.full())
    answer = await api.post(f"runs/{'0' * 32}/cancel", headers=headers, content=b"{}")
    told = answer.json()
    assert (answer.status_code, told["type"]) == (403, "urn:jetflow:cross-site")
    assert said in told["detail"]
    assert "access-control-allow-origin" not in answer.headers


async def test_its_own_pages_and_those_that_were_named_may_act(place: Place) -> None:
    api = await place.api(Access.full(), origins=["https://flows.example.com"])
    path = f"runs/{'0' * 32}/cancel"
    for origin in (f"http://{api.base_url.netloc.decode()}", "https://flows.example.com"):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert (await api.post(path, headers=headers, content=b"{}")).status_code == 404


async def test_other_hosts_are_refused(place: Place) -> None:
    api = await place.api(Access.full(), hosts=["127.0.0.1", "flows.example.com"])
    assert (await api.get("meta")).status_code == 200
    assert (await api.get("meta", headers={"Host": "FLOWS.example.com:4280"})).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "[::", ""):
        answer = await api.get("meta", headers={"Host": host})
        assert answer.status_code in (400, 421), host


async def test_access_is_decided_for_each_request(place: Place) -> None:
    async def decide(request: Any) -> Access | None:
        user = request.headers.get("x-user")
        if user is None:
            return Access.redirect("/login")
        return None if user == "mallory" else Access(user=user)

    api = await place.api(decide)  # pyright: ignore[reportArgumentType]
    assert (await api.get("meta", headers={"X-User": "ann"})).json()["access"]["user"] == "ann"
    assert (await api.get("meta", headers={"X-User": "mallory"})).json()["type"] == "urn:jetflow:no-access"
    told = await api.get("meta")
    assert (told.status_code, told.json()["location"]) == (401, "/login")
    page = await api.get("../../runs", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")


async def test_values_may_be_kept_back_or_redacted(place: Place) -> None:
    async with place.worker():
        run = await place.client.trigger("leaf", 5)
        await run.result(PATIENCE)
    hidden = await place.api(Access(payloads=False))
    answer = await hidden.get(f"runs/{run.id}/input")
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:jetflow:no-payloads")
    redacted = await place.api(None, redact=lambda workflow, kind, value: [workflow, kind, value + 1])
    answer = await redacted.get(f"runs/{run.id}/input")
    assert answer.json() == ["leaf", "input", 6]
    assert answer.headers["x-digest"] == ""


async def test_a_value_that_is_lost_is_told_and_its_run_is_shown(place: Place) -> None:
    api = await place.api(None)
    async with place.worker():
        run = await place.client.trigger("large", 600_000)
        await run.result(PATIENCE)
    session = place.client._session
    await session.connection.api(f"STREAM.PURGE.{session.names.values_stream}")
    assert (await api.get(f"runs/{run.id}")).json()["run"]["status"] == "succeeded"
    answer = await api.get(f"runs/{run.id}/output")
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:jetflow:lost-value")


async def test_an_action_that_is_no_action_is_refused_where_it_is_granted() -> None:
    with pytest.raises(ValueError, match=r"'fly' is no action: there are bulk, cancel"):
        Access(actions=frozenset({"fly"}))  # pyright: ignore[reportArgumentType]


async def test_many_runs_are_counted_and_then_cancelled_without_those_that_come_later(place: Place) -> None:
    api = await place.api(Access.full("ann"))
    async with place.worker():
        pass
    runs = [await place.client.trigger("idle", number) for number in range(12)]
    query = {"action": "cancel", "query": {"workflow": "idle", "status": "open"}}
    job = await acted(api, "POST", "bulk", query, status=202)
    assert (job["state"], job["found"], len(job["samples"]), job["done"]) == ("ready", 12, 10, 0)
    assert {await run.status() for run in runs} == {"queued"}
    late = await place.client.trigger("idle", 99)
    await place.client.cancel(runs[3].id)
    await acted(api, "POST", f"bulk/{job['job']}/start", status=202)
    told = await ended(api, job["job"])
    assert (told["state"], told["done"], told["skipped"], told["failed"]) == ("done", 11, 1, 0)
    assert {await run.status() for run in runs} == {"cancelled"}
    assert await late.status() == "queued"
    again = await acted(api, "POST", f"bulk/{job['job']}/start", status=409)
    assert again["type"] == "urn:jetflow:not-ready"
    counted = [one.count for one in place.acted if one.action == "bulk"]
    assert counted[:2] == [12, 12]


async def test_chosen_runs_are_deleted(place: Place) -> None:
    api = await place.api(Access.full())
    async with place.worker():
        pass
    runs = [await place.client.trigger("idle", number) for number in range(3)]
    body = {"action": "delete", "ids": [runs[0].id, runs[1].id, runs[0].id, "0" * 32]}
    job = await acted(api, "POST", "bulk", body, status=202)
    assert (job["found"], job["state"]) == (3, "ready")
    await acted(api, "POST", f"bulk/{job['job']}/start", status=202)
    told = await ended(api, job["job"])
    assert (told["done"], told["skipped"]) == (2, 1)
    assert [row.id for row in (await place.client.runs()).items] == [runs[2].id]


async def test_children_are_cancelled_by_a_filter(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await place.api(Access.full())
    async with place.worker():
        run = await place.client.trigger("fan", 30)
        await run.result(PATIENCE)
    body = {"action": "cancel", "query": {"parent": run.id, "status": "failed"}}
    job = await acted(api, "POST", "bulk", body, status=202)
    assert job["found"] == 3
    refused = await acted(api, "POST", "bulk", body | {"action": "delete"}, status=422)
    assert "deleted with their root run" in refused["detail"]


async def test_a_job_is_stopped(place: Place) -> None:
    api = await place.api(Access.full())
    async with place.worker():
        pass
    runs = [await place.client.trigger("idle", number) for number in range(40)]
    job = await acted(api, "POST", "bulk", {"action": "cancel", "ids": [run.id for run in runs]}, status=202)
    stopped = await acted(api, "DELETE", f"bulk/{job['job']}", status=200)
    assert (stopped["state"], stopped["done"]) == ("aborted", 0)
    assert {await run.status() for run in runs[:3]} == {"queued"}
    assert (await acted(api, "POST", f"bulk/{job['job']}/start", status=409))["type"] == "urn:jetflow:not-ready"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"action": "cancel"}, 422, "ids or for a query"),
        ({"action": "cancel", "ids": ["0" * 32], "query": {}}, 422, "ids or for a query"),
        ({"action": "cancel", "ids": []}, 422, "ids"),
        ({"action": "explode", "ids": ["0" * 32]}, 422, "explode"),
        ({"action": "cancel", "query": {"colour": "red"}}, 422, "colour"),
    ],
)
async def test_a_job_that_makes_no_sense(place: Place, body: Any, status: int, said: str) -> None:
    api = await place.api(Access.full())
    assert said in (await acted(api, "POST", "bulk", body, status=status))["detail"]
    assert (await api.get("bulk/nosuch")).json()["type"] == "urn:jetflow:unknown-job"


async def test_a_filter_that_makes_no_sense_ends_its_job(place: Place) -> None:
    api = await place.api(Access.full())
    job = await acted(api, "POST", "bulk", {"action": "cancel", "query": {"status": "bad"}}, status=202)
    assert (job["state"], job["problem"]["type"]) == ("failed", "urn:jetflow:invalid-query")


async def ended(api: httpx.AsyncClient, job: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            told = (await api.get(f"bulk/{job}")).json()
            if told["state"] != "running":
                return told
            await asyncio.sleep(0.02)
