"""A user who may only read, by the permissions of `jetflow users`: all that reads works, and nothing that writes."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from pathlib import Path

import pytest

import jetflow
from jetflow import Client, Context, Retry, Worker, WorkerOptions, workflow
from jetflow.broker.live_counts import LiveCounts
from jetflow.errors import PermissionDenied, UnknownNamespace
from jetflow.server import NatsServer, ServerOptions
from jetflow.wire.roles import permissions_of
from jetflow.wire.subjects import Subjects
from tests.endings.stored import GRACE, PATIENCE, Stored


@workflow("leaf", retry=Retry(attempts=1))
async def leaf(number: int) -> int:
    return 1 // (number % 3)


@workflow("fan", retry=Retry(attempts=1))
async def fan(count: int, ctx: Context) -> str:
    await ctx.join(await ctx.spawn_workflows(leaf, range(count)), return_exceptions=True)
    return "x" * 300_000


VIEWER = permissions_of("viewer", Subjects("default"), owns_account=True)


def users() -> str:
    publish, subscribe = (", ".join(f'"{one}"' for one in allowed) for allowed in (VIEWER.publish, VIEWER.subscribe))
    may = f"publish: {{ allow: [{publish}] }}, subscribe: {{ allow: [{subscribe}] }}"
    viewer = f"{{ user: viewer, password: secret, permissions: {{ {may} }} }}"
    return f"authorization {{ users: [ {{ user: operator, password: secret }}, {viewer} ] }}"


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:secret@")


async def test_a_viewer_reads_all_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetflow.broker.live_counts.MANY", 1)
    async with (
        NatsServer(tmp_path / "store", ServerOptions(config=users())) as server,
        jetflow.connect(url(server, "operator")) as operator,
        Worker([fan, leaf], server=url(server, "operator"), options=WorkerOptions(grace=GRACE)),
        jetflow.connect(url(server, "viewer"), ensure=False, inbox_prefix=VIEWER.inbox) as viewer,
    ):
        run = await operator.trigger(fan, 30, key="k")
        async with asyncio.timeout(PATIENCE), aclosing(viewer.watch(run.id)) as looks:
            seen = [totals async for totals in looks]
        assert (seen[-1].totals.failed, seen[-1].totals.succeeded) == (10, 20)
        [row] = (await viewer.runs()).items
        assert (row.id, row.key, row.status) == (run.id, "k", "succeeded")
        assert len((await viewer.children(run.id)).items) == 30
        assert len((await viewer.children(run.id, status="failed")).items) == 10
        assert (await viewer.children(run.id, sort="-status", limit=10)).items[9].status == "failed"
        assert [row.id for row in (await viewer.runs(sort="-took", search="k")).items] == [run.id]
        assert {one.workflow for one in await viewer.summary(since=time.time() - 600)} == {"fan"}
        assert [node.totals.failed for node in (await viewer.tree(run.id)).children] == [10]
        checks = {check.name: check.state for check in (await viewer.doctor()).checks if check.state != "ok"}
        assert checks == {"rights": "unknown"}  # its role may not ask the server about itself
        assert (await viewer.errors(run.id)).total == 10
        assert (await viewer.errors()).total == 10
        assert [queue.workflow for queue in await viewer.queues()] == ["fan", "leaf"]
        assert len(await viewer.workers()) == 1
        assert await viewer.running(run.id, stack=True) == []
        assert sum(bucket.ended for bucket in await viewer.history(since=time.time() - 600)) == 1
        assert [change.kind async for change in viewer.follow(run.id)] == ["run"]
        assert set(await viewer.declarations()) == {"fan", "leaf"}
        [step] = (await viewer.describe(run.id)).steps
        assert step.large_output is not None
        value = [chunk async for chunk in viewer.value(run.id, step.large_output.reference)]
        assert len(json.loads(b"".join(value))) == 300_000
        assert await viewer.run(run.id).status() == "succeeded"
        assert await _counted(viewer, run.id) == 30
        for write in (viewer.trigger(leaf, 1), viewer.pause("leaf")):
            with pytest.raises(PermissionDenied):
                await write


async def _counted(viewer: Client, run: str) -> int:
    """Count ended children as the first who looks at them does: this user may have no consumer count them."""
    stored = Stored(viewer)
    counts = LiveCounts(stored.session.connection, stored.session.store)
    return await counts.count(stored.names.records_stream, stored.names.runs_of_parent(run, run))


async def test_what_only_reads_makes_no_namespace(nats_server: NatsServer) -> None:
    with pytest.raises(UnknownNamespace, match="there is no namespace 'never-made'"):
        async with jetflow.connect(nats_server.url, namespace="never-made", ensure=False):
            pass
