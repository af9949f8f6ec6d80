"""A broker that is away or refuses, and a user who may only look: errors by name, and never an empty list for one."""

from __future__ import annotations

import asyncio
import contextlib
import re
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

import jetflow
from jetflow import Retry, RunFailed, Worker, WorkerOptions, workflow
from jetflow.dashboard import Access, Dashboard
from jetflow.server import NatsServer, ServerOptions
from tests.dashboard.serving import ACTION, serve
from tests.dashboard.test_live import events, first
from tests.dashboard.world import PATIENCE
from tests.endings.test_viewers import VIEWER, url, users

READS = [
    *("meta", "overview", "runs", "errors", "workflows", "workflows/fan", "queues", "workers", "doctor"),
    *("runs/{run}", "runs/{run}/totals", "totals?run={run}", "runs/{run}/children", "runs/{run}/children/3"),
    *("runs/{run}/children?status=failed", "runs/{run}/children?sort=-took", "runs/{run}/errors", "runs/{run}/tree"),
    *("runs?sort=-took", "runs?q=x"),
    *("runs/{run}/timeline", "runs/{run}/messages", "runs/{run}/input", "runs/{run}/output", "runs/{run}/running"),
    *("runs/{run}/steps/run/output", "runs/{run}/stack"),
]


@workflow("leaf", retry=Retry(attempts=1))
async def leaf(number: int) -> int:
    return 1 // (number % 3)


@workflow("fan", retry=Retry(attempts=1))
async def fan(count: int, ctx: jetflow.Context) -> str:
    await ctx.join(await ctx.spawn_workflows(leaf, range(count)), return_exceptions=True)
    return "x" * 300_000


def connected(viewer: str) -> AbstractAsyncContextManager[jetflow.Client]:
    return jetflow.connect(viewer, ensure=False, inbox_prefix=VIEWER.inbox)


async def test_a_viewer_of_the_broker_can_do_all_that_reads_and_nothing_that_writes(tmp_path: Path) -> None:
    async with (
        NatsServer(tmp_path / "store", ServerOptions(config=users())) as server,
        jetflow.connect(url(server, "operator")) as operator,
        Worker([fan, leaf], server=url(server, "operator"), options=WorkerOptions(grace=1)),
        Dashboard(partial(connected, url(server, "viewer")), access=Access.full()) as dashboard,
        serve(dashboard) as http,
    ):
        run = await operator.trigger(fan, 30)
        await run.result(PATIENCE)
        for path in READS:
            answer = await http.get(f"/api/v1/{path.format(run=run.id)}")
            assert answer.status_code == 200, (path, answer.text)
        topics = ("overview", "runs", "queues", "workers", f"run:{run.id}", f"totals:{run.id}")
        async with contextlib.aclosing(events(http, *topics)) as found:
            seen = set[str]()
            async with asyncio.timeout(PATIENCE):
                while seen != set(topics):
                    name, data = await anext(found)
                    assert name != "problem", data
                    seen.add(name)
        for method, path, body in (
            ("POST", "runs", {"workflow": "leaf", "input": 1}),
            ("POST", f"runs/{run.id}/cancel", {}),
            ("DELETE", f"runs/{run.id}", {}),
            ("POST", "queues/leaf/run/pause", {}),
        ):
            answer = await http.request(method, f"/api/v1/{path}", json=body, headers=ACTION)
            if path.endswith("/cancel"):
                assert answer.json()["changed"] is False  # it has ended: nothing was to be written
                continue
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:jetflow:broker-refused"), path
        assert (await operator.describe(run.id)).status == "succeeded"


async def test_a_broker_that_is_away_is_an_error_everywhere_and_comes_back(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "store")
    await server.start()
    port = int(server.url.rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:
        async with jetflow.connect(server.url) as client, Worker([leaf], server=server.url):
            run = await client.trigger(leaf, 0)
            with pytest.raises(RunFailed):
                await run.result(PATIENCE)
        dashboard = await stack.enter_async_context(Dashboard(server.url, access=Access.full()))
        http = await stack.enter_async_context(serve(dashboard))
        found = await stack.enter_async_context(contextlib.aclosing(events(http, "queues")))
        assert len(await first(found, "queues")) == 1
        await server.stop()
        for path in READS:
            answer = await http.get(f"/api/v1/{path.format(run=run.id)}")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:jetflow:broker-away"), path
            assert int(answer.headers["retry-after"]) >= 1
        assert (await first(found, "problem"))["topic"] == "queues"
        page = await http.get("/runs", headers={"Accept": "text/html"})
        assert page.status_code == 200
        again = NatsServer(tmp_path / "store", ServerOptions(port=port))
        await again.start()
        stack.push_async_callback(again.stop)
        async with asyncio.timeout(PATIENCE):
            while (await http.get("/api/v1/meta")).status_code != 200:  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.1)
        assert (await http.get(f"/api/v1/runs/{run.id}")).json()["run"]["status"] == "failed"


async def test_a_broker_that_was_never_there(tmp_path: Path) -> None:
    async with (
        Dashboard("nats://127.0.0.1:1", access=Access.full()) as dashboard,
        serve(dashboard) as http,
    ):
        answers = await asyncio.gather(*(http.get("/api/v1/runs") for _ in range(3)))
        assert {answer.json()["type"] for answer in answers} == {"urn:jetflow:broker-away"}
        assert (await http.get("/", headers={"Accept": "text/html"})).status_code == 200


async def test_a_namespace_that_nobody_has_made_yet(nats_server: NatsServer, namespace: str) -> None:
    async with Dashboard(nats_server.url, namespace=namespace) as dashboard, serve(dashboard) as http:
        answer = await http.get("/api/v1/runs")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:jetflow:unknown-namespace")
        async with jetflow.connect(nats_server.url, namespace=namespace):
            pass
        async with asyncio.timeout(PATIENCE):
            while (answer := await http.get("/api/v1/runs")).status_code != 200:  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(0.1)
        assert answer.json()["items"] == []


async def test_who_looks_like_a_page_gets_one_and_nothing_leaves_the_directory(nats_server: NatsServer) -> None:
    async with serve(Dashboard(nats_server.url)) as http:
        for path in ("/", "/runs/x/children?step=scan", "/%2e%2e/x", "/api", "/errors/abc"):
            answer = await http.get(path, headers={"Accept": "text/html,application/xhtml+xml"})
            assert (answer.status_code, "text/html" in answer.headers["content-type"]) == (200, True), path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        for path in ("/assets/x/../../app.py", "/assets/x/%2e%2e/app.py", "/assets/x/nosuch.js", "/assets/x/", "/x"):
            answer = await http.get(path, headers={"Accept": "application/json"})
            assert answer.status_code == 404, path
        assert (await http.post("/runs")).json()["type"] == "urn:jetflow:wrong-method"


async def test_a_page_asks_for_few_files_and_gets_them_small(nats_server: NatsServer) -> None:
    async with serve(Dashboard(nats_server.url)) as http:
        page = (await http.get("/runs/x/children", headers={"Accept": "text/html"})).text
        files = re.findall(r'(?:src|href)="(assets/[^"]+\.(?:js|css))"', page)
        assert len(files) == 3, files
        for file in files:
            small = await http.get(f"/{file}", headers={"Accept-Encoding": "gzip"})
            whole = await http.get(f"/{file}", headers={"Accept-Encoding": "identity"})
            assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "Accept-Encoding")
            assert "content-encoding" not in whole.headers
            assert small.text == whole.text
            assert small.headers["etag"] != whole.headers["etag"]
            assert int(small.headers["content-length"]) < int(whole.headers["content-length"])
            known = {"If-None-Match": small.headers["etag"], "Accept-Encoding": "gzip"}
            assert (await http.get(f"/{file}", headers=known)).status_code == 304


def test_the_page_names_every_kind_of_problem_that_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
    sources = (Path(jetflow.__file__).parent / "dashboard").rglob("*.py")
    kinds = set[str]()
    for source in sources:
        text = source.read_text()
        kinds |= set(re.findall(r"\b[1-5]\d\d, \"([a-z]+(?:-[a-z]+)*)\"", text))
    assert len(kinds) > 20
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()
