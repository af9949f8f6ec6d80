"""Who connects: users, tokens and files, what is said to those who are refused, and that no secret is ever shown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from patience import PATIENCE

import jetflow
from jetflow import Auth, Worker, WorkerOptions, workflow
from jetflow.errors import AccessDenied, BrokerError, PermissionDenied
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


# --- who may not do everything


def narrow(*, publish: str = "", subscribe: str = "") -> NatsServer:
    """A server with a user who may do everything, ``root``, and one who may not, ``app``."""
    denied = f"{{ publish: {{ deny: [{publish}] }}, subscribe: {{ deny: [{subscribe}] }} }}"
    users = f"{{ user: root, password: r }}, {{ user: app, password: a, permissions: {denied} }}"
    return NatsServer(options=ServerOptions(config=f"accounts {{ A: {{ jetstream: enabled, users: [{users}] }} }}\n"))


async def test_what_an_administrator_has_made_is_enough() -> None:
    """Who may not make streams and consumers, nor ask about the account, works on those that are there."""
    denied = '"$JS.API.STREAM.CREATE.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.INFO"'
    async with narrow(publish=denied) as server:
        async with Worker([hello], server=url_of(server, "root:r")):
            pass
        async with asyncio.timeout(PATIENCE):
            assert await greeting(url_of(server, "app:a")) == "hello you"


async def test_what_is_missing_and_may_not_be_made_is_named() -> None:
    """With the permission that lacks, at once: of a stream, and of a consumer."""
    denied = '"$JS.API.STREAM.CREATE.>", "$JS.API.CONSUMER.CREATE.>"'
    async with narrow(publish=denied) as server, asyncio.timeout(PATIENCE):
        app = url_of(server, "app:a")
        said = r"the stream (\w+) does not exist, and this NATS user may not publish on \$JS\.API\.STREAM\.CREATE\.\1"
        with pytest.raises(PermissionDenied, match=said):
            async with jetflow.connect(app):
                pass
        async with jetflow.connect(url_of(server, "root:r")), jetflow.connect(app):
            pass
        with pytest.raises(PermissionDenied, match=r"the consumer .* does not exist, .*CONSUMER\.CREATE\.") as caught:
            async with Worker([hello], server=app):
                pass
        assert str(caught.value).endswith("grant it, or let a user who may start the same once")


async def test_who_may_not_hear_answers_is_told_at_once() -> None:
    """Every question of that connection would wait for ever."""
    async with narrow(subscribe='"_INBOX.>"') as server, asyncio.timeout(PATIENCE):
        with pytest.raises(PermissionDenied, match=r"may not subscribe to _INBOX\."):
            async with jetflow.connect(url_of(server, "app:a")):
                pass
        with pytest.raises(PermissionDenied, match=r"may not subscribe to _INBOX\."):
            async with Worker([hello], server=url_of(server, "app:a")):
                pass


ROTATED = 'authorization { users: [ { user: ann, password: "%s" }, { user: bob, password: "bob" } ] }\n'


async def rotate(server: NatsServer, password: str) -> None:
    """Change the password of ann, who is connected."""
    assert server.pid is not None
    assert server._scratch is not None
    (server._scratch / "nats-server.conf").write_text(ROTATED % password)
    os.kill(server.pid, signal.SIGHUP)


async def test_a_worker_whose_user_is_let_out_ends_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """It does not stand there in silence: a supervisor starts it anew, with the credentials of that time."""
    async with NatsServer(options=ServerOptions(config=ROTATED % "old")) as server:
        worker = Worker([hello], server=url_of(server, "ann:old"))
        running = asyncio.create_task(worker.run())
        async with jetflow.connect(url_of(server, "bob:bob")) as client:
            assert await (await client.trigger(hello, "you")).result(PATIENCE) == "hello you"
            await rotate(server, "new")
            with pytest.raises(AccessDenied, match="does not let this user go on"):
                await asyncio.wait_for(running, PATIENCE)
            assert "takes no tasks" in caplog.text
            run = await client.trigger(hello, "again")
            async with Worker([hello], server=url_of(server, "ann:new")):
                assert await run.result(PATIENCE) == "hello again"


async def test_a_worker_in_a_block_says_so_and_raises_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with NatsServer(options=ServerOptions(config=ROTATED % "old")) as server:

        async def serve() -> None:
            async with Worker([hello], server=url_of(server, "ann:old")):
                await rotate(server, "new")
                while "takes no tasks" not in caplog.text:  # noqa: ASYNC110 - what is waited for sets no event
                    await asyncio.sleep(0.02)

        with pytest.raises(AccessDenied, match="does not let this user go on"):
            await asyncio.wait_for(serve(), PATIENCE)


async def test_a_worker_that_is_not_let_in_again_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is let out while it is connected: which of them it is, is a matter of moments."""
    monkeypatch.setattr("jetflow.broker.connection.REFUSED_FOR", 0.1)
    async with NatsServer(options=ServerOptions(config=ROTATED % "old")) as server:
        worker = Worker([hello], server=url_of(server, "ann:old"))
        await worker.start()
        running = asyncio.create_task(worker.run())
        await server.kill()
        server.options = ServerOptions(config=ROTATED % "new")
        await server.start()
        with pytest.raises(AccessDenied, match="does not let this user go on"):
            await asyncio.wait_for(running, PATIENCE)


async def test_a_client_that_is_let_out_is_told_so_wherever_it_waits() -> None:
    async with (
        NatsServer(options=ServerOptions(config=ROTATED % "old")) as server,
        jetflow.connect(url_of(server, "ann:old")) as client,
    ):
        waiting = asyncio.create_task((await client.trigger(hello, "nobody")).result(PATIENCE))
        await rotate(server, "new")
        for call in (lambda: waiting, lambda: client.trigger(hello, "you")):
            with pytest.raises(AccessDenied, match="does not let this user go on"):
                await asyncio.wait_for(call(), PATIENCE)
