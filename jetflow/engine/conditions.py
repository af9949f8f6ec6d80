"""Conditions: whether a step is skipped, cancelled or run, by what has come first.

A step may have conditions of three kinds. Each kind is groups that all have to come, and a group comes by the first of
its terms: a fact that holds, a time, or an event. The kind that comes first decides, and by *when* it came, not by when
somebody has looked: a worker that is late decides as one that was there. Of kinds that come at once, skipping goes
before cancelling, and cancelling before running.

The conditions of a step are resolved when the steps before it have ended: what its code says of their outputs has
become facts by then, and is recorded, so that each later turn, and another version of the code, decides by the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Final, TypeAlias

import msgspec

from jetflow.engine.awaiting import Awaited, distinct
from jetflow.engine.endings import Verdict

ARMED: Final = "_armed"
"""The name under which a step's conditions are recorded, once it has to wait for them."""

DECIDED: Final = "_decided"
"""The name under which it is recorded what they have come to."""

NEVER_RUN: Final = "what it waits for cannot come any more"
ALL_SKIPPED: Final = "all steps before it were skipped"


class Term(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One of the alternatives of a group: a fact (``holds`` or not), a time (``until``), or an ``event``."""

    holds: bool | None = None
    until: float | None = None
    event: Awaited | None = None
    said: str = ""


Groups: TypeAlias = tuple[tuple[Term, ...], ...]
"""All of them have to come. None at all is no condition."""


class Armed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The conditions of one step of one run. ``at`` is when the steps before it had ended: nothing comes before."""

    at: float
    skip: Groups = ()
    cancel: Groups = ()
    run: Groups = ()

    @property
    def events(self) -> tuple[Awaited, ...]:
        """The events that any of them waits for, each once."""
        groups = (*self.skip, *self.cancel, *self.run)
        return distinct(term.event for group in groups for term in group if term.event is not None)


def told(groups: Groups) -> str:
    """Return groups as a text."""
    return " and ".join(" or ".join(term.said for term in group) for group in groups)


class Decided(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the conditions of a step have come to, for which ``reason``, and ``at`` which time."""

    verdict: Verdict
    reason: str = ""
    at: float = 0.0


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """What has to come before a step can be decided: a time, or one of some events."""

    until: float | None = None
    events: tuple[Awaited, ...] = ()


def weigh(armed: Armed, now: float, came: Mapping[str, float]) -> Decided | Undecided:
    """Return what the conditions of a step have come to by ``now``.

    ``came`` tells when events came, by all that they say. The answer is worth as much as it is whole: what came
    before the time that decides has to be in it.
    """
    now = max((now, *came.values()))  # an event that has come since the clock was read is later than some time
    kinds: tuple[tuple[Verdict, Groups], ...] = (("skip", armed.skip), ("cancel", armed.cancel), ("run", armed.run))
    best: Decided | None = None
    for verdict, groups in kinds:
        found = _kind(verdict, groups, armed.at, now, came)
        if found is not None and (best is None or found.at < best.at):
            best = found
    if any(map(_is_hopeless, armed.run)) and (best is None or best.at > armed.at):
        best = Decided(verdict="skip", reason=NEVER_RUN, at=armed.at)
    if best is not None:
        return best
    open_terms = [term for _, groups in kinds for term in _open(groups, armed.at, now, came)]
    return Undecided(
        until=min((term.until for term in open_terms if term.until is not None), default=None),
        events=distinct(term.event for term in open_terms if term.event is not None),
    )


def _kind(verdict: Verdict, groups: Groups, at: float, now: float, came: Mapping[str, float]) -> Decided | None:
    """Return what one kind has come to, and when; None if it has not."""
    if not groups:
        return Decided(verdict=verdict, at=at) if verdict == "run" else None
    last, reasons = at, list[str]()
    for group in groups:
        when, term = min(((_when(term, at, now, came), term) for term in group), key=lambda one: one[0])
        if when == inf:
            return None
        last = max(last, when)
        reasons.append(term.said)
    return Decided(verdict=verdict, reason=" and ".join(filter(None, reasons)), at=last)


def _when(term: Term, at: float, now: float, came: Mapping[str, float]) -> float:
    """Return when a term came; infinity if it has not by now, or never does."""
    if term.event is not None:
        return max(at, came.get(term.event.whole, inf))
    if term.until is not None:
        return max(at, term.until) if term.until <= now else inf
    return at if term.holds else inf


def _is_hopeless(group: Iterable[Term]) -> bool:
    """Tell whether a group can never come: it is made of facts, none of which holds."""
    return all(term.event is None and term.until is None and not term.holds for term in group)


def _open(groups: Groups, at: float, now: float, came: Mapping[str, float]) -> Iterable[Term]:
    """Return the terms by which a kind may still come. One with a group that never does is not waited for."""
    if any(map(_is_hopeless, groups)):
        return ()
    left = [group for group in groups if all(_when(term, at, now, came) == inf for term in group)]
    return [term for group in left for term in group if term.event is not None or term.until is not None]
