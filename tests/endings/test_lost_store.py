"""A server that comes back without its streams, as one with an ephemeral volume does, below workers and clients."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import jetflow
from jetflow import Worker, WorkerOptions, workflow
from jetflow.errors import BrokerTimeout
from jetflow.server import NatsServer
from tests.endings.stored import GRACE, PATIENCE, Stored, until


@workflow("echo")
async def echo(number: int) -> int:
    return number


async def test_workers_and_clients_go_on_when_somebody_has_made_the_streams_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a trigger says that no stream answers; whoever connects makes the streams, and the worker its part."""
    monkeypatch.setattr("jetflow.triggering.TRIGGER_TIMEOUT", 0.5)
    store = tmp_path / "store"
    server = NatsServer(store)
    async with (
        server,
        Worker([echo], server=server.url, options=WorkerOptions(grace=GRACE)),
        jetflow.connect(server.url) as client,
    ):
        assert await (await client.trigger(echo, 1)).result(PATIENCE) == 1
        await server.kill()
        shutil.rmtree(store)
        await server.start()
        with pytest.raises(BrokerTimeout, match="no stream answers"):
            await client.trigger(echo, 2)
        monkeypatch.undo()
        async with jetflow.connect(server.url) as another:
            assert await (await another.trigger(echo, 3)).result(PATIENCE) == 3
            assert await (await client.trigger("echo", 4)).result(PATIENCE) == 4
            await until(Stored(another).is_idle)
