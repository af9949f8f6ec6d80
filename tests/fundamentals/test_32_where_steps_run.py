"""Workers say what they have, and steps what they require. A step waits for a worker that fits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from patience import PATIENCE, until

from jetflow import Client, InvalidDeclaration, Worker, WorkerOptions, Workflow
from jetflow.errors import UnknownWorker
from jetflow.runs.query.rows import WorkerRow


def labelled(labels: str | dict[str, object]) -> WorkerOptions:
    return WorkerOptions(labels=labels)  # pyright: ignore[reportArgumentType] - of any kind


async def test_a_step_runs_where_its_requirement_holds(client: Client, worker: Callable[..., Worker]) -> None:
    """All its tasks, retries and turns, for a worker that does not fit never asks for one."""

    def steps(where: str) -> Workflow[int, object]:
        own = Workflow("film", input=int)

        @own.step
        async def cut(_: int) -> None: ...

        @own.step(after=cut, requires={"gpu": True})
        async def render(_: int) -> str:
            return where

        return own

    left = worker([steps("left")], options=labelled("disk=large"))
    async with left, worker([steps("right")], options=labelled({"gpu": True, "memory": 64})):
        runs = [await client.trigger(steps(""), number) for number in range(10)]
        assert {await run.result(PATIENCE) for run in runs} == {"right"}


async def test_it_waits_until_there_is_one(client: Client, worker: Callable[..., Worker]) -> None:
    """Whoever looks at the queues sees that nobody pulls it."""
    flow = Workflow("sort", input=int, output=int)

    @flow.step(requires=[["memory", ">=", 32], ["zone", "in", ["a", "b"]]])
    async def sort(number: int) -> int:
        return number

    async def is_seen() -> bool:
        return [(row.waiting, row.pulls) for row in await client.queues()] == [(1, 0)]

    async with worker([flow], options=labelled("memory=16,zone=a")):
        run = await client.trigger(flow, 7)
        await until(is_seen)
        async with worker([flow], options=labelled("memory=32,zone=b")):
            assert await run.result(PATIENCE) == 7


async def test_workers_tell_their_labels(client: Client, worker: Callable[..., Worker]) -> None:
    flow = Workflow("any")
    flow.step(name="step")(lambda: None)
    async with worker([flow], options=labelled("gpu,memory=64,zone=a,spot=false")):
        rows: list[WorkerRow] = []

        async def answers() -> bool:
            rows[:] = await client.workers()
            return bool(rows)

        await until(answers)
        assert rows[0].labels == {"gpu": True, "memory": 64, "zone": "a", "spot": False}


async def test_a_worker_is_drained_by_its_name(client: Client, worker: Callable[..., Worker]) -> None:
    """It ends what it runs, and takes no more; others do. What it had not begun is theirs at once."""
    let_go, begun = asyncio.Event(), asyncio.Event()
    flow = Workflow("slow", input=int, output=str)

    @flow.step
    async def slow(_: int) -> str:
        begun.set()
        await let_go.wait()
        return "the first"

    other = Workflow("slow", input=int, output=str)

    @other.step(name="slow")
    async def fast(_: int) -> str:
        return "the second"

    async with worker([flow], slots=1) as drained:
        first = await client.trigger(flow, 1)
        await begun.wait()
        queued = await client.trigger(flow, 2)
        assert await client.drain(drained.name) == 1
        assert await client.drain(drained.name) == 1  # which changes nothing

        async def is_leaving() -> bool:
            return [row.leaving for row in await client.workers()] == [True]

        await until(is_leaving)
        second = worker([other])
        second.name = "another"
        async with second:
            assert await queued.result(PATIENCE) == "the second"
            let_go.set()
            assert await first.result(PATIENCE) == "the first"
            assert await (await client.trigger(flow, 3)).result(PATIENCE) == "the second"
    with pytest.raises(UnknownWorker, match="no worker 'nobody' answers"):
        await client.drain("nobody")


@pytest.mark.parametrize("requires", ["gpu", 7, [["gpu"]], [["gpu", "~", 1]], {"a.b": 1}, {"": 1}, {"gpu": object()}])
def test_a_requirement_that_is_none_is_refused(requires: object) -> None:
    with pytest.raises(InvalidDeclaration, match="requires"):
        Workflow("flow").step(name="step", requires=requires)(lambda: None)  # type: ignore[call-overload]


@pytest.mark.parametrize("labels", ["a.b=1", "=1", {"gpu": None}, {"gpu": [1]}, {1: "a"}, {"x": float("nan")}, 7])
def test_a_label_that_is_none_is_refused(labels: object) -> None:
    with pytest.raises(ValueError, match="labels"):
        WorkerOptions(labels=labels)  # type: ignore[arg-type]
