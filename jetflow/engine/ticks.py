"""When a schedule is due: its nominal times, or ticks, as seconds since the epoch.

Cron is that of Debian, as `cronsim` has it: a time that the clocks leave out comes when they go on (02:30 at 03:00),
one that they repeat comes once, and what comes each hour or minute goes by hours that pass. Zones are those of the
`tzdata` package, or of the system. No tick depends on when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from math import floor
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from jetflow.errors import InvalidInput

SHORTEST: Final = 1.0
"""Seconds between two ticks of an interval, at least."""

FIELDS: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")


class Timing(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What says when a schedule is due: one of ``cron`` in a ``zone``, ``every`` so many seconds, or some ``times``.

    No tick is before ``start`` or after ``end``. Intervals are counted from ``start``; without, from the beginning of
    1970 in UTC, so that each hour is the full hour.
    """

    cron: str | None = None
    every: float | None = None
    times: tuple[float, ...] = ()
    zone: str = "UTC"
    start: float | None = None
    end: float | None = None

    def after(self, time: float) -> Iterator[float]:
        """Yield the ticks after a time, in their order. Of a cron there is no end unless it has one."""
        if self.start is not None and time < self.start:
            time = before(self.start)
        for tick in self._after(time):
            if self.end is not None and tick > self.end:
                return
            yield tick

    def _after(self, time: float) -> Iterator[float]:
        if self.cron is not None:
            for at in CronSim(self.cron, datetime.fromtimestamp(time, ZoneInfo(self.zone))):
                if (tick := at.timestamp()) > time:
                    yield tick
        elif self.every is not None:
            first = self.start or 0.0
            number = floor((time - first) / self.every) + 1
            while True:
                if (tick := round(first + number * self.every, 3)) > time:
                    yield tick
                number += 1
        else:
            yield from (tick for tick in self.times if tick > time)

    def first(self, time: float) -> float | None:
        """Return the first tick at a time or after it; None if there is none."""
        return next(self.after(before(time)), None)

    def last(self, since: float, until: float) -> float | None:
        """Return the last tick from ``since`` to ``until``, without looking at all of them."""
        return next(iter(self.newest(1, since, until)), None)

    def newest(self, count: int, since: float, until: float) -> list[float]:
        """Return the last ``count`` ticks from ``since`` to ``until``, in their order."""
        span = 1.0
        while True:
            begin, found = max(before(since), until - span), deque[float](maxlen=count)
            for tick in self.after(begin):
                if tick > until:
                    break
                found.append(tick)
            if len(found) == count or begin <= since:
                return list(found)
            span *= 8


def before(time: float) -> float:
    """Return a time a little before another: no tick is between them."""
    return time - 0.0005


def jittered(name: str, tick: float, jitter: float) -> float:
    """Return when a tick of a schedule is due that may be up to ``jitter`` seconds late: always the same."""
    if not jitter:
        return tick
    drawn = int.from_bytes(sha256(f"{name}\n{tick:.3f}".encode()).digest()[:8]) / 2**64
    return tick + floor(drawn * jitter * 1000) / 1000


def named(tick: float) -> str:
    """Return the name of a tick: its time in UTC, with milliseconds where it has some."""
    at = datetime.fromtimestamp(round(tick, 3), UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def checked_timing(
    *,
    cron: str | None,
    every: float | None,
    times: Sequence[float],
    zone: str,
    start: float | None,
    end: float | None,
    now: float,
) -> Timing:
    """Return what says when a schedule is due, if it makes sense.

    Raises:
        InvalidInput: it does not; with the place in the text of a cron.
    """
    if (cron is not None) + (every is not None) + bool(times) != 1:
        raise InvalidInput("a schedule has one of cron=, every= and times=")
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise InvalidInput(f"there is no time zone {zone!r}: zones are named as 'Europe/Berlin' is") from None
    if start is not None and end is not None and end < start:
        raise InvalidInput("a schedule ends before it starts")
    if cron is not None:
        _check_cron(cron, datetime.fromtimestamp(now, known))
    if every is not None and every < SHORTEST:
        raise InvalidInput(f"a schedule is due every {SHORTEST:g} s at most, and not every {every:g} s")
    return Timing(cron=cron, every=every, times=tuple(sorted(set(times))), zone=zone, start=start, end=end)


def _check_cron(cron: str, now: datetime) -> None:
    if not isinstance(cron, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise InvalidInput(f"cron= is a text such as '0 3 * * *', not {cron!r}")
    parts = cron.upper().split()
    if len(parts) not in (5, 6):
        raise InvalidInput(f"cron {cron!r} has {len(parts)} fields: there are five, or six with seconds in front")
    try:
        next(CronSim(cron, now))
    except StopIteration:
        raise InvalidInput(f"cron {cron!r} never comes") from None
    except CronSimError as error:
        fields = FIELDS[6 - len(parts) :]
        bad = next((name for name in fields if name in str(error)), None)
        if bad is None:
            raise InvalidInput(f"cron {cron!r}: {error}") from None
        at = fields.index(bad)
        raise InvalidInput(f"cron {cron!r}: field {at + 1}, {bad}, cannot be {cron.split()[at]!r}") from None
