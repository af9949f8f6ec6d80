"""The web services of examples/, each run by its real server and asked over HTTP."""

from __future__ import annotations

import sys

import pytest

import jetflow
from jetflow import Worker
from jetflow.server import NatsServer
from tests.integration.web import EXAMPLES, serving

ORDER = {"items": ["apple", "pear", "apple"]}


@pytest.fixture
async def own_server() -> object:
    """A server of the test's own: the examples work in the default namespace."""
    async with NatsServer() as server:
        yield server


def _flows() -> list[jetflow.Workflow[object, object]]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import web_flows  # noqa: PLC0415 - it stands beside the examples
    finally:
        sys.path.remove(str(EXAMPLES))
    return [web_flows.price, web_flows.price_item]


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
