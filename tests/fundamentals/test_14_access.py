"""Who connects: users, tokens and files, what is said to those who are refused, and that no secret is ever shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from patience import PATIENCE

import jetflow
from jetflow import Auth, Worker, WorkerOptions, workflow
from jetflow.errors import AccessDenied, BrokerError
from jetflow.server import NatsServer, ServerOptions

SECRET = "p@ss/w:rd"
ENCODED = "p%40ss%2Fw%3Ard"


@workflow("hello")
async def hello(name: str) -> str:
    return f"hello {name}"


@pytest_asyncio.fixture
async def guarded() -> AsyncGenerator[NatsServer]:
    """A server that lets only one user in."""
    options = ServerOptions(config=f'authorization {{ user: "ann", password: "{SECRET}" }}\n')
    async with NatsServer(options=options) as server:
        yield server


def url_of(server: NatsServer, info: str) -> str:
    return server.url.replace("://", f"://{info}@")


async def greeting(server: str, auth: Auth | None = None) -> str:
    async with Worker([hello], server=server, auth=auth), jetflow.connect(server, auth=auth) as client:
        return await (await client.trigger(hello, "you")).result(PATIENCE)


async def test_a_password_in_a_url_is_percent_encoded(guarded: NatsServer) -> None:
    """As URLs want it: ``@``, ``/`` and ``:`` mean something else there."""
    assert await greeting(url_of(guarded, f"ann:{ENCODED}")) == "hello you"


async def test_a_user_and_password_are_given_beside_the_url(guarded: NatsServer) -> None:
    assert await greeting(guarded.url, Auth(user="ann", password=SECRET)) == "hello you"


async def test_a_token_is_given_in_the_url_or_beside_it() -> None:
    async with NatsServer(options=ServerOptions(config='authorization { token: "s3cr3t" }\n')) as server:
        assert await greeting(url_of(server, "s3cr3t")) == "hello you"
        assert await greeting(server.url, Auth(token="s3cr3t")) == "hello you"


@pytest.mark.parametrize(
    ("auth", "who"),
    [
        (Auth(user="ann", password="wrong"), "the user 'ann'"),
        (Auth(token="wrong"), "the token"),
        (None, "a connection without credentials"),
    ],
)
async def test_who_is_refused_is_told_at_once(guarded: NatsServer, auth: Auth | None, who: str) -> None:
    """The server has answered: no other attempt can do better."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(AccessDenied, match=f"refused {who}"):
            async with jetflow.connect(guarded.url, auth=auth, timeout=10 * PATIENCE):
                pass
        with pytest.raises(AccessDenied, match=f"refused {who}"):
            async with Worker(
                [hello], server=guarded.url, auth=auth, options=WorkerOptions(connect_timeout=10 * PATIENCE)
            ):
                pass


async def test_no_output_shows_a_secret(guarded: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not the errors, nor the log of all loggers, also when the connection is lost and comes back, nor any repr."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    wrong = [url_of(guarded, info) for info in (f"ann:{SECRET}2", f"ann:{ENCODED}2", ENCODED)]
    for url in [*wrong, f"nats://ann:{ENCODED}@127.0.0.1:1", f"http://ann:{SECRET}@h", f"nats://ann:{SECRET}"]:
        with pytest.raises(BrokerError) as caught:
            async with jetflow.connect(url, timeout=0.5):
                pass
        said += [str(caught.value), repr(caught.value)]
    url = url_of(guarded, f"ann:{ENCODED}")
    async with Worker([hello], server=url) as worker, jetflow.connect(url) as client:
        await guarded.kill()
        await guarded.start()
        assert await (await client.trigger(hello, "you")).result(PATIENCE) == "hello you"
        said += [repr(worker), repr(client), repr(vars(worker)), repr(client._session.connection.access)]
    said.append(repr(Auth(user="ann", password=SECRET)))
    assert "connected to NATS again, at 127.0.0.1" in caplog.text
    assert [
        text for text in [*said, caplog.text] for secret in (SECRET, ENCODED, "ss/w", "ss%2F") if secret in text
    ] == []
