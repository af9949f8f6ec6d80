"""What the tests of the dashboard share: a namespace with something of everything, and a dashboard of it over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest
import pytest_asyncio

from jetflow.broker.connection import Connection
from jetflow.broker.topology import delete_streams
from jetflow.dashboard import Access, Dashboard
from jetflow.server import NatsServer
from jetflow.wire.subjects import Subjects
from tests.dashboard.serving import serve
from tests.dashboard.world import World, make_world


@pytest.fixture(scope="session")
def world(nats_server: NatsServer) -> Generator[World]:
    """The namespace that most tests look at. None of them changes it."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        world = runner.run(make_world(nats_server.url))
        yield world
        runner.run(_delete(nats_server.url, world.namespace))


async def _delete(url: str, namespace: str) -> None:
    async with await Connection.open(url) as connection:
        await delete_streams(connection, Subjects(namespace))


@pytest_asyncio.fixture
async def api(nats_server: NatsServer, world: World) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a dashboard of the world in which everything is allowed."""
    async with (
        Dashboard(nats_server.url, namespace=world.namespace, access=Access.full("ann")) as dashboard,
        serve(dashboard) as client,
    ):
        client.base_url = httpx.URL(f"{client.base_url}/api/v1/")
        yield client
