"""Deleting all that is stored of trees: of one that a user names, or of many whose time is over.

Tasks go one by one, by their sequence. A purge that takes more than one message out of a stream has the server count
anew what is left for each of the stream's consumers, and meanwhile nobody writes: 35 ms where 150,000 tasks are stored.
The other streams have no consumers that many messages are for, and a purge of a tree is the cheapest there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Final

import orjson

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import NONE
from jetflow.errors import BrokerRefused, UnknownRun
from jetflow.runs import points
from jetflow.runs.cancelling import purge
from jetflow.runs.marks import DELETED
from jetflow.runs.tasks import find_first_task
from jetflow.wire.events import EventNames
from jetflow.wire.limits import LimitNames
from jetflow.wire.output import OutputNames

PURGED_AT_ONCE: Final = 5000
"""Messages of a tree that one purge removes at most: 200,000 at once held up writers for 166 ms."""

REMOVED_AT_ONCE: Final = 64
"""Messages that are removed by their sequence at once."""

_ALREADY_GONE: Final = frozenset({10043, 10057})


async def delete_tree(session: Session, run: str) -> None:
    """Delete all that is stored of a root run and its descendants. A mark stays, which refuses late zombies.

    Raises:
        UnknownRun: no root run with this id is stored.
    """
    names, store = session.names, session.store
    if await store.leader_last(names.records_stream, names.run(run, NONE, NONE, run)) is None:
        first = await find_first_task(session, run)
        if first is None or first.parent != NONE:
            raise UnknownRun(run)
    await mark_deleted(session, run)
    await remove_trees(session, [run], await streams_in_use(session))
    while (late := await store.leader_last(names.tasks_stream, names.tasks_of_tree(run))) is not None:
        await remove(session, names.tasks_stream, [late])  # a replica may not have had it yet


async def mark_deleted(session: Session, run: str) -> None:
    """Store the mark that one root run is deleted, in the place of those that it was cancelled."""
    names = session.names
    async for page in session.store.pages(names.tasks_stream, names.cancelled(run, "*")):
        await remove(session, names.tasks_stream, page)
    points.before("mark_deleted")
    await session.publisher.store(names.cancelled(run, run), DELETED)
    points.after("mark_deleted")


async def mark_all_deleted(session: Session, runs: Sequence[str]) -> None:
    """Store one mark that many root runs are deleted."""
    points.before("mark_all_deleted")
    await session.publisher.store(session.names.all_deleted(token_hex(16)), orjson.dumps(runs))
    points.after("mark_all_deleted")


async def streams_in_use(session: Session) -> list[str]:
    """Return which of the streams that a tree may have left something in hold anything at all."""
    names = session.names
    values = [names.values_stream] if session.takes_large else []
    streams = [names.counters_stream, *values, names.timers_stream]
    optional, answers = await asyncio.gather(
        session.optional.those_in_use(),
        asyncio.gather(*(session.connection.api(f"STREAM.INFO.{stream}") for stream in streams)),
    )
    used = [stream for stream, answer in zip(streams, answers, strict=True) if answer["state"]["messages"]]
    return used + optional


async def remove_trees(session: Session, runs: Sequence[str], streams: Sequence[str]) -> int:
    """Remove all that is stored of some root runs and of their descendants, and return how many had a record left.

    ``streams`` are those beside the tasks and records that hold anything. The records go last, for by its root's a tree
    is found again if whoever removes it dies.
    """
    names, store = session.names, session.store
    filters = [subject for run in runs for subject in (names.tasks_of_tree(run), names.cancelled(run, "*"))]
    tasks, records = await asyncio.gather(
        store.few(names.tasks_stream, filters),
        store.holds_few(names.records_stream, [names.any_of_tree(run) for run in runs]),
    )
    if tasks is None or not records:
        if len(runs) == 1:
            return await _remove_large(session, runs[0], streams)
        half = len(runs) // 2
        return await remove_trees(session, runs[:half], streams) + await remove_trees(session, runs[half:], streams)
    points.before("remove_tasks")
    while tasks:
        await remove(session, names.tasks_stream, _without_marks(tasks.found))
        tasks = await store.few(names.tasks_stream, filters) if tasks.left else None
    points.after("remove_tasks")
    points.before("purge_beside")
    others = [purge(session, stream, [subject]) for run in runs for stream, subject in _beside(session, run, streams)]
    await asyncio.gather(*others)
    points.after("purge_beside")
    points.before("purge_records")
    purged = await asyncio.gather(*(purge(session, names.records_stream, [names.any_of_tree(run)]) for run in runs))
    points.after("purge_records")
    return sum(map(bool, purged))


async def _remove_large(session: Session, run: str, streams: Sequence[str]) -> int:
    names = session.names
    for subject in (names.tasks_of_tree(run), names.cancelled(run, "*")):
        async for page in session.store.pages(names.tasks_stream, subject):
            await remove(session, names.tasks_stream, _without_marks(page))
    for stream, subject in _beside(session, run, streams):
        await _purge_in_pieces(session, stream, subject)
    outcomes, *others = names.records_of_tree(run)
    for subject in others:
        await _purge_in_pieces(session, names.records_stream, subject)
    return int(await _purge_in_pieces(session, names.records_stream, outcomes) > 0)


async def remove(session: Session, stream: str, found: Sequence[Stored]) -> None:
    """Remove messages by their sequence. One that is gone is no error."""
    left = iter(found)

    async def remove_some() -> None:
        for stored in left:
            try:
                only_this = {"seq": stored.sequence, "no_erase": True}
                await session.connection.api(f"STREAM.MSG.DELETE.{stream}", only_this)
            except BrokerRefused as error:
                if error.err_code not in _ALREADY_GONE:
                    raise

    await asyncio.gather(*(remove_some() for _ in range(min(REMOVED_AT_ONCE, len(found)))))


def _without_marks(found: list[Stored]) -> list[Stored]:
    return [stored for stored in found if stored.body != DELETED]


def _beside(session: Session, run: str, streams: Sequence[str]) -> list[tuple[str, str]]:
    """Return where a tree may have left something beside its tasks and records, of some streams."""
    names = session.names
    output, events, limits = OutputNames(names), EventNames(names), LimitNames(names)
    subjects = {
        names.counters_stream: [names.counters_of_tree(run)],
        names.values_stream: [names.values_of_tree(run)],
        names.timers_stream: [names.timers_of_tree(run)],
        output.stream: output.of_tree(run),
        events.waits_stream: [events.waits_of_tree(run)],
        limits.gates_stream: limits.of_tree(run),
    }
    return [(stream, subject) for stream in streams for subject in subjects.get(stream, ())]


async def _purge_in_pieces(session: Session, stream: str, subject: str) -> int:
    """Purge what may be much, so that the writers of the stream are held up for a moment only, and again."""
    after = purged = 0
    while (first := await session.store.first(stream, subject, after=after)) is not None:
        after = first.sequence + PURGED_AT_ONCE
        answer = await session.connection.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": after}, timeout=60)
        purged += int(answer["purged"])
    return purged + await purge(session, stream, [subject])
