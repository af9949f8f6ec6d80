"""Silence is a fault: what waits for a worker that is not there, and what can never run, is said by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, Context, Worker, workflow
from jetflow.cli.tables import page_of
from jetflow.errors import ResultTimeout, UnknownRun
from tests.endings.stored import PATIENCE, Stored, until
from tests.endings.test_cancelling import text_of

MakeWorker = Callable[..., Worker]
SOON = 0.05


@workflow("kid")
async def kid(number: int) -> int:
    return number


@workflow("par")
async def par(count: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(kid, range(count))))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what has waited for a moment asked about, where it takes five seconds otherwise."""
    for module in (
        "worker.lookout",
        "runs.following",
        "runs.query.child_rows",
        "runs.step_traces",
        "broker.attendance",
    ):
        monkeypatch.setattr(f"jetflow.{module}.WAITED", SOON)


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.mark.usefixtures("impatient")
async def test_a_worker_says_once_that_nobody_runs_what_its_step_waits_for(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """And that somebody does, once there is one."""
    caplog.set_level(logging.INFO)
    async with worker([par]):
        run = await client.trigger(par, 3)

        async def is_said() -> bool:
            return bool(said(caplog, "no worker runs"))

        async def is_over() -> bool:
            return bool(said(caplog, "'kid' is run again"))

        await until(is_said)
        async with worker([kid]):
            await until(is_over)
            assert await run.result(PATIENCE) == 3
    [line] = said(caplog, "no worker runs")
    assert line == (
        f"children of 'par' wait for workflow 'kid', which no worker runs: step 'run' of run {run.id} has spawned 3; "
        "this worker runs par"
    )


@pytest.mark.usefixtures("impatient")
async def test_a_worker_of_one_s_own_is_not_looked_for(client: Client, worker: MakeWorker) -> None:
    """Whoever runs the children of its steps itself asks nobody, and has no task for it."""
    async with worker([par, kid]) as both:
        assert await (await client.trigger(par, 3)).result(PATIENCE) == 3
        assert both._services is not None
        assert both._services.executor.bodies.lookout._task is None


@pytest.mark.usefixtures("impatient")
async def test_who_waits_for_a_result_is_told_once(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that nobody begins, and of one whose children nobody begins."""
    monkeypatch.setattr("jetflow.runs.following.CHECK_EVERY", SOON)
    run = await client.trigger(par, 2)

    async def is_said_of_kid() -> bool:
        return bool(said(caplog, f"run {run.id} waits: no worker runs 'kid'"))

    async def is_said_of_par() -> bool:
        return bool(said(caplog, f"run {run.id} waits: no worker runs 'par'"))

    waiting = asyncio.create_task(run.result(PATIENCE))
    await until(is_said_of_par)
    async with worker([par]):
        another = asyncio.create_task(run.result(PATIENCE))
        await until(is_said_of_kid)
        async with worker([kid]):
            assert [await waiting, await another] == [1, 1]
    assert len([line for line in said(caplog, " waits: ") if run.id in line]) == 2


async def test_a_result_that_does_not_come_in_time_says_what_is_missing(client: Client, worker: MakeWorker) -> None:
    """Whoever gives up learns why; whoever only looks does not ask."""
    run = await client.trigger(kid, 1)
    with pytest.raises(ResultTimeout, match="has not ended within 1 s; no worker runs 'kid'") as late:
        await run.result(1)
    assert late.value.reason == "no worker runs 'kid'"
    with pytest.raises(ResultTimeout, match="it goes on"):
        await run.result(0)
    async with worker([kid]):
        assert await run.result(PATIENCE) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_description_says_what_no_worker_runs(client: Client, worker: MakeWorker) -> None:
    """Of a queued step, and of an open child."""
    queued = await client.trigger(kid, 1)
    await until(lambda: _is_unattended(client, queued.id))
    trace = await client.describe(queued.id)
    assert (trace.status, trace.unattended, trace.steps[0].unattended) == ("queued", ("kid",), True)
    assert text_of(page_of(trace)).count("queued: no worker runs 'kid'") == 2  # the run, and its step
    async with worker([par]):
        run = await client.trigger(par, 2)
        await until(lambda: _is_unattended(client, run.id))
        trace = await client.describe(run.id)
        assert (trace.status, trace.unattended) == ("running", ("kid",))
        assert {child.unattended for child in trace.children} == {True}
        assert text_of(page_of(trace)).count("queued: no worker runs 'kid'") == 2  # each child
        async with worker([kid]):
            await run.result(PATIENCE)
            await queued.result(PATIENCE)
    assert not (await client.describe(run.id)).unattended


async def _is_unattended(client: Client, run: str) -> bool:
    return bool((await client.describe(run)).unattended)


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_is_busy_with_other_things_is_there(client: Client, worker: MakeWorker) -> None:
    """It pulls no tasks while its slots are taken. It answers all the same."""
    began, may_end = asyncio.Event(), asyncio.Event()

    @workflow("long")
    async def long() -> None:
        began.set()
        await may_end.wait()

    async with worker([long, kid], slots=1):
        first = await client.trigger(long)
        await asyncio.wait_for(began.wait(), PATIENCE)
        second = await client.trigger(kid, 1)
        assert not await client._session.attendance.is_missed("kid", ["run"])
        may_end.set()
        await first.result(PATIENCE)
        await second.result(PATIENCE)


async def test_a_worker_in_another_language_is_there_by_its_pull_requests(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """It need not answer: that it waits for tasks is known to the server."""
    async with worker([kid]):
        pass
    run = await client.trigger(kid, 1)
    attendance, connection = client._session.attendance, client._session.connection
    assert await attendance.is_missed("kid", ["run"])
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stored.names.tasks_stream}.kid=run"
    asked: list[Any] = []
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, asked.append)
    connection.send(subject, b'{"batch":2,"expires":30000000000}', reply=inbox)
    await until(lambda: _has_come(asked))
    attendance._asked.clear()
    assert not await attendance.is_missed("kid", ["run"])
    connection.send(asked[0].reply, b"-NAK")
    await connection.unsubscribe(subscription)
    async with worker([kid]):
        assert await run.result(PATIENCE) == 1


async def _has_come(asked: list[Any]) -> bool:
    return bool(asked)


async def test_a_raw_trigger_of_an_unknown_workflow_is_logged_with_near_names(
    client: Client, worker: MakeWorker, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has published it hears nothing else: the run that failed has an id that nobody knows."""
    async with worker([kid]):
        await stored.session.publisher.store(stored.names.inbox_trigger("kit"), b"1")

        async def is_said() -> bool:
            return bool(said(caplog, "of 'kit' failed"))

        await until(is_said)
    [line] = said(caplog, "of 'kit' failed")
    assert "did you mean 'kid'?" in line
    run = line.split("run ")[1].split()[0]
    await until(lambda: _has_failed(client, run))


async def _has_failed(client: Client, run: str) -> bool:
    try:
        return await client.run(run).status() == "failed"
    except UnknownRun:
        return False


# --- runs that are not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, PATIENCE, None])
async def test_the_result_of_a_run_that_never_was(client: Client, timeout: float | None) -> None:
    """Nobody waits for ever for what nobody has asked for."""
    with pytest.raises(UnknownRun):
        await client.run("0" * 32).result(timeout)


@pytest.mark.parametrize("triggered_here", [True, False])
async def test_the_result_of_a_run_that_is_deleted_meanwhile(client: Client, triggered_here: bool) -> None:
    """Whoever waits for it hears that it is gone, as `client.describe` would say."""
    run = await client.trigger(kid, 1)
    mine = run if triggered_here else client.run(run.id)
    waiting = asyncio.create_task(mine.result(PATIENCE))
    await until(lambda: _listens(client))
    await client.delete(run.id)
    with pytest.raises(UnknownRun):
        await waiting


async def _listens(client: Client) -> bool:
    return len(client._session.connection._subscriptions) > 1


async def test_a_result_that_is_there_needs_no_time(client: Client, worker: MakeWorker) -> None:
    """``timeout=0`` returns what is there, and raises when nothing is."""
    run = await client.trigger(kid, 7)
    with pytest.raises(ResultTimeout):
        await run.result(0)
    async with worker([kid]):
        await run.result(PATIENCE)
    assert await run.result(0) == 7
    assert await client.run(run.id, kid).result(timeout=0) == 7
