"""The first task of a cancelled tree is put back by whoever cancels, or by a worker; never that of a deleted one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from jetflow import Client, KeyConflict, Worker, WorkerOptions, workflow
from jetflow.errors import BrokerTimeout
from jetflow.runs.keeping import KeptTask
from jetflow.worker import kept
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]
SWEEPING = WorkerOptions(sweep_every=0.05)


@workflow("nightly")
async def nightly(day: int) -> int:
    return day


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has no cancel come further than the purge, as if its client died there; the returned function ends that."""

    async def dies(_: KeptTask) -> bool:
        raise BrokerTimeout("the client dies here")

    right = KeptTask.put_back
    monkeypatch.setattr(KeptTask, "put_back", dies)
    return lambda: monkeypatch.setattr(KeptTask, "put_back", right)


async def cancelled_halfway(client: Client, day: int = 1) -> str:
    run = await client.trigger(nightly, day, key="monday")
    with pytest.raises(BrokerTimeout):
        await client.cancel(run.id)
    return run.id


async def copies(stored: Stored) -> list[str]:
    return await stored.subjects(stored.names.tasks_stream, stored.names.all_kept)


async def has_no_copies(stored: Stored) -> bool:
    return not await copies(stored)


async def test_a_cancel_leaves_no_copy(client: Client, stored: Stored) -> None:
    run = await client.trigger(nightly, 1, key="monday")
    await client.cancel(run.id)
    assert await copies(stored) == []


async def test_a_worker_puts_back_what_a_client_could_not(
    client: Client, worker: MakeWorker, stored: Stored, interrupted: Callable[[], None]
) -> None:
    run = await cancelled_halfway(client)
    tasks = stored.names.tasks_stream, stored.names.tasks_of_tree(run)
    assert await stored.subjects(*tasks) == []
    interrupted()
    async with worker([nightly], options=SWEEPING) as puts_back:
        await until(lambda: stored.subjects(*tasks))
        await until(stored.is_idle)
    assert puts_back.counts.executed == 0
    trace = await client.describe(run)
    assert (trace.status, trace.input) == ("cancelled", 1)
    assert (trace.triggered or 0) < (trace.ended or 0)
    with pytest.raises(KeyConflict):
        await client.trigger(nightly, 2, key="monday")


async def test_what_was_put_back_is_not_needed_twice(
    client: Client,
    worker: MakeWorker,
    stored: Stored,
    interrupted: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its copy stays for as long as the purge may still be under way that it was made for."""
    run = await cancelled_halfway(client)
    interrupted()
    looked = 0
    look = kept.KeptTasks.look

    async def counted(tasks: kept.KeptTasks) -> None:
        nonlocal looked
        await look(tasks)
        looked += 1

    async def two_more_sweeps() -> None:
        goal = looked + 2
        await until(lambda: _has_reached(lambda: looked, goal))

    monkeypatch.setattr(kept.KeptTasks, "look", counted)
    async with worker([nightly], options=SWEEPING):
        await until(lambda: stored.subjects(stored.names.tasks_stream, stored.names.tasks_of_tree(run)))
        await two_more_sweeps()
        assert await copies(stored) != []
        monkeypatch.setattr(kept, "OLD", 0.0)
        await until(lambda: has_no_copies(stored))
        await until(stored.is_idle)
    assert (await client.describe(run)).input == 1


async def _has_reached(looked: Callable[[], int], goal: int) -> bool:
    return looked() >= goal


async def test_nothing_is_put_back_of_a_deleted_tree(
    client: Client,
    worker: MakeWorker,
    stored: Stored,
    interrupted: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = await cancelled_halfway(client)
    await client.delete(run)
    interrupted()
    monkeypatch.setattr(kept, "OLD", 0.0)
    async with worker([nightly], options=SWEEPING):
        await until(lambda: has_no_copies(stored))
    assert await stored.of_tree(run) == [stored.names.cancelled(run, run)]


async def test_what_was_put_back_while_its_tree_was_deleted_is_removed(
    client: Client, worker: MakeWorker, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client that put it back leaves its copy, by which a worker finds it."""
    run = await client.trigger(nightly, 1, key="monday")
    right = KeptTask.put_back

    async def deleted_meanwhile(task: KeptTask) -> bool:
        await client.delete(run.id)
        return await right(task)

    monkeypatch.setattr(KeptTask, "put_back", deleted_meanwhile)
    await client.cancel(run.id)
    tasks = stored.names.tasks_stream, stored.names.tasks_of_tree(run.id)
    assert await stored.subjects(*tasks) != []
    monkeypatch.setattr(kept, "OLD", 0.0)
    async with worker([nightly], options=SWEEPING):
        await until(lambda: has_no_copies(stored))
    assert await stored.subjects(*tasks) == []


async def test_a_copy_of_no_task_is_removed(
    client: Client, worker: MakeWorker, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    await stored.session.publisher.store(stored.names.kept("a" * 32, "forged"), b"{}")
    with caplog.at_level(logging.ERROR, "jetflow.worker"):
        async with worker([nightly], options=SWEEPING):
            await until(lambda: has_no_copies(stored), patience=PATIENCE)
    assert "is of no task" in caplog.text
