"""When a schedule is due, in words: what people mostly write; of a cron that says more, its text stands for itself."""

from __future__ import annotations

import re
from typing import Final

from jetflow.engine.ticks import Timing

DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
MOST_TIMES: Final = 6
"""Times of a day that are told one by one."""

UNITS: Final = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))

_STEP: Final = re.compile(r"\*/(\d+)")
_RANGE: Final = re.compile(r"(\w+)-(\w+)")


def in_words(timing: Timing) -> str:
    """Return when a schedule is due: ``at 03:00 on weekdays, Europe/Berlin``."""
    if timing.every is not None:
        return _every(timing.every)
    if timing.cron is None:
        return "once" if len(timing.times) == 1 else f"{len(timing.times)} times"
    words = _of_cron(timing.cron.upper().split()) or f"by cron {timing.cron}"
    return f"{words}, {timing.zone}"


def _every(seconds: float) -> str:
    for length, name in UNITS:
        if seconds >= length and seconds % length == 0:
            return _each(int(seconds // length), name)
    return f"every {seconds:g} seconds"


def _each(count: int, name: str) -> str:
    return f"every {name}" if count == 1 else f"every {count} {name}s"


def _of_cron(fields: list[str]) -> str | None:
    """Return what the fields of a cron say; None where that is more than there are words for."""
    second, minute, hour, date, month, day = fields if len(fields) == 6 else ["0", *fields]
    when = _time(second, minute, hour)
    days = _days(date, month, day)
    if when is None or days is None:
        return None
    is_at = when.startswith("at ") and "past every" not in when
    return f"{when} {days or 'every day'}" if is_at else f"{when} {days}".strip()


def _time(second: str, minute: str, hour: str) -> str | None:
    if second != "0":
        each = "every second" if second == "*" else _stepped(second, "second")
        return each if (minute, hour) == ("*", "*") else None
    if minute == "*":
        return "every minute" if hour == "*" else None
    if _STEP.fullmatch(minute):
        between = _between(hour)
        return None if between is None else f"{_stepped(minute, 'minute')}{between}"
    minutes = _numbers(minute)
    if minutes is not None and (hour == "*" or _STEP.fullmatch(hour)):
        return _past(minutes, "every hour" if hour == "*" else f"{_stepped(hour, 'hour')}")
    hours = _numbers(hour)
    if minutes is None or hours is None or len(hours) * len(minutes) > MOST_TIMES:
        return None
    return f"at {_listed([f'{at:02}:{past:02}' for at in hours for past in minutes])}"


def _past(minutes: list[int], each: str) -> str | None:
    if minutes == [0]:
        return each
    return None if 0 in minutes else f"at {_listed([str(past) for past in minutes])} minutes past {each}"


def _between(hour: str) -> str | None:
    if hour == "*":
        return ""
    found = _RANGE.fullmatch(hour)
    if found is not None and found[1].isdecimal() and found[2].isdecimal():
        return f" from {int(found[1]):02}:00 to {int(found[2]):02}:59"
    return None


def _days(date: str, month: str, day: str) -> str | None:
    parts: list[str] = []
    if date == "*" and day == "*":
        pass
    elif date == "*":
        told = _weekdays(day)
        if told is None:
            return None
        parts.append(told)
    elif day == "*":
        dates = ["the last day"] if date == "L" else _ordinals(date)
        if dates is None:
            return None
        parts.append(f"on {_listed(dates)}{'' if month != '*' else ' of each month'}")
    else:
        return None  # either of them, or both: which of it depends on how they are written
    if month != "*":
        months = _names(month, MONTHS, 1)
        if months is None:
            return None
        parts.append(f"{'every day in' if not parts else 'in'} {_listed(months)}")
    return " ".join(parts)


def _weekdays(day: str) -> str | None:
    if day in ("1-5", "MON-FRI"):
        return "on weekdays"
    if day in ("6,0", "0,6", "6,7", "SAT,SUN", "SUN,SAT"):
        return "on weekends"
    names = _names(day, DAYS, 0)
    return None if names is None else f"on {_listed([f'{name}s' for name in names])}"


def _ordinals(date: str) -> list[str] | None:
    numbers = _numbers(date)
    return None if numbers is None else [f"the {_ordinal(number)}" for number in numbers]


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _names(field: str, names: tuple[str, ...], first: int) -> list[str] | None:
    """Return the names that a field of days or months lists; None where it says more than a list or a range."""
    short = {name[:3].upper(): number for number, name in enumerate(names, first)}

    def number(text: str) -> int | None:
        found = int(text) if text.isdecimal() else short.get(text)
        return None if found is None else found % 7 if first == 0 else found

    found: list[str] = []
    for part in field.split(","):
        between = _RANGE.fullmatch(part)
        begin, end = (number(between[1]), number(between[2])) if between else (number(part), number(part))
        if begin is None or end is None or not first <= begin <= end < first + len(names):
            return None
        found += [names[at - first] for at in range(begin, end + 1)]
    return found


def _numbers(field: str) -> list[int] | None:
    parts = field.split(",")
    return sorted(int(part) for part in parts) if all(part.isdecimal() for part in parts) else None


def _stepped(field: str, name: str) -> str | None:
    found = _STEP.fullmatch(field)
    return None if found is None else _each(int(found[1]), name)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
