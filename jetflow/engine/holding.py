"""Idempotency windows: a key that stands for a run while that goes on, or for some time, and then for another one.

Who triggers claims the key first, by replacing what was read of it (its *holder*: a run's id), and starts that run
then. Whoever finds a holder whose run is not stored starts that very run: its owner may have died in between, or may go
on at any later time, and finds it there. So a key never stands for two runs that go on.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec

CLAIMED: Final = 3600.0
"""Seconds after which a holder whose run was never stored, or is not there any more, is none."""


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
