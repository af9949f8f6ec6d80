"""A namespace with something of everything that a dashboard shows, made once a session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, NamedTuple

import jetflow
from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import JetflowError

PATIENCE = 60.0
CHILDREN = 2000
LARGE = 20_000_000

ONE = Retry(attempts=1)


@workflow("leaf", retry=ONE)
async def leaf(number: int) -> int:
    """Fail in three ways, 60 of 2,000 times."""
    if number % 100 == 7:
        raise ValueError(f"bad number {number}")
    if number % 100 == 11:
        raise KeyError(number)
    if number % 100 == 13:
        raise TimeoutError("<b>slow</b>")
    return number


@workflow("fan", retry=ONE)
async def fan(count: int, ctx: Context) -> int:
    children = await ctx.spawn_workflows(leaf, range(count), key=lambda number: f"/p/{number}")
    await ctx.join(children, return_exceptions=True)
    return count


diamond = Workflow("diamond")


@diamond.step
async def begin(number: int) -> int:
    return number


@diamond.step(after=[begin], retry=Retry(attempts=2, initial=0.05))
async def left(number: int, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise OSError("busy")
    return await ctx.once("price", lambda: 7)


@diamond.step(after=[begin])
async def right(number: int) -> str:
    return "right"


@diamond.step(after=[left, right])
async def middle(number: int) -> None: ...


@diamond.step(after=[middle])
async def end(number: int) -> dict[str, int]:
    return {"<script>alert(1)</script>": number}


@workflow("deep")
async def deep(levels: int, ctx: Context) -> int:
    if levels:
        await (await ctx.spawn_workflow(deep, levels - 1)).result()
    return levels


@workflow("large")
async def large(size: int) -> str:
    return "x" * size


@workflow("patient", retry=Retry(attempts=3, initial=3600, max_delay=3600))
async def patient() -> None:
    raise OSError("not yet")


@workflow("idle")
async def idle(number: int) -> None:
    """Never run: its queue waits."""


class World(NamedTuple):
    """The namespace, and the ids of its runs."""

    namespace: str
    fan: str
    diamond: str
    deep: str
    large: str
    patient: str
    cancelled: str
    waiting: str


FLOWS: list[Workflow[Any, Any]] = [leaf, fan, diamond, deep, large, patient, idle]


async def make_world(url: str) -> World:
    namespace = f"w{secrets.token_hex(4)}"
    options = WorkerOptions(grace=1)
    async with jetflow.connect(url, namespace=namespace) as client:
        async with Worker(FLOWS, server=url, namespace=namespace, options=options):
            runs = await asyncio.gather(
                client.trigger(fan, CHILDREN, key="fan", metadata={"customer": "acme", "n": 5}),
                client.trigger(diamond, 5),
                client.trigger(deep, 4),
                client.trigger(large, LARGE),
                client.trigger("patient"),
            )
            for run in runs[:-1]:
                await run.result(PATIENCE)
            await _until_retrying(client, runs[-1].id)
            failed = await client.trigger(leaf, 7, key="alone")
            with contextlib.suppress(RunFailed):
                await failed.result(PATIENCE)
            cancelled = await client.trigger(patient)
            await client.cancel(cancelled.id)
        waiting = await client.trigger(idle, 1, metadata={"customer": "other"})
    ids = [run.id for run in runs]
    return World(namespace, *ids, cancelled=cancelled.id, waiting=waiting.id)


async def _until_retrying(client: Client, run_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                [step] = (await client.describe(run_id)).steps
            except (JetflowError, ValueError):
                continue
            if step.status == "retrying":
                return
            await asyncio.sleep(0.05)
