"""Who stands at the gates of limits: read for showing. Nothing here decides anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.limits import EVERYBODY, LimitSettings, Place, WhenFull
from jetflow.engine.tasks import NONE, Task
from jetflow.errors import MalformedRecord
from jetflow.runs.trace import PlaceTrace
from jetflow.wire.limits import Entry, LimitNames, decode_entry, decode_needed, decode_settings
from jetflow.wire.subjects import last_token

LISTED: Final = 1000
"""Runs of a limit that are listed, at most."""


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a limit at which anybody stands, or that has a ``max`` of its own (``chosen``).

    ``running`` runs are admitted, ``waiting`` ones are not. ``key`` is None where the limit has no keys, and what
    stands for it in subjects where nobody knows how it was given.
    """

    key: str | None
    max: int
    running: int
    waiting: int
    chosen: bool = False


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """One limit: ``max`` runs of a key at once, ``declared`` so, or chosen at run time; and how many stand there."""

    name: str
    max: int
    declared: int
    when_full: WhenFull
    running: int
    waiting: int
    keys: tuple[KeyRow, ...] = ()


class StandingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run at the gate of a limit, since a time (seconds since the epoch): it is admitted, or waits.

    Where a step of it stands there by itself, ``step`` is its name.
    """

    run: str
    root: str
    parent: str | None
    workflow: str
    key: str | None
    since: float
    admitted: bool
    step: str | None = None


async def read_limits(session: Session) -> dict[str, LimitSettings]:
    """Return what is stored of all limits, by their names."""
    names = LimitNames(session.names)
    found = dict[str, LimitSettings]()
    if await session.optional.is_there(names.limits_stream):
        async for page in session.store.pages(names.limits_stream, names.settings("*")):
            for stored in page:
                try:
                    found[last_token(stored.subject)] = decode_settings(stored.body)
                except MalformedRecord:  # of a version that has more to say
                    continue
    return dict(sorted(found.items()))


async def read_row(session: Session, name: str, settings: LimitSettings) -> LimitRow:
    """Return one limit, with its keys: those at which most stand come first."""
    names = LimitNames(session.names)
    counts, examples = Counter[str](), dict[str, str]()
    if await session.optional.is_there(names.gates_stream):
        async for page in session.store.leader_subjects(names.gates_stream, names.entries(name)):
            for subject in page:
                if (stands := names.parse_entry(subject)) is not None:
                    counts[stands.place.key] += 1
                    examples[stands.place.key] = subject
    shown = dict(settings.shown)
    unknown = [key for key in counts if key not in shown][:LISTED]
    bodies = await asyncio.gather(*(session.store.last(names.gates_stream, examples[key]) for key in unknown))
    shown |= {key: decode_entry(one.body).key for key, one in zip(unknown, bodies, strict=True) if one is not None}
    keys = [
        KeyRow(
            key=None if key == EVERYBODY else shown.get(key) or key,
            max=settings.max_of(key),
            running=min(counts[key], settings.max_of(key)),
            waiting=max(0, counts[key] - settings.max_of(key)),
            chosen=key in settings.keys,
        )
        for key in dict.fromkeys((*(key for key, _ in counts.most_common()), *settings.keys))
    ]
    return LimitRow(
        name=name,
        max=settings.max if settings.chosen is None else settings.chosen,
        declared=settings.max,
        when_full=settings.when_full,
        running=sum(key.running for key in keys),
        waiting=sum(key.waiting for key in keys),
        keys=tuple(keys),
    )


async def read_standing(session: Session, name: str, key: str, settings: LimitSettings) -> list[StandingRow]:
    """Return the runs at the gate of a limit and a key (its token), in their order: the first thousand."""
    names, rows = LimitNames(session.names), list[StandingRow]()
    if not await session.optional.is_there(names.gates_stream):
        return rows
    async for page in session.store.pages(names.gates_stream, names.entries(name, key)):
        for stored in page:
            stands = names.parse_entry(stored.subject)
            if stands is not None:
                said: Entry = decode_entry(stored.body)
                rows.append(
                    StandingRow(
                        run=stands.run,
                        root=stands.root,
                        parent=None if stands.parent == NONE else stands.parent,
                        workflow=said.workflow,
                        key=None if key == EVERYBODY else said.key,
                        since=stored.time,
                        admitted=len(rows) < settings.max_of(key),
                        step=stands.step,
                    )
                )
        if len(rows) >= LISTED:
            break
    return rows[:LISTED]


async def read_places(session: Session, task: Task, step: str | None = None) -> tuple[PlaceTrace, ...]:
    """Return the places that a run, or a step of it, has or waits for, in the order in which it comes to them."""
    names, store = LimitNames(session.names), session.store
    stored = await store.leader_last(session.names.records_stream, names.needed(task, step))
    try:
        places = () if stored is None else decode_needed(stored.body).places
    except MalformedRecord:
        return ()
    found = await asyncio.gather(*(_place(session, task, Place(*one), step) for one in places))
    return tuple(found)


async def _place(session: Session, task: Task, place: Place, step: str | None) -> PlaceTrace:
    names, store = LimitNames(session.names), session.store
    filter_of_key = names.entries(place.limit, place.key)
    entry, stored = await asyncio.gather(
        store.leader_last(names.gates_stream, names.entry(place, task, step)),
        store.leader_last(names.limits_stream, names.settings(place.limit)),
    )
    try:
        most = 0 if stored is None else decode_settings(stored.body).max_of(place.key)
    except MalformedRecord:
        most = 0
    before = None
    if entry is not None:
        total, rest = await asyncio.gather(
            store.count(names.gates_stream, filter_of_key),
            store.count(names.gates_stream, filter_of_key, after=entry.sequence - 1),
        )
        before = max(0, total - rest)
    return PlaceTrace(
        limit=place.limit,
        key=None if place.key == EVERYBODY else place.shown or place.key,
        max=most,
        before=before,
        since=None if entry is None else entry.time,
        admitted=before is not None and before < most,
    )
