"""The web services of examples/, each run by its real server and asked over HTTP."""

from __future__ import annotations

import runpy
import signal
from pathlib import Path
from typing import Any

import pytest

from jetflow import Worker
from jetflow.server import NatsServer
from tests.integration.web import EXAMPLES, run_to_end, serving

ORDER = {"items": ["apple", "pear", "apple"]}


@pytest.fixture
async def own_server() -> object:
    """A server of the test's own: the examples work in the default namespace."""
    async with NatsServer() as server:
        yield server


def _flows() -> list[Any]:
    names = runpy.run_path(str(EXAMPLES / "web_flows.py"))
    return [names["price"], names["price_item"]]


async def test_flask_below_gunicorn_that_forks(own_server: NatsServer) -> None:
    """The parent has imported the service, and with it its client; each of two processes answers with its own."""
    gunicorn = ("gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "flask_app:app")
    async with (
        Worker(_flows(), server=own_server.url),
        serving(*gunicorn, environment={"NATS_URL": own_server.url}, ready="Listening at") as web,
    ):
        runs = [await web.post("/orders", ORDER | {"id": f"order-{number}"}) for number in range(8)]
        assert [(status, run["created"]) for status, run in runs] == [(202, True)] * 8
        for _, run in runs:
            assert (await web.until(f"/orders/{run['run']}", "status", "succeeded"))["total"] == 10
        assert await web.post("/orders", ORDER | {"id": "order-1"}) == (200, runs[1][1] | {"created": False})
        assert (await web.get(f"/orders/{32 * '0'}"))[0] == 404
        status, said = await web.stop()
    assert status == 0, said
    assert "Traceback" not in said
    assert said.count("Booting worker") == 2


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "litestar", "django"])
async def test_a_service_with_a_worker_inside(own_server: NatsServer, framework: str, tmp_path: Path) -> None:
    """It opens both before the first request, and closes them when its server is told to end."""
    uvicorn = ("uvicorn", "--port", "0", f"{framework}_app:app")
    environment = {"NATS_URL": own_server.url, "DATABASE": str(tmp_path / "orders.db")}
    async with serving(*uvicorn, environment=environment, ready="Uvicorn running on") as web:
        status, run = await web.post("/orders", ORDER | {"id": "order-1"})
        assert (status, run["created"]) == (202, True)
        assert (await web.until(f"/orders/{run['run']}", "status", "succeeded"))["total"] == 10
        assert (await web.post("/orders", ORDER | {"id": "order-1"}))[1] == run | {"created": False}
        assert (await web.get(f"/orders/{32 * '0'}"))[0] == 404
        if framework == "django":
            assert await web.get("/next/4") == (200, {"next": 5})
        status, said = await web.stop()
    assert status in (0, -signal.SIGTERM), said  # newer versions of uvicorn end by the signal that they were sent
    assert "Traceback" not in said
    assert "Application shutdown complete" in said


async def test_a_service_without_a_server_says_so_and_ends() -> None:
    """Django's, too, whose lifespan is jetflow's own."""
    for framework in ("starlette", "django"):
        ended = await run_to_end(
            "uvicorn", "--port", "0", f"{framework}_app:app", environment={"NATS_URL": "nats://127.0.0.1:1"}
        )
        assert ended.status != 0
        assert "no NATS server answers at nats://127.0.0.1:1" in ended.errors
        assert "Application startup failed" in ended.errors
