"""Workers with different options and versions of a workflow, side by side: what they agree on, and that it stays so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jetflow import Client, Worker, WorkerOptions, Workflow
from tests.endings.stored import PATIENCE
from tests.inside import services

MakeWorker = Callable[..., Worker]


def version(*, max_running: int | None, has_old: bool = True) -> Workflow[int, Any]:
    """A version of one workflow: a step with a number of places, and one that newer versions do not have."""
    flow = Workflow("fleet", input=int)

    @flow.step(max_running=max_running)
    async def counted(number: int) -> int:
        return number

    if has_old:

        @flow.step(max_running=1)
        async def old(number: int) -> int:
            return number

    return flow


async def test_settings_of_a_consumer_agree_and_stay(client: Client, worker: MakeWorker) -> None:
    """The places are those of the worker that started last, the ``ack_wait`` is the longest; all go by that."""
    before, after = version(max_running=2), version(max_running=5)
    async with worker([before], slots=3, options=WorkerOptions(ack_wait=20.0)) as one:
        async with worker([after], slots=50, options=WorkerOptions(ack_wait=0.5)) as other:
            first = await settings(client, "counted")
            runs = [await client.trigger(flow, number) for number in range(30) for flow in (before, after)]
            await asyncio.gather(*(run.result(PATIENCE) for run in runs))
            assert await settings(client, "counted") == first == (20 * 10**9, 5)
            assert services(one).deliveries.ack_wait == services(other).deliveries.ack_wait == 20.0
        assert await settings(client, "counted") == first


async def test_a_longer_ack_wait_beside_workers_that_run(client: Client, worker: MakeWorker) -> None:
    """Those go on to beat more often than they need to."""
    async with (
        worker([version(max_running=2)], options=WorkerOptions(ack_wait=1.0)) as one,
        worker([version(max_running=2)], options=WorkerOptions(ack_wait=9.0)),
    ):
        assert await settings(client, "counted") == (9 * 10**9, 2)
        assert services(one).deliveries.ack_wait == 1.0


async def test_a_step_that_newer_versions_do_not_have_keeps_its_places(client: Client, worker: MakeWorker) -> None:
    """Their workers pull it, too, for what is queued there, and the older ones still run it."""
    async with (
        worker([version(max_running=2)]),
        worker([version(max_running=2, has_old=False)], options=WorkerOptions(ack_wait=9.0)),
    ):
        assert await settings(client, "old") == (9 * 10**9, 1)


async def settings(client: Client, step: str) -> tuple[int, int]:
    """Return a consumer's ``ack_wait`` and places."""
    names = client._session.names
    consumer = f"{names.tasks_stream}.{names.consumer('fleet', step)}"
    config = (await client._session.connection.api(f"CONSUMER.INFO.{consumer}"))["config"]
    return config["ack_wait"], config["max_ack_pending"]
