"""Schedules: which runs a tick that has come leads to, and which tick is armed next.

A schedule is a chain: one timer, of its next tick. Who handles the message that it becomes starts a run for each tick
that has come, arms the next one, and acknowledges the message then. So a chain never breaks: what was not armed is
handled again. And each tick has one run: its key is the tick, and a run is write-once. A timer is only armed as long as
the schedule is what it was when it was read (its *fence*): a change and its own first timer are stored together, and
nobody who has seen the schedule before can arm over them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jetflow.engine.tasks import NULL
from jetflow.engine.ticks import Timing, jittered, named

ON_TIME: Final = 10.0
"""Seconds by which a tick may be late and is not missed."""

AT_ONCE: Final = 200
"""Ticks that are made up for in one go; the next go follows at once."""

CatchUp: TypeAlias = Literal["all", "latest", "none"]
Overlap: TypeAlias = Literal["allow", "skip"]


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a schedule says. Durations are seconds, times seconds since the epoch.

    Ticks that were missed, for nobody was there, follow ``catch_up``: all are made up for, the latest, or none; within
    ``window``, if there is one. Under ``overlap`` ``"skip"`` a tick is left out while the run of the last one goes on.
    A tick comes up to ``jitter`` late, by a hash of it. ``epoch`` grows with each change of its times; timers of
    another one count no more. One that is ``declared`` belongs to the code of its workflow. Its runs have the
    ``level``, if one is said. While its workflow is paused it may be ``silent``: ticks before that time start nothing.
    """

    workflow: str
    timing: Timing
    input: msgspec.Raw = NULL
    metadata: dict[str, Any] = {}
    catch_up: CatchUp = "latest"
    window: float | None = None
    overlap: Overlap = "allow"
    jitter: float = 0.0
    paused: bool = False
    declared: bool = False
    epoch: int = 1
    level: str | None = None
    silent: float | None = None

    def due(self, name: str, tick: float) -> float:
        """Return when a tick is due."""
        return jittered(name, tick, self.jitter)


class Tick(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a schedule's timer: which tick it is for, of which epoch; and the run that was started ``last``."""

    tick: float
    epoch: int
    last: str | None = None


class Found(msgspec.Struct, frozen=True):
    """A schedule as it is stored, with the sequence of its message, and the newest tick that is armed or has fired."""

    schedule: Schedule
    sequence: int
    newest: Tick | None = None


class ReadSchedule(msgspec.Struct, frozen=True):
    """Read a schedule from the leader. Result: a Found, or None if there is none."""

    name: str


class StartTick(msgspec.Struct, frozen=True):
    """Start the run of a tick, write-once. Result: its id, or None where no run can be started.

    ``unless_open`` names a run: while that goes on, one that is not there yet is not started, and the result is its id.
    """

    name: str
    schedule: Schedule
    tick: float
    unless_open: str | None = None


class ArmTick(msgspec.Struct, frozen=True):
    """Arm the timer of a schedule, if the schedule is still stored under this sequence. Result: None."""

    name: str
    schedule: Schedule
    sequence: int
    tick: Tick


ScheduleEffect: TypeAlias = ReadSchedule | StartTick | ArmTick
ScheduleProcedure: TypeAlias = Generator[ScheduleEffect, Any, None]


def fire(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    """Do what the timer of a schedule is for that has fired."""
    found: Found | None = yield ReadSchedule(name)
    if found is None or found.schedule.paused or found.schedule.epoch != fired.epoch:
        return
    newest = found.newest
    if newest is not None and newest.epoch == fired.epoch and newest.tick > fired.tick:
        return  # whoever has armed that has started what is before it
    schedule, last = found.schedule, fired.last
    ticks, following = due_ticks(schedule, name, fired.tick, now)
    for tick in ticks:
        if schedule.silent is not None and tick < schedule.silent:
            continue
        started: str | None = yield StartTick(name, schedule, tick, last if schedule.overlap == "skip" else None)
        last = last if started is None else started
    if following is not None:
        yield ArmTick(name, schedule, found.sequence, Tick(following, fired.epoch, last))


def begun(schedule: Schedule, before: Found | None, now: float) -> Tick | None:
    """Return the first tick that is armed for a schedule that is stored now, in the place of what was ``before``.

    Where its times stay what they were, a tick that has come and was not handled yet is not lost.
    """
    if schedule.paused:
        return None
    since, last = now, None
    if before is not None and before.newest is not None and not before.schedule.paused:
        last = before.newest.last
        if before.schedule.timing == schedule.timing and before.newest.epoch == before.schedule.epoch:
            since = min(now, before.newest.tick)
    tick = schedule.timing.first(since)
    return None if tick is None else Tick(tick, schedule.epoch, last)


def due_ticks(schedule: Schedule, name: str, fired: float, now: float) -> tuple[list[float], float | None]:
    """Return the ticks from ``fired`` on that have come and get a run, and the first that has not come."""
    timing = schedule.timing
    if schedule.catch_up == "all":
        oldest = fired if schedule.window is None else max(fired, now - max(schedule.window, ON_TIME))
        return _come(schedule, name, oldest, now)
    on_time, following = _come(schedule, name, max(fired, now - ON_TIME - schedule.jitter), now)
    if on_time or schedule.catch_up == "none":
        return on_time, following
    latest = timing.last(fired, now)
    if latest is None or (schedule.window is not None and latest < now - schedule.window):
        return [], following
    return [latest], following


def _come(schedule: Schedule, name: str, since: float, now: float) -> tuple[list[float], float | None]:
    """Return the ticks from a time on that have come, and the first that has not, or has to wait for the next go."""
    first, come = schedule.timing.first(since), list[float]()
    if first is None:
        return [], None
    ticks = schedule.timing.after(first)
    tick: float | None = first
    while tick is not None and schedule.due(name, tick) <= now and len(come) < AT_ONCE:
        come.append(tick)
        tick = next(ticks, None)
    return come, tick


def key_of(name: str, tick: float) -> str:
    """Return the key of the run that a tick starts."""
    return f"{name}@{named(tick)}"
