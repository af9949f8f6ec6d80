"""What these tests share: a client and workers for a namespace of the test's own, and a look at what is stored.

After each test: no task of the event loop is left, no heartbeat thread, no delivery without an acknowledgement, and no
join that only the sweeper could move on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import jetflow
from jetflow import Client, Worker, WorkerOptions
from jetflow.server import NatsServer
from tests.endings.stored import GRACE, Stored, until
from tests.leaks import check_nothing_left


@pytest_asyncio.fixture
async def jetflow_of_test(
    nats_server: NatsServer, namespace: str
) -> AsyncGenerator[tuple[Client, Callable[..., Worker]]]:
    before = asyncio.all_tasks()
    workers: list[Worker] = []

    def make(*args: Any, options: WorkerOptions | None = None, **others: Any) -> Worker:
        options = msgspec.structs.replace(options or WorkerOptions(), grace=GRACE)
        workers.append(Worker(*args, server=nats_server.url, namespace=namespace, options=options, **others))
        return workers[-1]

    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        yield client, make
        await until(Stored(client).all_acknowledged)
    check_nothing_left(before, workers)


@pytest.fixture
def client(jetflow_of_test: tuple[Client, Callable[..., Worker]]) -> Client:
    return jetflow_of_test[0]


@pytest.fixture
def worker(jetflow_of_test: tuple[Client, Callable[..., Worker]]) -> Callable[..., Worker]:
    return jetflow_of_test[1]


@pytest.fixture
def stored(client: Client) -> Stored:
    return Stored(client)


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncGenerator[NatsServer]:
    """A server that the test may stop and start."""
    async with NatsServer(tmp_path / "store") as server:
        yield server
