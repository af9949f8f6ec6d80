"""What the tutorial's tests share: a client, a maker of workers, and the check that nothing was left behind.

``client`` is connected to a namespace of the test's own, and ``worker`` makes workers for the same namespace: it takes
what ``jetflow.Worker`` takes. After each test the `Leftovers` say whether the test, or jetflow, has left anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import pytest_asyncio
from patience import until

import jetflow
from jetflow import Client, Worker
from jetflow.broker.store import collect
from jetflow.engine.tasks import StepAddress
from jetflow.server import NatsServer
from jetflow.wire.limits import LimitNames
from jetflow.wire.records import decode_join
from jetflow.wire.subjects import last_token
from tests.leaks import check_nothing_left

SETTLE = 10.0
"""Seconds in which acknowledgements that were sent must have arrived."""


class Leftovers:
    """Looks for what a test has left behind. Lists are empty when nothing is."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._limits = LimitNames(client._session.names)
        self._names = client._session.names
        self._store = client._session.store
        self._connection = client._session.connection

    async def tasks(self) -> list[str]:
        """Tasks that are queued, or that a worker took and did not acknowledge. Waits for acks on their way."""
        with contextlib.suppress(TimeoutError):
            await until(self._no_open_tasks, seconds=SETTLE)
        return await self._open_tasks()

    async def _no_open_tasks(self) -> bool:
        return not await self._open_tasks()

    async def _open_tasks(self) -> list[str]:
        found = await self._connection.api(f"CONSUMER.LIST.{self._names.tasks_stream}")
        return [
            f"{consumer['name']}: {consumer['num_pending']} queued, {consumer['num_ack_pending']} not acknowledged"
            for consumer in found["consumers"] or []
            if consumer["num_pending"] or consumer["num_ack_pending"]
        ]

    async def joins(self) -> list[str]:
        """Steps that are sealed without an outcome, or parked without a next turn."""
        names, store = self._names, self._store
        ended_runs = {last_token(subject) for subject in await self._subjects(names.records_stream, "run")}
        ended_steps = await self._subjects(names.records_stream, "step")
        tasks = await self._subjects(names.tasks_stream, "task")
        open_joins: list[str] = []
        for stored in await collect(store.pages(names.records_stream, f"{names.prefix}.join.>")):
            record = decode_join(stored.body)
            join = StepAddress(*stored.subject.split(".")[3:6])
            goes_on = record.kind == "parked" and names.next_turn(record.task) in tasks
            is_removed = record.task not in tasks  # with its tree
            if not (goes_on or is_removed or join.run in ended_runs or names.step(join) in ended_steps):
                open_joins.append(f"{record.kind} in turn {record.turn}: {record.task}")
        return open_joins

    async def gates(self) -> list[str]:
        """Runs that stand at the gates of limits. Waits for those that are leaving."""
        if not await self._client.session.optional.is_there(self._limits.gates_stream):
            return []
        with contextlib.suppress(TimeoutError):
            await until(self._nobody_stands, seconds=SETTLE)
        return sorted(await self._subjects(self._limits.gates_stream, "entry"))

    async def _nobody_stands(self) -> bool:
        return not await self._subjects(self._limits.gates_stream, "entry")

    async def _subjects(self, stream: str, kind: str) -> set[str]:
        pages = self._store.leader_subjects(stream, f"{self._names.prefix}.{kind}.>")
        return {subject async for page in pages for subject in page}


@pytest_asyncio.fixture
async def jetflow_of_test(
    nats_server: NatsServer, namespace: str
) -> AsyncGenerator[tuple[Client, Callable[..., Worker]]]:
    before = asyncio.all_tasks()
    workers: list[Worker] = []

    def make(*args: Any, **options: Any) -> Worker:
        workers.append(Worker(*args, server=nats_server.url, namespace=namespace, **options))
        return workers[-1]

    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        yield client, make
        leftovers = Leftovers(client)
        assert await leftovers.tasks() == []
        assert await leftovers.joins() == []
        assert await leftovers.gates() == []
    check_nothing_left(before, workers)


@pytest.fixture
def client(jetflow_of_test: tuple[Client, Callable[..., Worker]]) -> Client:
    """A client that is connected to the test's namespace."""
    return jetflow_of_test[0]


@pytest.fixture
def worker(jetflow_of_test: tuple[Client, Callable[..., Worker]]) -> Callable[..., Worker]:
    """A maker of workers for the test's namespace; it takes what ``jetflow.Worker`` takes otherwise."""
    return jetflow_of_test[1]
