"""What may be said of a schedule, in code or at run time, and what is refused where it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, get_args

import msgspec

from jetflow.engine.schedules import CatchUp, Overlap, Schedule
from jetflow.engine.sleeping import seconds_of, timestamp_of
from jetflow.engine.ticks import checked_timing
from jetflow.errors import InvalidInput

_TIMING: Final = frozenset({"cron", "every", "times", "tz", "start", "end"})
_LIMITS: Final = ("queue", "cancel")


class PlanBesideCron(TypedDict, total=False):
    """A `Plan`, where its cron is said apart."""

    every: float | timedelta
    times: Sequence[datetime]
    tz: str
    start: datetime
    end: datetime
    catch_up: CatchUp
    window: float | timedelta
    overlap: Overlap
    jitter: float | timedelta
    metadata: Mapping[str, Any]
    level: str


class Plan(PlanBesideCron, total=False):
    """When a schedule is due, and what becomes of its ticks. Durations are seconds, or timedeltas.

    - ``cron`` with five fields, or six with seconds in front, in the zone ``tz``; or ``every`` so long; or ``times``.
      No tick is before ``start`` or after ``end``.
    - ``catch_up``: what becomes of ticks that were missed: ``"all"``, ``"latest"``, ``"none"``; of none that is older
      than ``window``.
    - ``overlap``: ``"allow"``, or ``"skip"`` a tick while the run of the last one goes on.
    - ``jitter``: up to how much later each tick comes, by chance, but always the same for a tick.
    - ``metadata`` of its runs, and their ``level``, one of those of the workflow.
    """

    cron: str


def planned(workflow: str, plan: Plan, *, now: float, declared: bool = False) -> Schedule:
    """Return the schedule that is planned, but for its input.

    Raises:
        InvalidInput: it makes no sense; a cron by the place in its text.
        TypeError: it says what cannot be said of a schedule.
    """
    said = _said(plan)
    timing = checked_timing(
        cron=said.get("cron"),
        every=None if said.get("every") is None else seconds_of(said["every"], "every="),
        times=[timestamp_of(one, "times=") for one in said.get("times", ())],
        zone=said.get("tz", "UTC"),
        start=None if said.get("start") is None else timestamp_of(said["start"], "start="),
        end=None if said.get("end") is None else timestamp_of(said["end"], "end="),
        now=now,
    )
    schedule = Schedule(workflow=workflow, timing=timing, declared=declared)
    return _with_policies(schedule, said)


def replanned(schedule: Schedule, plan: Plan, *, now: float) -> Schedule:
    """Return a schedule of which something is planned anew. New times take the place of all that it says of times.

    Raises:
        The same as `planned`.
    """
    said = _said(plan)
    if said.keys() & _TIMING:
        anew = planned(schedule.workflow, plan, now=now)
        schedule = msgspec.structs.replace(schedule, timing=anew.timing)
    return _with_policies(schedule, said)


def _said(plan: Plan) -> dict[str, Any]:
    if unknown := plan.keys() - Plan.__annotations__.keys():
        raise TypeError(f"a schedule has no {min(unknown)!r}")
    return dict(plan)


def _with_policies(schedule: Schedule, said: dict[str, Any]) -> Schedule:
    new: dict[str, Any] = {}
    if "catch_up" in said:
        new["catch_up"] = _one_of("catch_up", said["catch_up"], get_args(CatchUp))
    if "overlap" in said:
        if said["overlap"] in _LIMITS:
            raise InvalidInput(f"overlap={said['overlap']!r} needs limits, which there are none of: 'allow' or 'skip'")
        new["overlap"] = _one_of("overlap", said["overlap"], get_args(Overlap))
    if "window" in said:
        new["window"] = None if said["window"] is None else seconds_of(said["window"], "window=")
    if "jitter" in said:
        new["jitter"] = seconds_of(said["jitter"], "jitter=")
    if "metadata" in said:
        new["metadata"] = dict(said["metadata"])
    if "level" in said:
        new["level"] = said["level"]
    return msgspec.structs.replace(schedule, **new)


def _one_of(what: str, said: object, known: tuple[str, ...]) -> object:
    if said not in known:
        raise InvalidInput(f"{what} of a schedule is one of {', '.join(map(repr, known))}, and not {said!r}")
    return said
