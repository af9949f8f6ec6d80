"""A clock that a test can move: what waits for a time on the broker waits for less.

The time of a timer is the server's, which nobody can move; but a timer may be armed again, and then the later word
counts. So to move the clock is to arm each timer of the namespace anew, so much nearer, and the server fires those
whose time has come as it fires every other: by the same message, to the same workers.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import jetflow.client
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.broker.times import seconds_of, written
from jetflow.errors import JetflowError
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block

PATIENCE: Final = 10.0
"""Seconds that a timer is waited for, unless the call says otherwise."""

_PAUSE: Final = 0.02
_AT: Final = "@at "


class NothingWaits(JetflowError, TimeoutError):
    """The clock was to be moved, and nothing waits for a time: ``found`` timers stand where ``wanted`` should be."""

    def __init__(self, namespace: str, found: int, wanted: int, seconds: float) -> None:
        super().__init__(
            f"{found} of {wanted} timers are armed in namespace {namespace!r} after {seconds:g} s: a step waits on the "
            "broker only where its next attempt is a second away or more, and only when the attempt before has failed"
        )
        self.found = found
        self.wanted = wanted


class Clock:
    """The clock of one namespace on a test's server. It is tied to no event loop."""

    def __init__(self, server: str, namespace: str) -> None:
        self._server = server
        self._namespace = namespace

    async def advance(self, seconds: float, *, timers: int = 1, within: float = PATIENCE) -> int:
        """Have all that waits on the broker wait ``seconds`` less, and return for how much of it the time has come.

        First it waits until ``timers`` timers are armed, for at most ``within`` seconds: the step that a test has in
        mind may not have failed yet. The rest goes on waiting, for as much less.

        Raises:
            NothingWaits: so many timers were not there in time.
            ValueError: ``seconds`` is not above 0.
        """
        if seconds <= 0:
            raise ValueError(f"advance({seconds}): seconds, above 0")
        async with jetflow.client.connect(self._server, namespace=self._namespace) as client:
            armed = await self._armed(client.session, timers, within)
            nearer = [(timer, _at(timer) - seconds) for timer in armed]
            await asyncio.gather(*(_arm(client.session, timer, until) for timer, until in nearer))
        return sum(until <= time() for _, until in nearer)

    async def _armed(self, session: Session, wanted: int, within: float) -> list[Stored]:
        names = session.names
        pattern, _ = names.all_timers
        end = time() + within
        while True:
            pages = session.store.pages(names.timers_stream, pattern)
            now = time()
            found = [timer async for page in pages for timer in page if _at(timer) > now]  # others are just firing
            if len(found) >= wanted:
                return found
            if now > end:
                raise NothingWaits(self._namespace, len(found), wanted, within)
            await asyncio.sleep(_PAUSE)


class SyncClock:
    """The same for plain code."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def advance(self, seconds: float, *, timers: int = 1, within: float = PATIENCE) -> int:
        """See `Clock.advance`. It is for tests that are no coroutines."""
        return asyncio.run(self._clock.advance(seconds, timers=timers, within=within))


def _at(timer: Stored) -> float:
    """Return the time of a timer; 0 of what is none for one time."""
    schedule = timer.headers.get(Header.SCHEDULE, "")
    return seconds_of(schedule.removeprefix(_AT)) if schedule.startswith(_AT) else 0.0


async def _arm(session: Session, timer: Stored, until: float) -> None:
    """Arm a timer again for another time. One that has fired meanwhile fires twice, and the second time for nothing."""
    kept = {
        name: value
        for name, value in timer.headers.items()
        if name == Header.SCHEDULE_TARGET or not name.startswith("Nats-")
    }
    headers = kept | {Header.SCHEDULE: f"{_AT}{written(until)}"}
    await session.publisher.store(timer.subject, timer.body, header_block(headers), timeout=PATIENCE)
