"""The net under the timers: those whose time is long past are armed again.

Where the account or the disk is full at the moment that a timer is due, the server drops what it becomes, tells
nobody, and leaves the timer standing; it never fires, until the server starts anew. One that is armed again fires.
"""

from __future__ import annotations

import asyncio
import logging
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.broker.times import seconds_of
from jetflow.runs.delays import TRAVELS
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block

LATE: Final = 10.0
"""Seconds after its time from which on a timer counts as overdue: more than the clocks of two machines differ."""

LOOKED_AT: Final = 5000
"""Timers that one sweep looks at, at least; the next one goes on behind them."""

_KEPT: Final = (Header.SCHEDULE, Header.SCHEDULE_TARGET, Header.ATTEMPT, *TRAVELS)

_log = logging.getLogger("jetflow.worker")


class OverdueTimers:
    """Looks at all timers of a namespace, some in each sweep."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._after = 0

    async def arm_again(self) -> int:
        """Look at the next timers, arm those again that are overdue, and return how many.

        Raises:
            BrokerError: the broker could not be asked, or takes nothing.
        """
        names, looked, overdue = self._session.names, 0, list[Stored]()
        timers, _ = names.all_timers
        async for page in self._session.store.pages(names.timers_stream, timers, after=self._after):
            overdue += [stored for stored in page if time() - _due(stored) > LATE]
            looked, self._after = looked + len(page), page[-1].sequence
            if looked >= LOOKED_AT:
                break
        else:
            self._after = 0
        if overdue:
            await asyncio.gather(*map(self._arm, overdue))
            _log.warning("%d timers that should have fired are armed again, %s", len(overdue), overdue[0].subject)
        return len(overdue)

    async def _arm(self, timer: Stored) -> None:
        headers = {name: timer.headers[name] for name in _KEPT if name in timer.headers}
        await self._session.publisher.store(timer.subject, timer.body, header_block(headers), timeout=30)


def _due(timer: Stored) -> float:
    """Return the time of a timer; infinite for what is no timer of a worker."""
    kind, _, at = timer.headers.get(Header.SCHEDULE, "").partition(" ")
    try:
        return seconds_of(at) if kind == "@at" and at else float("inf")
    except ValueError:
        return float("inf")
