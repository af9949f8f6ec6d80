"""What may be listened to, and where it comes from: each topic is a generator of whole states of something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import monotonic, time
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.client import Client
from jetflow.dashboard.detail import read_trace
from jetflow.dashboard.hearing import Hearing
from jetflow.dashboard.overview import Overview, read_overview
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.rows import RunTotals

MOST_IDS: Final = 500
"""Ids that one event of ``runs`` has at most."""

SHARE: Final = 10
"""A read that takes n seconds is followed by a pause of this many times n, at least."""

_GOES_ON: Final = ("queued", "running")

Source: TypeAlias = Callable[[Client], AsyncGenerator[Any]]


class RootChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Root runs that began and that ended since the last event. With ``more`` there are others: read the list again."""

    at: float
    began: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    more: bool = False


def merged(before: Any, after: Any) -> Any:
    """Return what stands for two values of a topic: the newer one, or, of changes, both."""
    if not isinstance(before, RootChanges) or not isinstance(after, RootChanges):
        return after
    began, ended = before.began + after.began, before.ended + after.ended
    is_much = len(began) + len(ended) > MOST_IDS
    return RootChanges(
        at=after.at,
        began=() if is_much else began,
        ended=() if is_much else ended,
        more=is_much or before.more or after.more,
    )


def whole(value: Any) -> Any:
    """Return what to tell whoever comes later: the state, or, of changes, that the list is to be read."""
    return RootChanges(at=value.at, more=True) if isinstance(value, RootChanges) else value


def source_of(name: str) -> Source:
    """Return where the states of a topic come from.

    Raises:
        Problem: there is no such topic.
    """
    kind, _, rest = name.partition(":")
    if kind in _PLAIN and not rest:
        return _PLAIN[kind]
    if kind in _OF_RUNS and rest:
        make = _OF_RUNS[kind]
        return lambda client: make(client, rest)
    names = ", ".join([*_PLAIN, *(f"{kind}:ID" for kind in _OF_RUNS)])
    raise Problem(400, "unknown-topic", f"there is no topic {name!r}", f"there are: {names}")


def _again(read: Callable[[Client], Awaitable[Any]], every: float) -> Source:
    async def values(client: Client) -> AsyncGenerator[Any]:
        shown = None
        while True:
            began = monotonic()
            value = await read(client)
            facts = msgspec.structs.replace(value, at=0.0) if isinstance(value, Overview) else value
            if facts != shown:
                shown = facts
                yield value
            await asyncio.sleep(max(every, SHARE * (monotonic() - began)))

    return values


async def _overview(client: Client) -> Any:
    return await read_overview(client, 3600.0)


class EventsAt(msgspec.Struct, frozen=True):
    """The sequence of the newest event: when it grows, read the list again."""

    newest: int


async def _schedules(client: Client) -> dict[str, tuple[float | None, bool]]:
    """Return when each schedule is due next, and whether it is paused: when that changes, read the list again."""
    return {row.name: (row.next, row.paused) for row in await client.schedules.list()}


async def _events(client: Client) -> EventsAt:
    return EventsAt(await client.newest_event())


async def _roots(client: Client) -> AsyncGenerator[RootChanges]:
    yield RootChanges(at=time(), more=True)
    async with aclosing(client.follow_roots()) as changes:
        async for change in changes:
            is_end = change.kind == "run"
            began, ended = (() if is_end else (change.run,)), ((change.run,) if is_end else ())
            yield RootChanges(at=time(), began=began, ended=ended)


async def _run(client: Client, run_id: str) -> AsyncGenerator[Any]:
    shown = None
    while True:
        began = monotonic()
        trace = await read_trace(client, run_id)
        if trace != shown:
            shown = trace
            yield trace
        if trace.status not in _GOES_ON:
            return
        await asyncio.sleep(max(1.0, SHARE * (monotonic() - began)))


async def _totals(client: Client, run_id: str) -> AsyncGenerator[RunTotals]:
    async with aclosing(client.watch(run_id)) as looks:
        async for totals in looks:
            yield totals


_PLAIN: Final[dict[str, Source]] = {
    "overview": _again(_overview, 2.0),
    "queues": _again(lambda client: client.queues(), 2.0),
    "workers": _again(lambda client: client.workers(), 2.0),
    "runs": _roots,
    "schedules": _again(_schedules, 2.0),
    "events": _again(_events, 1.0),
}

_OF_RUNS: Final[dict[str, Callable[[Client, str], AsyncGenerator[Any]]]] = {
    "run": _run,
    "totals": _totals,
    "said": lambda client, run_id: Hearing(client, run_id).states(),
}
