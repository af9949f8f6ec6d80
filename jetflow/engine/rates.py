"""Rates: how many runs of a key may begin in any stretch of time, and when it is the turn of one.

A window holds two lists of times, both in their order. ``booked`` are those that runs were given, in the order in which
they came: a run that cannot begin at once is given the first time that is free, and is woken then, and not before; so
nobody asks again and again, and no crowd is woken for one place. ``begun`` are those at which runs really began. **A
run may begin when fewer than ``max`` have begun in the ``per`` seconds before**: what it was given is a time to come
back, and no right. A run that comes late, for its worker has died or a timer was late, can so not be one too many.

Who begins writes so first, by compare-and-set, and then begins: where it dies between, its place is lost, and never
taken twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, TypeAlias

import msgspec

from jetflow.engine.limits import EVERYBODY

GRAINS: Final = 100
"""Times of a window that are kept apart: where more runs may begin in it, those within a hundredth of it count as one.

They count for that much longer, and never for less.
"""

SPARE: Final = 0.05
"""The part of ``per`` by which a window is longer, so that a run may begin a little after its time."""

SPARE_AT_MOST: Final = 0.25
"""Seconds of that, at most."""

NEAR: Final = 1.0
"""Seconds for which a run is held until its turn; one that has to wait for longer is parked."""

EARLY: Final = 0.25
"""Seconds before its turn at which a parked run is woken: a timer of the broker is late by as much."""

Taken: TypeAlias = tuple[float, int]
"""A time, and how many units were taken then."""


class RateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a rate limit: so many units of a key in so many seconds."""

    max: int
    per: float

    @property
    def spare(self) -> float:
        """Seconds that may lie between the time a run has taken and its beginning."""
        return min(self.per * SPARE, SPARE_AT_MOST)

    @property
    def span(self) -> float:
        """Seconds for which a unit that was taken counts."""
        return self.per + self.spare


class Rate(msgspec.Struct, frozen=True, gc=False):
    """What a run needs of one key of a rate limit: the key as it stands in subjects, and as it was given."""

    limit: str
    key: str = EVERYBODY
    shown: str = ""
    units: int = 1


class Window(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was taken last of one key of a rate limit. ``key`` is as it was given."""

    key: str = ""
    booked: tuple[Taken, ...] = ()
    begun: tuple[Taken, ...] = ()


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A run that asks for its turn: how many units it needs of each window, and whether it was given a time before."""

    units: tuple[int, ...]
    booked: bool = False


class Turn(msgspec.Struct, frozen=True, gc=False):
    """What a run is told: it begins now, or comes back ``at`` a time; or ``never``, for the rate limit of this name."""

    begins: bool = False
    at: float = 0.0
    never: str = ""


def share(
    asks: Sequence[Ask], windows: Sequence[Window], rates: Sequence[RateSettings], now: float, lead: float = 0.0
) -> tuple[list[Turn], tuple[Window, ...]]:
    """Return what runs that ask together are told, and the windows as they have to be stored before.

    Whoever begins is thought to begin ``lead`` seconds from now, for so long may it take to store that.
    """
    booked = [list(window.booked) for window in windows]
    begun = [list(window.begun) for window in windows]
    soon = [list(window.begun) for window in windows]  # and who is to come back within a moment
    turns: list[Turn] = []
    for ask in asks:
        room = _free(soon, ask.units, rates, now)
        if not ask.booked or room - now > NEAR:
            room = max(room, _free(booked, ask.units, rates, now))
            _take(booked, room, ask.units, rates)
        begins = room <= now
        if begins:
            _take(begun, now + lead, ask.units, rates)
        if begins or room - now <= NEAR:
            _take(soon, room + lead, ask.units, rates)
        turns.append(Turn(begins=begins, at=room))
    after = (
        Window(key=window.key, booked=tuple(times), begun=tuple(since))
        for window, times, since in zip(windows, booked, begun, strict=True)
    )
    return turns, tuple(after)


def free_at(taken: Sequence[Taken], units: int, rate: RateSettings, now: float) -> float:
    """Return when so many units are free, of which these were taken."""
    left = rate.max - units
    for at, others in reversed(taken):
        left -= others
        if left < 0:
            return max(now, at + rate.span)
    return now


def taken_too(taken: Sequence[Taken], at: float, units: int, rate: RateSettings) -> list[Taken]:
    """Return what was taken, with these units, as far back as it matters.

    Times stay in their order: one that would come before the last counts as that one, which is later.
    """
    if rate.max > GRAINS:
        grain = rate.per / GRAINS
        at = ceil(at / grain) * grain
    found = list(taken)
    if found and at <= found[-1][0]:
        found[-1] = found[-1][0], found[-1][1] + units
    else:
        found.append((at, units))
    total = sum(units for _, units in found)
    while total - found[0][1] >= rate.max:
        total -= found.pop(0)[1]
    return found


def _free(taken: Sequence[Sequence[Taken]], units: Sequence[int], rates: Sequence[RateSettings], now: float) -> float:
    return max(map(free_at, taken, units, rates, [now] * len(rates)))


def _take(taken: list[list[Taken]], at: float, units: Sequence[int], rates: Sequence[RateSettings]) -> None:
    taken[:] = map(taken_too, taken, [at] * len(rates), units, rates)
