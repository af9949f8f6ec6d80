"""Reruns in trouble: trees, values that are large or gone, what is shared, detached, cancelled, deleted or changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, Context, JoinPolicy, NonRetryable, Run, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.engine.elders import MOST_ELDERS, read_elders, read_rerun
from jetflow.errors import AlreadyRerun, InputLost, InvalidInput, RecentlyDeleted, UnknownRun
from jetflow.runs.cancelling import purge
from tests.endings.stored import until

PATIENCE = 20.0


class Breakable:
    """Which inputs fail, and which bodies have run."""

    def __init__(self) -> None:
        self.broken: set[object] = set()
        self.bodies: Counter[object] = Counter()

    def run(self, what: object) -> None:
        self.bodies[what] += 1
        if what in self.broken:
            raise NonRetryable(f"{what} is broken")

    def mend(self) -> None:
        self.broken, self.bodies = set(), Counter()


@pytest.fixture
def world() -> Breakable:
    return Breakable()


@pytest.fixture
def square(world: Breakable) -> Workflow[int, int]:
    @workflow("square")
    async def square(number: int) -> int:
        world.run(number)
        return number * number

    return square


async def failed(run: Run[Any]) -> None:
    with contextlib.suppress(RunFailed):
        await run.result(PATIENCE)
        pytest.fail("it has succeeded")


async def test_in_a_tree_only_the_broken_leaf_and_those_above_it_run_again(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    @workflow("branch")
    async def branch(first: int, ctx: Context) -> int:
        world.run(f"branch {first}")
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(first, first + 5))))

    @workflow("trunk")
    async def trunk(_: None, ctx: Context) -> int:
        world.run("trunk")
        return sum(await ctx.join(await ctx.spawn_workflows(branch, range(0, 25, 5))))

    world.broken = {12}
    async with worker([trunk, branch, square]):
        run = await client.trigger(trunk)
        await failed(run)
        world.mend()
        again = await client.rerun(run)
        assert await again.result(PATIENCE) == sum(n * n for n in range(25))
        assert world.bodies == {"trunk": 1, "branch 10": 1, 12: 1}


async def test_a_join_at_the_boundary_is_made_of_both(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    flow = Workflow("boundary", input=int, output=int)

    @flow.step
    async def scatter(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(square, range(count), key=str)

    @flow.step(after=[scatter])
    async def gather(count: int, ctx: Context) -> int:
        return sum([child.output async for child in ctx.children(scatter, square)])

    world.broken = {1, 4}
    async with worker([flow, square]):
        run = await client.trigger(flow, 6)
        await failed(run)
        world.mend()
        assert await (await client.rerun(run)).result(PATIENCE) == 55
        assert world.bodies == {1: 1, 4: 1}


async def test_a_parked_rerun_goes_on(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    go = asyncio.Event()

    @workflow("slow-square")
    async def slow(number: int) -> int:
        if number in world.broken:
            raise NonRetryable("broken")
        if world.bodies["wait"]:
            await go.wait()
        world.bodies[number] += 1
        return number

    @workflow("sums")
    async def sums(count: int, ctx: Context) -> int:
        world.bodies["sums"] += 1
        return sum(await ctx.join(await ctx.spawn_workflows(slow, range(count))))

    world.broken = {2}
    async with worker([sums, slow], options=WorkerOptions(park_after=0.2)):
        run = await client.trigger(sums, 5)
        await failed(run)
        world.mend()
        world.bodies["wait"] = 1
        again = await client.rerun(run)

        async def waits() -> bool:
            return (await client.describe(again.id)).steps[0].status == "waiting"

        await until(waits)
        go.set()
        assert await again.result(PATIENCE) == 10
        assert world.bodies[2] == 1
        assert world.bodies[1] == 0


async def test_large_values_stand_by_themselves(
    client: Client, worker: Callable[..., Worker], world: Breakable
) -> None:
    """Inputs and outputs that travel by reference are stored anew: the old run may be deleted."""

    @workflow("heavy")
    async def heavy(number: int) -> str:
        world.run(number)
        return "x" * 400_000

    flow = Workflow("heavy-steps", input=str, output=int)

    @flow.step
    async def load(text: str, ctx: Context) -> str:
        world.run("load")
        await ctx.join(await ctx.spawn_workflows(heavy, range(2)))
        return text

    @flow.step(after=[load])
    async def weigh(text: str, ctx: Context) -> int:
        world.run("weigh")
        children = [child.output async for child in ctx.children(load, heavy)]
        return len(ctx.output(load)) + sum(map(len, children))

    world.broken = {"weigh"}
    async with worker([flow, heavy]):
        run = await client.trigger(flow, "y" * 300_000)
        await failed(run)
        second = await client.rerun(run)
        await failed(second)
        await client.delete(run.id)
        world.mend()
        assert await (await client.rerun(second)).result(PATIENCE) == 1_100_000
        assert world.bodies == {"weigh": 1}


async def test_what_is_gone_of_the_elder_runs_anew(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    @workflow("sums")
    async def sums(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))

    world.broken = {1}
    async with worker([sums, square]):
        run = await client.trigger(sums, 4)
        await failed(run)
        world.mend()
    again = await client.rerun(run)
    await client.delete(run.id)
    async with worker([sums, square]):
        assert await again.result(PATIENCE) == 14
        assert world.bodies == dict.fromkeys(range(4), 1)


async def test_a_lost_value_of_a_child_runs_it_anew(
    client: Client, worker: Callable[..., Worker], world: Breakable
) -> None:
    @workflow("heavy")
    async def heavy(number: int) -> str:
        world.run(number)
        return str(number) * 400_000

    @workflow("weights")
    async def weights(count: int, ctx: Context) -> int:
        return sum(map(len, await ctx.join(await ctx.spawn_workflows(heavy, range(count)))))

    world.broken = {1}
    async with worker([weights, heavy]):
        run = await client.trigger(weights, 3)
        await failed(run)
        world.mend()
        session = client._session
        await purge(session, session.names.values_stream, session.names.values_of_tree(run.id))
        assert await (await client.rerun(run)).result(PATIENCE) == 1_200_000
        assert world.bodies == {0: 1, 1: 1, 2: 1}


async def test_a_key_that_has_another_input_now_runs(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    """The old outcome is of another input: it is not taken for it in silence."""
    factor = [1]

    @workflow("scaled")
    async def scaled(count: int, ctx: Context) -> int:
        numbers = [number * factor[0] for number in range(count)]
        return sum(await ctx.join(await ctx.spawn_workflows(square, numbers, key=lambda n: str(n // factor[0]))))

    world.broken = {1}
    async with worker([scaled, square]):
        run = await client.trigger(scaled, 3)
        await failed(run)
        world.mend()
        factor[0] = 10
        assert await (await client.rerun(run)).result(PATIENCE) == 500
        assert world.bodies == {10: 1, 20: 1}  # 0 is 0


async def test_steps_that_share_children(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    flow = Workflow("pair", input=int, output=dict[str, int])

    @flow.step
    async def left(count: int, ctx: Context) -> int:
        total = sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))
        world.run("left")
        return total

    @flow.step
    async def right(count: int, ctx: Context) -> int:
        total = sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))
        world.run("right")
        return total

    world.broken = {"right"}
    async with worker([flow, square]):
        run = await client.trigger(flow, 6)
        await failed(run)
        world.mend()
        assert await (await client.rerun(run)).result(PATIENCE) == {"left": 55, "right": 55}
        assert world.bodies == {"right": 1}


async def test_what_was_detached_is_not_started_again(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    @workflow("starter")
    async def starter(_: None, ctx: Context) -> str:
        child = await ctx.spawn_workflow(square, 3, detached=True)
        world.run("starter")
        return child.id

    world.broken = {"starter"}
    async with worker([starter, square]):
        run = await client.trigger(starter)
        await failed(run)
        assert world.bodies[3] == 1 or await asyncio.sleep(0.5) is None
        world.mend()
        child = await (await client.rerun(run)).result(PATIENCE)
        assert await client.run(child).result(PATIENCE) == 9
        assert not world.bodies[3]


async def test_a_cancelled_run_is_run_again(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    """What had ended before stays; its tasks were removed with the tree, its outcomes were not."""
    ended = asyncio.Event()

    @workflow("half")
    async def half(count: int, ctx: Context) -> int:
        children = await ctx.spawn_workflows(square, range(count), key=str)
        total = sum(await ctx.join(children))
        if not ended.is_set():
            ended.set()
            await asyncio.sleep(60)
        return total

    async with worker([half, square]):
        run = await client.trigger(half, 4)
        await asyncio.wait_for(ended.wait(), PATIENCE)
        await client.cancel(run.id)
        world.mend()
        assert await (await client.rerun(run)).result(PATIENCE) == 14
        assert not world.bodies


async def test_a_tolerated_failure_stays_tolerated(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    """A step that has succeeded is adopted with those of its children that have not."""
    flow = Workflow("tolerant", input=int, output=int)

    @flow.step(join=JoinPolicy.tolerate(1))
    async def scatter(count: int, ctx: Context) -> None:
        await ctx.spawn_workflows(square, range(count))

    @flow.step(after=[scatter])
    async def gather(count: int, ctx: Context) -> int:
        world.run("gather")
        ended = [child async for child in ctx.children(scatter, square)]
        return sum(child.status == "failed" for child in ended) * 100 + len(ended)

    world.broken = {2, "gather"}
    async with worker([flow, square]):
        run = await client.trigger(flow, 5)
        await failed(run)
        world.mend()
        again = await client.rerun(run)
        assert await again.result(PATIENCE) == 105
        assert world.bodies == {"gather": 1}
        assert (await client.totals(again.id)).totals.failed == 1


async def test_what_a_rerun_did_not_come_to_is_found_in_the_one_before(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    @workflow("sums")
    async def sums(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))

    world.broken = {1}
    async with worker([sums, square]):
        run = await client.trigger(sums, 4)
        await failed(run)
    world.mend()
    second = await client.rerun(run)
    await client.cancel(second.id)
    third = await client.rerun(second)
    async with worker([sums, square]):
        assert await third.result(PATIENCE) == 14
    assert world.bodies == {1: 1}


async def test_a_child_is_run_again_alone(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    @workflow("branch")
    async def branch(count: int, ctx: Context) -> int:
        return sum(await ctx.join(await ctx.spawn_workflows(square, range(count))))

    @workflow("trunk")
    async def trunk(_: None, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(branch, 4)).result()

    world.broken = {2}
    async with worker([trunk, branch, square]):
        run = await client.trigger(trunk)
        await failed(run)
        [child] = (await client.children(run.id)).items
        world.mend()
        again = await client.rerun(child.id)
        assert await again.result(PATIENCE) == 14
        assert world.bodies == {2: 1}
        assert (await client.describe(again.id)).parent is None


async def test_a_run_without_its_input_is_not_run_again(
    client: Client, worker: Callable[..., Worker], world: Breakable
) -> None:
    @workflow("heavy")
    async def heavy(text: str) -> int:
        raise NonRetryable("broken")

    async with worker([heavy]):
        run = await client.trigger(heavy, "x" * 400_000)
        await failed(run)
    session = client._session
    await purge(session, session.names.values_stream, session.names.values_of_tree(run.id))
    with pytest.raises(InputLost):
        await client.rerun(run)


async def test_a_deleted_run_is_not_run_again(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    world.broken = {1}
    async with worker([square]):
        run = await client.trigger(square, 1)
        await failed(run)
        again = await client.rerun(run)
        await failed(again)
        await client.delete(again.id)
        with pytest.raises(RecentlyDeleted):
            await client.rerun(run)
        await client.delete(run.id)
        with pytest.raises(RecentlyDeleted):
            await client.rerun(run)
    with pytest.raises(UnknownRun):
        await client.rerun("0" * 32)


async def test_what_cannot_be_asked_for_is_refused_by_name(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    world.broken = {1}
    async with worker([square]):
        run = await client.trigger(square, 1)
        await failed(run)
        with pytest.raises(InvalidInput, match="no such step"):
            await client.rerun(run, from_step="cube")
        with pytest.raises(InvalidInput, match="one of them"):
            await client.rerun(run, only="all", from_step="square")
        with pytest.raises(InvalidInput, match="'failed' or of 'all'"):
            await client.rerun(run, only="some")  # type: ignore[call-overload]


async def test_many_ask_at_once_and_one_run_comes_of_it(
    client: Client, worker: Callable[..., Worker], world: Breakable, square: Workflow[int, int]
) -> None:
    world.broken = {1}
    async with worker([square]):
        run = await client.trigger(square, 1)
        await failed(run)
        world.mend()
        again = await asyncio.gather(*(client.rerun(run) for _ in range(20)))
        assert len({one.id for one in again}) == 1
        assert sum(bool(one.created) for one in again) == 1
        assert await again[0].result(PATIENCE) == 1
        assert world.bodies == {1: 1}
    mixed = await asyncio.gather(
        client.rerun(again[0], only="all"), client.rerun(run, only="all"), return_exceptions=True
    )
    assert isinstance(mixed[1], AlreadyRerun)
    assert isinstance(mixed[0], Run)
    await client.cancel(mixed[0].id)


def test_headers_of_reruns_that_make_no_sense_are_refused() -> None:
    one = f"{'0' * 32}.{'1' * 32}"
    assert len(read_elders(",".join([one] * MOST_ELDERS))) == MOST_ELDERS
    for text in ("", "x", one + ",", ",".join([one] * (MOST_ELDERS + 1)), one.upper().replace("0", "A")):
        with pytest.raises(ValueError, match="no elders"):
            read_elders(text)
    for text in ("", one, f"{'0' * 32}.0.failed", f"{'0' * 32}.1.some", f"{'0' * 32}.1.from-"):
        with pytest.raises(ValueError, match="no rerun"):
            read_rerun(text)
    assert read_rerun(f"{'0' * 32}.1.from-scan") is not None
