"""Waits for events: finding the earliest one that fits, and having whoever is given an event wake who waits for it."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

from jetflow.broker.optional import ensure_waits_consumer
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


class Awaiting:
    """Reads events, and stores waits, over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = EventNames(session.names)
        self._is_ready = False

    async def earliest(self, awaited: Awaited) -> tuple[PublishedEvent, bytes] | None:
        """Return the earliest stored event that fits, as the leader has it, with its body."""
        if not await self._session.optional.is_there(self._names.stream):
            return None
        fits = _matching(awaited.if_).fits
        subject = self._names.event(awaited.topic, awaited.key or "*")
        after, since = awaited.after, None if awaited.after else awaited.since
        while (stored := await self._session.store.leader_next(self._names.stream, subject, after, since)) is not None:
            event = self._event(stored)
            if event is not None and fits(event.payload):
                return event, stored.body or b"null"
            after, since = stored.sequence, None
        return None

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
        await ensure_waits_consumer(session.connection, session.names, ack_wait=ACK_WAIT)
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
        await asyncio.gather(*map(session.publisher.store, subjects, bodies))
        points.after("store_waits")
        found = await asyncio.gather(*map(self.earliest, effect.record.waits))
        return any(one is not None for one in found)


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
