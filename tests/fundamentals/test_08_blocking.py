"""A task is kept alive while its step runs, whatever the step does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from patience import PATIENCE

from jetflow import Client, Worker, WorkerOptions, workflow


async def test_a_step_may_run_longer_than_ack_wait(client: Client, worker: Callable[..., Worker]) -> None:
    """``ack_wait`` is for lost workers: one that lives says so in time, and its task is delivered to no other."""
    runs = 0

    @workflow("long")
    async def long() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.7)

    options = WorkerOptions(ack_wait=0.5)
    async with worker([long], options=options) as one, worker([long], options=options) as other:
        await (await client.trigger(long)).result(PATIENCE)
    assert runs == 1
    assert one.counts.redelivered + other.counts.redelivered == 0


async def test_a_step_that_blocks_the_event_loop_keeps_its_task(
    client: Client, worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake, and not a rare one: nothing else of the worker runs for three times ``ack_wait``.

    But the heartbeat has a thread of its own, so the task is delivered once; and the log names it.
    """
    runs = 0

    @workflow("mistake")
    async def mistake() -> None:
        nonlocal runs
        runs += 1
        time.sleep(3)  # noqa: ASYNC251 - the mistake that the test is about

    with caplog.at_level(logging.WARNING, logger="jetflow"):
        async with worker([mistake], options=WorkerOptions(ack_wait=1)) as only:
            run = await client.trigger(mistake)
            await run.result(PATIENCE)
            assert (only.counts.executed, only.counts.redelivered) == (1, 0)
            names, connection = client._session.names, client._session.connection
            consumer = f"{names.tasks_stream}.{names.consumer('mistake', 'run')}"
            assert (await connection.api(f"CONSUMER.INFO.{consumer}"))["delivered"]["consumer_seq"] == 1
    assert runs == 1
    warnings = [record.getMessage() for record in caplog.records if "blocked the event loop" in record.getMessage()]
    assert warnings
    assert all("mistake" in warning for warning in warnings)
    assert run.id in warnings[0]
