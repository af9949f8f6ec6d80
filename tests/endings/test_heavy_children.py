"""Children with much to say: what is held of them is bounded by size, and they are looked for once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import pytest

from jetflow import Client, Context, Retry, Worker, workflow
from jetflow.worker.child_records import ChildRecords
from jetflow.worker.recorder import RECORDING_BYTES
from jetflow.worker.waits import KEPT_BYTES, Waits
from tests.endings.stored import PATIENCE, Stored, until
from tests.inside import services

MakeWorker: TypeAlias = Callable[..., Worker]

SIZE = 200_000
MANY = KEPT_BYTES // SIZE + 60


@workflow("give")
async def give(number: int) -> str:
    return f"{number:06d}" + "x" * (SIZE - 6)


async def test_children_taken_as_they_end_are_looked_for_once(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the step wakes; here each child waits until the one before it was seen."""
    count, reads = 40, 0
    may_end = [asyncio.Event() for _ in range(count + 1)]
    may_end[0].set()
    read = ChildRecords.read

    async def counted(self: ChildRecords, children: set[bytes], *, in_pages: bool) -> None:
        nonlocal reads
        reads += len(children)
        await read(self, children, in_pages=in_pages)

    monkeypatch.setattr(ChildRecords, "read", counted)
    monkeypatch.setattr("jetflow.worker.waiting.CHECK_EVERY", 1000.0)

    @workflow("in-turn")
    async def in_turn(number: int) -> int:
        await may_end[number].wait()
        return number

    @workflow("watch", retry=Retry(attempts=1))
    async def watch(_: None, ctx: Context) -> list[int]:
        seen: list[int] = []
        async for child in ctx.as_completed(await ctx.spawn_workflows(in_turn, range(count))):
            seen.append(await child.result())
            may_end[seen[-1] + 1].set()
        return seen

    async with worker([watch, in_turn]):
        assert await (await client.trigger(watch)).result(PATIENCE) == list(range(count))
    assert reads <= count


@pytest.mark.parametrize("kind", ["once", "again", "from a replica that is late"])
async def test_large_results_are_not_all_kept_for_who_takes_them_as_they_end(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nor are they lost: they are read when they are asked for, and again when they are asked for again."""
    most = 0
    take = Waits.take

    def taken(self: Waits, child: bytes, body: bytes) -> bool:
        nonlocal most
        was_waited_for = take(self, child, body)
        most = max(most, sum(map(len, self.ended.values())))
        return was_waited_for

    async def finds_nothing(self: ChildRecords, children: list[bytes]) -> None: ...

    monkeypatch.setattr(Waits, "take", taken)
    if kind == "from a replica that is late":
        monkeypatch.setattr(ChildRecords, "read_again", finds_nothing)

    @workflow("take", retry=Retry(attempts=1))
    async def take_all(_: None, ctx: Context) -> int:
        children = await ctx.spawn_workflows(give, range(MANY))
        ended = [child async for child in ctx.as_completed(children)]
        first = [int((await child.result())[:6]) for child in ended]
        if kind == "again":
            assert sorted(first) == [int(text[:6]) for text in await ctx.join(children)]
        return sum(first)

    async with worker([take_all, give]):
        assert await (await client.trigger(take_all)).result(PATIENCE) == sum(range(MANY))
    assert most <= KEPT_BYTES


async def test_no_more_bodies_begin_while_so_many_bytes_are_being_recorded(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    """A full stream holds up the outcomes, which stay in memory until there is room; what was fetched waits, too."""
    began, many = list[int](), 2 * RECORDING_BYTES // SIZE

    @workflow("heavy", retry=Retry(attempts=1))
    async def heavy(number: int) -> str:
        began.append(number)
        return "x" * SIZE

    async with worker([heavy]):
        await (await client.trigger(heavy, many)).result(PATIENCE)
    runs = [await client.trigger(heavy, number) for number in range(many)]
    await limit(client, stored.names.records_stream, 1)
    async with worker([heavy]) as held_up:
        parts = services(held_up)
        await until(lambda: _true(not parts.executor.recorder.has_room() and not parts.fetcher.running))
        assert len(began) - 1 <= RECORDING_BYTES // SIZE + 1
        await limit(client, stored.names.records_stream, -1)
        await asyncio.gather(*(run.result(PATIENCE) for run in runs))
    assert sorted(began) == list(range(many + 1))


async def limit(client: Client, stream: str, messages: int) -> None:
    """Set how many messages a stream may hold; -1 lifts the limit."""
    connection = client._session.connection
    config = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
    await connection.api(f"STREAM.UPDATE.{stream}", config | {"max_msgs": messages})


async def _true(value: bool) -> bool:
    return value
