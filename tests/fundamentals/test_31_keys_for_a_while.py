"""A key may stand for a run for a while only: until it has ended, or for some time. Then it stands for another one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from patience import PATIENCE, until

from jetflow import (
    Client,
    InvalidDeclaration,
    InvalidInput,
    NonRetryable,
    RunFailed,
    Running,
    Worker,
    Workflow,
    workflow,
)


class Gate:
    """Holds runs up, and counts them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.began: Counter[object] = Counter()
        self.broken = False


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def sync_tenant(gate: Gate) -> Workflow[str, str]:
    @workflow("sync-tenant")
    async def sync_tenant(what: str) -> str:
        gate.began[what] += 1
        if gate.broken:
            raise NonRetryable("broken")
        await gate.open.wait()
        return what

    return sync_tenant


async def test_a_key_stands_for_a_run_until_that_has_ended(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """Whoever triggers meanwhile finds the run that goes on, whatever its input is."""
    async with worker([sync_tenant]):
        first = await client.trigger(sync_tenant, "monday", key="acme", unless=Running)
        second = await client.trigger(sync_tenant, "tuesday", key="acme", unless=Running)
        other = await client.trigger(sync_tenant, "monday", key="other", unless=Running)
        assert (first.created, second.created, other.created) == (True, False, True)
        assert second.id == first.id != other.id
        gate.open.set()
        assert await second.result(PATIENCE) == "monday"
        third = await client.trigger(sync_tenant, "wednesday", key="acme", unless=Running)
        assert third.created
        assert await third.result(PATIENCE) == "wednesday"
        await other.result(PATIENCE)


async def test_or_for_some_time(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """From when the run was asked for that it stands for; those that find it make that no longer."""
    gate.open.set()
    async with worker([sync_tenant]):
        runs = [await client.trigger(sync_tenant, "a", key="acme", within=timedelta(seconds=1)) for _ in range(3)]
        assert [run.created for run in runs] == [True, False, False]
        await runs[0].result(PATIENCE)
        await asyncio.sleep(1.1)
        later = await client.trigger(sync_tenant, "a", key="acme", within=1)
        assert later.created
        assert await later.result(PATIENCE) == "a"


async def test_many_at_once_are_one(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """In bulk as well: each key has one run that goes on."""
    async with worker([sync_tenant]):
        runs = await client.trigger_many(
            sync_tenant, [f"{n}" for n in range(20)], key=lambda one: f"k{int(one) % 2}", unless=Running
        )
        assert sum(bool(run.created) for run in runs) == len({run.id for run in runs}) == 2
        gate.open.set()
        for run in runs:
            await run.result(PATIENCE)
        assert sum(gate.began.values()) == 2


async def test_events_too(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """The event is stored, and starts no run while the key of its payload stands for one."""
    sync_tenant.on("tenant.changed", run_key=lambda what: what[:4], unless=Running)
    async with worker([sync_tenant]):
        events = [await client.publish("tenant.changed", what) for what in ("acme 1", "acme 2", "beta 1")]

        async def began() -> bool:
            return sum(gate.began.values()) == 2

        await until(began)
        await asyncio.sleep(0.3)
        started = [await client.runs_of_event(event) for event in events]
        assert sorted(map(len, started)) == [0, 1, 1]
        assert len(started[2]) == 1
        gate.open.set()
        for one in started:
            for run_id in one.values():
                await client.run(run_id).result(PATIENCE)


async def test_what_has_failed_may_be_run_again_by_its_key(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """Else a key that has failed stays so: it is one run for good."""
    gate.open.set()
    gate.broken = True
    async with worker([sync_tenant]):
        run = await client.trigger(sync_tenant, "a", key="nightly", if_failed="rerun")
        with pytest.raises(RunFailed):
            await run.result(PATIENCE)
        gate.broken = False
        same = await client.trigger(sync_tenant, "a", key="nightly")
        assert (same.id, same.created) == (run.id, False)
        again = await client.trigger(sync_tenant, "a", key="nightly", if_failed="rerun")
        assert again.created
        assert again.id != run.id
        assert await again.result(PATIENCE) == "a"
        found = await client.trigger(sync_tenant, "a", key="nightly", if_failed="rerun")
        assert (found.id, found.created) == (again.id, False)


async def test_an_event_has_run_again_what_has_failed(
    client: Client, worker: Callable[..., Worker], gate: Gate, sync_tenant: Workflow[str, str]
) -> None:
    """Within the time that a key stands for its run. What has succeeded, or goes on, stays as it is."""
    sync_tenant.on("tenant.changed", run_key=lambda what: what[:4], within=60, if_failed="rerun")
    gate.open.set()
    gate.broken = True
    async with worker([sync_tenant]):
        first = await client.publish("tenant.changed", "acme 1")

        async def is_started() -> bool:
            return bool(await client.runs_of_event(first))

        await until(is_started)
        [run] = (await client.runs_of_event(first)).values()
        with pytest.raises(RunFailed):
            await client.run(run).result(PATIENCE)
        gate.broken = False
        for what in ("acme 2", "acme 3", "acme 4"):
            await client.publish("tenant.changed", what)

        async def is_run_again() -> bool:
            return len(await client.chain(run)) == 2

        await until(is_run_again)
        again = await client.newest(run)
        assert await again.result(PATIENCE) == "acme 1"
        await client.publish("tenant.changed", "acme 5")
        await asyncio.sleep(0.3)
        assert len(await client.chain(run)) == 2
    with pytest.raises(InvalidDeclaration, match="stands for its run within="):
        Workflow("other").on("tenant.changed", run_key=str, unless=Running, if_failed="rerun")


async def test_what_makes_no_sense_is_refused(client: Client, sync_tenant: Workflow[str, str]) -> None:
    with pytest.raises(InvalidInput, match="give one"):
        await client.trigger(sync_tenant, "a", unless=Running)
    with pytest.raises(InvalidInput, match="more than 0 s"):
        await client.trigger(sync_tenant, "a", key="a", within=0)
    with pytest.raises(InvalidInput, match="begin later"):
        await client.trigger(sync_tenant, "a", key="a", within=1, delay=1)
    with pytest.raises(InvalidInput, match="without unless"):
        await client.trigger(sync_tenant, "a", key="a", within=1, if_failed="rerun")
    with pytest.raises(InvalidInput, match="there is unless="):
        await client.trigger(sync_tenant, "a", key="a", unless="running")  # type: ignore[call-overload]
