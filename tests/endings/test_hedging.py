"""Twins of stragglers, where it matters which of two bodies ends when, and what is stored of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jetflow import Client, Context, Hedge, Retry, Worker, workflow
from jetflow.engine.hedging import twin_of
from jetflow.engine.tasks import StepAddress, Task
from jetflow.runs.tasks import find_first_task
from jetflow.wire.records import header_block, task_headers
from tests.endings.stored import PATIENCE, Stored, until

SOON = Hedge(after=0.6, at_least=0.2)


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def test_a_later_attempt_is_told_that_a_twin_of_an_earlier_one_was_faster(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """The twin is of the first attempt, which fails; it ends the run, and so the second, which was begun meanwhile."""
    fails, goes_on, stopped, retried = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    begun: list[int] = []

    @workflow("ask", idempotent=True, retry=Retry(attempts=3, initial=0.05))
    async def ask(number: int, ctx: Context) -> int:
        if number != 3:
            return number
        begun.append(ctx.attempt)
        if len(begun) == 1:
            await fails.wait()
            raise OSError("no answer")
        if len(begun) == 2:
            fails.set()
            await goes_on.wait()
            return number
        retried.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return 0

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(ask, numbers), hedge=SOON)

    async with worker([ask, ask_all]):
        run = await client.trigger(ask_all, [1, 2, 3])
        await soon(retried)
        goes_on.set()
        assert await run.result(PATIENCE) == [1, 2, 3]
        await soon(stopped)
    assert begun == [1, 1, 2]


async def test_a_loser_leaves_nothing_behind(client: Client, worker: Callable[..., Worker]) -> None:
    """Nothing is stored of the attempt that was stopped, and its task is acknowledged."""
    stored, begun = Stored(client), list[int]()

    @workflow("ask", idempotent=True)
    async def ask(number: int) -> int:
        if number == 3:
            begun.append(number)
            if len(begun) == 1:
                await asyncio.Event().wait()
        return number

    @workflow("ask-all")
    async def ask_all(numbers: list[int], ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(ask, numbers), hedge=SOON)

    async def is_settled() -> bool:
        info = await client.session.connection.api(f"CONSUMER.INFO.{stored.names.tasks_stream}.ask=run")
        return int(info["num_ack_pending"]) == 0 and int(info["num_pending"]) == 0

    async with worker([ask, ask_all]):
        run = await client.trigger(ask_all, [1, 2, 3])
        assert await run.result(PATIENCE) == [1, 2, 3]
        await until(is_settled)
    for child in await stored.subjects(stored.names.records_stream, stored.names.runs_of_join(join_of(run.id))):
        tries = stored.names.attempts_of_run(run.id, child.rpartition(".")[2])
        assert not await stored.subjects(stored.names.records_stream, tries)


async def test_a_twin_is_not_begun_in_vain(client: Client, worker: Callable[..., Worker]) -> None:
    """Not when the run has ended, and not where the step is not declared idempotent by the code that is there."""
    stored, begun, goes_on = Stored(client), list[str](), asyncio.Event()

    @workflow("may", idempotent=True)
    async def may(number: int) -> int:
        begun.append("may")
        return number

    @workflow("may-not")
    async def may_not(number: int) -> int:
        begun.append("may not")
        await goes_on.wait()
        return number

    async def twin(task: Task | None) -> None:
        assert task is not None
        twin = twin_of(task)
        headers = header_block(task_headers(twin, f"{task.run}.{task.step}.{task.turn}.h1"))
        await client.session.publisher.store(stored.names.task_of(twin), task.input, headers)

    async def hold(name: str, open_tasks: int) -> None:
        async def does() -> bool:
            info = await client.session.connection.api(f"CONSUMER.INFO.{stored.names.tasks_stream}.{name}=run")
            return int(info["num_pending"]) == 0 and int(info["num_ack_pending"]) == open_tasks

        await until(does)

    async with worker([may, may_not]):
        ended, open_one = await client.trigger(may, 1), await client.trigger(may_not, 2)
        assert await ended.result(PATIENCE) == 1
        await twin(await find_first_task(client.session, ended.id))
        await twin(await find_first_task(client.session, open_one.id))
        await hold("may", 0)
        await hold("may-not", 1)
        goes_on.set()
        assert await open_one.result(PATIENCE) == 2
    assert sorted(begun) == ["may", "may not"]


def join_of(run: str) -> StepAddress:
    return StepAddress(run, run, "run")
