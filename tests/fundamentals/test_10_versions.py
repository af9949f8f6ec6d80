"""Code changes while runs are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, Retry, RunFailed, Worker, WorkerOptions, Workflow


class Versions:
    """Two versions of one workflow. The old: first, last. The new has a step between them, and its own last words."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.old = Workflow("report")
        self.new = Workflow("report")

        @self.old.step(name="first")
        async def old_first() -> str:
            self.began.set()
            await self.may_end.wait()
            return "old first"

        @self.old.step(name="last", after="first")
        async def old_last(ctx: Context) -> list[str]:
            return [ctx.output("first"), "old last"]

        @self.new.step(name="first")
        async def new_first() -> str:
            return "new first"

        @self.new.step(name="between", after="first", retry=Retry(attempts=1))
        async def new_between() -> str:
            return "between"

        @self.new.step(name="last", after="between")
        async def new_last(ctx: Context) -> list[str]:
            return [ctx.output("first"), "new last"]


async def test_a_running_run_keeps_its_graph(client: Client, worker: Callable[..., Worker]) -> None:
    """A run goes through the steps that its workflow had when it was triggered, with the code that a worker has now."""
    versions = Versions()
    async with worker([versions.old]) as old:
        run = await client.trigger(versions.old)
        await asyncio.wait_for(versions.began.wait(), PATIENCE)
        async with worker([versions.new]):
            stopping = asyncio.create_task(old.stop())
            versions.may_end.set()
            await stopping
            assert await run.result(PATIENCE) == ["old first", "new last"]
            trace = await client.describe(run.id)
            assert [step.name for step in trace.steps] == ["first", "last"]


async def test_a_new_run_takes_the_newest_graph(client: Client, worker: Callable[..., Worker]) -> None:
    """The version that was declared last counts for those who trigger by name."""
    versions = Versions()
    async with worker([versions.old]):
        pass
    async with worker([versions.new]):
        run = await client.trigger("report")
        assert await run.result(PATIENCE) == ["new first", "new last"]
        assert len((await client.describe(run.id)).steps) == 3


async def test_a_version_that_replaces_another_is_logged(
    client: Client, worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """Two versions on workers side by side are seldom meant. A worker that starts with the newest one says nothing."""
    caplog.set_level("INFO", "jetflow.broker")
    versions = Versions()
    for version in (versions.old, versions.new, versions.new):
        async with worker([version]):
            pass
    told = [record.getMessage() for record in caplog.records if "replaces" in record.getMessage()]
    old, new = versions.old.graph.version, versions.new.graph.version
    assert told == [f"workflow 'report': version {new} replaces {old}"]


async def test_an_old_client_does_not_bring_back_the_old_graph(client: Client, worker: Callable[..., Worker]) -> None:
    """A client that still has the old code triggers the old graph for itself, and changes nothing for others."""
    versions = Versions()
    versions.may_end.set()
    async with worker([versions.new]):
        by_old_code = await client.trigger(versions.old)
        by_name = await client.trigger("report")
        assert await by_old_code.result(PATIENCE) == ["new first", "new last"]
        assert len((await client.describe(by_old_code.id)).steps) == 2
        assert await by_name.result(PATIENCE) == ["new first", "new last"]
        assert len((await client.describe(by_name.id)).steps) == 3


async def test_a_step_that_no_worker_knows_fails_its_run_by_name(client: Client, worker: Callable[..., Worker]) -> None:
    """It is left to other workers for ``unknown_step_grace`` seconds, for one may have the code; then it fails."""
    versions = Versions()
    async with worker([versions.new]):
        pass  # declares the new graph, and with it the step between
    async with worker([versions.old], options=WorkerOptions(unknown_step_grace=0.1)):
        versions.may_end.set()
        run = await client.trigger(versions.new)
        with pytest.raises(RunFailed, match="no worker knows step 'between' of workflow 'report'") as caught:
            await run.result(PATIENCE)
    assert (caught.value.error_type, caught.value.step) == ("UnknownStep", "between")


async def test_a_step_that_one_worker_does_not_know_is_left_to_another(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """In a rolling deploy old workers are given tasks of new steps. That does not count as an attempt of theirs."""
    versions = Versions()
    versions.may_end.set()
    async with worker([versions.new]):
        pass
    async with worker([versions.old], options=WorkerOptions(unknown_step_grace=PATIENCE)) as old:
        run = await client.trigger(versions.new)
        await until(lambda: old.counts.handed_back > 0)
    async with worker([versions.new]):
        assert await run.result(PATIENCE) == ["old first", "new last"]
    assert (await client.describe(run.id)).steps[1].attempts == 1
