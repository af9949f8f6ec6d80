"""What waits for too long in a queue that is paused: its run is cancelled during the pause.

A pause with a bound is stored beside the timer of its next look (its *expiry*). Who handles the message that the timer
becomes cancels the runs whose time is over, arms the next look, and acknowledges then: so none is forgotten, and
nothing is looked at before something can be over. A look counts only for the pause that it was armed for, and arms only
as long as that is stored (its *fence*): who lets a queue go on, or pauses it otherwise, ends all looks of before. What
a worker has been given does not wait: only what lies behind that is looked at, and each of it once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.engine.tasks import Failure

SHARE: Final = 10
"""A look comes as late as by a share of the bound, so that one look is for many: one part in so many, and"""

LATEST: Final = 5.0
"""so many seconds at most."""

AT_ONCE: Final = 1000
"""Runs that one look cancels; the next one follows at once."""


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a paused queue: how long a task may wait there (``ttl``), counted from ``since`` at the earliest.

    ``until`` is when the pause ends by itself. Durations are seconds, times seconds since the epoch.
    """

    ttl: float
    since: float
    until: float | None = None

    def over(self, stored: float) -> float:
        """Return when the time of a task is over that was stored at a time."""
        return max(stored, self.since) + self.ttl


class Expiry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of the timer: for which pause it is, and up to which sequence the queue was dealt with."""

    pause: Pause
    after: int = 0


class Queue(msgspec.Struct, frozen=True):
    """The queue of a step, as it is called in subjects."""

    workflow: str
    name: str


class Held(msgspec.Struct, frozen=True):
    """A queue that is paused: what is said of it, the sequence of that, and up to where workers have got its tasks."""

    pause: Pause
    sequence: int
    given: int


class Waiting(msgspec.Struct, frozen=True):
    """A task that waits: its run, when it was stored, and its place in the stream."""

    run: str
    stored: float
    sequence: int


class ReadHeld(msgspec.Struct, frozen=True):
    """Read a queue from the leader. Result: a Held, or None if it is not paused, or without a bound."""

    queue: Queue


class ReadWaiting(msgspec.Struct, frozen=True):
    """Read the first tasks of a queue behind a sequence, in their order. Result: some of them; none if there are none.

    Those of runs that were cancelled, and whose first task was put back, are not among them.
    """

    queue: Queue
    after: int


class CancelRuns(msgspec.Struct, frozen=True):
    """Cancel runs with what is below them, unless they have ended. Result: None."""

    runs: tuple[str, ...]
    reason: Failure


class ArmLook(msgspec.Struct, frozen=True):
    """Arm the next look at a queue ``at`` a time, if its pause is still stored under this sequence. Result: None."""

    queue: Queue
    sequence: int
    expiry: Expiry
    at: float


ExpiryEffect: TypeAlias = ReadHeld | ReadWaiting | CancelRuns | ArmLook
ExpiryProcedure: TypeAlias = Generator[ExpiryEffect, Any, None]


def look(queue: Queue, fired: Expiry, now: float) -> ExpiryProcedure:
    """Do what the timer of a paused queue is for that has fired."""
    pause, after, cancelled = fired.pause, fired.after, 0
    while True:
        held: Held | None = yield ReadHeld(queue)  # again before each go: it may have been let go on
        if held is None or held.pause != pause:
            return
        after = max(after, held.given)
        waiting: Sequence[Waiting] = yield ReadWaiting(queue, after)
        over = [one for one in waiting if pause.over(one.stored) <= now]
        if over:
            yield CancelRuns(tuple(one.run for one in over), waited_too_long(queue, pause))
            after, cancelled = over[-1].sequence, cancelled + len(over)
        if len(over) == len(waiting) > 0 and cancelled < AT_ONCE:
            continue
        rest = waiting[len(over) :]
        at = now if over and not rest else next_look(pause, rest[0].stored if rest else now, now)
        if pause.until is None or at < pause.until:
            yield ArmLook(queue, held.sequence, Expiry(pause, after), at)
        return


def next_look(pause: Pause, oldest: float, now: float) -> float:
    """Return when to look next, where the oldest task that waits was stored at a time; ``now`` if none waits."""
    return max(pause.over(oldest), now) + min(pause.ttl / SHARE, LATEST)


def waited_too_long(queue: Queue, pause: Pause) -> Failure:
    """Return why a run is cancelled that has waited for too long."""
    step = queue.name.partition("=")[0]
    message = f"it has waited for longer than {pause.ttl:g} s in a queue that is paused: that of its step {step!r}"
    return Failure("Cancelled", message, step)
