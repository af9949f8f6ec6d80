"""What a worker's log says of a run: each failed attempt, each lost one, and its end, in one line each."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, workflow
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_outcomes import end_of, take_and_die

MakeWorker = Callable[..., Worker]


def lines(caplog: pytest.LogCaptureFixture, level: int, run: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level and run in record.getMessage()]


@workflow("fragile", retry=Retry(attempts=2, initial=0))
async def fragile(number: int) -> int:
    return inner(number)


def inner(number: int) -> int:
    if number == 0:
        raise ValueError("nothing\nto divide by")
    return 12 // number


async def test_a_failed_attempt_is_a_warning_with_the_users_own_frames(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """On one line, whatever the error says."""
    async with worker([fragile]):
        run = await client.trigger(fragile, 0)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
    first, last = lines(caplog, logging.WARNING, run.id)
    assert first.startswith(
        f"run {run.id}: attempt 1 of step 'run' of 'fragile' failed: ValueError: nothing to divide by"
    )
    assert first.endswith(" in fragile, test_log_lines.py:28 in inner); next in 0.0 s")
    assert last.endswith("it is the last one")
    assert not any("\n" in line or "jetflow/" in line for line in (first, last))


async def test_a_failed_run_is_one_error_with_its_traceback(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture, stored: Stored
) -> None:
    """A parent that fails by its child does not tell the child's traceback again."""

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> None:
        await (await ctx.spawn_workflow(fragile, 0, key="zero")).result()

    async with worker([parent, fragile]):
        run = await client.trigger(parent)
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        await until(stored.all_acknowledged)
        [child] = (await client.describe(run.id)).children
    [of_child] = [line for line in lines(caplog, logging.ERROR, child.id) if f"run {run.id}" not in line]
    assert "of 'fragile' failed after " in of_child
    assert of_child.count("Traceback (most recent call last)") == 1
    [of_parent] = lines(caplog, logging.ERROR, run.id)
    assert "(key 'zero')" in of_parent
    assert "Traceback" not in of_parent


async def test_a_run_that_ended_well_is_a_word_with_its_duration(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a child it is one for debugging."""
    caplog.set_level(logging.DEBUG, "jetflow.worker")

    @workflow("parent")
    async def parent(_: None, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(fragile, 3)).result()

    async with worker([parent, fragile]):
        run = await client.trigger(parent)
        assert await run.result(PATIENCE) == 4
        [child] = (await client.describe(run.id)).children
    [line] = lines(caplog, logging.INFO, run.id)
    assert line.startswith(f"run {run.id} of 'parent' succeeded after 0.")
    [line] = lines(caplog, logging.DEBUG, child.id)
    assert line.startswith(f"run {child.id} of 'fragile' succeeded after 0.")


async def test_a_task_that_is_taken_over_from_a_lost_worker_is_a_warning(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the only sign of a worker that was killed."""
    options = WorkerOptions(ack_wait=0.2)
    async with worker([fragile], options=options):
        pass
    run = await client.trigger(fragile, 3)
    await take_and_die(client, "fragile", "run", times=1)
    async with worker([fragile], options=options):
        assert (await end_of(client, run.id)).output == 4
    assert lines(caplog, logging.WARNING, run.id) == [
        f"run {run.id}: step 'run' of 'fragile' is taken over from a worker that was lost: attempt 1"
    ]
