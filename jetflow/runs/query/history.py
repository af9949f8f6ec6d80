"""How much ended when: counts of ends in equal parts of a time.

A part is the difference of two counts from its edges on. What is over does not change, so it is counted once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import pairwise
from math import floor
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.engine.tasks import NONE
from jetflow.runs.query.rows import Bucket
from jetflow.wire.filters import ANY, Filters

AT_ONCE: Final = 12
"""Counts under way."""

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
        counts = await self._counts(root, run, sorted({edge for part in missing for edge in part}))
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

        found = await asyncio.gather(*(count(subject, edge) for edge in edges for subject in subjects))
        return {edge: found[at * len(subjects) : (at + 1) * len(subjects)] for at, edge in enumerate(edges)}


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
