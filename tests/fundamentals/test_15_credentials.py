"""Ways in, each against a server that lets nobody else in: NKeys, TLS files, contexts, a domain and an inbox prefix."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

import jetflow
from jetflow import Auth, Worker, workflow
from jetflow.errors import AccessDenied, InvalidConnection, MissingExtra, PermissionDenied, ServerUnreachable
from jetflow.server import NatsServer, ServerOptions
from tests.credentials import Operator, make_certificate, new_seed, public_key


@workflow("hello")
async def hello(name: str) -> str:
    return f"hello {name}"


def serving(config: str) -> NatsServer:
    return NatsServer(options=ServerOptions(config=config))


async def greeting(server: str | None = None, **access: Any) -> str:
    async with Worker([hello], server=server, **access), jetflow.connect(server, **access) as client:
        return await (await client.trigger(hello, "you")).result(PATIENCE)


# --- NKeys


async def test_an_nkey_is_given_as_a_seed_or_as_its_file(tmp_path: Path) -> None:
    """The seed signs what the server asks for, and never travels."""
    seed, another = new_seed(), new_seed()
    file = tmp_path / "app.nk"
    file.write_text(f"{seed}\n")
    async with serving(f"authorization {{ users: [ {{ nkey: {public_key(seed)} }} ] }}\n") as server:
        assert await greeting(server.url, auth=Auth(nkey_seed=seed)) == "hello you"
        assert await greeting(server.url, auth=Auth(nkey_seed=file)) == "hello you"
        with pytest.raises(AccessDenied, match="refused the NKey") as refused:
            await greeting(server.url, auth=Auth(nkey_seed=another))
        assert another not in str(refused.value)


# --- credentials files


async def test_a_credentials_file_says_who_connects(tmp_path: Path) -> None:
    """To a server that trusts an operator: with the file, and not with that of another operator's user."""
    operator = Operator()
    file, foreign = tmp_path / "app.creds", tmp_path / "foreign.creds"
    text, _ = operator.credentials()
    file.write_text(text)
    strangers, seed = Operator().credentials()
    foreign.write_text(strangers)
    async with serving(operator.config()) as server:
        assert await greeting(server.url, auth=Auth(creds=file)) == "hello you"
        assert await greeting(server.url, auth=Auth(creds=str(file))) == "hello you"
        with pytest.raises(AccessDenied, match=r"refused the credentials in '.*foreign\.creds'") as refused:
            await greeting(server.url, auth=Auth(creds=foreign))
        assert seed not in str(refused.value)
        with pytest.raises(AccessDenied, match="refused a connection without credentials"):
            await greeting(server.url)


@pytest.mark.parametrize("way", ["creds", "nkey_seed"])
async def test_the_extra_that_reads_keys_is_named_if_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    text, seed = Operator().credentials()
    file = tmp_path / "app"
    file.write_text(text if way == "creds" else seed)
    monkeypatch.setitem(sys.modules, "nkeys", None)
    auth = Auth(creds=file) if way == "creds" else Auth(nkey_seed=file)
    with pytest.raises(MissingExtra, match=r"pip install 'jetflow-nats\[nkeys\]'"):
        await greeting("nats://127.0.0.1:1", auth=auth)


async def test_files_that_say_nothing_are_refused_before_anybody_connects(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    for auth, said in (
        (Auth(nkey_seed=empty), "holds no seed"),
        (Auth(creds=empty), "has no line with 'BEGIN NATS USER JWT'"),
        (Auth(creds=tmp_path / "none"), "cannot be read"),
        (Auth(tls_ca=empty), "the TLS files '.*empty' cannot be used"),
    ):
        with pytest.raises(InvalidConnection, match=said):
            await greeting("nats://127.0.0.1:1", auth=auth)


# --- TLS


async def test_tls_files_say_whom_to_trust_and_who_connects(tmp_path: Path) -> None:
    """What is missing is named: the authority, or the client's own certificate."""
    await make_certificate(tmp_path, "server")
    await make_certificate(tmp_path, "app")
    ca, cert, key = tmp_path / "server.pem", tmp_path / "app.pem", tmp_path / "app.key"
    files = f'cert_file: "{ca}", key_file: "{tmp_path / "server.key"}", ca_file: "{cert}", verify: true'
    async with serving(f"tls {{ {files} }}\n") as server, asyncio.timeout(PATIENCE):
        assert await greeting(server.url, auth=Auth(tls_ca=ca, tls_cert=cert, tls_key=key)) == "hello you"
        with pytest.raises(ServerUnreachable, match=r"Auth\(tls_ca=\.\.\.\)"):
            await greeting(server.url)
        with pytest.raises(AccessDenied, match=r"Auth\(tls_cert=\.\.\.\)"):
            await greeting(server.url, auth=Auth(tls_ca=ca))


async def test_a_server_that_begins_with_tls_is_asked_so(tmp_path: Path) -> None:
    """It says nothing before: who waits for its first word is told what to set."""
    await make_certificate(tmp_path, "server")
    ca = tmp_path / "server.pem"
    files = f'cert_file: "{ca}", key_file: "{tmp_path / "server.key"}", handshake_first: true'
    async with serving(f"tls {{ {files} }}\n") as server, asyncio.timeout(PATIENCE):
        assert await greeting(server.url, auth=Auth(tls_ca=ca, tls_first=True)) == "hello you"
        with pytest.raises(ServerUnreachable, match=r"Auth\(tls_first=True\)"):
            await greeting(server.url, auth=Auth(tls_ca=ca))


# --- contexts


async def test_a_context_of_the_nats_command_says_where_and_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, its file, or the variable; what is said beside it counts before it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("NATS_URL", raising=False)
    file = tmp_path / "nats" / "context" / "production.json"
    file.parent.mkdir(parents=True)
    async with serving('authorization { user: "ann", password: "s3cr3t" }\n') as server:
        file.write_text(json.dumps({"url": server.url, "user": "ann", "password": "s3cr3t", "description": "ours"}))
        assert await greeting(context="production") == "hello you"
        assert await greeting(context=str(file)) == "hello you"
        monkeypatch.setenv("NATS_CONTEXT", "production")
        assert await greeting() == "hello you"
        with pytest.raises(AccessDenied, match="'bob'"):
            await greeting(context="production", auth=Auth(user="bob", password="s3cr3t"))
    with pytest.raises(InvalidConnection, match="did you mean 'production'"):
        await greeting(context="prodution")


# --- a domain, and an inbox prefix


async def test_a_domain_is_where_the_streams_are() -> None:
    async with serving("jetstream { domain: hub }\n") as server:
        assert await greeting(server.url, domain="hub") == "hello you"
    with pytest.raises(InvalidConnection, match="is no JetStream domain"):
        await greeting("nats://127.0.0.1:1", domain="a.b")


async def test_an_inbox_prefix_is_where_answers_go() -> None:
    """For users who may not hear those of others."""
    permissions = '{ publish: { allow: ">" }, subscribe: { deny: "_INBOX.>" } }'
    user = f"{{ user: app, password: a, permissions: {permissions} }}"
    async with serving(f"accounts {{ A: {{ jetstream: enabled, users: [ {user} ] }} }}\n") as server:
        auth = Auth(user="app", password="a")
        assert await greeting(server.url, auth=auth, inbox_prefix="_INBOX_app") == "hello you"
        with pytest.raises(PermissionDenied, match=r"subscribe to _INBOX\."):
            await greeting(server.url, auth=auth)
