"""Pages of a run's children: in the order in which they were spawned, or, of one status, in that in which they ended.

A page costs what is on it, wherever it stands: its cursor is a sequence of the stream that it is read from. All
children come from their tasks; those that failed, were cancelled or timed out from their marks; those that succeeded
from the outcomes, leaving out the others.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.seeking import Seeker
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.graph import START
from jetflow.runs.located import Located
from jetflow.runs.query.child_rows import ChildRows
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import ChildRow, Page, Searched
from jetflow.wire.filters import ANY, Filters

FEWEST: Final = 50
"""Messages that are read at once at least."""

MOST_READ: Final = 20_000
"""Messages that are read for one page at most; it says so if that was not all."""

MakeRows: TypeAlias = Callable[[Sequence[Stored]], Coroutine[Any, Any, list[tuple[ChildRow, int]]]]


class ChildQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which children are asked for. ``question`` tells it from others in cursors.

    ``workflows`` are those of which the run has children, with their first steps.
    """

    located: Located
    question: str
    workflows: dict[str, tuple[str, ...]]
    step: str | None = None
    workflow: str | None = None
    status: str | None = None

    @property
    def is_of_every_step(self) -> bool:
        """Whether no other step than the one that is asked for can have spawned."""
        begun = {turn.task.step for turn in self.located.turns}
        return self.step is None or begun <= {self.step, START}

    def fits(self, row: ChildRow) -> bool:
        """Tell whether a row is asked for."""
        return (
            self.step in (None, row.step)
            and self.workflow in (None, row.workflow)
            and self.status in (None, row.status)
        )


class _Source(msgspec.Struct, frozen=True):
    """Where a list is read from. An ``exact`` one has one message a row, so that places can be counted."""

    stream: str
    subject: str
    rows: MakeRows
    exact: bool


class ChildLists:
    """Reads pages of children from the broker."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared
        self._rows = ChildRows(session, declared)

    async def page(self, asked: ChildQuestion, cursor: Cursor, limit: int) -> Page[ChildRow]:
        """Return the page that begins behind a cursor, or at its place where it names no sequence."""
        source = await self._source(asked)
        if cursor.n and not cursor.at:
            cursor = await self._sought(asked, source, cursor)
        found: list[ChildRow] = []
        after, read, left, total = cursor.at, 0, 1, None
        while len(found) < limit and left and read < MOST_READ:
            size = max(limit - len(found), 0 if source.exact else FEWEST)
            messages, left = await self._session.store.page(source.stream, source.subject, after=after, size=size)
            if total is None and source.exact:
                total = cursor.n + len(messages) + left
            read += len(messages)
            after, unread = await self._take(asked, source, messages, found, limit, after)
            left += unread
        if asked.status is None and source.exact:
            found = [msgspec.structs.replace(row, n=cursor.n + at) for at, row in enumerate(found)]
        place = cursor.n + len(found)
        back = Cursor(asked.question, 0, max(0, cursor.n - limit))
        return Page(
            items=tuple(found),
            next=Cursor(asked.question, after, place).text() if left else None,
            previous=back.text() if cursor.n and source.exact else None,
            total=total,
            searched=Searched(runs=read, complete=not left or len(found) == limit),
        )

    async def _take(
        self,
        asked: ChildQuestion,
        source: _Source,
        messages: list[Stored],
        found: list[ChildRow],
        limit: int,
        after: int,
    ) -> tuple[int, int]:
        """Add those rows that are asked for; return the last sequence that was taken, and how many were not."""
        for row, sequence in await source.rows(messages):
            if len(found) == limit:
                return after, sum(message.sequence > after for message in messages)
            if asked.fits(row):
                found.append(row)
            after = sequence
        return (messages[-1].sequence if messages else after), 0

    async def _sought(self, asked: ChildQuestion, source: _Source, cursor: Cursor) -> Cursor:
        """Return the cursor of a place that is far from where anybody has read."""
        seeker = Seeker(self._session.store, source.stream, source.subject)
        found = await seeker.at(cursor.n, 1)
        if found:
            return Cursor(asked.question, found[0].sequence - 1, cursor.n)
        last = await self._session.store.last_sequence(source.stream)
        return Cursor(asked.question, last, min(cursor.n, await seeker.count()))

    async def _source(self, asked: ChildQuestion) -> _Source:
        names, filters = self._session.names, Filters(self._session.names)
        run = asked.located.root, asked.located.run
        step, workflow = asked.step or ANY, asked.workflow or ANY
        if asked.status == "succeeded":
            return _Source(names.records_stream, filters.ends(*run, step=step), self._rows.of_ends, exact=False)
        if asked.status not in (None, "open"):
            subject = filters.marks(*run, step=step, status=asked.status, workflow=workflow)
            return _Source(names.records_stream, subject, self._rows.of_marks, exact=True)
        firsts = [
            (name, first)
            for name, steps in asked.workflows.items()
            if asked.workflow in (None, name)
            for first in steps
        ]
        if len(firsts) == 1:
            workflow, first = firsts[0]
        else:
            first = ANY
        one_each = len(firsts) == 1 or (bool(firsts) and await self._declared.have_one_step(firsts))
        return _Source(
            names.tasks_stream,
            filters.first_tasks(*run, workflow=workflow, step=first),
            self._rows.of_tasks,
            exact=one_each and asked.status is None and asked.is_of_every_step,
        )
