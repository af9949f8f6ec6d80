"""Gates at which many stand: they are read some ahead, by several workers, while those that wait are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jetflow import Client, Limit, Retry, Worker, workflow
from jetflow.engine.limits import EVERYBODY, Place
from jetflow.errors import RunFailed
from jetflow.runs.entries import AHEAD, FEW, Entries
from jetflow.wire.limits import LimitNames
from tests.endings.stored import until

MakeWorker = Callable[..., Worker]
PLACE = Place("crowd", EVERYBODY)
MAX = 3
COUNT = 8 * FEW


class Number(msgspec.Struct, frozen=True):
    n: int


@pytest.fixture(params=["one replica", "replicas"])
def replicas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have entries read as on one replica, and as where only the leader may be asked."""
    if request.param == "replicas":

        async def is_alone(*_: Any) -> bool:
            return False

        monkeypatch.setattr(Entries, "is_alone", is_alone)


@pytest.mark.usefixtures("replicas")
async def test_a_crowd_goes_on_in_its_order_while_some_of_it_are_cancelled(client: Client, worker: MakeWorker) -> None:
    opened, inside, most = asyncio.Event(), 0, 0
    order: list[int] = []

    @workflow("crowd", retry=Retry(attempts=1), limits=[Limit("crowd", max=MAX)])
    async def crowd(number: Number) -> int:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        order.append(number.n)
        await opened.wait()
        inside -= 1
        return number.n

    async def stand(running: int, waiting: int) -> bool:
        row = await client.limits.get("crowd")
        return (row.running, row.waiting) == (running, waiting)

    runs = [await client.trigger(crowd, Number(n)) for n in range(COUNT)]
    async with worker([crowd]), worker([crowd]):
        await until(lambda: stand(MAX, COUNT - MAX))
        in_order = [one.run for one in await client.limits.standing("crowd")]
        early = in_order[MAX + 5 : -FEW]  # more in a row than the looks that follow ask for besides
        await asyncio.gather(*(client.cancel(run) for run in early))
        opened.set()
        late = in_order[-FEW::5]
        await asyncio.gather(*(client.cancel(run) for run in late))
        ended = await asyncio.gather(*(run.result(timeout=30) for run in runs), return_exceptions=True)
        await until(lambda: stand(0, 0))
    assert most == MAX
    failed = {run.id for run, one in zip(runs, ended, strict=True) if isinstance(one, RunFailed)}
    assert {*early} <= failed <= {*early, *late}
    assert all(one == n for n, one in enumerate(ended) if runs[n].id not in failed)
    begun = [in_order.index(runs[n].id) for n in order]
    assert all(abs(sorted(begun).index(rank) - at) <= MAX for at, rank in enumerate(begun))  # some begin at once


@pytest.mark.usefixtures("replicas")
async def test_entries_are_found_whatever_else_the_stream_holds(client: Client) -> None:
    session = client.session
    names, entries = LimitNames(session.names), Entries(session)
    await session.optional.ensure(names.gates_stream)
    base = names.entries(PLACE.limit, PLACE.key).rsplit(".", 3)[0]

    async def enter(numbers: range, gate: str = base) -> dict[str, int]:
        subjects = [f"{gate}.r{number}.-.r{number}" for number in numbers]
        receipts = [await session.publisher.store(subject, b'{"workflow":"w"}') for subject in subjects]
        return dict(zip(subjects, (receipt.sequence for receipt in receipts), strict=True))

    known = await enter(range(5))
    for number in range(200):
        await session.publisher.store(names.gone(f"r{number}", f"r{number}"), b"")
    others = await enter(range(3), base.replace(EVERYBODY, "other"))
    known |= await enter(range(5, 2 * AHEAD))
    found, is_all = await entries.behind(PLACE, 0, 3)
    assert list(found.items()) == list(known.items())[: len(found)]
    assert len(found) >= 3
    assert not is_all
    last = list(known.values())[-1]
    assert await entries.behind(PLACE, last, 3) == ({}, True)
    assert await entries.behind(PLACE, last - 1, 3) == (dict(list(known.items())[-1:]), True)
    for subject in list(known)[1:400:3]:
        await session.connection.api(f"STREAM.PURGE.{names.gates_stream}", {"filter": subject})
        known.pop(subject)
    assert await entries.still_there(known | {f"{base}.r9999.-.r9999": 1}) == known
    assert await entries.all_of(Place("crowd", "other")) in (others, None)
    assert await entries.all_of(Place("crowd", "nobody")) in ({}, None)


async def test_gates_are_read_together_and_a_crowded_one_by_itself(client: Client) -> None:
    session = client.session
    names, entries = LimitNames(session.names), Entries(session)
    await session.optional.ensure(names.gates_stream)

    def subject(key: str, number: int) -> str:
        return f"{names.entries('crowd', key).rsplit('.', 3)[0]}.r{number}.-.r{number}"

    few = [f"key-{number}" for number in range(120)]
    crowd = [subject("crowded", number) for number in range(1100)]
    await asyncio.gather(*(session.publisher.store(one, b"{}") for one in crowd))
    await asyncio.gather(*(session.publisher.store(subject(key, 1), b"{}") for key in few))
    found = await asyncio.gather(*(entries.all_of(Place("crowd", key)) for key in [*few, "crowded", "nobody"]))
    assert [list(one or ()) for one in found[:-2]] == [[subject(key, 1)] for key in few]
    assert found[-2:] == [None, {}]
