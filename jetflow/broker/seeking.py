"""Finding a place in a long list of messages without reading it: the newest ones, or the n-th.

The broker reads forward only, but tells how many messages of a filter are left behind a sequence. So the newest are
found by going back in growing strides and halving the last one, and the n-th by interpolation: some twenty counts at
most, of which each holds up nobody for longer than it takes.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from typing import Final, NamedTuple

from jetflow.broker.store import PAGE, Store, Stored

FIRST_STRIDE: Final = 256
"""Sequences that the first stride back takes; each further one is as many times longer as the last figure here."""

STRIDE_GROWS: Final = 8

NEAR: Final = 300
"""Messages that are rather read than halved once more."""

LANDMARKS: Final = 1000
"""Places of one filter that are remembered."""


class Newest(NamedTuple):
    """The newest messages of a filter, the newest first; whether there are none before them, and how many there are."""

    found: list[Stored]
    is_all: bool


class Place(NamedTuple):
    """A place in the messages of a filter: ``n`` of them stand up to sequence ``behind``, and the others behind it."""

    behind: int
    n: int


class Landmarks:
    """Places in the messages of one filter that are known, of which none is removed: what was found is not sought."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def add(self, place: Place) -> None:
        """Remember a place."""
        if len(self._places) == LANDMARKS:
            self._places = self._places[::2]
        at = bisect_right(self._places, place)
        if not at or self._places[at - 1] != place:
            insort(self._places, place)

    def around(self, n: int) -> tuple[Place | None, Place | None]:
        """Return the last place that is known up to the n-th message, and the first one behind it."""
        at = bisect_right(self._places, n, key=lambda place: place.n)
        return (self._places[at - 1] if at else None), (self._places[at] if at < len(self._places) else None)


class Seeker:
    """Seeks in the messages of one filter of one stream, all of which stand ``behind`` a sequence."""

    def __init__(
        self, store: Store, stream: str, subject: str, *, behind: int = 0, landmarks: Landmarks | None = None
    ) -> None:
        self._store = store
        self._stream = stream
        self._filter = subject
        self._behind = behind
        self._landmarks = landmarks or Landmarks()

    async def count(self, after: int = 0) -> int:
        """Return how many messages stand behind a sequence."""
        return await self._store.count(self._stream, self._filter, after=after)

    async def newest(self, size: int, *, before: int | None = None, floor: int = 0) -> Newest:
        """Return the newest ``size`` messages, of those before sequence ``before`` and behind sequence ``floor``."""
        end = await self._store.last_sequence(self._stream) + 1 if before is None else before
        behind = 0 if before is None else await self.count(end - 1)
        start, count = await self._start(size, end, floor, behind)
        if not count:
            return Newest([], True)
        found: list[Stored] = []
        async for page in self._store.pages(self._stream, self._filter, after=start, size=min(PAGE, count)):
            found += [message for message in page if message.sequence < end]
            if len(found) >= count or page[-1].sequence >= end:
                break
        is_all = start <= floor and len(found) <= size
        return Newest(found[::-1][:size], is_all)

    async def _start(self, size: int, end: int, floor: int, behind: int) -> tuple[int, int]:
        """Return a sequence behind which ``size`` messages stand and not many more, and how many stand there."""
        near, stride = end, FIRST_STRIDE
        while True:
            far = max(floor, end - 1 - stride)
            count = await self.count(far) - behind
            if count >= size or far <= floor:
                break
            near, stride = far, stride * STRIDE_GROWS
        while count > size + NEAR and near - far > 1:
            middle = (far + near) // 2
            found = await self.count(middle) - behind
            if found >= size:
                far, count = middle, found
            else:
                near = middle
        return far, max(0, count)

    async def near(self, n: int, total: int | None = None) -> Place:
        """Return a place from which the n-th message, from 0, is not far; the end where there are not so many.

        ``total`` is how many there are, where that is known, and stays so. Then it is counted first where the last one
        would stand if nothing else was stored between them: if it does, no other place is ever counted. Where more are
        stored meanwhile, what came after the begin is taken off each count, and what was found is not remembered: it
        may be some rows off.
        """
        low, high = self._landmarks.around(n)
        if low is not None and (known := _within(low, high, n)) is not None:
            return known
        last = await self._store.last_sequence(self._stream)
        grows = total is None
        if total is None:
            total = await self._up_to(self._behind, last)
        if n >= total:
            return Place(last, total)
        if low is None:
            first = await self._store.first(self._stream, self._filter, after=self._behind)
            low = Place(last if first is None else first.sequence - 1, 0)
            self._landmarks.add(low)
        high, by_share, width = high or Place(last, total), True, n - low.n
        if not grows and total - low.n < high.behind - low.behind and high.n == total:
            dense = low.behind + total - low.n
            found = Place(dense, total - await self.count(dense))
            self._landmarks.add(found)
            low, high = (found, high) if found.n <= n else (low, found)
            width = n - low.n
        while (known := _within(low, high, n)) is None and high.behind - low.behind > 1:
            middle = min(high.behind - 1, max(low.behind + 1, low.behind + width - NEAR // 2))
            found = Place(middle, total - (await self._up_to(middle, last) if grows else await self.count(middle)))
            if not grows:
                self._landmarks.add(found)
            low, high = (found, high) if found.n <= n else (low, found)
            width = high.behind - low.behind
            width = int(width * (n - low.n) / max(1, high.n - low.n)) if by_share else (width + NEAR) // 2
            by_share = not by_share
        return known or low

    async def _up_to(self, after: int, last: int) -> int:
        """Return how many messages stand behind a sequence and up to another one, asked for at the same time."""
        behind, newer = await asyncio.gather(self.count(after), self.count(last))
        return max(0, behind - newer)


def _within(low: Place, high: Place | None, n: int) -> Place | None:
    """Return the place of the n-th message between two that are known; None where it has to be sought.

    It is known where nothing else is stored between them, and good enough where it is not far.
    """
    if high is not None and high.behind - low.behind == high.n - low.n:
        return Place(low.behind + n - low.n, n)
    return low if n - low.n <= NEAR else None
