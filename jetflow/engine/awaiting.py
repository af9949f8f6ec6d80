"""Waiting for events: what a step waits for, under which names it is recorded, and which event it takes.

Each wait takes the earliest stored event that fits, behind the one that the wait before it on the same events has
taken; the first one looks from when its run began. So an event that comes before it is waited for is found, each is
taken once, and in order. What was taken is recorded write-once, and stays so in every later turn and attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from jetflow.engine.identity import cut_hash


class Awaited(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename={"if_": "if"}):
    """Events that a step waits for: of a topic, and with a key as it stands in subjects; None is with any key, or none.

    They are those behind the sequence ``after``; without one, those from ``since`` on (seconds since the epoch).
    """

    topic: str
    key: str | None = None
    if_: tuple[tuple[str, str, Any], ...] = ()
    after: int = 0
    since: float | None = None

    @property
    def whole(self) -> str:
        """All that it says: its conditions may hold lists, by which nothing can be looked up."""
        return msgspec.json.encode(self).decode()

    @property
    def same(self) -> str:
        """What two waits have in common of which the second goes on behind the first."""
        return msgspec.json.encode([self.topic, self.key, self.if_]).decode()


def distinct(events: Iterable[Awaited]) -> tuple[Awaited, ...]:
    """Return events that are waited for, each once."""
    return tuple({event.whole: event for event in events}.values())


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Alternatives, of which the first that comes counts: events, or a time.

    The time is ``seconds`` from when the group is first reached, or ``until`` (seconds since the epoch).
    ``lookbacks`` are, for each of the events, how many seconds before the run's beginning count.
    """

    events: tuple[Awaited, ...] = ()
    lookbacks: tuple[float | None, ...] = ()
    seconds: float | None = None
    until: float | None = None
    name: str | None = None

    @property
    def same(self) -> str:
        """What two groups have in common that are told apart by their order."""
        return "\n".join([*(one.same for one in self.events), f"{self.seconds} {self.until}"])

    def end(self, now: float) -> float:
        """Return when a group that is first reached now is over in any case."""
        return now + (self.seconds or 0.0) if self.until is None else self.until

    @property
    def has_end(self) -> bool:
        """Whether it is over at some time."""
        return self.seconds is not None or self.until is not None


class Taken(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a group has come to: ``which`` of its events, or None where its time was over first.

    Of the event: its ``sequence``, ``id``, ``key``, ``payload``, and when it was stored.
    """

    which: int | None = None
    sequence: int = 0
    id: str = ""
    key: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")
    at: float = 0.0


class WaitNames:
    """Under which names one body's waits are recorded, and behind which event the next one looks."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._behind: dict[str, int] = {}

    def name(self, group: Group) -> str:
        """Return the name for the next wait of a body: its own, or what it waits for and how often that was."""
        if group.name is not None:
            return f"_wait-name-{group.name}"
        same = cut_hash(group.same.encode()).hex()
        self._asked[same] = number = self._asked.get(same, 0) + 1
        return f"_wait-{same}-{number}"

    def behind(self, awaited: Awaited) -> int:
        """Return the sequence of the event that was last taken of these; 0 if none was."""
        return self._behind.get(awaited.same, 0)

    def took(self, group: Group, taken: Taken) -> None:
        """Note what a group has taken."""
        if taken.which is not None:
            awaited = group.events[taken.which]
            self._behind[awaited.same] = max(self.behind(awaited), taken.sequence)


def earliest(found: Sequence[tuple[int, int]]) -> int | None:
    """Return which alternative counts, of those found: pairs of which it is, and its sequence."""
    return min(found, key=lambda one: one[1])[0] if found else None
