"""What was taken of rate limits, and which turn a run waits for: read for showing. Nothing here decides anything."""

from __future__ import annotations

import asyncio
from time import time

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.limits import EVERYBODY
from jetflow.engine.rates import Rate, RateSettings, Window, free_at
from jetflow.engine.tasks import Task
from jetflow.errors import MalformedRecord
from jetflow.runs.trace import RateTrace
from jetflow.wire.limits import LimitNames, decode_needed, decode_rate, decode_window
from jetflow.wire.records import decode_join
from jetflow.wire.subjects import last_token


class RateKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a rate limit: how many units were ``taken`` in the time that counts, and when one more is free.

    ``free_at`` (seconds since the epoch) is when a run begins that comes now; None if at once. ``key`` is None where
    the rate limit has no keys.
    """

    key: str | None
    taken: int
    free_at: float | None = None


class RateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rate limit: ``max`` units of a key in ``per`` seconds; and its keys of which any was taken of late."""

    name: str
    max: int
    per: float
    keys: tuple[RateKeyRow, ...] = ()


async def read_rates(session: Session) -> list[RateRow]:
    """Return all rate limits, by name, with their keys: those come first of which a run waits longest for a unit."""
    names = LimitNames(session.names)
    if not await session.optional.is_there(names.limits_stream):
        return []
    found = dict[str, RateSettings]()
    async for page in session.store.pages(names.limits_stream, names.rate("*")):
        for stored in page:
            try:
                found[last_token(stored.subject)] = decode_rate(stored.body)
            except MalformedRecord:  # of a version that has more to say
                continue
    keys = await asyncio.gather(*(_keys(session, names, *one) for one in sorted(found.items())))
    return [
        RateRow(name=name, max=rate.max, per=rate.per, keys=rows)
        for (name, rate), rows in zip(sorted(found.items()), keys, strict=True)
    ]


async def _keys(session: Session, names: LimitNames, name: str, rate: RateSettings) -> tuple[RateKeyRow, ...]:
    rows, now = list[RateKeyRow](), time()
    async for page in session.store.pages(names.limits_stream, names.windows(name)):
        for stored in page:
            try:
                window = decode_window(stored.body)
            except MalformedRecord:
                continue
            token = last_token(stored.subject)
            key = None if token == EVERYBODY else window.key or token
            rows.append(RateKeyRow(key=key, taken=_taken(window, rate, now), free_at=_free_at(window, rate, now)))
    return tuple(sorted(rows, key=lambda row: (-(row.free_at or 0.0), -row.taken, row.key or "")))


def _taken(window: Window, rate: RateSettings, now: float) -> int:
    return sum(units for at, units in window.begun if at > now - rate.per)


def _free_at(window: Window, rate: RateSettings, now: float) -> float | None:
    at = max(free_at(window.begun, 1, rate, now), free_at(window.booked, 1, rate, now))
    return at if at > now else None


async def read_turns(session: Session, task: Task) -> tuple[RateTrace, ...]:
    """Return the rate limits at which a run that has not begun waits for its turn, and until when."""
    names, store = LimitNames(session.names), session.store
    needed, join = await asyncio.gather(
        store.leader_last(session.names.records_stream, names.needed(task)),
        store.leader_last(session.names.records_stream, names.turns(task)),
    )
    try:
        rates = () if needed is None else decode_needed(needed.body).rates
        booked = None if join is None else decode_join(join.body).booked
    except MalformedRecord:
        return ()
    return tuple(_turn(Rate(*one), booked) for one in rates)


def _turn(rate: Rate, booked: float | None) -> RateTrace:
    key = None if rate.key == EVERYBODY else rate.shown or rate.key
    return RateTrace(limit=rate.limit, key=key, units=rate.units, until=booked)
