"""Rate limits: how many runs of a key may begin in any stretch of time; the others wait for their turn, parked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import time
from typing import Any

import msgspec
import pytest
from patience import PATIENCE, until

from jetflow import Client, InvalidDeclaration, Limit, RateLimit, Retry, RunFailed, Worker, Workflow, workflow

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)


class Call(msgspec.Struct, frozen=True):
    tenant: str = "a"
    number: int = 0
    pages: int = 1


class Clock:
    """Notes when runs have begun, by tenant."""

    def __init__(self) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.order: list[int] = []

    def note(self, call: Call) -> None:
        self.times[call.tenant].append(time())
        self.order.append(call.number)


def limited(clock: Clock, *limits: Limit | RateLimit, name: str = "call", **options: Any) -> Workflow[Call, int]:
    @workflow(name, retry=ONCE, limits=limits, **options)
    async def call(call: Call) -> int:
        clock.note(call)
        return call.number

    return call


def most_in(times: Iterable[float], seconds: float) -> int:
    """Return how many of some times lie in any stretch of so many seconds, at most."""
    ordered = sorted(times)
    return max(sum(begin <= at < begin + seconds for at in ordered) for begin in ordered)


async def all_of(runs: list[Any]) -> list[Any]:
    return [await run.result(timeout=PATIENCE) for run in runs]


async def waits_for(client: Client, run: str) -> bool:
    return any(rate.until is not None for rate in (await client.describe(run)).rates)


async def test_never_more_begin_in_any_second_however_many_workers_there_are(
    client: Client, worker: MakeWorker
) -> None:
    clock = Clock()
    flow = limited(clock, RateLimit("api", max=5, per=timedelta(seconds=1)))
    async with worker([flow]), worker([flow]):
        runs = [await client.trigger(flow, Call(number=n)) for n in range(14)]
        assert await all_of(runs) == list(range(14))
    assert most_in(clock.times["a"], 1.0) <= 5


async def test_keys_have_rates_of_their_own(client: Client, worker: MakeWorker) -> None:
    clock = Clock()
    flow = limited(clock, RateLimit("api", key=lambda call: call.tenant, max=1, per=1.5))
    async with worker([flow]):
        begun = time()
        runs = [await client.trigger(flow, Call(tenant, n)) for n in range(2) for tenant in ("a", "b & c", "d")]
        await all_of(runs)
        assert time() - begun < 1.5 + PATIENCE / 2
        (row,) = await client.limits.rates()
        assert (row.name, row.max, row.per) == ("api", 1, 1.5)
        assert sorted(key.key or "" for key in row.keys) == ["a", "b & c", "d"]
    assert all(most_in(times, 1.5) == 1 for times in clock.times.values())


async def test_a_run_may_take_several_units(client: Client, worker: MakeWorker) -> None:
    clock = Clock()
    flow = limited(clock, RateLimit("pages", max=10, per=1.5, units=lambda call: call.pages))
    async with worker([flow]):
        assert await (await client.trigger(flow, Call(number=0, pages=6))).result(timeout=PATIENCE) == 0
        large = await client.trigger(flow, Call(number=1, pages=5))
        await until(lambda: waits_for(client, large.id))
        small = await client.trigger(flow, Call(number=2, pages=4))
        await all_of([large, small])
    first, second, third = clock.times["a"]
    assert min(second, third) - first >= 1.5  # 6 and 5 are more than 10, and 4 waits behind 5


async def test_who_waits_is_parked_and_shown(client: Client, worker: MakeWorker) -> None:
    flow = limited(Clock(), RateLimit("api", max=1, per=3600))
    async with worker([flow]):
        assert await (await client.trigger(flow, Call())).result(timeout=PATIENCE) == 0
        run = await client.trigger(flow, Call(number=1))

        await until(lambda: waits_for(client, run.id))
        trace = await client.describe(run.id)
        (rate,) = trace.rates
        assert (trace.status, rate.limit, rate.units) == ("queued", "api", 1)
        assert rate.until is not None
        assert 3500 < rate.until - time() < 3700
        assert await client.cancel(run.id)
        with pytest.raises(RunFailed):
            await run.result(timeout=PATIENCE)


async def test_a_run_waits_no_longer_than_it_may(client: Client, worker: MakeWorker) -> None:
    flow = limited(Clock(), RateLimit("api", max=1, per=3600), schedule_timeout=1.0)
    async with worker([flow]):
        assert await (await client.trigger(flow, Call())).result(timeout=PATIENCE) == 0
        with pytest.raises(RunFailed, match=r"RunTimeout: .*its turn at rate limit 'api'"):
            await (await client.trigger(flow, Call(number=1))).result(timeout=PATIENCE)


async def test_several_at_once_and_limits_beside_them(client: Client, worker: MakeWorker) -> None:
    clock, inside, most = Clock(), 0, 0

    @workflow(
        "call",
        retry=ONCE,
        limits=[
            Limit("two", max=2),
            RateLimit("burst", max=2, per=0.5),
            RateLimit("long", key=lambda call: call.tenant, max=3, per=1.5),
        ],
    )
    async def call(call: Call) -> int:
        nonlocal inside, most
        clock.note(call)
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0.01)
        inside -= 1
        return call.number

    async with worker([call]), worker([call]):
        runs = [await client.trigger(call, Call(number=n)) for n in range(8)]
        assert await all_of(runs) == list(range(8))
    assert most <= 2
    assert most_in(clock.times["a"], 0.5) <= 2
    assert most_in(clock.times["a"], 1.5) <= 3


async def test_units_that_are_no_number_fail_their_run_by_name_and_no_other(client: Client, worker: MakeWorker) -> None:
    def units(call: Call) -> Any:
        if call.pages == 13:
            raise LookupError("nobody counts to that")
        return {99: None, 98: 1.0, 97: True}.get(call.pages, call.pages)

    flow = limited(Clock(), RateLimit("pages", max=10, per=1, units=units))
    async with worker([flow]):
        for pages, why in (
            (13, "LookupError: nobody counts to that"),
            (99, "it gave None"),
            (98, "it gave 1.0"),
            (97, "it gave True"),
            (0, "it gave 0, and units are a whole number above 0"),
            (-1, "it gave -1"),
            (11, "there are never more than 10"),
        ):
            with pytest.raises(RunFailed, match=f"RateUnitsFailed: .*'pages' .*{why}"):
                await (await client.trigger(flow, Call(pages=pages))).result(timeout=PATIENCE)
        assert await (await client.trigger(flow, Call(number=7, pages=10))).result(timeout=PATIENCE) == 7


async def test_a_key_that_is_none_fails_its_run_by_name(client: Client, worker: MakeWorker) -> None:
    flow = limited(Clock(), RateLimit("api", key=lambda call: call.number, max=1, per=1))
    async with worker([flow]):
        with pytest.raises(RunFailed, match=r"LimitKeyFailed: .*'api' .*it gave 1, and a key is a str"):
            await (await client.trigger(flow, Call(number=1))).result(timeout=PATIENCE)


async def test_what_is_declared_last_counts(client: Client, worker: MakeWorker) -> None:
    async with worker([limited(Clock(), RateLimit("api", max=1, per=60))]):
        assert [(row.max, row.per) for row in await client.limits.rates()] == [(1, 60.0)]
    async with worker([limited(Clock(), RateLimit("api", max=2, per=timedelta(minutes=2)))]):
        assert [(row.max, row.per) for row in await client.limits.rates()] == [(2, 120.0)]


def test_rates_that_make_no_sense_are_refused() -> None:
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(InvalidDeclaration, match="a whole number above 0"):
            RateLimit("api", max=wrong, per=1)  # type: ignore[arg-type]
    for per in (0, -1, timedelta(), float("nan"), float("inf"), True, "1 s"):
        with pytest.raises(InvalidDeclaration, match="a timedelta above 0, or seconds"):
            RateLimit("api", max=1, per=per)  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="units is a function"):
        RateLimit("api", max=1, per=1, units=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="key is a function"):
        RateLimit("api", max=1, per=1, key="tenant")  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="'api' twice"):
        limited(Clock(), RateLimit("api", max=1, per=1), Limit("api", max=1))


async def test_rates_of_one_name_that_differ_are_refused(worker: MakeWorker) -> None:
    flows = [limited(Clock(), RateLimit("api", max=1, per=per), name=f"w{per}") for per in (1, 2)]
    with pytest.raises(InvalidDeclaration, match="one name is one rate limit"):
        worker(flows)
