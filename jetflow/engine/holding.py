"""Idempotency windows: a key that stands for a run while that goes on, or for some time, and then for another one.

Who triggers claims the key first, by replacing what was read of it (its *holder*: a run's id), and then starts it.
Whoever finds a holder whose run is not stored starts that very run: its owner may have died in between, or may go on at
any later time, and finds it there. So a key never stands for two runs that go on.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec

from jetflow.engine.sleeping import seconds_of
from jetflow.errors import InvalidInput

CLAIMED: Final = 3600.0
"""Seconds after which a holder whose run was never stored, or is not there any more, is none."""


LONGEST_HOLD: Final = 30 * 86400.0
"""Seconds for which a key may stand for its run: so long it is kept which one that is."""


class Unless(Enum):
    """Until when a key stands for its run."""

    RUNNING = "running"


Running: Final = Unless.RUNNING
"""Given as ``unless=``: a key stands for its run until that has ended."""

Found: TypeAlias = Literal["absent", "open", "ended", "deleted"]
Verdict: TypeAlias = Literal["claim", "start", "there"]


class Hold(msgspec.Struct, frozen=True):
    """How long a key stands for its run: while it is ``running``, or for ``within`` seconds since it was asked for."""

    running: bool = False
    within: float | None = None


class Holder(msgspec.Struct, frozen=True):
    """The run that a key stands for, and since when, in seconds since the epoch."""

    run: str
    at: float


def verdict(hold: Hold, holder: Holder | None, found: Found, *, now: float) -> Verdict:
    """Return what is to be done: claim the key for a new run, start the holder's run, or leave it at that one.

    ``found`` is what is stored of the holder's run.
    """
    if holder is None or found == "deleted":
        return "claim"
    age = now - holder.at
    if found == "absent":
        return "start" if age < CLAIMED else "claim"
    if hold.within is not None and age < hold.within:
        return "there"
    return "there" if hold.running and found == "open" else "claim"


def checked_hold(unless: object, within: float | timedelta | None, call: str) -> Hold:
    """Return how long a key stands for its run.

    Raises:
        InvalidInput: it says nothing that makes sense.
    """
    if unless not in (None, Running):
        raise InvalidInput(f"{call}(unless={unless!r}): there is unless=jetflow.Running")
    seconds = None if within is None else seconds_of(within, "how long a key stands for its run")
    if seconds is not None and not 0 < seconds <= LONGEST_HOLD:
        raise InvalidInput(f"a key stands for its run for more than 0 s, and {LONGEST_HOLD / 86400:.0f} days at most")
    return Hold(unless is Running, seconds)
