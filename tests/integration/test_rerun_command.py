"""`jetflow rerun`, of one run and of many, against a live server and a worker."""

from __future__ import annotations

import contextlib
import json

import jetflow
from jetflow import NonRetryable, RunFailed, Worker, workflow
from jetflow.server import NatsServer
from tests.integration.commands import Start, run

PATIENCE = 20.0
BROKEN: set[int] = set()


@workflow("square")
async def square(number: int) -> int:
    if number in BROKEN:
        raise NonRetryable("broken")
    return number * number


async def test_runs_are_run_again_by_a_command(start: Start, nats_server: NatsServer, namespace: str) -> None:
    BROKEN.update({1, 2, 3})
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Worker([square], server=nats_server.url, namespace=namespace),
    ):
        runs = await client.trigger_many(square, [1, 2, 3, 4])
        for one in runs:
            with contextlib.suppress(RunFailed):
                await one.result(PATIENCE)
        BROKEN.clear()
        again = await run(start, "rerun", runs[0].id, "--json")
        assert not again.errors
        told = json.loads(again.output)
        assert told["created"]
        assert await client.run(told["rerun"]).result(PATIENCE) == 1
        shown = await run(start, "show", told["rerun"])
        assert runs[0].id in shown.output
        dry = await run(start, "rerun", "--workflow", "square", "--dry-run")
        assert sorted(dry.output.split()) == sorted(one.id for one in runs[:3])
        many = await run(start, "rerun", "--workflow", "square", "--since", "1h", "--json")
        assert sum(one["created"] for one in json.loads(many.output)) == 2
        assert many.status == 0
        refused = await run(start, "rerun", runs[3].id)
        assert refused.status == 1
        assert "has succeeded" in refused.errors
        for misused in (("rerun",), ("rerun", runs[3].id, "--since", "1h"), ("rerun", runs[3].id, "--dry-run")):
            assert (await run(start, *misused)).status == 2
