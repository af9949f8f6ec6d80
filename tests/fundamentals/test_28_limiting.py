"""Limits: how many runs of a key at once, over all workers; who waits, and what becomes of those that do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from meter import Meter
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidDeclaration, Limit, Retry, Run, RunFailed, Worker, Workflow, workflow
from jetflow.engine.effects import ReadOver
from jetflow.errors import InvalidInput, UnknownLimit
from jetflow.runs.gates import Gates
from jetflow.wire.limits import LimitNames

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


class Order(msgspec.Struct, frozen=True):
    tenant: str
    number: int = 0


def limited(meter: Meter, *limits: Limit, name: str = "limited", **options: Any) -> Workflow[Order, int]:
    @workflow(name, retry=ONCE, limits=limits, **options)
    async def run(order: Order) -> int:
        await meter.pass_through(order.tenant, order.number)
        return order.number

    return run


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


async def nobody_stands(client: Client, limit: str) -> None:
    await standing(client, limit, running=0, waiting=0)


async def test_no_more_of_a_key_than_may_and_in_their_order(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    flow = limited(meter, Limit("tenant", key=lambda order: order.tenant, max=2))
    async with worker([flow]), worker([flow]):
        runs = [await client.trigger(flow, Order("a", n)) for n in range(12)]
        assert await all_of(runs) == list(range(12))
        await nobody_stands(client, "tenant")
    assert meter.most["a"] == 2
    assert all(abs(at - number) <= 2 for at, number in enumerate(meter.order))  # two begin at once in any order


async def test_keys_do_not_wait_for_one_another(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("tenant", key=lambda order: order.tenant, max=1))
    async with worker([flow]):
        runs = [await client.trigger(flow, Order("flood", n)) for n in range(20)]
        runs.append(await client.trigger(flow, Order("other", 100)))
        await until(lambda: meter.inside["flood"] == meter.inside["other"] == 1)
        meter.gate.set()
        await all_of(runs)
        await nobody_stands(client, "tenant")
    assert meter.most == {"flood": 1, "other": 1}


async def test_a_limit_is_shared_by_its_name_and_a_run_may_need_several(client: Client, worker: MakeWorker) -> None:
    meter = Meter()

    def everybody() -> Limit:
        return Limit("everybody", max=3)

    one = limited(meter, everybody(), Limit("tenant", key=lambda order: order.tenant, max=1), name="one")
    two = limited(meter, everybody(), name="two")
    inside: list[int] = []
    async with worker([one, two]):
        runs = [await client.trigger(flow, Order(f"t{n % 3}-{flow.name}", n)) for n in range(9) for flow in (one, two)]

        async def watch() -> None:
            while True:
                inside.append(meter.inside.total())
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        await all_of(runs)
        watching.cancel()
        await nobody_stands(client, "everybody")
        await nobody_stands(client, "tenant")
    assert max(inside) <= 3
    assert all(meter.most[f"t{n}-one"] == 1 for n in range(3))


async def test_a_run_keeps_its_place_while_it_waits_for_children_and_retries(
    client: Client, worker: MakeWorker
) -> None:
    meter = Meter()
    attempts: list[int] = []

    @workflow("child", retry=ONCE)
    async def child(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    @workflow("parent", retry=Retry(attempts=2, initial=0.05), limits=[Limit("one", max=1)])
    async def parent(number: int, ctx: Context) -> int:
        meter.inside["p"] += ctx.attempt == 1
        meter.most["p"] = max(meter.most["p"], meter.inside["p"])
        (found,) = await ctx.join(await ctx.spawn_workflows(child, [number]))
        attempts.append(number)
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        meter.inside["p"] -= 1
        return found

    async with worker([parent, child]):
        runs = [await client.trigger(parent, n) for n in range(3)]
        assert await all_of(runs) == [0, 1, 2]
        await nobody_stands(client, "one")
    assert meter.most["p"] == 1
    assert len(attempts) == 6


async def test_a_run_that_fails_or_is_cancelled_gives_its_place_back(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()

    @workflow("fails", retry=ONCE, limits=[Limit("one", max=1)])
    async def fails(number: int) -> int:
        await meter.pass_through("x", number)
        if number == 0:
            raise ValueError("no")
        return number

    async with worker([fails]):
        runs = [await client.trigger(fails, n) for n in range(4)]
        await standing(client, "one", running=1, waiting=3)
        assert await client.cancel(runs[2].id)  # one that waits
        await standing(client, "one", running=1, waiting=2)
        meter.gate.set()
        assert await outcomes(runs) == ["failed", "succeeded", "cancelled", "succeeded"]
        meter.gate.clear()
        last = [await client.trigger(fails, n) for n in (4, 5)]
        await until(lambda: meter.inside["x"] == 1)
        assert await client.cancel(last[0].id)  # one that runs
        meter.gate.set()
        assert await outcomes(last) == ["cancelled", "succeeded"]
        await nobody_stands(client, "one")
    assert 2 not in meter.order


async def test_who_waits_and_why_is_shown(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("tenant", key=lambda order: order.tenant, max=1))
    async with worker([flow]):
        runs = [await client.trigger(flow, Order("acme & sons", n)) for n in range(3)]
        await standing(client, "tenant", running=1, waiting=2)
        trace = await client.describe(runs[2].id)
        (place,) = trace.places
        assert (trace.status, place.limit, place.key, place.max, place.before, place.admitted) == (
            "queued",
            "tenant",
            "acme & sons",
            1,
            2,
            False,
        )
        rows = await client.limits.standing("tenant", "acme & sons")
        assert [(row.run, row.workflow, row.admitted) for row in rows] == [
            (run.id, "limited", n == 0) for n, run in enumerate(runs)
        ]
        (row,) = await client.limits.list()
        assert (row.name, row.max, [(key.key, key.running, key.waiting) for key in row.keys]) == (
            "tenant",
            1,
            [("acme & sons", 1, 2)],
        )
        meter.gate.set()
        await all_of(runs)
        assert (await client.describe(runs[2].id)).places == ()
        await nobody_stands(client, "tenant")


async def test_max_is_changed_at_run_time(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("tenant", key=lambda order: order.tenant, max=1))
    async with worker([flow]):
        runs = [await client.trigger(flow, Order(tenant, n)) for n in range(5) for tenant in ("a", "b")]
        await standing(client, "tenant", running=2, waiting=8)
        await client.limits.set("tenant", 3, key="a")
        await until(lambda: (meter.inside["a"], meter.inside["b"]) == (3, 1))
        await client.limits.set("tenant", 2)
        await until(lambda: (meter.inside["a"], meter.inside["b"]) == (3, 2))
        await client.limits.reset("tenant", key="a")  # three go on, and no fourth begins
        meter.gate.set()
        await all_of(runs)
        await client.limits.reset("tenant")
        assert (await client.limits.get("tenant")).max == 1
        await nobody_stands(client, "tenant")
    async with worker([limited(meter, Limit("tenant", key=lambda order: order.tenant, max=7))]):
        assert (await client.limits.get("tenant")).max == 7  # what is declared last counts


async def test_another_sdk_removes_an_entry_and_asks_for_a_look(client: Client, worker: MakeWorker) -> None:
    """Workers in other languages let nobody in: they ask for the gate of the key whose place they have given back."""
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("tenant", key=lambda order: order.tenant, max=1))
    names = LimitNames(client.session.names)
    async with worker([flow]):
        runs = [await client.trigger(flow, Order(tenant, n)) for n in range(2) for tenant in ("a", "b")]
        await until(lambda: meter.inside == {"a": 1, "b": 1})
        await standing(client, "tenant", running=2, waiting=2)
        [first, *_] = await client.limits.standing("tenant", "a")
        entry = {"filter": f"{client.session.names.prefix}.entry.tenant.a.*.*.{first.run}"}
        await client.session.connection.api(f"STREAM.PURGE.{names.gates_stream}", entry)
        await client.session.publisher.store(f"{client.session.names.prefix}.in.limit.tenant.a", b"")
        await until(lambda: meter.inside == {"a": 2, "b": 1})
        meter.gate.set()
        await all_of(runs)
        await nobody_stands(client, "tenant")


async def test_who_has_just_looked_is_woken_by_who_leaves(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run asks behind its last look takes its time, and meanwhile the place becomes free."""
    began, looked, leave, go_on = (asyncio.Event() for _ in range(4))
    is_over = Gates.is_over

    async def is_over_at_last(gates: Gates, effect: ReadOver) -> bool:
        looked.set()
        await go_on.wait()
        return await is_over(gates, effect)

    @workflow("one", limits=[Limit("ones", max=1)])
    async def one(number: int) -> int:
        if number == 1:
            began.set()
            await leave.wait()
        return number

    monkeypatch.setattr(Gates, "is_over", is_over_at_last)
    async with worker([one]):
        first = await client.trigger(one, 1)
        await asyncio.wait_for(began.wait(), PATIENCE)
        second = await client.trigger(one, 2)
        await asyncio.wait_for(looked.wait(), PATIENCE)
        leave.set()
        assert [await first.result(timeout=PATIENCE), await second.result(timeout=PATIENCE)] == [1, 2]
        go_on.set()


async def test_what_finds_no_place_is_refused(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("one", max=1, when_full="reject"))
    async with worker([flow]):
        first = await client.trigger(flow, Order("a"))
        await until(lambda: meter.inside["a"] == 1)
        others = [await client.trigger(flow, Order("a", n)) for n in range(1, 6)]
        with pytest.raises(RunFailed, match="LimitReached: limit 'one' has no place"):
            await others[0].result(timeout=PATIENCE)
        assert await outcomes(others) == ["cancelled"] * 5
        meter.gate.set()
        assert await first.result(timeout=PATIENCE) == 0
        await nobody_stands(client, "one")
    assert meter.order == [0]


async def test_the_newest_takes_the_place_of_what_runs(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("one", max=1, when_full="cancel_running"))
    async with worker([flow], slots=1):  # all slots run what is to be replaced
        runs = []
        for n in range(5):
            runs.append(await client.trigger(flow, Order("a", n)))
            await until(lambda n=n: meter.order[-1:] == [n])
        meter.gate.set()
        assert await outcomes(runs) == ["cancelled"] * 4 + ["succeeded"]
        with pytest.raises(RunFailed, match=r"LimitReached: .*a newer one came"):
            await runs[0].result(timeout=PATIENCE)
        await nobody_stands(client, "one")
    assert meter.most["a"] == 1


@pytest.mark.parametrize(("kept", "left"), [("keep_newest", [0, 4]), ("keep_oldest", [0, 1])])
async def test_only_one_waits(client: Client, worker: MakeWorker, kept: Any, left: list[int]) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("one", max=1, when_full=kept))
    async with worker([flow]):
        runs = [await client.trigger(flow, Order("a"))]
        await until(lambda: meter.inside["a"] == 1)
        for n in range(1, 5):
            runs.append(await client.trigger(flow, Order("a", n)))
            await until(lambda run=runs[-1]: has_come(client, run))
        meter.gate.set()
        assert await outcomes(runs) == ["succeeded" if n in left else "cancelled" for n in range(5)]
        await nobody_stands(client, "one")
    assert meter.order == left


async def has_come(client: Client, run: Run[Any]) -> bool:
    trace = await client.describe(run.id)
    return trace.status == "cancelled" or any(place.before is not None for place in trace.places)


async def test_a_key_that_is_none_fails_its_run_by_name_and_no_other(client: Client, worker: MakeWorker) -> None:
    def key(order: Order) -> Any:
        if order.tenant == "bad":
            raise LookupError("nobody knows it")
        return None if order.tenant == "none" else order.tenant

    flow = limited(Meter(), Limit("tenant", key=key, max=1))
    async with worker([flow]):
        bad, none, good = [await client.trigger(flow, Order(tenant)) for tenant in ("bad", "none", "good")]
        with pytest.raises(RunFailed, match=r"LimitKeyFailed: .*'tenant' .*LookupError: nobody knows it"):
            await bad.result(timeout=PATIENCE)
        with pytest.raises(RunFailed, match=r"LimitKeyFailed: .*it gave None, and a key is a str"):
            await none.result(timeout=PATIENCE)
        assert await good.result(timeout=PATIENCE) == 0


async def test_a_child_that_needs_a_place_of_a_run_above_it_is_refused(client: Client, worker: MakeWorker) -> None:
    @workflow("below", retry=ONCE, limits=[Limit("one", max=1)])
    async def below(number: int) -> int:
        return number

    @workflow("between", retry=ONCE)
    async def between(number: int, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(below, number)).result()

    @workflow("above", retry=ONCE, limits=[Limit("one", max=1)])
    async def above(number: int, ctx: Context) -> int:
        return await (await ctx.spawn_workflow(between, number)).result()

    async with worker([above, between, below]):
        with pytest.raises(RunFailed, match=r"PlaceHeld: .*'below' needs a place of limit 'one'"):
            await (await client.trigger(above, 1)).result(timeout=PATIENCE)
        assert await (await client.trigger(between, 2)).result(timeout=PATIENCE) == 2
        await nobody_stands(client, "one")


async def test_a_run_waits_no_longer_than_it_may(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    impatient = limited(meter, Limit("one", max=1), name="impatient", schedule_timeout=0.5)
    bounded = limited(meter, Limit("one", max=1), name="bounded", deadline=0.5)
    async with worker([impatient, bounded]):
        first = await client.trigger(impatient, Order("a"))
        await until(lambda: meter.inside["a"] == 1)
        late = [await client.trigger(impatient, Order("a", 1)), await client.trigger(bounded, Order("a", 2))]
        assert await outcomes(late) == ["timed_out", "timed_out"]
        await standing(client, "one", running=1, waiting=0)
        meter.gate.set()
        assert await first.result(timeout=PATIENCE) == 0
        await nobody_stands(client, "one")


async def test_a_whole_tree_that_is_cancelled_leaves_all_gates(client: Client, worker: MakeWorker) -> None:
    meter = Meter()
    meter.gate.clear()
    flow = limited(meter, Limit("one", max=1))

    @workflow("many", retry=ONCE)
    async def many(number: int, ctx: Context) -> list[int]:
        children = await ctx.spawn_workflows(flow, [Order("tree", n) for n in range(5)])
        return await ctx.join(children)

    async with worker([many, flow]):
        tree = await client.trigger(many, 0)
        await standing(client, "one", running=1, waiting=4)
        other = await client.trigger(flow, Order("other", 9))
        await standing(client, "one", running=1, waiting=5)
        await client.cancel(tree.id)
        meter.gate.set()
        assert await other.result(timeout=PATIENCE) == 9
        await nobody_stands(client, "one")


async def test_limits_that_make_no_sense_are_refused(client: Client, worker: MakeWorker) -> None:
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(InvalidDeclaration, match="a whole number above 0"):
            Limit("one", max=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="none of queue, reject"):
        Limit("one", max=1, when_full="explode")  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="key is a function"):
        Limit("one", max=1, key="tenant")  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="'one' twice"):
        limited(Meter(), Limit("one", max=1), Limit("one", max=1))
    first, second = limited(Meter(), Limit("one", max=1), name="f"), limited(Meter(), Limit("one", max=2), name="g")
    with pytest.raises(InvalidDeclaration, match="one name is one limit"):
        worker([first, second])
    with pytest.raises(UnknownLimit):
        await client.limits.set("nobody", 1)
    async with worker([first]):
        with pytest.raises(InvalidInput, match="a whole number above 0"):
            await client.limits.set("one", 0)
