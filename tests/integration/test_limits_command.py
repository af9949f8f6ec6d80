"""`jetflow limits`, and what `jetflow show` says of a run that waits for a place."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import jetflow
from jetflow import Client, Limit, RateLimit, Worker, workflow
from jetflow.server import NatsServer
from tests.endings.stored import until


async def standing(client: Client, running: int, waiting: int) -> None:
    async def stand() -> bool:
        row = await client.limits.get("tenant")
        return (row.running, row.waiting) == (running, waiting)

    await until(stand)


async def test_limits_are_shown_and_changed(nats_server: NatsServer, namespace: str) -> None:
    gate = asyncio.Event()

    @workflow("export", limits=[Limit("tenant", key=str, max=1)])
    async def export(tenant: str) -> str:
        await gate.wait()
        return tenant

    async def say(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "jetflow.cli", *arguments, "--namespace", namespace]
        environment = os.environ | {"NATS_URL": nats_server.url, "COLUMNS": "120"}
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == status, ended.stderr
        return ended.stdout + ended.stderr

    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Worker([export], server=nats_server.url, namespace=namespace),
    ):
        first = await client.trigger(export, "acme")
        await standing(client, 1, 0)
        second = await client.trigger(export, "acme")
        await standing(client, 1, 1)

        listed, shown = await asyncio.gather(say("limits"), say("limits", "show", "tenant", "--key", "acme"))
        assert "tenant" in listed
        assert "queue" in listed
        assert f"{first.id}" in shown
        assert "waits" in shown
        (row,) = json.loads(await say("limits", "--json"))
        assert (row["running"], row["waiting"], row["keys"][0]["key"]) == (1, 1, "acme")
        assert "waits behind 1, of which 1 may run" in await say("show", second.id)

        changed = await say("limits", "set", "tenant", "2", "--key", "acme")
        assert "(chosen)" in changed
        await standing(client, 2, 0)
        await say("limits", "reset", "tenant", "--key", "acme")
        assert "no limit 'nobody'" in await say("limits", "set", "nobody", "2", status=1)
        assert "a whole number above 0" in await say("limits", "set", "tenant", "0", status=1)
        gate.set()
        assert [await one.result(timeout=20) for one in (first, second)] == ["acme", "acme"]


async def test_rate_limits_are_shown(nats_server: NatsServer, namespace: str) -> None:
    @workflow("call", limits=[RateLimit("api", key=str, max=1, per=3600)])
    async def call(tenant: str) -> str:
        return tenant

    async def say(*arguments: str) -> str:
        command = [sys.executable, "-m", "jetflow.cli", *arguments, "--namespace", namespace]
        environment = os.environ | {"NATS_URL": nats_server.url, "COLUMNS": "120"}
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Worker([call], server=nats_server.url, namespace=namespace),
    ):
        assert await (await client.trigger(call, "acme")).result(timeout=20) == "acme"
        waiting = await client.trigger(call, "acme")

        async def waits() -> bool:
            return any(rate.until is not None for rate in (await client.describe(waiting.id)).rates)

        await until(waits)
        listed, shown, run = await asyncio.gather(say("limits"), say("limits", "rates"), say("show", waiting.id))
        assert "no limits" in listed
        assert "api" in listed
        assert "acme" in shown
        assert "1 of 1" in shown
        assert "rate limit 'api' (key 'acme'): waits until" in run
        (row,) = json.loads(await say("limits", "rates", "--json"))
        assert (row["name"], row["max"], row["per"], row["keys"][0]["taken"]) == ("api", 1, 3600.0, 1)
