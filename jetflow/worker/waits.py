"""Which waits of one step wait for which children: each outcome finds its waits without looking at the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final, Protocol

import msgspec

from jetflow.engine.awaiting import Awaited, distinct
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import Outcome

SUCCEEDED: Final = b'"succeeded"'
"""Stands at the beginning of the record of an outcome that has an output."""


LARGE: Final = 4 * 1024
"""Bytes above which the record of an outcome is large."""

KEPT_BYTES: Final = 32 * 1024 * 1024
"""Bytes of large records that are kept for who takes children as they end; further ones are read when asked for."""

_NOBODY: Final[deque[bytes]] = deque(maxlen=0)


class Crowd(Protocol):
    """Knows how many steps wait in this worker, and whether one more may wait warm."""

    waiting: int

    @property
    def park_after(self) -> float:
        """Seconds that a step waits in memory before it is parked."""
        ...

    def has_room(self) -> bool:
        """Whether one more may wait warm."""
        ...


class Decision(msgspec.Struct, frozen=True):
    """How a policy was decided: the children that have ended, those still open, and whether it was met.

    ``policy`` is the one that was: it may have been loosened.
    """

    ended: dict[bytes, Outcome]
    open: set[bytes]
    met: bool
    policy: JoinPolicy


class Need(msgspec.Struct, frozen=True):
    """What a parked step needs before it can go on: at least ``at_least`` of ``children``, or a decided policy.

    At ``until`` (seconds since the epoch) it goes on in any case.
    """

    children: frozenset[bytes]
    at_least: int
    policy: JoinPolicy | None = None
    until: float | None = None
    events: tuple[Awaited, ...] = ()


def need_of(waits: Sequence[Wait], ended: Mapping[bytes, bytes]) -> Need:
    """Return what a step needs that waits in these places, before it can go on in one.

    The nearest of them decides: a lower bound, so that the step is never parked for too long. One that waits for a
    time alone needs no child.
    """
    union = frozenset[bytes]().union(*(wait.children for wait in waits))
    left = (
        1 if wait.policy is not None and wait.policy.early else wait.parks_for or wait.left
        for wait in waits
        if wait.children
    )
    return Need(
        union,
        len(union & ended.keys()) + min(left, default=0),
        waits[0].policy if len(waits) == 1 else None,
        min((wait.deadline for wait in waits if wait.deadline is not None), default=None),
        distinct(event for wait in waits for event in wait.events),
    )


class Wait:
    """One wait: ``left`` is how many more children must end before it is worth going on.

    Under an early ``policy`` one that did not end well is worth it, too. At its ``deadline`` (seconds since the epoch)
    it is over. ``began`` is the event loop's time. One that takes its children as they end begins anew for each that it
    has to wait for; those that ended meanwhile are in ``arrived``. If it is parked, ``parks_for`` of them are worth it.
    """

    __slots__ = (
        "arrived",
        "began",
        "children",
        "deadline",
        "events",
        "left",
        "moved",
        "parks_for",
        "policy",
        "takes_each",
    )

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
        self.arrived: deque[bytes] = _NOBODY
        self.takes_each: bool = False
        self.parks_for: int = 0
        self.events: tuple[Awaited, ...] = ()

    @classmethod
    def for_each(cls, children: set[bytes], ended: Iterable[bytes]) -> Wait:
        """Make one that takes its children as they end. Those that have are given in their order."""
        wait = cls(children, 0)
        wait.takes_each = True
        wait.arrived = deque(child for child in ended if child in children)
        return wait

    def come(self) -> None:
        """Let it go on."""
        self.left = 0
        self.wake()

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
        self._kept = 0
        self.has_let_go: bool = False

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
        self.watch(wait)

    def begin(self, wait: Wait) -> None:
        """Count a wait as one that waits."""
        self._waits[wait] = None

    def renew(self, wait: Wait) -> None:
        """Begin to wait for one more child that is taken as it ends."""
        loop = asyncio.get_running_loop()
        wait.began, wait.moved, wait.left = loop.time(), loop.create_future(), 1
        self.begin(wait)

    def end(self, wait: Wait) -> None:
        """Count a wait as one that does not, and tell it of nothing more if it does not wait again."""
        del self._waits[wait]
        self._moving -= wait.left <= 0
        if not wait.takes_each:
            self.unwatch(wait)

    def watch(self, wait: Wait) -> None:
        """Tell a wait of its children that end from now on."""
        missing, alone, waiting = wait.children.difference(self.ended), (wait,), self._open
        if waiting.keys().isdisjoint(missing):
            waiting.update(dict.fromkeys(missing, alone))
        else:
            for child in missing:
                waiting[child] = waiting.get(child, ()) + alone

    def widen(self, wait: Wait, children: Iterable[bytes]) -> None:
        """Tell a wait of more children that end from now on."""
        for child in children:
            if child not in wait.children:
                wait.children.add(child)
                if child in self.ended:
                    wait.arrived.append(child)
                else:
                    self._open[child] = (*self._open.get(child, ()), wait)

    def hand_over(self, wait: Wait) -> list[tuple[bytes, bytes]]:
        """Return the children that have ended of one that takes each, with their records, and keep nothing of them."""
        handed: list[tuple[bytes, bytes]] = []
        while wait.arrived:
            child = wait.arrived.popleft()
            body = self.ended.pop(child, b"")
            if len(body) > LARGE:
                self._kept -= len(body)
            wait.children.discard(child)
            handed.append((child, body))
        return handed

    def unwatch(self, wait: Wait) -> None:
        """Tell a wait of nothing more."""
        if self._open.keys().isdisjoint(wait.children):
            return
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
        self.ended[child] = body if len(body) <= LARGE else self._keep(body, waits)
        for wait in waits:
            if wait.takes_each:
                wait.arrived.append(child)
            if wait.left <= 0:
                continue
            wait.left -= 1
            if wait.policy is not None and wait.policy.early and SUCCEEDED not in body[:64]:
                wait.left = 0
            if wait.left <= 0:
                self._moving += 1
                wait.wake()
        return True

    def _keep(self, body: bytes, waits: tuple[Wait, ...]) -> bytes:
        """Return a large record; nothing, if many are kept and nobody needs it at once: it is read when asked for."""
        if self._kept + len(body) > KEPT_BYTES and all(wait.takes_each for wait in waits):
            self.has_let_go = True
            return b""
        self._kept += len(body)
        return body

    def let_go(self, children: Iterable[bytes]) -> None:
        """Keep the large records of children no longer: they were given out."""
        if self._kept:
            for child in children:
                size = len(self.ended[child])
                if size > LARGE:
                    self._kept -= size
                    self.ended[child] = b""
                    self.has_let_go = True

    def put_back(self, child: bytes, body: bytes) -> None:
        """Take a record again that was not kept."""
        self.ended[child] = body
        if len(body) > LARGE:
            self._kept += len(body)

    def wake(self) -> None:
        """Let all of them look at what has become of their step."""
        for wait in self._waits:
            wait.wake()
