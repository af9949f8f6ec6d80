"""Who waits at the gate of a limit, below a run that is cancelled by somebody who dies right behind the mark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jetflow import Client, Context, Limit, Retry, Worker, WorkerOptions, workflow
from jetflow.runs.marks import TREE
from jetflow.wire.records import decode_outcome
from tests.endings.stored import until

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
NEVER = 3600.0


@pytest.mark.parametrize(
    "limits", [[Limit("above", max=1)], []], ids=["a run that holds a place", "any other, by the net"]
)
async def test_those_who_are_parked_end(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, limits: list[Limit]
) -> None:
    monkeypatch.setattr("jetflow.worker.gate_net.YOUNG", 0.0)
    spawned: list[str] = []

    @workflow("below", retry=ONCE, limits=[Limit("below", max=1)])
    async def below(number: int) -> int:
        await asyncio.sleep(3600)
        return number

    @workflow("between", retry=ONCE)
    async def between(number: int, ctx: Context) -> None:
        children = [await ctx.spawn_workflow(below, n) for n in range(number)]
        spawned.extend(child.id for child in children)
        await ctx.join(children)

    @workflow("above", retry=ONCE, limits=limits)
    async def above(number: int, ctx: Context) -> None:
        child = await ctx.spawn_workflow(between, number)
        spawned[:] = [ctx.run_id, child.id]
        await ctx.join([child])

    @workflow("tree", retry=ONCE)
    async def tree(number: int, ctx: Context) -> None:
        await ctx.join([await ctx.spawn_workflow(above, number)])

    names, store = client.session.names, client.session.store

    async def how_they_ended() -> list[str] | None:
        stored = [await store.leader_last(names.records_stream, names.run_by_id(run)) for run in spawned]
        ended = [decode_outcome(one.body).status for one in stored if one is not None]
        return ended if len(ended) == len(spawned) else None

    async def two_wait() -> bool:
        return (await client.limits.get("below")).waiting == 2

    options = WorkerOptions(sweep_every=NEVER if limits else 0.2)
    async with worker([tree, above, between, below], options=options):
        run = await client.trigger(tree, 3)
        await until(two_wait)
        for one in spawned[:2]:
            await client.session.publisher.store(names.cancelled(run.id, one), TREE)
        assert await until(how_they_ended) == ["cancelled"] * 5
        assert (await client.limits.get("below")).waiting == 0
