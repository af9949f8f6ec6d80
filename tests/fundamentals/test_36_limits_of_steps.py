"""Limits of steps: how many runs at once do one step, by keys, over all workers; the steps before it do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from meter import Meter
from patience import PATIENCE, until

from jetflow import (
    Batch,
    Client,
    Context,
    InvalidDeclaration,
    Limit,
    RateLimit,
    Retry,
    Run,
    RunFailed,
    Signal,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.runs.trace import StepTrace

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


class Page(msgspec.Struct, frozen=True):
    site: str
    number: int = 0


def crawling(meter: Meter, *limits: Limit, name: str = "crawl", **options: Any) -> Workflow[Page, Any]:
    flow = Workflow(name, input=Page, retry=ONCE, **options)

    @flow.step
    async def prepare(page: Page) -> int:
        meter.inside["prepared"] += 1
        return page.number

    @flow.step(after=prepare, limits=limits)
    async def fetch(page: Page) -> int:
        await meter.pass_through(page.site, page.number)
        return page.number

    @flow.step(after=fetch)
    async def store(page: Page) -> int:
        return page.number

    return flow


def of_site(most: int = 1) -> Limit:
    return Limit("site", key=lambda page: page.site, max=most)


async def all_of(runs: list[Run[Any]]) -> list[Any]:
    return [await run.result(timeout=PATIENCE) for run in runs]


async def outcomes(runs: list[Run[Any]]) -> list[str]:
    ended = await asyncio.gather(*(run.result(timeout=PATIENCE) for run in runs), return_exceptions=True)
    return [one.status if isinstance(one, RunFailed) else "succeeded" for one in ended]


async def standing(client: Client, limit: str, *, running: int, waiting: int) -> None:
    async def stands() -> bool:
        row = await client.limits.get(limit)
        return (row.running, row.waiting) == (running, waiting)

    await until(stands)


async def fetching(client: Client, run: Run[Any]) -> StepTrace:
    return next(step for step in (await client.describe(run.id)).steps if step.name == "fetch")


async def nobody_stands(client: Client, limit: str) -> None:
    await standing(client, limit, running=0, waiting=0)


async def test_no_more_of_a_key_are_in_the_step_than_may(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    flow = crawling(meter, of_site(2))
    async with worker([flow]), worker([flow]):
        runs = [await client.trigger(flow, Page(site, n)) for n in range(8) for site in ("a", "b")]
        assert await all_of(runs) == [n for n in range(8) for _ in "ab"]
        await nobody_stands(client, "site")
    assert (meter.most["a"], meter.most["b"]) == (2, 2)


async def test_they_wait_in_their_order_and_the_steps_before_do_not(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = crawling(meter, of_site())
    async with worker([flow], slots=2):  # who waits holds no slot
        runs = []
        for n in range(6):
            runs.append(await client.trigger(flow, Page("a", n)))
            await standing(client, "site", running=1, waiting=n)
        assert meter.inside["prepared"] == 6
        assert await (await client.trigger(flow, Page("b", 100))).status() in ("queued", "running")
        meter.gate.set()
        assert await all_of(runs) == list(range(6))
        await nobody_stands(client, "site")
    assert [number for number in meter.order if number < 100] == list(range(6))


async def test_a_step_keeps_its_place_while_it_waits_for_children_and_retries(
    client: Client, worker: MakeWorker
) -> None:
    meter = Meter()

    @workflow("child", retry=ONCE)
    async def child(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    flow = Workflow("parent", input=int)

    @flow.step
    async def before(number: int) -> int:
        return number

    @flow.step(after=before, retry=Retry(attempts=2, initial=0.05), limits=[Limit("one", max=1)])
    async def within(number: int, ctx: Context) -> int:
        meter.inside["p"] += ctx.attempt == 1
        meter.most["p"] = max(meter.most["p"], meter.inside["p"])
        (found,) = await ctx.join(await ctx.spawn_workflows(child, [number]))
        await ctx.sleep(0.3)
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        meter.inside["p"] -= 1
        return found

    async with worker([flow, child]):
        runs = [await client.trigger(flow, n) for n in range(3)]
        assert await all_of(runs) == [0, 1, 2]
        await nobody_stands(client, "one")
    assert meter.most["p"] == 1


async def test_children_at_its_boundary_count_as_well(client: Client, worker: MakeWorker) -> None:
    meter = Meter()

    @workflow("below", retry=ONCE)
    async def below(number: int) -> int:
        await meter.pass_through("below", number)
        return number

    flow = Workflow("spawner", input=int, retry=ONCE)

    @flow.step
    async def before(number: int) -> int:
        return number

    @flow.step(after=before, limits=[Limit("one", max=1)])
    async def spawns(number: int, ctx: Context) -> int:
        await ctx.spawn_workflow(below, number)
        return number

    @flow.step(after=spawns)
    async def last(number: int) -> int:
        return number

    async with worker([flow, below]):
        assert await all_of([await client.trigger(flow, n) for n in range(4)]) == [0, 1, 2, 3]
        await nobody_stands(client, "one")
    assert meter.most["below"] == 1


async def test_one_that_fails_or_is_cancelled_gives_its_place_back(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = Workflow("fails", input=int, retry=ONCE)

    @flow.step
    async def before(number: int) -> int:
        return number

    @flow.step(after=before, limits=[Limit("one", max=1)])
    async def fails(number: int) -> int:
        await meter.pass_through("x", number)
        if number == 0:
            raise ValueError("no")
        return number

    @flow.step(after=fails)
    async def behind(number: int) -> int:
        return number

    async with worker([flow]):
        runs = []
        for n in range(4):
            runs.append(await client.trigger(flow, n))
            await standing(client, "one", running=1, waiting=n)
        assert await client.cancel(runs[2].id)  # one that waits
        await standing(client, "one", running=1, waiting=2)
        assert await client.cancel(runs[3].id, tree=False)
        await standing(client, "one", running=1, waiting=1)
        meter.gate.set()
        assert await outcomes(runs) == ["failed", "succeeded", "cancelled", "cancelled"]
        meter.gate.clear()
        last = [await client.trigger(flow, n) for n in (4, 5)]
        await until(lambda: meter.inside["x"] == 1)
        assert await client.cancel(last[meter.order[-1] - 4].id)  # one that runs
        meter.gate.set()
        assert sorted(await outcomes(last)) == ["cancelled", "succeeded"]
        await nobody_stands(client, "one")
    assert meter.order[:2] == [0, 1]
    assert not {2, 3} & set(meter.order)


async def test_a_step_that_sleeps_in_a_cancelled_child_gives_its_place_back(client: Client, worker: MakeWorker) -> None:
    asleep: list[int] = []
    flow = Workflow("sleeper", input=int, retry=ONCE)

    @flow.step
    async def before(number: int) -> int:
        return number

    @flow.step(after=before, limits=[Limit("one", max=1)])
    async def sleeps(number: int, ctx: Context) -> int:
        asleep.append(number)
        if number == 0:
            await ctx.sleep(timedelta(hours=1))
        return number

    @workflow("family", retry=ONCE)
    async def family(number: int, ctx: Context) -> list[int]:
        return await ctx.join(await ctx.spawn_workflows(flow, [0, 1, 2] if number == 0 else [number]))

    async with worker([flow, family]):
        first = await client.trigger(family, 0)
        await until(lambda: 0 in asleep)
        second = await client.trigger(family, 7)
        await client.cancel(first.id)
        assert await second.result(timeout=PATIENCE) == [7]
        await nobody_stands(client, "one")


async def test_what_ends_its_run_beside_it_gives_its_place_back(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = Workflow("beside", input=int, retry=ONCE, fail_fast=True)
    go = asyncio.Event()

    @flow.step
    async def ends(number: int) -> int:
        if number == 1:
            await go.wait()
            raise ValueError("the run ends")
        return number

    @flow.step(limits=[Limit("one", max=1)])
    async def waits(number: int) -> int:
        await meter.pass_through("x", number)
        return number

    async with worker([flow]):
        first = await client.trigger(flow, 0)
        await until(lambda: meter.inside["x"] == 1)
        second = await client.trigger(flow, 1)
        await until(lambda: stands(client, second, "waits", "waiting"))
        go.set()
        assert await outcomes([second]) == ["failed"]
        await standing(client, "one", running=1, waiting=0)
        meter.gate.set()
        assert await outcomes([first]) == ["succeeded"]
        await nobody_stands(client, "one")
    assert meter.order == [0]


async def test_it_is_one_limit_with_that_of_workflows_of_the_same_name(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    one = crawling(meter, of_site())

    @workflow("whole", retry=ONCE, limits=[of_site()])
    async def whole(page: Page) -> int:
        await meter.pass_through(page.site, page.number)
        return page.number

    async with worker([one, whole]):
        runs = [await client.trigger(flow, Page("a", n)) for n in range(5) for flow in (one, whole)]
        await all_of(runs)
        await nobody_stands(client, "site")
    assert meter.most["a"] == 1


async def test_a_place_that_its_run_or_one_above_holds_is_refused(client: Client, worker: MakeWorker) -> None:
    own = crawling(Meter(), Limit("site", key=lambda page: page.site, max=1), limits=[of_site()], name="own")
    child = crawling(Meter(), of_site(), name="child")
    flow = Workflow("above", input=Page, retry=ONCE)

    @flow.step
    async def begins(page: Page) -> int:
        return page.number

    @flow.step(after=begins, limits=[of_site()])
    async def holds(page: Page, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(child, page)).result()

    async with worker([own, flow, child]):
        with pytest.raises(RunFailed, match=r"PlaceHeld: step 'fetch' of 'own' .*limit 'site'.* its run holds"):
            await (await client.trigger(own, Page("a"))).result(timeout=PATIENCE)
        with pytest.raises(RunFailed, match=r"PlaceHeld: step 'fetch' of 'child' .* that a run above it holds"):
            await (await client.trigger(flow, Page("a"))).result(timeout=PATIENCE)
        await nobody_stands(client, "site")


async def test_a_step_waits_no_longer_than_it_may(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    impatient = crawling(meter, of_site(), name="impatient", schedule_timeout=0.5)
    bounded = crawling(meter, of_site(), name="bounded", deadline=0.5)
    async with worker([impatient, bounded]):
        first = await client.trigger(impatient, Page("a"))
        await until(lambda: meter.inside["a"] == 1)
        late = [await client.trigger(impatient, Page("a", 1)), await client.trigger(bounded, Page("a", 2))]
        assert await outcomes(late) == ["timed_out", "timed_out"]
        await standing(client, "site", running=1, waiting=0)
        meter.gate.set()
        assert await first.result(timeout=PATIENCE) == 0
        await nobody_stands(client, "site")


async def test_several_and_what_is_chosen_at_run_time(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = crawling(meter, of_site(), Limit("all", max=2))
    async with worker([flow]):
        runs = [await client.trigger(flow, Page(site, n)) for n in range(3) for site in "abc"]
        await standing(client, "all", running=2, waiting=7)
        await standing(client, "site", running=2, waiting=0)
        await client.limits.set("all", 9)
        await standing(client, "site", running=3, waiting=6)
        await client.limits.set("site", 2, key="a")
        await until(lambda: (meter.inside["a"], meter.inside["b"], meter.inside["c"]) == (2, 1, 1))
        await client.limits.reset("site", key="a")
        meter.gate.set()
        await all_of(runs)
        await nobody_stands(client, "site")
        await nobody_stands(client, "all")


async def test_one_that_has_begun_keeps_its_place_where_there_are_fewer(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("keeps", input=int, retry=ONCE)
    begun: list[int] = []

    @flow.step
    async def before(number: int) -> int:
        return number

    @flow.step(after=before, limits=[Limit("one", max=2)])
    async def sleeps(number: int, ctx: Context) -> int:
        if number not in begun:
            begun.append(number)
        await ctx.wait_for(Signal("go"))  # parked at once: its next turn finds the place that it has
        return number

    async with worker([flow]):
        runs = [await client.trigger(flow, n) for n in range(2)]
        await until(lambda: len(begun) == 2)
        await client.limits.set("one", 1)
        for number in reversed(begun):  # the one that came last is behind one that goes on
            await runs[number].signal("go")
            assert await runs[number].result(timeout=PATIENCE) == number
        await nobody_stands(client, "one")


async def test_who_waits_and_why_is_shown(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = crawling(meter, of_site())
    async with worker([flow]):
        runs = []
        for n in range(3):
            runs.append(await client.trigger(flow, Page("acme & sons", n)))
            await standing(client, "site", running=1, waiting=n)
        step = await fetching(client, runs[2])
        (place,) = step.places
        assert (step.status, step.attempts, place.limit, place.key, place.max, place.before, place.admitted) == (
            *("waiting", 0, "site", "acme & sons", 1),
            *(2, False),
        )
        (held,) = (await fetching(client, runs[0])).places
        assert held.admitted
        rows = await client.limits.standing("site", "acme & sons")
        assert [(row.run, row.workflow, row.step, row.parent, row.admitted) for row in rows] == [
            (run.id, "crawl", "fetch", None, n == 0) for n, run in enumerate(runs)
        ]
        meter.gate.set()
        await all_of(runs)
        assert (await fetching(client, runs[2])).places == ()
        await nobody_stands(client, "site")


async def test_a_key_that_is_none_fails_its_step_by_name(client: Client, worker: MakeWorker) -> None:
    flow = crawling(Meter(), Limit("site", key=lambda page: page.number, max=1))  # type: ignore[arg-type,return-value]
    async with worker([flow]):
        with pytest.raises(RunFailed, match=r"LimitKeyFailed: .*'site' .*it gave 3, and a key is a str"):
            await (await client.trigger(flow, Page("a", 3))).result(timeout=PATIENCE)


async def test_it_keeps_no_place_behind_its_end(client: Client, worker: MakeWorker) -> None:
    flow, go = Workflow("goes-on", input=int, retry=ONCE), asyncio.Event()

    @flow.step(limits=[Limit("one", max=1)])
    async def alone(number: int) -> int:
        return number

    @flow.step(after=alone)
    async def behind(number: int) -> int:
        await go.wait()
        return number

    async with worker([flow]):
        run = await client.trigger(flow, 1)
        await until(lambda: stands(client, run, "behind", "running"))
        await nobody_stands(client, "one")
        go.set()
        assert await run.result(timeout=PATIENCE) == 1


async def stands(client: Client, run: Run[Any], step: str, status: str) -> bool:
    return any(one.name == step and one.status == status for one in (await client.describe(run.id)).steps)


async def test_code_without_the_limit_leaves_its_tasks_to_others(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    flow = crawling(meter, of_site())
    async with worker([crawling(meter)]):  # of before the limit: it may run what has a place
        runs = [await client.trigger(flow, Page("a", n)) for n in range(4)]
        await until(lambda: meter.inside["prepared"] == 4)
        async with worker([flow]):
            assert await all_of(runs) == list(range(4))
            await nobody_stands(client, "site")
    assert meter.most["a"] == 1


async def test_a_limit_that_was_taken_away_holds_nobody_up(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    with_it = crawling(meter, of_site())
    without = crawling(meter)
    run = await client.trigger(with_it, Page("a", 1))  # pinned to a graph with the limit
    async with worker([with_it]):
        assert await run.result(timeout=PATIENCE) == 1
        await nobody_stands(client, "site")
    run = await client.trigger(with_it, Page("a", 2))
    async with worker([without], options=WorkerOptions(unknown_step_grace=0.5)):
        assert await run.result(timeout=PATIENCE) == 2
        await nobody_stands(client, "site")


def test_what_makes_no_sense_is_refused(worker: MakeWorker) -> None:
    flow = Workflow("senseless", input=Page, limits=[Limit("whole", max=1)])

    async def fetch(page: Page) -> int:
        return page.number

    with pytest.raises(InvalidDeclaration, match="when_full='reject'"):
        flow.step(limits=[Limit("one", max=1, when_full="reject")])(fetch)
    with pytest.raises(InvalidDeclaration, match="a RateLimit is of the runs of a workflow"):
        flow.step(limits=[RateLimit("one", max=1, per=1)])(fetch)  # type: ignore[list-item]
    with pytest.raises(InvalidDeclaration, match="'one' twice"):
        flow.step(limits=[Limit("one", max=1), Limit("one", max=1)])(fetch)
    with pytest.raises(InvalidDeclaration, match="of which its runs hold a place already"):
        flow.step(limits=[Limit("whole", max=1)])(fetch)
    with pytest.raises(InvalidDeclaration, match="batch= and limits="):
        flow.step(batch=Batch(size=3), limits=[Limit("one", max=1)])(fetch)  # type: ignore[call-overload]
    first = crawling(Meter(), Limit("one", max=1), name="f")
    second = crawling(Meter(), Limit("one", max=2), name="g")
    with pytest.raises(InvalidDeclaration, match="one name is one limit"):
        worker([first, second])


def test_limits_that_are_taken_both_ways_round_are_refused(worker: MakeWorker) -> None:
    first = crawling(Meter(), Limit("b", max=1), name="first", limits=[Limit("a", max=1)])
    second = crawling(Meter(), Limit("a", max=1), name="second", limits=[Limit("b", max=1)])
    worker([first])
    with pytest.raises(InvalidDeclaration, match=r"'first' hold limit 'a' .* 'b', and those of 'second' come"):
        worker([first, second])
