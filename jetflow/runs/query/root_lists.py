"""Pages of root runs, the newest first, found behind whatever newer children are stored.

All runs and those that are open come from their first tasks; those that ended other than well from their marks; those
that succeeded from the outcomes. What no filter of the broker says (key, metadata) is compared row by row, among so
many runs at most, and the page says how far it has looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import time
from typing import Any, Final, cast

import msgspec

from jetflow.broker.seeking import Seeker
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import NONE
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.root_rows import RootRows
from jetflow.runs.query.rows import Page, RunRow, Searched, statuses_of
from jetflow.wire.filters import ANY, Filters

MOST_LOOKED_AT: Final = 20_000
"""Messages that are read for one page at most."""

FEWEST: Final = 100
"""Messages that are read at once where not each of them fits."""

COUNTED: Final = 50
"""Workflows whose runs are counted for a page's total."""


class RootQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which root runs are asked for. ``question`` tells it from others in cursors. Times are seconds of the epoch."""

    question: str
    workflow: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    key: str | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def is_of_filter(self) -> bool:
        """Whether each message of its filter is a run that is asked for."""
        return self.key is None and not self.metadata and self.status in (None, "failed", "cancelled", "timed_out")

    def fits(self, row: RunRow) -> bool:
        """Tell whether a row is asked for."""
        return (
            self.workflow in (None, row.workflow)
            and self.key in (None, row.key)
            and self._is_of_status(row)
            and self.has(row.metadata)
        )

    def _is_of_status(self, row: RunRow) -> bool:
        wanted = () if self.status is None else statuses_of(self.status)
        return not wanted or row.status in wanted or ("open" in wanted and row.ended is None)

    def has(self, metadata: Any) -> bool:
        """Tell whether metadata have what is asked for."""
        return not self.metadata or _holds(metadata, self.metadata)


class _Source(msgspec.Struct, frozen=True):
    stream: str
    subject: str
    rows: Callable[[Sequence[Stored]], Coroutine[Any, Any, list[tuple[RunRow, int]]]]


class RootLists:
    """Reads pages of root runs from the broker."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared
        self._rows = RootRows(session, declared)

    async def page(self, asked: RootQuestion, cursor: Cursor | None, limit: int) -> Page[RunRow]:
        """Return the page of runs that are older than the cursor's."""
        source = await self._source(asked)
        seeker = Seeker(self._session.store, source.stream, source.subject)
        floor, before = await asyncio.gather(self._behind(source, asked.since), self._from(source, asked.until))
        if cursor is not None and cursor.at:
            before = cursor.at
        found: list[RunRow] = []
        read, oldest, is_all = 0, None, False
        while len(found) < limit and not is_all and read < MOST_LOOKED_AT:
            size = limit - len(found)
            newest = await seeker.newest(size if asked.is_of_filter else max(size, FEWEST), before=before, floor=floor)
            is_all = newest.is_all
            before, taken = await self._take(asked, source, newest.found, found, limit, before)
            is_all = is_all and taken == len(newest.found)
            read += taken
            oldest = newest.found[taken - 1].time if taken else oldest
        return Page(
            items=tuple(found),
            next=None if is_all or before is None else Cursor(asked.question, before, 0).text(),
            total=await self._total(asked, source) if cursor is None else None,
            searched=Searched(
                since=asked.since if is_all else oldest,
                until=asked.until or time(),
                runs=read,
                complete=is_all or len(found) == limit,
            ),
        )

    async def _take(
        self,
        asked: RootQuestion,
        source: _Source,
        messages: list[Stored],
        found: list[RunRow],
        limit: int,
        before: int | None,
    ) -> tuple[int | None, int]:
        """Add those rows that are asked for; return from which sequence on all is read, and how many messages were."""
        rows = {sequence: row for row, sequence in await source.rows(messages)}
        for taken, message in enumerate(messages):
            if len(found) == limit:
                return before, taken
            row = rows.get(message.sequence)
            if row is not None and asked.fits(row):
                found.append(row)
            before = message.sequence
        return before, len(messages)

    async def _source(self, asked: RootQuestion) -> _Source:
        names, filters = self._session.names, Filters(self._session.names)
        workflow = asked.workflow or ANY
        if asked.status == "succeeded":
            return _Source(names.records_stream, names.roots_ended, self._rows.of_ends)
        if asked.status in ("failed", "cancelled", "timed_out"):
            marks = filters.marks(parent=NONE, step=NONE, status=asked.status, workflow=workflow)
            return _Source(names.records_stream, marks, self._rows.of_marks)
        firsts = [] if asked.workflow is None else await self._declared.firsts(asked.workflow)
        step = firsts[0][1] if len(firsts) == 1 else ANY
        return _Source(
            names.tasks_stream, filters.first_tasks_of_roots(workflow=workflow, step=step), self._rows.of_tasks
        )

    async def _total(self, asked: RootQuestion, source: _Source) -> int | None:
        """Return how many runs the whole list has; None if only reading them all could tell."""
        if not asked.is_of_filter or asked.until is not None:
            return None
        store, filters = self._session.store, Filters(self._session.names)
        subjects = [source.subject]
        if asked.status is None:
            firsts = await self._declared.firsts(asked.workflow)
            if len(firsts) > COUNTED:
                return None
            subjects = [filters.first_tasks_of_roots(workflow=workflow, step=step) for workflow, step in firsts]
        return sum(
            await asyncio.gather(*(store.count(source.stream, subject, since=asked.since) for subject in subjects))
        )

    async def _behind(self, source: _Source, since: float | None) -> int:
        """Return the sequence behind which stands what was stored from a time on."""
        if since is None:
            return 0
        first, _ = await self._session.store.page(source.stream, source.subject, size=1, since=since)
        return first[0].sequence - 1 if first else await self._session.store.last_sequence(source.stream)

    async def _from(self, source: _Source, until: float | None) -> int | None:
        """Return the sequence before which stands what was stored until a time; None for all."""
        if until is None:
            return None
        first, _ = await self._session.store.page(source.stream, source.subject, size=1, since=until)
        return first[0].sequence if first else None


def _holds(metadata: Any, wanted: Mapping[str, Any]) -> bool:
    """Tell whether metadata have all of the wanted members, compared as text where they are given as text."""
    if not isinstance(metadata, dict):
        return False
    there = cast("dict[str, Any]", metadata)
    return all(name in there and _is(there[name], value) for name, value in wanted.items())


def _is(found: Any, wanted: Any) -> bool:
    if found == wanted and type(found) is type(wanted):
        return True
    return isinstance(wanted, str) and not isinstance(found, str) and msgspec.json.encode(found).decode() == wanted
