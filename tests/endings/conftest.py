"""What these tests share: a client and workers for a namespace of the test's own, and a look at what is stored.

After each test: no task of the event loop is left, no heartbeat thread, no delivery without an acknowledgement, and no
join that only the sweeper could move on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import jetflow
from jetflow import Client, Worker, WorkerOptions
from jetflow.server import NatsServer

GRACE = 1.0
"""Seconds that a step may go on when its worker ends: a test that fails leaves steps behind that never end."""

PATIENCE = 20.0
"""Seconds that anything here may take."""


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again until the answer is true, and return it. For what the broker tells to nobody."""
    async with asyncio.timeout(PATIENCE):
        while not (answer := await condition()):  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)
    return answer


class Stored:
    """What a namespace's streams hold."""

    def __init__(self, client: Client) -> None:
        self.session = client._session
        self.names = client._session.names

    async def subjects(self, stream: str, filter: str = ">") -> list[str]:
        pages = self.session.store.leader_subjects(stream, filter)
        return [subject async for page in pages for subject in page]

    async def of_tree(self, root: str) -> list[str]:
        """All subjects that name a root run, in all streams."""
        names = self.names
        streams = (names.tasks_stream, names.records_stream, names.counters_stream, names.values_stream)
        return [subject for stream in streams for subject in await self.subjects(stream) if root in subject]

    async def all_acknowledged(self) -> bool:
        """Whether no worker holds a task."""
        return sum(consumer["num_ack_pending"] for consumer in await self._consumers()) == 0

    async def is_idle(self) -> bool:
        """Whether no task is queued or held."""
        return sum(consumer["num_pending"] + consumer["num_ack_pending"] for consumer in await self._consumers()) == 0

    async def _consumers(self) -> list[dict[str, Any]]:
        found = await self.session.connection.api(f"CONSUMER.LIST.{self.names.tasks_stream}")
        return found["consumers"] or []


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
    assert sum(worker.counts.swept for worker in workers) == 0
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    assert [thread.name for thread in threading.enumerate() if thread.name == "jetflow-heartbeat"] == []


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
