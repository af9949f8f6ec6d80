"""How much ended when: counts of ends in equal parts of a time.

Where few ended they are read, each with its time. Of more, a part is the difference of two counts from its edges on,
for the server looks for a time as long as it reads some thousand messages. What is over does not change, so it is
counted once.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from itertools import pairwise
from math import floor
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import NONE
from jetflow.runs.query.rows import Bucket
from jetflow.wire.filters import ANY, Filters

AT_ONCE: Final = 12
"""Counts under way."""

FEW: Final = 3000
"""Ends that are read, and not counted."""

PAGE: Final = 1000

KEPT: Final = 10_000
"""Parts that are remembered."""

SETTLED: Final = 2.0
"""Seconds after which nothing more is stored of a part that is over."""

STATUSES: Final = ("failed", "cancelled", "timed_out")


class History:
    """Counts ends by time, and remembers what is over."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._over: OrderedDict[tuple[str, str, float, float], Bucket] = OrderedDict()

    async def read(self, root: str, run: str, since: float, until: float, buckets: int) -> list[Bucket]:
        """Return the parts of a time, of the children of a run, or, where ``run`` is ``-``, of root runs.

        Their edges are multiples of their length, so that the same parts are asked for again.
        """
        width = max(0.001, round((until - since) / buckets, 3))  # until is now, which is never the same
        first = floor(since / width)
        edges = [(first + at) * width for at in range(floor(until / width) - first + 2)]
        parts = list(pairwise(edges))
        missing = [part for part in parts if (root, run, *part) not in self._over]
        asked = sorted({edge for part in missing for edge in part})
        counts = await self._read_few(root, run, asked) if asked else {}
        if counts is None:
            counts = await self._counts(root, run, asked)
        now, found = time(), list[Bucket]()
        for begin, end in parts:
            bucket = self._over.get((root, run, begin, end))
            if bucket is None:
                bucket = _bucket(begin, end, counts[begin], counts[end])
                if end < now - SETTLED:
                    self._over[root, run, begin, end] = bucket
            found.append(bucket)
        while len(self._over) > KEPT:
            self._over.popitem(last=False)
        return found

    async def _read_few(self, root: str, run: str, edges: list[float]) -> dict[float, list[int]] | None:
        """Return the same as `_counts`, from what is read; None where that is too much."""
        filters, step = Filters(self._session.names), NONE if run == NONE else ANY
        ends = await self._few(filters.ends(root, run, step=step), edges[0])
        marks = None if ends is None else await self._few(filters.marks(root, run, step=step), edges[0])
        if ends is None or marks is None:
            return None
        times = [sorted(one.time for one in ends)]
        times += [sorted(one.time for one in marks if one.subject.split(".")[6] == status) for status in STATUSES]
        return {edge: [len(column) - bisect_left(column, edge) for column in times] for edge in edges}

    async def _few(self, subject: str, since: float) -> list[Stored] | None:
        """Return what was stored of a subject since a time; None where that is too much."""
        store, stream = self._session.store, self._session.names.records_stream
        if since > time():
            return []
        found, left = await store.page(stream, subject, size=PAGE, since=since)
        while left and len(found) + left <= FEW:
            more, left = await store.page(stream, subject, after=found[-1].sequence, size=PAGE)
            found += more
        return None if left else found

    async def _counts(self, root: str, run: str, edges: list[float]) -> dict[float, list[int]]:
        """Return, for each edge, how many ended from then on, and how many of those not well."""
        filters, store = Filters(self._session.names), self._session.store
        stream = self._session.names.records_stream
        step = NONE if run == NONE else ANY
        subjects = [filters.ends(root, run, step=step)]
        subjects += [filters.marks(root, run, step=step, status=status) for status in STATUSES]
        gate = asyncio.Semaphore(AT_ONCE)

        async def count(subject: str, edge: float) -> int:
            async with gate:
                return 0 if edge > time() else await store.count(stream, subject, since=edge)

        first = await asyncio.gather(*(count(subject, edges[0]) for subject in subjects))
        there = [subject for subject, value in zip(subjects, first, strict=True) if value]
        found = await asyncio.gather(*(count(subject, edge) for edge in edges for subject in there))
        by_edge = {edge: iter(found[at * len(there) : (at + 1) * len(there)]) for at, edge in enumerate(edges)}
        return {
            edge: [next(values) if subject in there else 0 for subject in subjects] for edge, values in by_edge.items()
        }


def _bucket(since: float, until: float, at_begin: list[int], at_end: list[int]) -> Bucket:
    ended, failed, cancelled, timed_out = (max(0, begin - end) for begin, end in zip(at_begin, at_end, strict=True))
    return Bucket(
        since=since,
        until=until,
        ended=ended,
        succeeded=max(0, ended - failed - cancelled - timed_out),
        failed=failed,
        cancelled=cancelled,
        timed_out=timed_out,
    )
