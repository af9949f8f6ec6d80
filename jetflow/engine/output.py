"""What a step says while it runs, and which of it counts: the rules of chunks, progress and log lines.

A body may run more than once: in a later attempt, or in a later turn when it was parked. Each such *writing* of a step
is told by its turn and delivery, which only grow, and numbers its chunks from 0. Whoever reads takes the newest writing
that it has seen, so that a worker which was cut off, and goes on writing, disturbs nobody.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LARGEST_CHUNK: Final = 256 * 1024
"""Bytes that one chunk may have."""

KEPT_OF_STEP: Final = 10_000
"""Chunks of one step that are kept, and messages of its log lines, and of its progress: the newest."""

LONGEST_LINE: Final = 8 * 1024
"""Characters of a log line's message that are kept."""

PROGRESS_EVERY: Final = 0.2
"""Seconds between two values of a step's progress that are stored."""


class Writing(NamedTuple):
    """One execution of a body, as its output tells it. A later one of the same step is greater."""

    turn: int
    delivery: int


class Newest:
    """Takes what is of the newest writing of each step, as far as it was seen."""

    def __init__(self) -> None:
        self._newest: dict[str, Writing] = {}

    def takes(self, step: str, writing: Writing) -> bool:
        """Tell whether something counts: not what is of an older writing than was seen of its step."""
        newest = self._newest.get(step, writing)
        if writing < newest:
            return False
        self._newest[step] = writing
        return True


class Bounds:
    """How much of something one writing may still have under way, or have in all.

    ``messages`` and ``bytes`` are the most; what is `taken` has to be `given` back.
    """

    def __init__(self, messages: int, size: int) -> None:
        self._messages = messages
        self._bytes = size

    @property
    def is_used_up(self) -> bool:
        """Whether there is no room for more. What is taken last may go beyond the bytes."""
        return self._messages <= 0 or self._bytes <= 0

    def take(self, size: int) -> None:
        """Take the room of one message."""
        self._messages -= 1
        self._bytes -= size

    def give(self, size: int) -> None:
        """Give it back."""
        self._messages += 1
        self._bytes += size


def wait_before_next(now: float, last: float | None) -> float:
    """Return the seconds that a value of progress has to wait behind the last one that was stored."""
    return 0.0 if last is None else max(0.0, last + PROGRESS_EVERY - now)
