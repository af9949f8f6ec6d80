"""Watching a fan-out: its totals as they change, shared by all who look at the same run.

One task a run reads for all of them, and only while somebody looks. The counts come from `LiveCounts`; what else is
known of a run (which steps are sealed, whether it has ended) is read once a second. So a look costs the same for ten
children and for a million.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from time import monotonic
from typing import Final

import msgspec

from jetflow.broker.live_counts import LiveCounts
from jetflow.broker.session import Session
from jetflow.runs.located import Located, locate
from jetflow.runs.query.counting import Counting
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import RunTotals
from jetflow.runs.query.shapes import Shape, read_shape

EVERY: Final = 0.25
"""Seconds between two looks, at least."""

SHARE: Final = 100
"""A look whose counts take the server n seconds is followed by a pause of this many times n, at least."""

SHAPE_EVERY: Final = 1.0
"""Seconds between two reads of what is known beside the counts."""

RATE_OVER: Final = 10.0
"""Seconds over which the rate is taken."""


class Watches:
    """The runs that somebody looks at, of one client."""

    def __init__(self, session: Session, declared: Declared, counting: Counting) -> None:
        self._session = session
        self._declared = declared
        self._counting = counting
        self._watches: dict[str, _Watch] = {}

    async def totals(self, run: str) -> AsyncGenerator[RunTotals]:
        """Yield the totals of a run whenever they have changed; the last ones when it has ended.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        watch = self._watches.get(run)
        if watch is None:
            watch = self._watches[run] = _Watch(self._session, self._declared, self._counting, run)
        watch.lookers += 1
        shown: RunTotals | None = None
        try:
            while True:
                newest = await watch.newer_than(shown)
                if newest is None:
                    return
                shown = newest
                yield newest
        finally:
            watch.lookers -= 1
            if not watch.lookers:
                self._watches.pop(run, None)
                await watch.stop()


class _Watch:
    """One run that somebody looks at."""

    def __init__(self, session: Session, declared: Declared, counting: Counting, run: str) -> None:
        self._session = session
        self._declared = declared
        self._counting = counting
        self._run = run
        self._counts = LiveCounts(session.connection, session.store, {session.names.records_stream})
        self._newest: RunTotals | None = None
        self._changed = asyncio.Event()
        self._over = False
        self._error: Exception | None = None
        self._ended: deque[tuple[float, int]] = deque()
        self._task = asyncio.get_running_loop().create_task(self._look_on())
        self.lookers: int = 0

    async def newer_than(self, shown: RunTotals | None) -> RunTotals | None:
        """Return the newest totals when they differ from those that are shown; None if there will be no more.

        Raises:
            JetflowError: they cannot be read any more.
        """
        while self._newest is shown:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._over:
                return None
            changed = self._changed
            await changed.wait()
        return self._newest

    async def stop(self) -> None:
        """Look no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._counts.let_go()

    async def _look_on(self) -> None:
        try:
            await self._look_until_it_ends()
        except Exception as error:  # whoever looks gets it
            self._error = error
        finally:
            self._over = True
            self._tell()

    async def _look_until_it_ends(self) -> None:
        located, shape = await self._read()
        read_at, count_at = monotonic(), 0.0
        while located.outcome is None:
            if monotonic() >= count_at:
                self._counts.spent = 0.0
                self._show(await self._counting.totals(located, shape, self._counts))
                count_at = monotonic() + SHARE * self._counts.spent
            await asyncio.sleep(EVERY)
            if monotonic() - read_at >= SHAPE_EVERY or await self._has_ended(located):
                located, shape = await self._read()
                read_at = monotonic()
        self._show(await self._counting.totals(located, shape))

    async def _read(self) -> tuple[Located, Shape]:
        located = await locate(self._session, self._run)
        return located, await read_shape(self._session, self._declared, located)

    async def _has_ended(self, located: Located) -> bool:
        first, names = located.first, self._session.names
        return (
            first is not None and await self._session.store.last(names.records_stream, names.run_of(first)) is not None
        )

    def _show(self, totals: RunTotals) -> None:
        rated = self._rated(totals)
        if self._newest is None or msgspec.structs.replace(self._newest, at=rated.at) != rated:
            self._newest = rated
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _rated(self, found: RunTotals) -> RunTotals:
        """Return totals with how fast children end, and when the last one will have."""
        totals = found.totals
        ended = totals.succeeded + totals.failed + totals.cancelled + totals.timed_out
        now = monotonic()
        self._ended.append((now, ended))
        while now - self._ended[0][0] > RATE_OVER:
            self._ended.popleft()
        since, before = self._ended[0]
        if now - since < EVERY:
            return found
        rate = max(0.0, (ended - before) / (now - since))
        eta = totals.open / rate if rate and totals.open else None
        return msgspec.structs.replace(found, rate=rate, eta=eta)
