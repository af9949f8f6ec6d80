"""When schedules are due: ten zones over twenty years, intervals, lists of times, and what is made up for."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from jetflow.engine.schedules import (
    AT_ONCE,
    ON_TIME,
    ArmTick,
    Found,
    ReadSchedule,
    Schedule,
    StartTick,
    Tick,
    due_ticks,
    fire,
)
from jetflow.engine.ticks import Timing, checked_timing, jittered

ZONES: Final = (
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Tehran",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
"""Zones whose clocks change by an hour, by half of one, no more, again, and one that has left out a day."""

SINCE: Final = datetime(2010, 1, 1, tzinfo=UTC).timestamp()
UNTIL: Final = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
DAY: Final = timedelta(days=1)


def ticks_of(timing: Timing, since: float = SINCE, until: float = UNTIL) -> list[float]:
    found: list[float] = []
    for tick in timing.after(since):
        if tick > until:
            return found
        found.append(tick)
    return found


def local_days() -> list[datetime]:
    """Return half past two by the wall clock of each day in these years, also of one that a zone has left out."""
    first = datetime.fromtimestamp(SINCE, UTC).replace(tzinfo=None, hour=2, minute=30)
    return [first + number * DAY for number in range(-2, 366 * 21)]


def changes_of(zone: ZoneInfo) -> list[float]:
    """Return days on which the clocks of a zone have changed."""
    days = [datetime.fromtimestamp(SINCE + number * 86400, zone) for number in range(366 * 20)]
    return [later.timestamp() for earlier, later in pairwise(days) if earlier.utcoffset() != later.utcoffset()]


def expected(day: datetime, zone: ZoneInfo) -> float:
    """Return when 02:30 of a day is: once if the clocks repeat it, and when they go on if they leave it out."""
    local = day.replace(tzinfo=zone)
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == day:
        return local.timestamp()  # fold 0: the first of two
    gap = local.replace(fold=1).utcoffset() - local.replace(fold=0).utcoffset()  # type: ignore[operator]
    moment = day
    while moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
        moment = (moment + timedelta(minutes=1)).replace(second=0)
    assert gap != timedelta(0)
    return moment.replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize("name", ZONES)
def test_a_time_of_day_comes_once_a_day(name: str) -> None:
    """At half past two, which clocks leave out and repeat: when they go on, and the first of two."""
    zone = ZoneInfo(name)
    ticks = ticks_of(Timing(cron="30 2 * * *", zone=name))
    days = [moment for day in local_days() if SINCE < (moment := expected(day, zone)) <= UNTIL]
    assert ticks == days
    assert len(ticks) > 7300


@pytest.mark.parametrize("name", ZONES)
def test_each_hour_that_passes_has_its_tick(name: str) -> None:
    """Also that which the clocks repeat. Where they change by half an hour, a full hour is half of one away."""
    timing, steps = Timing(cron="0 * * * *", zone=name), set[float]()
    for day in [SINCE + DAY.total_seconds(), *changes_of(ZoneInfo(name))]:
        ticks = ticks_of(timing, day - 2 * 86400, day + 2 * 86400)
        steps |= {later - earlier for earlier, later in pairwise(ticks)}
    assert steps <= ({3600.0} if name != "Australia/Lord_Howe" else {1800.0, 3600.0, 5400.0})


@pytest.mark.parametrize("name", ZONES)
def test_what_is_asked_in_pieces_is_the_same(name: str) -> None:
    """A chain asks for one tick after the other, and comes to what one walk comes to, also where clocks change."""
    timing = Timing(cron="*/17 1-3 * * *", zone=name)
    for day in [SINCE, *changes_of(ZoneInfo(name))]:
        walk = list(islice(timing.after(day - 86400), 60))
        at, chain = day - 86400, list[float]()
        while len(chain) < len(walk):
            at = next(timing.after(at))
            chain.append(at)
        assert chain == walk
        assert all(timing.first(tick) == tick for tick in walk)


def test_seconds_stand_in_front() -> None:
    ticks = list(islice(Timing(cron="*/20 0 12 * * *", zone="Asia/Tokyo").after(SINCE), 4))
    assert [datetime.fromtimestamp(tick, ZoneInfo("Asia/Tokyo")).strftime("%H:%M:%S") for tick in ticks] == [
        "12:00:00",
        "12:00:20",
        "12:00:40",
        "12:00:00",
    ]


def test_intervals_count_from_their_start() -> None:
    assert list(islice(Timing(every=3600).after(SINCE + 1), 2)) == [SINCE + 3600, SINCE + 7200]
    begun = Timing(every=2.5, start=SINCE + 1)
    assert list(islice(begun.after(SINCE), 3)) == [SINCE + 1, SINCE + 3.5, SINCE + 6]
    assert list(islice(begun.after(SINCE + 3.5), 1)) == [SINCE + 6]
    assert ticks_of(Timing(every=1, start=SINCE, end=SINCE + 3), SINCE - 9) == [SINCE, SINCE + 1, SINCE + 2, SINCE + 3]


def test_the_last_tick_is_found_without_walking() -> None:
    assert Timing(every=1).last(SINCE, UNTIL) == UNTIL
    assert Timing(cron="0 0 1 1 *").last(SINCE, UNTIL - 1) == datetime(2029, 1, 1, tzinfo=UTC).timestamp()
    assert Timing(cron="0 0 1 1 *").last(UNTIL - 86400, UNTIL - 1) is None
    assert Timing(times=(SINCE, SINCE + 5)).last(SINCE, UNTIL) == SINCE + 5
    assert Timing(times=(SINCE,)).last(SINCE, SINCE) == SINCE


def test_jitter_stays_below_what_is_asked() -> None:
    late = [jittered("s", SINCE + number, 10) - SINCE - number for number in range(1000)]
    assert 0 <= min(late) < 0.2
    assert 9.8 < max(late) < 10
    assert late == [jittered("s", SINCE + number, 10) - SINCE - number for number in range(1000)]


# --- what is made up for

NOW: Final = SINCE + 100_000.5
SECONDLY: Final = Timing(every=1)


def plan(fired: float, timing: Timing = SECONDLY, **policies: Any) -> tuple[list[float], float | None]:
    return due_ticks(Schedule(workflow="w", timing=timing, **policies), "s", fired, NOW)


@pytest.mark.parametrize("catch_up", ["all", "latest", "none"])
def test_a_tick_that_is_on_time_comes_whatever_is_said(catch_up: Any) -> None:
    fired = NOW - 0.5
    assert plan(fired, catch_up=catch_up) == ([fired], fired + 1)
    assert plan(fired - 3, catch_up=catch_up) == ([fired - 3, fired - 2, fired - 1, fired], fired + 1)


def test_all_that_were_missed_are_made_up_for() -> None:
    fired = NOW - 60.5
    ticks, following = plan(fired, catch_up="all")
    assert (ticks[0], ticks[-1], len(ticks), following) == (fired, NOW - 0.5, 61, NOW + 0.5)
    ticks, following = plan(fired, catch_up="all", window=30.0)
    assert (ticks[0], len(ticks)) == (NOW - 29.5, 30)


def test_many_are_made_up_for_in_goes() -> None:
    fired, came = NOW - 1000.5, list[float]()
    at: float | None = fired
    while at is not None and at < NOW:
        ticks, at = plan(at, catch_up="all")
        assert len(ticks) <= AT_ONCE
        came += ticks
    assert came == [fired + number for number in range(1001)]


def test_of_those_that_were_missed_the_latest_is_made_up_for() -> None:
    daily = Timing(every=86400)
    assert plan(SINCE - 5 * 86400, daily) == ([SINCE + 86400], SINCE + 2 * 86400)
    assert plan(SINCE - 5 * 86400, daily, window=60.0) == ([], SINCE + 2 * 86400)
    assert plan(SINCE - 5 * 86400, daily, catch_up="none") == ([], SINCE + 2 * 86400)
    ticks, following = plan(NOW - 3600.5, catch_up="latest")  # those on time are no missed ones
    assert (ticks[0], ticks[-1], following) == (NOW - ON_TIME + 0.5, NOW - 0.5, NOW + 0.5)


def test_what_has_ended_has_no_next() -> None:
    assert plan(NOW - 0.5, Timing(every=1, end=NOW)) == ([NOW - 0.5], None)
    assert plan(SINCE, Timing(times=(SINCE,))) == ([SINCE], None)
    assert plan(SINCE, Timing(times=(SINCE,)), catch_up="none") == ([], None)


def test_a_jittered_tick_waits_for_its_time() -> None:
    fired = NOW - 0.5
    ticks, following = plan(fired - 2, jitter=5.0)
    assert all(jittered("s", tick, 5.0) <= NOW for tick in ticks)
    assert following is not None
    assert jittered("s", following, 5.0) > NOW


def test_a_timing_is_checked_once_and_for_all() -> None:
    times = [SINCE + 5, SINCE, SINCE + 5]
    timing = checked_timing(cron=None, every=None, times=times, zone="UTC", start=None, end=None, now=NOW)
    assert timing.times == (SINCE, SINCE + 5)


def test_a_silent_schedule_starts_nothing_and_goes_on() -> None:
    schedule = Schedule(workflow="w", timing=Timing(every=10.0), catch_up="all", silent=NOW)
    first = schedule.timing.first(NOW - 30)
    assert first is not None
    procedure, started, armed, result = fire("s", Tick(first, 1), NOW + 25), list[float](), list[float](), None
    with suppress(StopIteration):
        while True:
            effect = procedure.send(result)
            result = Found(schedule, 7) if isinstance(effect, ReadSchedule) else None
            if isinstance(effect, StartTick):
                started.append(effect.tick)
            elif isinstance(effect, ArmTick):
                armed.append(effect.tick.tick)
    assert started
    assert all(NOW <= tick <= NOW + 25 for tick in started)
    assert len(armed) == 1
    assert armed[0] > NOW + 25
