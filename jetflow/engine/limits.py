"""Limits: how many runs of a key may be admitted at once, and which of those that stand at its gate may begin.

A run *enters* a gate, that of one limit and one key, by an entry, and *leaves* it when it has ended. Entries stand in
the order in which the server stored them. **A run may begin when fewer than ``max`` entries stand before its own.**
They only come at the end, and only leave: so a rank only falls, and a run that was once seen among the first stays
there. A reading that is late or torn shows ranks too high, and never too low. So nobody needs a lock, a lease or a
clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import msgspec

WhenFull: TypeAlias = Literal["queue", "reject", "cancel_running", "keep_newest", "keep_oldest"]
"""What becomes of runs when all places of a key are taken.

- ``queue``: they wait, in the order in which they came.
- ``reject``: a run that finds no place is cancelled.
- ``cancel_running``: the newest runs have the places, and all older ones are cancelled.
- ``keep_newest``: only the newest waits; those that waited before it are cancelled.
- ``keep_oldest``: only the oldest waits; those that come behind it are cancelled.
"""

STRATEGIES: Final[tuple[WhenFull, ...]] = get_args(WhenFull)

EVERYBODY: Final = "_"
"""The token of the key of a limit that has none: all its runs share one gate."""


OF_STEP: Final = "="
"""Stands between a run and its step, where that stands at a gate by itself. No name has it."""


def stander(run: str, step: str | None) -> str:
    """Return who stands at a gate: a run, or a step of it that has limits of its own."""
    return run if step is None else f"{run}{OF_STEP}{step}"


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place of one key of a limit: the key as it stands in subjects, and as it was given, where that is known."""

    limit: str
    key: str
    shown: str = ""

    @property
    def written(self) -> str:
        """The place as it stands in headers and records."""
        return f"{self.limit}.{self.key}"


def places_of(written: str | None) -> tuple[Place, ...]:
    """Return the places that a header or a record names."""
    pairs = (one.partition(".") for one in (written or "").split())
    return tuple(Place(limit, key) for limit, _, key in pairs if limit and key)


def written_places(places: Iterable[Place]) -> str:
    """Return places as they stand in a header. Runs enter in this order, all of them: none waits in a circle."""
    return " ".join(place.written for place in places)


class LimitSettings(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is stored of a limit.

    ``max`` is what the code of its workflows declares; ``chosen`` and ``keys`` are what somebody has said at run time,
    for all keys and for some (by their tokens), and count before it. ``shown`` are those keys as they were given.
    """

    max: int
    when_full: WhenFull = "queue"
    chosen: int | None = None
    keys: dict[str, int] = {}
    shown: dict[str, str] = {}

    def max_of(self, key: str) -> int:
        """Return how many runs of a key may be admitted at once."""
        return self.keys.get(key, self.max if self.chosen is None else self.chosen)


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a run stands at a gate: behind how many others, whether it may begin, or is refused.

    ``doomed`` are those that have to be cancelled because it came: see `stander`.
    """

    admitted: bool
    before: int = 0
    refused: bool = False
    doomed: tuple[str, ...] = ()


def standing(run: str, order: Sequence[str], most: int, when_full: WhenFull) -> Standing:
    """Return how a run stands among all that have entered a gate, in their order."""
    if run not in order:  # it has left
        return Standing(admitted=False)
    rank = order.index(run)
    doomed: Sequence[str] = ()
    if when_full == "cancel_running":
        doomed = order[: max(0, len(order) - most)]
    elif when_full == "keep_newest":
        doomed = order[most:-1]
    others = tuple(one for one in doomed if one != run)
    if rank < most:
        return Standing(admitted=True, before=rank, refused=run in doomed, doomed=others)
    late = when_full == "reject" or (when_full == "keep_oldest" and rank > most)
    return Standing(admitted=False, before=rank, refused=late or run in doomed, doomed=others)
