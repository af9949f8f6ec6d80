"""Connecting: which server, and what is said when there is none to work with."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from patience import PATIENCE

import jetflow
from jetflow import JetflowError, Worker, WorkerOptions, workflow
from jetflow.errors import ClientClosed, InvalidConnection, JetStreamUnavailable, ServerUnreachable, WrongEventLoop
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
    assert "start one (`jetflow dev` does), or set NATS_URL" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, JetflowError)


async def test_a_refused_connection_is_not_waited_for(nowhere: str) -> None:
    """Nobody listens there: the time that a slow server would get is not spent."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ServerUnreachable, match=nowhere):
            async with jetflow.connect(nowhere, timeout=10 * PATIENCE):
                pass


async def test_a_url_of_another_scheme_is_refused(nowhere: str) -> None:
    with pytest.raises(InvalidConnection, match=r"begins with nats://, tls://, ws:// or wss://"):
        async with jetflow.connect(nowhere.replace("nats://", "http://")):
            pass


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


async def test_a_client_that_was_closed_says_so(nats_server: NatsServer, namespace: str) -> None:
    """At once, whatever it is asked: nobody would ever answer."""
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        run = client.run(32 * "0")
    for using in (client.trigger(hello, "you"), client.describe(run.id), client.cancel(run.id), client.workflows()):
        with pytest.raises(ClientClosed, match="use it inside"):
            await using
    for using in (run.result(), run.status()):
        with pytest.raises(ClientClosed, match="was closed"):
            await using


async def test_where_there_is_no_block_it_is_awaited(nats_server: NatsServer, namespace: str) -> None:
    """As in the cells of a notebook. Such a client stays open until it is closed."""
    client = await jetflow.connect(nats_server.url, namespace=namespace)
    gc.collect()  # nobody holds what `connect` has returned
    assert await client.workflows() == []
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed, match="was closed"):
        await client.workflows()


async def test_a_client_of_another_event_loop_says_so(nats_server: NatsServer, namespace: str) -> None:
    """It goes on in its own."""
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        with pytest.raises(WrongEventLoop, match="belongs to another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.trigger(hello, "you")))
        assert await client.workflows() == []


async def test_a_client_that_is_handed_over_belongs_to_the_loop_that_runs(nats_server: NatsServer) -> None:
    async def borrow(connection: Client) -> None:
        async with jetflow.connect(connection):
            pass

    async with await nats.connect(nats_server.url) as connection:
        with pytest.raises(WrongEventLoop, match="handed over belongs to another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(borrow(connection)))
    with pytest.raises(ClientClosed, match="handed over is not connected"):
        await borrow(connection)


async def test_a_client_that_is_handed_over_outlives_an_outage(tmp_path: Path) -> None:
    """As a URL does: what was asked when the server went is asked again. Its owner's callbacks are called, too."""
    again = asyncio.Event()

    async def on_reconnect() -> None:
        again.set()

    async with (
        NatsServer(tmp_path) as server,
        await nats.connect(server.url, reconnected_cb=on_reconnect, reconnect_time_wait=0) as connection,
    ):
        async with jetflow.connect(connection) as client, Worker([hello], server=connection):
            await server.kill()
            await server.start()
            assert await (await client.trigger(hello, "you")).result(PATIENCE) == "hello you"
            await again.wait()
        assert connection._reconnected_cb is on_reconnect


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
