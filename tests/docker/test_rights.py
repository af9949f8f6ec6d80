"""What the users of ``docker/nats`` may do and may not, on real servers, and the same in ``docs/security.md``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import jetflow
from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow
from jetflow.broker.access import access_of
from jetflow.broker.connection import Connection
from jetflow.broker.layout import StepConsumer, set_up, set_up_consumers
from jetflow.cli.users import written
from jetflow.errors import PermissionDenied
from jetflow.server import NatsServer, find_server
from jetflow.wire.subjects import Subjects
from tests.docker import rights
from tests.docker.actions import ACTIONS
from tests.docker.servers import CONFIGURATIONS, server_of, text_of, url, variables
from tests.endings.stored import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
VIOLATION = "permissions violation"


@workflow("leaf")
async def leaf(number: int) -> int:
    return number * number


@workflow("fan")
async def fan(count: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(leaf, range(count))))


@workflow("flaky", retry=Retry(attempts=2, initial=1.2, jitter=0))
async def flaky(number: int, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return number


@workflow("large")
async def large(size: int) -> str:
    return "x" * size


@workflow("length")
async def length(text: str) -> int:
    return len(text)


@workflow("held")
async def held(ctx: Context) -> None:
    await ctx.spawn_workflows(leaf, range(3))
    await asyncio.Event().wait()


FLOWS = [leaf, fan, flaky, large, length, held]


async def test_the_table_on_the_page_is_what_servers_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = await rights.table_of(tmp_path)
    with capsys.disabled():
        print(f"\n{rights.printed(table)}")  # noqa: T201 - who reads the log sees what was tried
    assert rights.printed(table) in PAGE.read_text()
    for who, found in table.items():
        assert len([name for name, allowed in found.items() if not allowed]) >= 20, who
        assert not any(found[action.name] for action in ACTIONS["Another tenant"]), who
        assert not any(found[action.name] for action in ACTIONS["Forging"] if action.by_stream), who
    for who in rights.COLUMNS:
        if who.role in ("trigger", "viewer"):
            assert not any(table[who][action.name] for action in ACTIONS["Forging"]), who


@pytest.mark.parametrize(
    ("file", "namespaces", "shared"),
    [
        ("default.conf", ["default"], False),
        ("tenants.conf", ["acme", "globex"], True),
        ("accounts.conf", ["acme", "globex"], False),
    ],
)
def test_the_users_are_those_that_the_command_prints(file: str, namespaces: list[str], shared: bool) -> None:
    assert (CONFIGURATIONS / "users" / file).read_text() == written(namespaces, shared=shared)


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIGURATIONS.glob("*.conf")))
def test_a_server_takes_the_configuration_as_it_is(file: str) -> None:
    environment = os.environ | variables(text_of(file))
    checked = [str(find_server()), "-t", "-c", str(CONFIGURATIONS / file)]
    if file == "server.conf":  # a part of the others, in which the accounts are
        return
    ended = subprocess.run(checked, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "is valid" in ended.stderr + ended.stdout


def test_every_password_comes_from_the_environment() -> None:
    for file in CONFIGURATIONS.rglob("*.conf"):
        for line in file.read_text().splitlines():
            assert "password" not in line or re.search(r"password: \$[A-Z_]+", line), (file.name, line)


class Tenant:
    """The users of one tenant on a server."""

    def __init__(self, server: NatsServer, namespace: str) -> None:
        self._server = server
        self.namespace = namespace

    def as_role(self, role: str) -> dict[str, Any]:
        return {
            "server": url(self._server, f"{self.namespace}-{role}"),
            "namespace": self.namespace,
            "inbox_prefix": f"_INBOX.{self.namespace}.{role}",
        }

    def client(self, role: str) -> contextlib.AbstractAsyncContextManager[Client]:
        return jetflow.connect(**self.as_role(role), ensure=role == "trigger")

    def worker(self) -> Worker:
        options = WorkerOptions(grace=1, guard=True, durable=True)
        return Worker(FLOWS, **self.as_role("worker"), options=options)


@pytest.fixture(params=["tenants.conf", "accounts.conf"])
async def tenants(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[Tenant, Tenant]]:
    """Two tenants, with all made that their workers need: by the account's administrator, or by their operators."""
    for name, value in variables(text_of(request.param)).items():
        monkeypatch.setenv(name, value)
    async with server_of(request.param, tmp_path / "store") as server:
        for namespace in rights.TENANTS:
            is_shared = request.param == "tenants.conf"
            user, inbox = ("admin", None) if is_shared else (f"{namespace}-operator", f"_INBOX.{namespace}.operator")
            async with await Connection.open(access_of(url(server, user), inbox_prefix=inbox)) as connection:
                names = Subjects(namespace)
                assert not any(change.refused for change in await set_up(connection, names))
                steps = [StepConsumer(flow.name, step) for flow in FLOWS for step in flow.consumed_steps]
                await set_up_consumers(connection, names, steps, ack_wait=5)
        yield Tenant(server, "acme"), Tenant(server, "globex")


async def test_each_user_can_do_its_work(tenants: tuple[Tenant, Tenant], caplog: pytest.LogCaptureFixture) -> None:
    tenant, other = tenants
    async with tenant.worker(), other.worker(), tenant.client("operator") as operator:
        caplog.clear()
        async with tenant.client("trigger") as trigger:
            run = await trigger.trigger(fan, 20, key="k", metadata={"of": "us"})
            assert await run.result(PATIENCE) == sum(number * number for number in range(20))
            assert (await trigger.trigger("fan", 20, key="k")).id == run.id
            assert await (await trigger.trigger(flaky, 7)).result(PATIENCE) == 7
            assert await (await trigger.trigger(length, "y" * 400_000, key="two\r\nlines")).result(PATIENCE) == 400_000
            assert caplog.text.count(VIOLATION) == 1  # that it may not store tasks, which it did not know
            described = await operator.describe(run.id)
            assert (described.key, described.metadata) == ("k", {"of": "us"})
            big = await trigger.trigger(large, 300_000)
            with pytest.raises(PermissionDenied, match="values"):
                await big.result(PATIENCE)
        stuck = await operator.trigger("held")
        async with tenant.client("viewer") as viewer:
            assert len((await viewer.children(run.id, sort="-took")).items) == 20
            assert await viewer.run(big.id).result(PATIENCE) == "x" * 300_000
            assert len(await viewer.workers()) == 1
            for refused in (
                viewer.cancel(stuck.id),
                viewer.delete(stuck.id),
                viewer.pause("leaf"),
                viewer.trigger("leaf", 1),
            ):
                with pytest.raises(PermissionDenied):
                    await refused
        caplog.clear()
        await operator.pause("leaf")
        await operator.resume("leaf")
        assert await operator.cancel(stuck.id)
        await operator.delete(run.id)
        assert run.id not in [row.id for row in (await operator.runs()).items]
        async with other.client("viewer") as viewer:
            assert not (await viewer.runs()).items
    assert VIOLATION not in caplog.text
