"""Which waits of one step wait for which children: each outcome finds its waits without looking at the others."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Final

import msgspec

from jetflow.engine.policies import JoinPolicy

SUCCEEDED: Final = b'"succeeded"'
"""Stands at the beginning of the record of an outcome that has an output."""


class Need(msgspec.Struct, frozen=True):
    """What a parked step needs before it can go on: at least ``at_least`` of ``children``, or a decided policy.

    At ``until`` (seconds since the epoch) it goes on in any case.
    """

    children: frozenset[bytes]
    at_least: int
    policy: JoinPolicy | None = None
    until: float | None = None


class Wait:
    """One wait: ``left`` is how many more children must end before it is worth going on.

    Under an early ``policy`` one that did not end well is worth it, too. At its ``deadline`` (seconds since the epoch)
    it is over. ``began`` is the event loop's time.
    """

    __slots__ = ("began", "children", "deadline", "left", "moved", "policy")

    def __init__(
        self, children: set[bytes], left: int, policy: JoinPolicy | None = None, deadline: float | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.began: float = loop.time()
        self.children: set[bytes] = children
        self.deadline: float | None = deadline
        self.left: int = left
        self.moved: asyncio.Future[None] = loop.create_future()
        self.policy: JoinPolicy | None = policy

    def wake(self) -> None:
        """Let it look at what has come of it."""
        if not self.moved.done():
            self.moved.set_result(None)


class Waits:
    """The waits of one step, oldest first, and the records of the outcomes that they were told of.

    A step may wait in thousands of places at once, such as a ``gather`` of results.
    """

    def __init__(self) -> None:
        self.ended: dict[bytes, bytes] = {}
        self._waits: dict[Wait, None] = {}
        self._open: dict[bytes, tuple[Wait, ...]] = {}
        self._moving = 0

    @property
    def open(self) -> Set[bytes]:
        """The children that are waited for and have not ended."""
        return self._open.keys()

    @property
    def oldest(self) -> Wait:
        """The wait that began first."""
        return next(iter(self._waits))

    @property
    def standing(self) -> list[Wait]:
        """All of them if none can go on; else none."""
        return [] if self._moving else list(self._waits)

    def add(self, wait: Wait) -> None:
        """Begin to wait for the children that have not ended."""
        self._waits[wait] = None
        missing, alone = wait.children - self.ended.keys(), (wait,)
        shared = missing & self._open.keys()
        for child in shared:
            self._open[child] += alone
        self._open.update(dict.fromkeys(missing - shared if shared else missing, alone))

    def remove(self, wait: Wait) -> None:
        """End a wait."""
        del self._waits[wait]
        self._moving -= wait.left <= 0
        for child in wait.children & self._open.keys():
            others = tuple(other for other in self._open[child] if other is not wait)
            if others:
                self._open[child] = others
            else:
                del self._open[child]

    def take(self, child: bytes, body: bytes) -> bool:
        """Take the record of an outcome, if anybody waits for it. Returns whether somebody does."""
        waits = self._open.pop(child, None)
        if waits is None:
            return False
        self.ended[child] = body
        for wait in waits:
            if wait.left <= 0:
                continue
            wait.left -= 1
            if wait.policy is not None and wait.policy.early and SUCCEEDED not in body[:64]:
                wait.left = 0
            if wait.left <= 0:
                self._moving += 1
                wait.wake()
        return True

    def wake(self) -> None:
        """Let all of them look at what has become of their step."""
        for wait in self._waits:
            wait.wake()
