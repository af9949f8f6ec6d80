"""Questions about one run from close by: its values, its messages, the runs above it; and of the server itself."""

from __future__ import annotations

from typing import Final

from jetflow.broker.server_facts import ServerFacts, server_facts
from jetflow.errors import InvalidQuery
from jetflow.runs.located import locate
from jetflow.runs.query.event_lists import EventPage, filter_of, read_events
from jetflow.runs.query.lineage import Lineage, read_lineage
from jetflow.runs.query.live import LiveQueries
from jetflow.runs.query.messages import Messages, read_messages
from jetflow.runs.query.payloads import Payload, input_of, once_of, output_of
from jetflow.runs.query.stored import check_id, check_names
from jetflow.wire.events import EventNames

MOST_EVENTS: Final = 200
"""Events of one page, at most."""


class InspectingQueries(LiveQueries):
    """What may be asked of one run from close by; see `Queries`."""

    @property
    def server(self) -> ServerFacts:
        """The server that this client is connected to, or was last."""
        return server_facts(self._session.connection)

    async def input(self, run_id: str) -> Payload | None:
        """Return the input of a run, as it is stored; None where its task is gone.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        return await input_of(session, await locate(session, run_id))

    async def output(self, run_id: str, step: str | None = None) -> Payload | None:
        """Return the output of a run, or of one step, as it is stored; None where it has none, or has none yet.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        check_names(step=step)
        session = self._session.usable()
        return await output_of(session, await locate(session, run_id), step)

    async def once(self, run_id: str, step: str, name: str) -> Payload | None:
        """Return a value that a step has recorded with ``ctx.once``; None where it has not.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        check_names(step=step)
        session = self._session.usable()
        return await once_of(session, await locate(session, run_id), step, name)

    async def lineage(self, run_id: str) -> Lineage:
        """Return the runs above a run up to its root, and its place among the children of its parent.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        return await read_lineage(session, self._declared, await locate(session, run_id))

    async def messages(self, run_id: str) -> Messages:
        """Return what is stored of a run in the streams of tasks and records, message by message.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        return await read_messages(session, await locate(session, run_id))

    async def published(
        self, topic: str = ">", *, key: str | None = None, before: int | None = None, limit: int = 50
    ) -> EventPage:
        """Return stored events of a topic, or of a pattern, the newest first, each with the runs that it has started.

        ``before`` is the ``next`` of the page before. Signals are events of the topics ``run.<name>``, whose key is the
        id of a run. `Client.events` reads them in their order.

        Raises:
            InvalidQuery: there is no such topic, or the limit makes no sense.
        """
        if not 1 <= limit <= MOST_EVENTS:
            raise InvalidQuery(f"limit={limit}: from 1 to {MOST_EVENTS}")
        if before is not None and before < 1:
            raise InvalidQuery(f"before={before}: it is the ``next`` of the page before")
        session = self._session.usable()
        subject = filter_of(session, topic, key)
        if not await session.optional.is_there(EventNames(session.names).stream):
            return EventPage()
        return await read_events(session, self._declared, subject, before=before, limit=limit)

    async def newest_event(self) -> int:
        """Return the sequence of the newest event; 0 where there never was one."""
        session = self._session.usable()
        stream = EventNames(session.names).stream
        return await session.store.last_sequence(stream) if await session.optional.is_there(stream) else 0
