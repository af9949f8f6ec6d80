"""The schedules: when each is due, what its last ticks have led to; and pausing, running now, and making up for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.scheduling import MOST_TICKS, ScheduleRow, ScheduleTicks

ENDPOINTS = Endpoints()

TOLD: Final = 100
"""Ids of the runs of a backfill that are told."""

LATEST: Final = 253_402_300_799.0
"""The end of the year 9999, behind which no time is written."""


class TicksQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``last`` and ``upcoming`` are how many ticks of each are told."""

    last: Annotated[int, Meta(ge=0, le=MOST_TICKS)] = 10
    upcoming: Annotated[int, Meta(ge=0, le=MOST_TICKS)] = 5


@ENDPOINTS.get("schedules")
async def schedules(ask: Ask, query: TicksQuery) -> list[ScheduleTicks]:
    """List the schedules with their last ticks and their next ones."""
    found = await ask.client.schedules.ticks(last=query.last, upcoming=query.upcoming)
    return [_shown(ask, one) for one in found]


@ENDPOINTS.get("schedules/{name}")
async def schedule(ask: Ask, query: TicksQuery) -> ScheduleTicks:
    """Return one schedule with its last ticks and its next ones."""
    [found] = await ask.client.schedules.ticks(ask.path["name"], last=query.last, upcoming=query.upcoming)
    return _shown(ask, found)


@ENDPOINTS.post("schedules/{name}/pause", "pause")
async def pause(ask: Ask) -> ScheduleRow:
    """Start nothing more by a schedule until it is resumed."""
    return _row(ask, await ask.client.schedules.pause(ask.path["name"]))


@ENDPOINTS.post("schedules/{name}/resume", "pause")
async def resume(ask: Ask) -> ScheduleRow:
    """Let a schedule that was paused go on with its next tick."""
    return _row(ask, await ask.client.schedules.resume(ask.path["name"]))


class TickStarted(msgspec.Struct, frozen=True):
    """The run that was begun."""

    id: str


@ENDPOINTS.post("schedules/{name}/trigger", "trigger", status=201)
async def trigger(ask: Ask) -> TickStarted:
    """Begin a run as a tick of this moment would. It counts as no tick."""
    return TickStarted((await ask.client.schedules.trigger(ask.path["name"])).id)


class BackfillBody(msgspec.Struct, forbid_unknown_fields=True):
    """The ticks from ``since`` to ``until``, in seconds since the epoch, get their runs."""

    since: Annotated[float, Meta(ge=0, le=LATEST)]
    until: Annotated[float, Meta(ge=0, le=LATEST)]


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """How many ticks there were, and the ids of the first of their runs: those that were there are found."""

    count: int
    ids: tuple[str, ...]


@ENDPOINTS.post("schedules/{name}/backfill", "trigger")
async def backfill(ask: Ask, body: BackfillBody) -> Backfilled:
    """Begin the runs of all ticks in a range of time that have none."""
    since, until = (datetime.fromtimestamp(at, UTC) for at in (body.since, body.until))
    runs = await ask.client.schedules.backfill(ask.path["name"], since, until)
    ask.note(len(runs), since=body.since, until=body.until)
    return Backfilled(count=len(runs), ids=tuple(run.id for run in runs[:TOLD]))


def _shown(ask: Ask, found: ScheduleTicks) -> ScheduleTicks:
    return msgspec.structs.replace(found, schedule=_row(ask, found.schedule))


def _row(ask: Ask, row: ScheduleRow) -> ScheduleRow:
    """Return a schedule with as much of its input as whoever asks may see."""
    if not ask.access.payloads:
        return msgspec.structs.replace(row, input=None)
    if ask.dashboard.redact is None:
        return row
    return msgspec.structs.replace(row, input=ask.dashboard.redact(row.workflow, "input", row.input))
