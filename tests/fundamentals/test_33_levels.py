"""Levels: urgent runs begin before others that wait for slots, and no level waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidDeclaration, Limit, Retry, RunFailed, Worker, Workflow, workflow
from jetflow.engine.levels import EVERY
from jetflow.errors import InvalidInput, UnknownLevel

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
LEVELS = ("urgent", "normal", "low")


class Diary:
    """Which runs have begun, and at which level. The first one waits until the gate is opened, and holds its slot."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None]] = []
        self.gate = asyncio.Event()

    async def write(self, name: str, ctx: Context, seconds: float = 0.0) -> str | None:
        self.begun.append((name, ctx.level))
        if name == "first":
            await self.gate.wait()
        await asyncio.sleep(seconds)
        return ctx.level

    @property
    def levels(self) -> list[str | None]:
        return [level for name, level in self.begun if name != "first"]


def with_levels(diary: Diary, *, seconds: float = 0.0, limits: Iterable[Limit] = ()) -> Workflow[str, str | None]:
    @workflow("letters", retry=ONCE, levels=LEVELS, default_level="normal", limits=limits)
    async def letters(name: str, ctx: Context) -> str | None:
        return await diary.write(name, ctx, seconds)

    return letters


async def standing(client: Client, queue: str, waiting: int) -> None:
    """Wait until so many tasks are in a queue, or with workers."""

    async def stands() -> bool:
        rows = {row.step: row for row in await client.queues()}
        return queue in rows and rows[queue].waiting + rows[queue].held == waiting

    await until(stands)


async def busy(client: Client, diary: Diary, flow: Workflow[str, Any]) -> None:
    """Have the only slot held."""
    await client.trigger(flow, "first")
    await until(lambda: len(diary.begun) == 1)


async def test_urgent_ones_begin_first_and_equals_in_their_order(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary, seconds=0.02)
    async with worker([flow], slots=1):
        await busy(client, diary, flow)
        runs = [
            await client.trigger(flow, f"{level} {number}", level=level)
            for level in ("low", "normal", "urgent")
            for number in range(4)
        ]
        for level in LEVELS:
            await standing(client, f"run={level}", 4 if level != "normal" else 5)
        diary.gate.set()
        assert [await run.result(timeout=PATIENCE) for run in runs] == ["low"] * 4 + ["normal"] * 4 + ["urgent"] * 4
    # What was there when the slot came free begins in this order; each level in its own.
    assert diary.levels == ["urgent"] * 4 + ["normal"] * 4 + ["low"] * 4
    for level in LEVELS:
        assert [name for name, its in diary.begun if its == level and name != "first"] == [
            f"{level} {n}" for n in range(4)
        ]


async def test_no_level_starves(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary, seconds=0.005)
    async with worker([flow], slots=1):
        await busy(client, diary, flow)
        low = await client.trigger_many(flow, ["a", "b", "c"], level="low")
        await client.trigger_many(flow, [f"urgent {number}" for number in range(6 * EVERY)], level="urgent")
        await standing(client, "run=urgent", 6 * EVERY)
        await standing(client, "run=low", 3)
        diary.gate.set()
        for run in low:
            await run.result(timeout=PATIENCE)
        urgent = Counter(diary.levels)["urgent"]
        assert urgent < 6 * EVERY, "urgent ones were left when the low ones had ended"
        await standing(client, "run=urgent", 0)


async def test_the_level_is_that_of_the_parent_unless_it_is_given(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary)

    @workflow("plain", retry=ONCE)
    async def plain(name: str, ctx: Context) -> list[str | None]:
        """Declares no levels: what it is told, it passes on."""
        inherited = await ctx.spawn_workflow(flow, f"{name} inherited")
        given = await ctx.spawn_workflow(flow, f"{name} given", level="low")
        many = await ctx.spawn_workflows(flow, [f"{name} many"], level="urgent")
        return [ctx.level, await inherited.result(), await given.result(), *(await ctx.join(many))]

    @workflow("above", retry=ONCE, levels=("urgent", "later"))
    async def above(name: str, ctx: Context) -> list[str | None]:
        return await (await ctx.spawn_workflow(plain, name)).result()

    async with worker([flow, plain, above]):
        run = await client.trigger(above, "x", level="urgent")
        assert await run.result(timeout=PATIENCE) == ["urgent", "urgent", "low", "urgent"]
        other = await client.trigger(above, "y")  # its own default, which the child below does not know
        assert await other.result(timeout=PATIENCE) == ["later", "normal", "low", "urgent"]
        assert (await client.describe(run.id)).level == "urgent"


async def test_several_steps_retries_waits_and_failures_stay_at_their_level(client: Client, worker: MakeWorker) -> None:
    seen: list[tuple[str, str | None]] = []
    flow: Workflow[Any, Any] = Workflow("steps", retry=Retry(attempts=2, initial=0.01), levels=LEVELS)

    @flow.step
    async def first(_: int, ctx: Context) -> None:
        seen.append(("first", ctx.level))
        if ctx.attempt == 1:
            raise ValueError("once more")

    @flow.step
    async def second(_: int, ctx: Context) -> None:
        seen.append(("second", ctx.level))

    @flow.step(after=[first, second])
    async def third(number: int, ctx: Context) -> int:
        seen.append(("third", ctx.level))
        await ctx.sleep(0.05)
        if number == 0:
            raise ZeroDivisionError
        return number

    @flow.on_failure
    async def failed(_: int, ctx: Context) -> None:
        seen.append(("failed", ctx.level))

    async with worker([flow]):
        assert await (await client.trigger(flow, 1, level="urgent")).result(timeout=PATIENCE) == 1
        assert {level for _, level in seen} == {"urgent"}
        assert {step for step, _ in seen} == {"first", "second", "third"}
        seen.clear()
        with pytest.raises(RunFailed):
            await (await client.trigger(flow, 0, level="urgent")).result(timeout=PATIENCE)
        await until(lambda: ("failed", "urgent") in seen)


async def test_one_key_at_two_levels_is_one_run(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary)
    first = await client.trigger(flow, "a", key="k", level="low")
    second = await client.trigger(flow, "a", key="k", level="urgent")
    assert (first.id, first.created, second.created) == (second.id, True, False)
    async with worker([flow]):
        assert await second.result(timeout=PATIENCE) == "low", "the first one counts"
    assert diary.begun == [("a", "low")]


async def test_schedules_events_and_later_runs_have_levels(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary)
    flow.on("order.paid", key=None)

    async with worker([flow]):
        await client.schedules.create("nightly", flow, "tick", cron="0 3 * * *", level="low")
        assert (await client.schedules.get("nightly")).level == "low"
        assert await (await client.schedules.trigger("nightly")).result(timeout=PATIENCE) == "low"
        await client.schedules.update("nightly", level="urgent")
        assert await (await client.schedules.trigger("nightly")).result(timeout=PATIENCE) == "urgent"
        with pytest.raises(UnknownLevel):
            await client.schedules.update("nightly", level="none")
        await client.schedules.delete("nightly")

        await client.publish("order.paid", "event", level="low")
        await client.publish("order.paid", "other event", level="unknown")  # nobody knows who takes it
        await until(lambda: ("event", "low") in diary.begun and ("other event", "normal") in diary.begun)

        later = await client.trigger(flow, "later", delay=0.2, level="urgent")
        assert await later.result(timeout=PATIENCE) == "urgent"
        put_off = await client.trigger(flow, "put off", debounce=0.2, level="urgent")
        assert await put_off.result(timeout=PATIENCE) == "urgent"


async def test_limits_and_levels_together(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary, limits=[Limit("letters", max=1)])
    async with worker([flow]):
        runs = [await client.trigger(flow, f"{level}", level=level) for level in LEVELS]
        assert [await run.result(timeout=PATIENCE) for run in runs] == list(LEVELS)
    assert diary.levels == list(LEVELS), "in a limit's queue they keep their order"


async def test_without_levels_nothing_is_different(client: Client, worker: MakeWorker) -> None:
    @workflow("plain")
    async def plain(number: int) -> int:
        return number

    async with worker([plain]):
        run = await client.trigger(plain, 1)
        assert await run.result(timeout=PATIENCE) == 1
        assert [row.step for row in await client.queues()] == ["run"]
        messages = [one async for one in client._session.store.pages(client._session.names.tasks_stream, "jf.>")]
    [[task]] = messages
    assert task.subject.endswith(f".task.plain.run.{run.id}.-.{run.id}.0")
    assert "Jf-Level" not in task.headers


async def test_an_unknown_level_is_refused_where_it_is_given(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary)

    @workflow("plain", retry=ONCE)
    async def plain(name: str, ctx: Context) -> None:
        await ctx.spawn_workflow(flow, name, level="hurry")

    with pytest.raises(UnknownLevel, match="'hurry': the workflow has the levels 'urgent', 'normal', 'low'"):
        await client.trigger(flow, "a", level="hurry")
    with pytest.raises(UnknownLevel, match="declares no levels"):
        await client.trigger(plain, "a", level="urgent")
    with pytest.raises(UnknownLevel):
        await client.trigger_many(flow, ["a"], level="hurry")
    with pytest.raises(InvalidInput, match="is a name"):
        await client.publish("order.paid", level="very urgent")
    async with worker([flow, plain]):
        with pytest.raises(RunFailed, match="UnknownLevel"):
            await (await client.trigger(plain, "a")).result(timeout=PATIENCE)


async def test_pausing_a_step_pauses_all_of_its_levels(client: Client, worker: MakeWorker) -> None:
    diary = Diary()
    flow = with_levels(diary)
    async with worker([flow]):
        await until(lambda: _has_queues(client, 5))
        assert await client.pause("letters", "run=low") == ["run=low"]
        assert sorted(await client.pause("letters", "run")) == ["run", "run=low", "run=normal", "run=urgent"]
        run = await client.trigger(flow, "a", level="urgent")
        await standing(client, "run=urgent", 1)
        assert diary.begun == []
        await client.resume("letters")
        assert await run.result(timeout=PATIENCE) == "urgent"


async def _has_queues(client: Client, count: int) -> bool:
    return len(await client.queues()) == count


def test_what_cannot_be_declared() -> None:
    async def step(number: int) -> int:
        return number

    for options, why in (
        ({"levels": "urgent"}, "one text"),
        ({"levels": ("urgent",)}, "from 2 to 8"),
        ({"levels": ("a", "a")}, "different names"),
        ({"levels": ("a", "b c")}, "not a valid name"),
        ({"levels": ("a", "b"), "default_level": "c"}, "none of"),
        ({"default_level": "c"}, "no levels"),
        ({"levels": ("a", "b"), "max_running": 3}, "max=3"),
    ):
        with pytest.raises(InvalidDeclaration, match=why):
            workflow("wrong", **options)(step)  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownArgumentType]
    flow = Workflow("wrong", levels=("a", "b"))
    with pytest.raises(InvalidDeclaration, match="'c'"):
        flow.schedule("0 3 * * *", level="c")
