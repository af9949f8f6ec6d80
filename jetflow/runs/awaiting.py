"""Waits for events: finding the earliest one that fits, and having whoever is given an event wake who waits for it."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from time import time
from typing import Any, NamedTuple

from jetflow.broker.optional import CLOCKS_DIFFER, ensure_waits_consumer
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.awaiting import Awaited
from jetflow.engine.effects import Stand
from jetflow.engine.matching import Matching
from jetflow.errors import MalformedRecord
from jetflow.runs import points
from jetflow.wire.events import EventNames, PublishedEvent, read_event

ACK_WAIT = 5.0
"""Seconds of silence after which an event is given to another worker."""


APART = 1e-5
"""Seconds by which two times differ for sure that are told as numbers with a point."""


class _Look(NamedTuple):
    """A look for the first event behind a sequence, or from a time on."""

    after: int
    since: float | None
    found: asyncio.Future[Stored | None]


class Awaiting:
    """Reads events, and stores waits, over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = EventNames(session.names)
        self._is_ready = False
        self._looks: dict[str, list[_Look]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def earliest(self, awaited: Awaited) -> tuple[PublishedEvent, bytes] | None:
        """Return the earliest stored event that fits, as the leader has it, with its body."""
        if not await self._session.optional.is_there(self._names.stream):
            return None
        fits = _matching(awaited.if_).fits
        subject = self._names.event(awaited.topic, awaited.key or "*")
        after, since = awaited.after, None if awaited.after else awaited.since
        while (stored := await self._next(subject, after, since)) is not None:
            event = self._event(stored)
            if event is not None and fits(event.payload):
                return event, stored.body or b"null"
            after, since = stored.sequence, None
        return None

    def _next(self, subject: str, after: int, since: float | None) -> asyncio.Future[Stored | None]:
        """Look for the first event of a filter. Those who look for such in the same pass of the loop share one look."""
        loop = asyncio.get_running_loop()
        if not self._looks:
            loop.call_soon(self._begin_to_look)
        found: asyncio.Future[Stored | None] = loop.create_future()
        self._looks.setdefault(subject, []).append(_Look(after, since, found))
        return found

    def _begin_to_look(self) -> None:
        looks, self._looks = self._looks, {}
        for subject, asked in looks.items():
            looking = asyncio.get_running_loop().create_task(self._look(subject, asked))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    async def _look(self, subject: str, asked: list[_Look]) -> None:
        """Answer looks: those from a time on by what is there from the earliest of them on, as far as that says it."""
        try:
            times = [one.since for one in asked if one.since is not None]
            if len(times) > 1:
                since = min(times)
                first = await self._session.store.leader_next(self._names.stream, subject, 0, since)
                for one in asked:
                    if one.since is not None and (first is None or one.since + APART < first.time):
                        _answer(one, first)
            left = [one for one in asked if not one.found.done()]
            found = await asyncio.gather(
                *(self._session.store.leader_next(self._names.stream, subject, one.after, one.since) for one in left)
            )
            for one, stored in zip(left, found, strict=True):
                _answer(one, stored)
        except Exception as error:  # those who look know what to do
            for one in asked:
                if not one.found.done():
                    one.found.set_exception(error)

    def _event(self, stored: Stored) -> PublishedEvent | None:
        try:
            return read_event(self._names, stored.subject, stored.sequence, stored.time, stored.headers, stored.body)
        except MalformedRecord:  # it is no JSON: nobody waits for such
            return None

    async def ready(self) -> None:
        """See to it that what is needed for waiting is there, and that workers are given events.

        Raises:
            PermissionDenied: it is missing, and this user may not make it.
        """
        if self._is_ready:
            return
        session, names = self._session, self._names
        await asyncio.gather(session.optional.ensure(names.stream), session.optional.ensure(names.waits_stream))
        await ensure_waits_consumer(session.connection, session.names, ack_wait=ACK_WAIT, since=time() - CLOCKS_DIFFER)
        session.connection.send(names.notice)
        self._is_ready = True

    async def stand(self, effect: Stand) -> bool:
        """Store the waits of a parked turn, then tell whether an event is stored already that ends one of them."""
        await self.ready()
        session, names = self._session, self._names
        points.before("store_waits")
        task, timed = session.names.task_of(effect.task), effect.record.until is not None
        subjects = (names.wait(one, task, n, timed=timed) for n, one in enumerate(effect.record.waits))
        bodies = (names.written_wait(one) for one in effect.record.waits)
        if len(effect.record.waits) == 1:
            await session.publisher.store(next(subjects), next(bodies))
        else:
            await asyncio.gather(*map(session.publisher.store, subjects, bodies))
        points.after("store_waits")
        found = await asyncio.gather(*map(self.earliest, effect.record.waits))
        return any(one is not None for one in found)


def _answer(look: _Look, found: Stored | None) -> None:
    if not look.found.done():  # who looked may have been cancelled meanwhile
        look.found.set_result(found)


@lru_cache(maxsize=1024)
def _matching_of(conditions: tuple[tuple[str, str, Any], ...]) -> Matching:
    return Matching("a wait", conditions)


def _matching(conditions: tuple[tuple[str, str, Any], ...]) -> Matching:
    try:
        return _matching_of(conditions)
    except TypeError:  # a list among the values
        return Matching("a wait", conditions)


matching_of = _matching
"""Returns the filter of a wait, made once."""
