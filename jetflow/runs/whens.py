"""When a run is to begin: what a trigger may say of it, and what that means."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import time
from typing import Final, Literal, TypedDict, cast

import msgspec

from jetflow.engine.holding import Hold, Unless, checked_hold
from jetflow.engine.sleeping import seconds_of, timestamp_of
from jetflow.errors import InvalidInput

AT_MOST: Final = 10.0
"""How many times what it is put off by a debounced run may be put off in all, where nothing else is said."""


class When(TypedDict, total=False):
    """When a run begins: ``at`` a time, after a ``delay``, or once it is not asked for any more (``debounce``).

    Durations are seconds, or timedeltas. A debounced run begins when nobody has asked for it for that long, under the
    same ``debounce_key``, and ``debounce_at_most`` after it was first asked for: ten times as long, if that is not
    said. It has the input that was given last.

    A ``key`` stands for its run ``unless=Running`` only until that has ended, or ``within`` a time since it was begun;
    then the next trigger begins another one. Meanwhile it finds that run, whatever its input is. With
    ``if_failed="rerun"`` a run of the key that has failed is run again, of what has failed (`Client.rerun`).

    ``level`` is how urgent it is, one of the ``levels`` of its workflow.
    """

    at: datetime
    delay: float | timedelta
    debounce: float | timedelta
    debounce_key: str
    debounce_at_most: float | timedelta
    unless: Unless
    within: float | timedelta
    if_failed: Literal["rerun"]
    level: str


class Debounce(msgspec.Struct, frozen=True):
    """A run that is put off by ``seconds`` each time that it is asked for, and by ``at_most`` in all."""

    key: str
    seconds: float
    at_most: float


class Begins(msgspec.Struct, frozen=True):
    """When a run begins: ``at`` a time in seconds since the epoch, or as it is debounced; else at once.

    Its key may ``hold`` for a while only, and a run of it that has failed may be one that ``reruns``. ``level`` is how
    urgent it is, where that is said.
    """

    at: float | None = None
    debounce: Debounce | None = None
    hold: Hold | None = None
    reruns: bool = False
    level: str | None = None


AT_ONCE: Final = Begins()

_OF_KEYS: Final = frozenset({"unless", "within", "if_failed"})


def begins(when: When, key: object = None) -> Begins:
    """Return when a run begins that has this key.

    Raises:
        InvalidInput: it says two things, or none that makes sense.
        TypeError: it has a field that there is none of.
    """
    if not when:
        return AT_ONCE
    if unknown := when.keys() - When.__annotations__.keys():
        raise TypeError(f"trigger() got an unexpected keyword argument {min(unknown)!r}")
    said = {name: value for name, value in when.items() if value is not None}
    if "level" in said:
        level = cast("str", said.pop("level"))
        return msgspec.structs.replace(begins(cast("When", said), key), level=level)
    if said.keys() & _OF_KEYS:
        return _of_key(cast("When", said), key)
    if len(said.keys() & {"at", "delay", "debounce"}) > 1:
        raise InvalidInput("a run begins at= a time, after a delay=, or is debounced: give one of them")
    given = cast("When", said)
    if "debounce" in given:
        return Begins(debounce=_debounce(given["debounce"], given, key))
    if said.keys() - {"at", "delay"}:
        raise InvalidInput("debounce_key= and debounce_at_most= are for runs with debounce=")
    if "at" in given:
        return Begins(at=timestamp_of(given["at"], "trigger(at=...)"))
    return Begins(at=time() + seconds_of(given["delay"], "the delay of a run")) if "delay" in given else AT_ONCE


def _of_key(when: When, key: object) -> Begins:
    if key is None:
        raise InvalidInput("unless=, within= and if_failed= say how long a key= stands for its run: give one")
    if other := sorted(when.keys() - _OF_KEYS):
        raise InvalidInput(f"{other[0]}= is for runs that begin later, or are put off: they are of their key for good")
    if "if_failed" in when:
        if len(when) > 1 or when["if_failed"] != "rerun":
            raise InvalidInput('if_failed="rerun" is for a key without unless= and within=')
        return Begins(reruns=True)
    return Begins(hold=checked_hold(when.get("unless"), when.get("within"), "trigger"))


def _debounce(by: float | timedelta, when: When, key: object) -> Debounce:
    if key is not None:
        raise InvalidInput("a debounced run has no key=: debounce_key= says with which others it is one")
    name = when.get("debounce_key", "")
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise InvalidInput(f"the debounce_key of a run is a str, not {type(name).__name__}: {name!r}")
    seconds = seconds_of(by, "what a run is debounced by")
    if not seconds:
        raise InvalidInput("a run is debounced by more than 0 seconds")
    if "debounce_at_most" not in when:
        return Debounce(name, seconds, AT_MOST * seconds)
    at_most = seconds_of(when["debounce_at_most"], "what a debounced run is put off by at most")
    if at_most < seconds:
        raise InvalidInput(f"a run that is debounced by {seconds:g} s cannot be put off by {at_most:g} s at most")
    return Debounce(name, seconds, at_most)
