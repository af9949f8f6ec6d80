"""Pages of a run's children: in the order in which they were spawned, or, of one status, in that in which they ended.

A page costs what is on it, wherever it stands: its cursor is a sequence of the stream that it is read from. All
children come from their tasks; those that failed, were cancelled or timed out from their marks; those that succeeded
from the outcomes, leaving out the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.seeking import Landmarks, Place, Seeker
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.graph import IMPLIED
from jetflow.runs.located import Located
from jetflow.runs.query.child_rows import ChildRows
from jetflow.runs.query.counting import Kept
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import ChildRow, Page, Searched
from jetflow.wire.filters import ANY, Filters, matches

FEWEST: Final = 50
"""Messages that are read at once at least."""

MOST_AT_ONCE: Final = 1000
"""Messages that are read at once at most."""

MOST_READ: Final = 20_000
"""Messages that are read for one page at most; it says so if that was not all."""

FIRST_WINDOW: Final = 10
WINDOW: Final = 100
"""Sequences that are read at once: few first, to see what stands there."""

SMALL: Final = 64 * 1024
"""Bytes of a message up to which so many are read at once."""

REMEMBERED: Final = 100
"""Lists in which it is remembered which place stands where."""

MakeRows: TypeAlias = Callable[[Sequence[Stored]], Coroutine[Any, Any, list[tuple[ChildRow, int]]]]


class ChildQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which children are asked for. ``question`` tells it from others in cursors.

    ``kept`` is how many children of each workflow the run has, with their tasks; None where that is not needed.
    """

    located: Located
    question: str
    kept: Kept | None = None
    step: str | None = None
    workflow: str | None = None
    status: str | None = None

    @property
    def is_of_every_step(self) -> bool:
        """Whether no other step than the one that is asked for can have spawned."""
        begun = {turn.task.step for turn in self.located.turns}
        return self.step is None or begun <= {self.step, *IMPLIED}

    def fits(self, row: ChildRow) -> bool:
        """Tell whether a row is asked for."""
        return (
            self.step in (None, row.step)
            and self.workflow in (None, row.workflow)
            and self.status in (None, row.status)
        )


class _Source(msgspec.Struct, frozen=True):
    """Where a list is read from: ``behind`` a sequence, for nothing of it stands before.

    An ``exact`` one has one message a row, so that places can be counted. ``total`` is how many there are, where that
    is known.
    """

    stream: str
    subject: str
    rows: MakeRows
    exact: bool
    behind: int = 0
    total: int | None = None


class _Reading:
    """The reading of one page: ``rows`` that are asked for, up to sequence ``after``, and how many are ``left``."""

    def __init__(self, asked: ChildQuestion, source: _Source, limit: int, after: int, *, place: int, skip: int) -> None:
        self._asked = asked
        self._source = source
        self._limit = limit
        self._place = place
        self._skip = skip
        self.after: int = after
        self.left: int = 1
        self.skipped: int = 0
        self.read_so_far: int = 0
        self.rows: list[ChildRow] = []

    async def read(self, session: Session) -> int:
        """Read until the page is full; return how many messages there were from where it began on."""
        source, total = self._source, -1
        if source.total is not None:
            total = self.left = max(0, source.total - self._place)
            await self._read_dense(session, source.total)
        while len(self.rows) < self._limit and self.left and self.read_so_far < MOST_READ:
            wanted = self._limit - len(self.rows) + self._skip - self.skipped
            size = min(MOST_AT_ONCE, max(wanted, 0 if source.exact else FEWEST))
            messages, self.left = await session.store.page(source.stream, source.subject, after=self.after, size=size)
            if total < 0:
                total = len(messages) + self.left
            self.read_so_far += len(messages)
            await self._take(messages)
        return total

    async def _read_dense(self, session: Session, total: int) -> None:
        """Read sequence by sequence, as long as most of what stands there is of the list: nothing is counted for it."""
        source, most = self._source, FIRST_WINDOW
        while len(self.rows) < self._limit and self.left:
            size = min(most, self._limit - len(self.rows) + self._skip - self.skipped)
            window = await session.store.window(source.stream, self.after, size)
            found = [message for message in window if matches(message.subject, source.subject)]
            self.read_so_far += len(found)
            await self._take(found)
            self.left = max(0, total - self._place - self.read_so_far)
            if 2 * len(found) < size or sum(len(message.body) for message in window) > size * SMALL:
                return
            most = WINDOW

    async def _take(self, messages: list[Stored]) -> None:
        skipped = min(len(messages), self._skip - self.skipped)
        self.skipped += skipped
        if skipped:
            self.after = messages[skipped - 1].sequence
        for row, sequence in await self._source.rows(messages[skipped:]):
            if len(self.rows) == self._limit:
                self.left += sum(message.sequence > self.after for message in messages)
                return
            if self._asked.fits(row):
                self.rows.append(row)
            self.after = sequence
        if messages:
            self.after = messages[-1].sequence


class ChildLists:
    """Reads pages of children from the broker."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared
        self._rows = ChildRows(session, declared)
        self._landmarks: OrderedDict[str, Landmarks] = OrderedDict()

    async def page(self, asked: ChildQuestion, cursor: Cursor, limit: int) -> Page[ChildRow]:
        """Return the page that begins behind a cursor, or at its place where it names no sequence."""
        source = await self._source(asked)
        after, place = cursor.at or source.behind, cursor.n
        landmarks = self._landmarks_of(asked, source)
        if cursor.n and not cursor.at:
            store = self._session.store
            seeker = Seeker(store, source.stream, source.subject, behind=source.behind, landmarks=landmarks)
            after, place = await seeker.near(cursor.n, source.total)
        reading = _Reading(asked, source, limit, after, place=place, skip=max(0, cursor.n - place))
        total = await reading.read(self._session)
        begin = place + reading.skipped
        rows = reading.rows
        if rows and source.exact and source.total is not None:
            landmarks.add(Place(reading.after, begin + len(rows)))
        if asked.status is None and source.exact:
            rows = [msgspec.structs.replace(row, n=begin + at) for at, row in enumerate(rows)]
        back = Cursor(asked.question, 0, max(0, begin - limit))
        return Page(
            items=tuple(rows),
            next=Cursor(asked.question, reading.after, begin + len(rows)).text() if reading.left else None,
            previous=back.text() if begin and source.exact else None,
            total=place + total if source.exact else None,
            searched=Searched(runs=reading.read_so_far, complete=not reading.left or len(rows) == limit),
        )

    def _landmarks_of(self, asked: ChildQuestion, source: _Source) -> Landmarks:
        """Return what is known of a list, as long as nothing of it is removed: of one that is cancelled, nothing."""
        if asked.located.outcome is not None and asked.located.outcome.status == "cancelled":
            return Landmarks()
        landmarks = self._landmarks.setdefault(source.subject, Landmarks())
        self._landmarks.move_to_end(source.subject)
        if len(self._landmarks) > REMEMBERED:
            self._landmarks.popitem(last=False)
        return landmarks

    async def _source(self, asked: ChildQuestion) -> _Source:
        names, filters = self._session.names, Filters(self._session.names)
        run = asked.located.root, asked.located.run
        step, workflow = asked.step or ANY, asked.workflow or ANY
        if asked.status == "succeeded":
            return _Source(names.records_stream, filters.ends(*run, step=step), self._rows.of_ends, exact=False)
        if asked.status not in (None, "open"):
            subject = filters.marks(*run, step=step, status=asked.status, workflow=workflow)
            return _Source(names.records_stream, subject, self._rows.of_marks, exact=True)
        kept = asked.kept.counts if asked.kept is not None else {}
        chosen = [name for name in kept if asked.workflow in (None, name)]
        firsts = [first for name in chosen for first in await self._declared.firsts(name)]
        if len(firsts) == 1:
            workflow, first = firsts[0]
        else:
            first = ANY
        one_each = len(firsts) == 1 or (bool(firsts) and await self._declared.have_one_step(firsts))
        exact = one_each and asked.status is None and asked.is_of_every_step
        return _Source(
            names.tasks_stream,
            filters.first_tasks(*run, workflow=workflow, step=first),
            self._rows.of_tasks,
            exact=exact,
            total=sum(kept[name] for name in chosen) if exact and asked.kept and asked.kept.settled else None,
            behind=asked.located.turns[0].message.sequence if firsts and asked.located.turns else 0,
        )
