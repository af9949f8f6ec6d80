"""Schedules at run time: made, changed, paused, and asked when they are due."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from time import time
from typing import Any, Final, Unpack

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.identity import check_name
from jetflow.engine.levels import checked_level
from jetflow.engine.planning import Plan, planned, replanned
from jetflow.engine.schedules import Schedule, StartTick
from jetflow.engine.sleeping import timestamp_of
from jetflow.engine.ticks import before
from jetflow.engine.timing_words import in_words
from jetflow.errors import InvalidInput, InvalidQuery, UnknownSchedule
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.schedule_ticks import TickRow, read_ticks
from jetflow.runs.schedules import (
    change,
    create,
    delete,
    read_changed_schedules,
    read_schedule,
    read_schedules,
    start_tick,
)
from jetflow.runs.targets import resolve
from jetflow.runs.values import SMALL
from jetflow.triggering import TRIGGER_TIMEOUT, Run
from jetflow.wire.codec import ANY
from jetflow.workflow import Workflow

BACKFILLED: Final = 10_000
"""Ticks that are made up for by one backfill, at most."""

AT_ONCE: Final = 100

MOST_TICKS: Final = 100
"""Ticks of each schedule that are told at once."""


class _Unset:
    """Nothing was said."""


UNSET: Final = _Unset()


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule. Durations are seconds, times seconds since the epoch; ``next`` is when it is due next.

    It says when (``cron`` in ``tz``, ``every``, ``times``, ``start``, ``end``), and what becomes of its ticks; see
    `Plan`. One that is ``declared`` belongs to its workflow's code. ``known`` tells whether anybody has declared that
    workflow: a schedule of one that nobody has starts nothing. ``words`` say when it is due.
    """

    name: str
    workflow: str
    next: float | None
    paused: bool
    declared: bool
    known: bool
    cron: str | None
    every: float | None
    times: tuple[float, ...]
    tz: str
    start: float | None
    end: float | None
    catch_up: str
    window: float | None
    overlap: str
    jitter: float
    metadata: dict[str, Any]
    input: Any
    words: str = ""
    level: str | None = None
    silent: float | None = None


class ScheduleTicks(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule with what its ``last`` ticks have led to, the oldest first, and its next ones, as seconds."""

    schedule: ScheduleRow
    last: tuple[TickRow, ...]
    upcoming: tuple[float, ...]


class Schedules:
    """What may be done with the schedules of a namespace: `Client.schedules`.

    All methods raise `InvalidName` for what is no name, and the `BrokerError`s of a broker that is away.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self, name: str, workflow: Workflow[Any, Any] | str, input: Any = None, **plan: Unpack[Plan]
    ) -> ScheduleRow:
        """Have a workflow run when a `Plan` says so, with this input. Each tick is one run, with the tick as its key.

        Raises:
            ScheduleExists: there is one of this name that is not the same.
            InvalidInput: the plan makes no sense, or the input does not fit.
            UnknownLevel: the workflow does not declare the level.
            UnknownWorkflow: nobody has declared a workflow of this name.
        """
        check_name("schedule name", name)
        session = self._session.usable()
        target = await resolve(session, workflow, timeout=TRIGGER_TIMEOUT)
        schedule = planned(target.workflow, plan, now=time())
        if schedule.level is not None:
            checked_level(target.workflow, target.levels, schedule.level)
        await create(session, name, _with_input(schedule, target.written(input)))
        return await self.get(name)

    async def get(self, name: str) -> ScheduleRow:
        """Return one schedule.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return _row(name, await self._read(name), await self._workflows())

    async def list(self, workflow: str | None = None) -> builtins.list[ScheduleRow]:
        """Return all schedules, or those of one workflow, by name."""
        schedules, known = await asyncio.gather(read_schedules(self._session.usable()), self._workflows())
        rows = (_row(name, schedule, known) for name, schedule in schedules.items())
        return [row for row in rows if workflow in (None, row.workflow)]

    async def ticks(self, name: str | None = None, *, last: int = 5, upcoming: int = 5) -> builtins.list[ScheduleTicks]:
        """Return all schedules by name, or one, with what their last ticks have led to, and when they are due next.

        A tick that has no run is among them only where the schedule was there, as it is now, when it came.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidQuery: more than a hundred ticks of each are asked for, or fewer than none.
        """
        if not 0 <= last <= MOST_TICKS or not 0 <= upcoming <= MOST_TICKS:
            raise InvalidQuery(f"last={last}, upcoming={upcoming}: from 0 to {MOST_TICKS}")
        if name is not None:
            check_name("schedule name", name)
        session = self._session.usable()
        schedules, known = await asyncio.gather(read_changed_schedules(session), self._workflows())
        if name is not None:
            if name not in schedules:
                raise UnknownSchedule(name)
            schedules = {name: schedules[name]}
        found = await read_ticks(session, Declared(session), schedules, last=last, upcoming=upcoming)
        return [
            ScheduleTicks(schedule=_row(one, schedule, known), last=found[one].last, upcoming=found[one].upcoming)
            for one, (schedule, _) in schedules.items()
        ]

    async def update(self, name: str, *, input: Any = UNSET, **plan: Unpack[Plan]) -> ScheduleRow:
        """Change what a schedule says: what is given. New times take the place of all old ones.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidInput: the plan makes no sense, or the input does not fit.
            UnknownLevel: the workflow does not declare the level.
        """
        body: bytes | None = None
        level = plan.get("level")
        if level is not None or not isinstance(input, _Unset):
            target = await resolve(self._session, (await self._read(name)).workflow, timeout=TRIGGER_TIMEOUT)
            body = None if isinstance(input, _Unset) else target.written(input)
            if level is not None:
                checked_level(target.workflow, target.levels, level)

        def changed(schedule: Schedule) -> Schedule:
            anew = replanned(schedule, plan, now=time())
            return anew if body is None else _with_input(anew, body)

        return await self._change(name, changed)

    async def pause(self, name: str) -> ScheduleRow:
        """Start nothing more by a schedule until it is resumed. Ticks that pass meanwhile are not made up for.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return await self._change(name, lambda schedule: msgspec.structs.replace(schedule, paused=True))

    async def resume(self, name: str) -> ScheduleRow:
        """Let a schedule that was paused go on, with the next tick from now on.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return await self._change(name, lambda schedule: msgspec.structs.replace(schedule, paused=False))

    async def delete(self, name: str) -> None:
        """Remove a schedule. What it has started goes on. One that is declared comes back with its next worker.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        check_name("schedule name", name)
        if not await delete(self._session.usable(), name):
            raise UnknownSchedule(name)

    async def trigger(self, name: str) -> Run[Any]:
        """Start a run as a tick of this moment would. It has a key of its own, and counts as no tick.

        Raises:
            UnknownSchedule: there is none of this name.
            UnknownWorkflow, InvalidInput: no run can be started of it.
        """
        return await self._started(name, await self._read(name), round(time(), 3))

    async def backfill(self, name: str, since: datetime, until: datetime) -> builtins.list[Run[Any]]:
        """Start the runs of all ticks from ``since`` to ``until``, and return them; those that were started are found.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidInput: there are more than 10,000 ticks, or it ends before it begins.
            UnknownWorkflow: no run can be started of it.
        """
        begin, end = timestamp_of(since, "since"), timestamp_of(until, "until")
        if end < begin:
            raise InvalidInput("a backfill ends before it begins")
        schedule, ticks = await self._read(name), builtins.list[float]()
        for tick in schedule.timing.after(before(begin)):
            if tick > end:
                break
            if len(ticks) == BACKFILLED:
                raise InvalidInput(f"a backfill makes up for {BACKFILLED:,} ticks at most: give a shorter range")
            ticks.append(tick)
        runs: builtins.list[Run[Any]] = []
        for at in range(0, len(ticks), AT_ONCE):
            starting = (self._started(name, schedule, tick) for tick in ticks[at : at + AT_ONCE])
            runs += await asyncio.gather(*starting)
        return runs

    async def next(self, name: str, count: int = 10) -> builtins.list[datetime]:
        """Return the next ticks of a schedule, ``count`` at most, in UTC. One that is paused has them, too.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        schedule = await self._read(name)
        return [datetime.fromtimestamp(tick, UTC) for tick in islice(schedule.timing.after(time()), count)]

    async def _read(self, name: str) -> Schedule:
        check_name("schedule name", name)
        found = await read_schedule(self._session.usable(), name)
        if found is None:
            raise UnknownSchedule(name)
        return found[0]

    async def _change(self, name: str, changed: Callable[[Schedule], Schedule]) -> ScheduleRow:
        check_name("schedule name", name)
        return _row(name, await change(self._session.usable(), name, changed), await self._workflows())

    async def _workflows(self) -> set[str]:
        return set(await self._session.usable().registry.workflows())

    async def _started(self, name: str, schedule: Schedule, tick: float) -> Run[Any]:
        run = await start_tick(self._session, StartTick(name, schedule, tick))
        assert run is not None, "it is started, or an error is raised"
        return Run(self._session, run, ANY)


def _with_input(schedule: Schedule, body: bytes) -> Schedule:
    """Return a schedule with an input.

    Raises:
        InvalidInput: it is larger than a schedule may hold.
    """
    if len(body) > SMALL:
        raise InvalidInput(f"the input of a schedule has {SMALL:,} bytes at most, and this one {len(body):,}")
    return msgspec.structs.replace(schedule, input=msgspec.Raw(body))


def _row(name: str, schedule: Schedule, known: set[str]) -> ScheduleRow:
    timing = schedule.timing
    return ScheduleRow(
        name=name,
        workflow=schedule.workflow,
        next=None if schedule.paused else next(timing.after(time()), None),
        paused=schedule.paused,
        declared=schedule.declared,
        known=schedule.workflow in known,
        cron=timing.cron,
        every=timing.every,
        times=timing.times,
        tz=timing.zone,
        start=timing.start,
        end=timing.end,
        catch_up=schedule.catch_up,
        window=schedule.window,
        overlap=schedule.overlap,
        jitter=schedule.jitter,
        metadata=schedule.metadata,
        input=msgspec.json.decode(schedule.input),
        words=in_words(timing),
        level=schedule.level,
        silent=schedule.silent,
    )
