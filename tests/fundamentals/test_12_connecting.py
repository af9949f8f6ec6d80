"""Connecting: which server, and what is said when there is none to work with."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator

import nats
import pytest
import pytest_asyncio
from patience import PATIENCE

import jetflow
from jetflow import JetflowError, Worker, WorkerOptions, workflow
from jetflow.errors import JetStreamUnavailable, ServerUnreachable
from jetflow.server import NatsServer, ServerOptions


@workflow("hello")
async def hello(name: str) -> str:
    return f"hello {name}"


@pytest.fixture
def nowhere() -> str:
    """A URL at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"nats://127.0.0.1:{free.getsockname()[1]}"


@pytest_asyncio.fixture
async def without_jetstream() -> AsyncGenerator[str]:
    """A server whose accounts may not use JetStream."""
    options = ServerOptions(config="accounts { A: { users: [ { user: a, password: a } ] } }\nno_auth_user: a\n")
    async with NatsServer(options=options) as server:
        yield server.url


async def test_an_unreachable_server_is_one_clear_error(nowhere: str) -> None:
    """It says where it looked and what to do, and is a ConnectionError."""
    with pytest.raises(ServerUnreachable, match=nowhere) as caught:
        async with jetflow.connect(nowhere, timeout=0.5):
            pass
    assert "start one, or set NATS_URL" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, JetflowError)


async def test_a_worker_says_the_same(nowhere: str) -> None:
    """At its start; once connected it reconnects for ever."""
    with pytest.raises(ServerUnreachable, match=nowhere):
        async with Worker([hello], server=nowhere, options=WorkerOptions(connect_timeout=0.5)):
            pass


async def test_a_server_without_jetstream_is_one_clear_error(without_jetstream: str) -> None:
    """For clients and workers alike."""
    with pytest.raises(JetStreamUnavailable, match="does not offer JetStream to this account"):
        async with jetflow.connect(without_jetstream):
            pass
    with pytest.raises(JetStreamUnavailable, match="start it with -js"):
        async with Worker([hello], server=without_jetstream):
            pass


async def test_the_server_is_found_by_its_environment_variable(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``server`` it is ``NATS_URL``, a list of URLs with commas between."""
    monkeypatch.setenv("NATS_URL", f"{nats_server.url}, {nats_server.url}")
    async with jetflow.connect(namespace=namespace) as client, Worker([hello], namespace=namespace):
        assert await (await client.trigger(hello, "env")).result(PATIENCE) == "hello env"


async def test_a_connected_client_can_be_handed_over(nats_server: NatsServer, namespace: str) -> None:
    """A service that has a connection, with its own credentials, lends it; it is still open afterwards."""
    async with await nats.connect(nats_server.url) as connection:
        async with (
            jetflow.connect(connection, namespace=namespace) as client,
            Worker([hello], server=connection, namespace=namespace),
        ):
            assert await (await client.trigger(hello, "you")).result(PATIENCE) == "hello you"
        assert connection.is_connected
        await connection.flush()


async def test_namespaces_do_not_see_each_other(nats_server: NatsServer, namespace: str) -> None:
    """One account may hold several: names, runs and keys of one mean nothing in another."""
    other = f"{namespace}-2"
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as here,
        jetflow.connect(nats_server.url, namespace=other) as there,
        Worker([hello], server=nats_server.url, namespace=namespace),
        Worker([hello], server=nats_server.url, namespace=other),
    ):
        runs = [await client.trigger(hello, name, key="k") for client, name in ((here, "here"), (there, "there"))]
        assert [await run.result(PATIENCE) for run in runs] == ["hello here", "hello there"]
