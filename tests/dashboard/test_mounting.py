"""The dashboard below ``/a/b`` of other applications, over real HTTP: its pages, assets, API and events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend
from starlette.applications import Starlette
from starlette.routing import Mount

from jetflow.dashboard import Access, Dashboard, mounted
from jetflow.server import NatsServer
from tests.dashboard.serving import ACTION, serve
from tests.dashboard.world import World

PREFIX = "/a/b"


def in_starlette(dashboard: Dashboard) -> Any:
    return Starlette(routes=[Mount(PREFIX, dashboard)])


def in_starlette_twice(dashboard: Dashboard) -> Any:
    return Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", dashboard)]))])


def in_starlette_with_lifespan(dashboard: Dashboard) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with dashboard:
            yield

    return Starlette(routes=[Mount(PREFIX, dashboard)], lifespan=lifespan)


def in_fastapi(dashboard: Dashboard) -> Any:
    app = FastAPI()
    app.mount(PREFIX, dashboard)
    return app


def in_litestar(dashboard: Dashboard) -> Any:
    @asgi(PREFIX, is_mount=True, copy_scope=True)
    async def mount(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
        await dashboard(scope, receive, send)  # pyright: ignore[reportArgumentType] - they name the same otherwise

    return Litestar([mount])


def in_django(dashboard: Dashboard) -> Any:
    from django.conf import settings  # noqa: PLC0415 - it is set up first
    from django.core.asgi import get_asgi_application  # noqa: PLC0415
    from django.http import HttpResponse  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    if not settings.configured:

        class Urls:
            urlpatterns = (path("", lambda _: HttpResponse(b"django")),)

        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=Urls, SECRET_KEY="s", DEBUG=False)
    return mounted({PREFIX: dashboard}, get_asgi_application())


HOSTS = [in_starlette, in_starlette_twice, in_starlette_with_lifespan, in_fastapi, in_litestar, in_django]


@pytest.mark.parametrize("host", HOSTS)
async def test_below_a_prefix(host: Any, nats_server: NatsServer, world: World) -> None:
    dashboard = Dashboard(nats_server.url, namespace=world.namespace, access=Access.full())
    lifespan = "on" if host in (in_starlette_with_lifespan, in_litestar) else "off"
    async with contextlib.aclosing(_Closing(dashboard)), serve(host(dashboard), lifespan=lifespan) as client:
        for place in (f"{PREFIX}/", f"{PREFIX}/runs", f"{PREFIX}/runs/{world.fan}/children"):
            page = await client.get(place, headers={"Accept": "text/html"})
            assert page.status_code == 200, place
            assert f'<base href="{PREFIX}/">' in page.text
        found = re.search(r'"(assets/[^/"]+/)[^"]+\.css"', page.text)
        assert found is not None
        asset = await client.get(f"{PREFIX}/{found[1]}index.html")
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = await client.get(f"{PREFIX}/{found[1]}index.html", headers={"If-None-Match": asset.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        run = await client.get(f"{PREFIX}/api/v1/runs/{world.fan}")
        assert run.json()["run"]["id"] == world.fan
        assert run.headers["x-content-type-options"] == "nosniff"
        acted = await client.post(f"{PREFIX}/api/v1/runs/{world.fan}/cancel", headers=ACTION, json={})
        assert acted.json() == {"id": world.fan, "changed": False}
        name, data = await first_event(client, f"{PREFIX}/api/v1/live?topic=totals:{world.fan}")
        assert (name, data["totals"]["failed"]) == (f"totals:{world.fan}", 60)
        unknown = await client.get(f"{PREFIX}/api/v1/nosuch")
        assert unknown.json()["type"] == "urn:jetflow:unknown-path"


async def first_event(client: httpx.AsyncClient, url: str) -> tuple[str, Any]:
    name = ""
    async with asyncio.timeout(20), client.stream("GET", url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without an event")


async def test_django_is_still_there_beside_it(nats_server: NatsServer, world: World) -> None:
    dashboard = Dashboard(nats_server.url, namespace=world.namespace)
    async with contextlib.aclosing(_Closing(dashboard)), serve(in_django(dashboard)) as client:
        assert (await client.get("/")).text == "django"
        assert (await client.get("/a/bc")).status_code == 404


async def test_served_by_itself_it_connects_at_its_start(nats_server: NatsServer, world: World) -> None:
    dashboard = Dashboard(nats_server.url, namespace=world.namespace)
    async with serve(dashboard, lifespan="on") as client:
        assert (await client.get("/api/v1/meta")).json()["server"]["connected"]


class _Closing:
    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    async def aclose(self) -> None:
        await self._dashboard.close()
