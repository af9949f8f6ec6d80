"""The pytest plugin: one real nats-server a session, a namespace a test, and clients and workers in it.

Fixtures that are awaited belong to pytest-asyncio where that is active, and else to anyio's plugin. What is plain here
is tied to no event loop: a process, a URL, a name.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Generator
from types import ModuleType, TracebackType
from typing import Any, Final, Protocol

import pytest

import jetflow.client
import jetflow.sync
from jetflow.broker.connection import Connection
from jetflow.broker.topology import delete_streams
from jetflow.server import NatsServer
from jetflow.sync.portal import Portal
from jetflow.testing.clock import Clock, SyncClock
from jetflow.wire.subjects import Subjects
from jetflow.worker import Worker
from jetflow.worker.options import WorkerOptions
from jetflow.workflow import Workflow

GRACE: Final = 1.0
"""Seconds that steps may still run when the block of a worker ends, unless its options say otherwise."""


class WorkerOfTest(Worker):
    """A worker for a test: ``async with`` on the event loop of the test, or ``with`` on one in a thread."""

    _portal: Portal[Worker] | None = None

    def __enter__(self) -> WorkerOfTest:
        self._portal = Portal(lambda: self)
        self._portal.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._portal is not None:
            self._portal.close()


class MakeWorker(Protocol):
    """What `jetflow_worker` is: it takes what `jetflow.Worker` takes, but for the server and the namespace."""

    def __call__(
        self,
        workflows: list[Any] | Workflow[Any, Any],
        *,
        slots: int | None = None,
        options: WorkerOptions | None = None,
    ) -> WorkerOfTest:
        """Make a worker, which is started by its block."""
        ...


@pytest.fixture(scope="session")
def jetflow_server() -> Generator[NatsServer]:
    """A nats-server for the session, with a ``url``. A test that stops or kills one should start its own."""
    server = NatsServer()
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
def jetflow_namespace(jetflow_server: NatsServer) -> Generator[str]:
    """A namespace that no other test uses. What it holds is deleted after the test."""
    name = f"t{secrets.token_hex(6)}"
    yield name
    with asyncio.Runner() as runner:
        runner.run(_delete(jetflow_server.url, name))


@pytest.fixture
def jetflow_sync_client(jetflow_server: NatsServer, jetflow_namespace: str) -> Generator[jetflow.sync.Client]:
    """A client for plain code, in the test's namespace."""
    with jetflow.sync.connect(jetflow_server.url, namespace=jetflow_namespace) as client:
        yield client


@pytest.fixture
def jetflow_worker(jetflow_server: NatsServer, jetflow_namespace: str) -> MakeWorker:
    """A maker of workers in the test's namespace, for ``async with`` and ``with`` alike."""

    def make(workflows: Any, *, options: WorkerOptions | None = None, **others: Any) -> WorkerOfTest:
        options = options or WorkerOptions(grace=GRACE)
        return WorkerOfTest(
            workflows, server=jetflow_server.url, namespace=jetflow_namespace, options=options, **others
        )

    return make


@pytest.fixture
def jetflow_clock(jetflow_server: NatsServer, jetflow_namespace: str) -> Clock:
    """The clock of the test's namespace: ``await jetflow_clock.advance(60)``."""
    return Clock(jetflow_server.url, jetflow_namespace)


@pytest.fixture
def jetflow_sync_clock(jetflow_clock: Clock) -> SyncClock:
    """The same for plain tests: ``jetflow_sync_clock.advance(60)``."""
    return SyncClock(jetflow_clock)


async def _client(jetflow_server: NatsServer, jetflow_namespace: str) -> AsyncGenerator[jetflow.client.Client]:
    """A client in the test's namespace, on the event loop of the test."""
    async with jetflow.client.connect(jetflow_server.url, namespace=jetflow_namespace) as client:
        yield client


def pytest_configure(config: pytest.Config) -> None:
    """Declare the fixture that is awaited, for whichever plugin runs asynchronous tests."""
    fixtures = ModuleType("jetflow_async_fixtures")
    vars(fixtures)["jetflow_client"] = _fixture(config)(_client)
    config.pluginmanager.register(fixtures, "jetflow-async")


def _fixture(config: pytest.Config) -> Callable[..., Any]:
    if not config.pluginmanager.hasplugin("asyncio"):
        return pytest.fixture(name="jetflow_client")
    import pytest_asyncio  # noqa: PLC0415 - it need not be there

    return pytest_asyncio.fixture(name="jetflow_client")


async def _delete(url: str, namespace: str) -> None:
    async with await Connection.open(url) as connection:
        await delete_streams(connection, Subjects(namespace))
