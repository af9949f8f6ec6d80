"""`jetflow cancel`, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from jetflow import Client, Context, Worker, workflow
from jetflow.server import NatsServer
from tests.endings.stored import PATIENCE, Stored, until


class Ended(NamedTuple):
    status: int
    output: str
    errors: str


@pytest.fixture
def jetflow_cancel(nats_server: NatsServer, namespace: str) -> Callable[..., asyncio.Future[Ended]]:
    async def run(*arguments: str) -> Ended:
        place = ("--server", nats_server.url, "--namespace", namespace)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jetflow.cli", "cancel", *arguments, *place),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        return Ended(process.returncode or 0, output.decode(), errors.decode())

    return lambda *arguments: asyncio.ensure_future(run(*arguments))


CancelCommand = Callable[..., asyncio.Future[Ended]]


async def test_a_tree_is_cancelled(
    client: Client, worker: Callable[..., Worker], stored: Stored, jetflow_cancel: CancelCommand
) -> None:
    spawned = asyncio.Event()

    @workflow("child")
    async def child(_: int) -> None: ...

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await ctx.spawn_workflows(child, range(10))
        spawned.set()

    async with worker([parent]):
        run = await client.trigger(parent)
        await spawned.wait()
        ended = await jetflow_cancel(run.id)
    assert ended == (0, f"run {run.id} is cancelled\n", "")
    assert await run.status() == "cancelled"
    async with worker([child]) as late:
        await until(stored.is_idle)
    assert late.counts.executed == 0


async def test_one_run_is_cancelled_and_its_children_go_on(
    client: Client, worker: Callable[..., Worker], jetflow_cancel: CancelCommand
) -> None:
    began, go, children = asyncio.Event(), asyncio.Event(), list[str]()

    @workflow("child")
    async def child() -> int:
        began.set()
        await go.wait()
        return 1

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        children.append((await ctx.spawn_workflow(child)).id)

    async with worker([parent, child]):
        run = await client.trigger(parent)
        await began.wait()
        ended = await jetflow_cancel(run.id, "--no-tree", "--json")
        go.set()
        assert await client.run(children[0]).result(PATIENCE) == 1
    assert json.loads(ended.output) == {"run": run.id, "cancelled": True, "status": "cancelled"}


async def test_a_run_that_has_ended_stays_as_it_is(
    client: Client, worker: Callable[..., Worker], jetflow_cancel: CancelCommand
) -> None:
    @workflow("quick")
    async def quick() -> None: ...

    async with worker([quick]):
        run = await client.trigger(quick)
        await run.result(PATIENCE)
    assert await jetflow_cancel(run.id) == (0, f"run {run.id} had ended already: succeeded\n", "")
    ended = await jetflow_cancel(run.id, "--json")
    assert json.loads(ended.output) == {"run": run.id, "cancelled": False, "status": "succeeded"}


async def test_an_unknown_run_is_an_error(client: Client, jetflow_cancel: CancelCommand) -> None:
    ended = await jetflow_cancel("00" * 16)
    assert (ended.status, ended.output) == (1, "")
    assert ended.errors.startswith("error: no run '000")
    assert len(ended.errors.splitlines()) == 1


async def test_the_help_has_an_example(jetflow_cancel: CancelCommand) -> None:
    ended = await jetflow_cancel("--help")
    assert ended.status == 0
    assert "jetflow cancel 0199b2c3" in ended.output
    assert "--no-tree" in ended.output
