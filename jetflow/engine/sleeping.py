"""Sleeping: how long a step asks to sleep, under which name its end is recorded, and how long that may be.

The end of a sleep is recorded when it is first reached, and stays: a retry, a later turn or a new version of the code
sleeps for what is left of it. It is found again by its key; without one by what was asked, and by how many sleeps of
just that were asked for before in the same body. So code between two sleeps may change, and other sleeps may come
before them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Final

import msgspec

from jetflow.errors import InvalidInput, SleepTooLong

OLDEST_FIRST: Final = 1 / 30
"""The part of what is kept from which on a sleep is compared with the age of its whole tree."""


LONGEST: Final = 100 * 365 * 86400.0
"""Seconds that anybody may ask for: further times cannot be told to the server."""


class Sleep(msgspec.Struct, frozen=True):
    """What was asked for: ``seconds`` from when it is first reached, or ``until`` a time (seconds since the epoch)."""

    seconds: float | None = None
    until: float | None = None
    key: str | None = None

    def end(self, now: float) -> float:
        """Return when the sleep ends that is first reached now."""
        return now + (self.seconds or 0.0) if self.until is None else self.until


def checked_sleep(seconds: float | None, until: float | None, key: Any) -> Sleep:
    """Return what is asked for, if it can be slept.

    Raises:
        InvalidInput: it is neither a duration nor a time, or both; or its key is no text.
    """
    if (seconds is None) == (until is None):
        raise InvalidInput("ctx.sleep takes either a duration or until=: write ctx.sleep(30) or ctx.sleep(until=when)")
    if key is not None and not isinstance(key, str):
        raise InvalidInput(f"the key of a sleep is a str, not {type(key).__name__}: {key!r}")
    return Sleep(seconds, until, key)


def seconds_of(duration: Any, what: str) -> float:
    """Return a duration in seconds. ``what`` is what it was given for.

    Raises:
        InvalidInput: it is no number and no timedelta, is negative, or too long.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not (isinstance(seconds, int | float) and isfinite(seconds) and seconds >= 0):
        raise InvalidInput(f"{what} is seconds from 0 on, or a timedelta, and not {duration!r}")
    if seconds > LONGEST:
        raise InvalidInput(f"{what} is {LONGEST / 86400:.0f} days at most, and not {duration!r}")
    return float(seconds)


def timestamp_of(time: Any, place: str) -> float:
    """Return a time as seconds since the epoch. ``place`` is where it was given.

    Raises:
        InvalidInput: it is no time, or does not say in which zone it is.
    """
    if not isinstance(time, datetime):
        raise InvalidInput(f"{place} is a datetime with a time zone, not {time!r}")
    if time.utcoffset() is None:
        raise InvalidInput(f"{place} is {time}, without a time zone: write datetime(..., tzinfo=UTC), or another zone")
    return time.timestamp()


class SleepNames:
    """Under which names the ends of one body's sleeps are recorded."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    def name(self, sleep: Sleep) -> str:
        """Return the name for the next sleep of a body."""
        if sleep.key is not None:
            return f"_sleep-key-{sleep.key}"
        asked = "until" if sleep.seconds is None else f"{sleep.seconds:g}"
        self._asked[asked] = number = self._asked.get(asked, 0) + 1
        return f"_sleep-{asked}-{number}"


def check_kept(until: float, *, now: float, began: float, kept: float | None) -> None:
    """Refuse a sleep that ends when what is stored of the run is there no more.

    ``kept`` is for how many seconds the namespace keeps what is stored, None for ever; ``began`` is when the oldest of
    it was.

    Raises:
        SleepTooLong: it is one.
    """
    if kept is not None and until >= began + kept:
        raise SleepTooLong(until - now, max(0.0, began + kept - now), kept)


def needs_root(until: float, *, now: float, kept: float | None) -> bool:
    """Tell whether a sleep is so long that the age of its whole tree counts."""
    return kept is not None and until - now > kept * OLDEST_FIRST
