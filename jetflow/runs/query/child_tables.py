"""All children of a run in memory, for sorting, searching and finding those that are open.

A table holds what is sorted and searched by, in columns; the rows of a page are read by their subjects. It is loaded by
two readings of the streams, which go on by the same consumers at each question. The tables of one client have two
million rows at most; the one that was asked least lately goes first.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from jetflow.broker.growing import Growing
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.errors import InvalidQuery
from jetflow.runs.located import Located
from jetflow.runs.query.child_rows import ChildRows
from jetflow.runs.query.columns import SORTS, Choice, Columns, End, Kind
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import ChildRow, Page, Searched, Took
from jetflow.runs.query.shapes import Firsts, by_workflow
from jetflow.runs.tasks import triggered_at
from jetflow.wire.filters import Filters
from jetflow.wire.records import MalformedTask, parse_task

MOST_ROWS: Final = 2_000_000
"""Rows of all tables."""

FEW: Final = 20_000
"""Rows that are sorted on the event loop."""

FRESH: Final = 1.0
"""Seconds for which a table is taken as it is."""

ORDERS: Final = 8
"""Orders that a table remembers."""

SHARE: Final = 10
"""What took n seconds to be sorted is not sorted again for this many times n."""

_read_end: Final = msgspec.json.Decoder(End).decode


def check_sort(sort: str | None) -> None:
    """Refuse an order that there is none of.

    Raises:
        InvalidQuery: it is none.
    """
    if sort is not None and sort.removeprefix("-") not in SORTS:
        raise InvalidQuery(f"sort is {sort!r}: it must be one of {', '.join(SORTS)}, or one of them behind a -")


class ChildTables:
    """The tables of one client."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared
        self._rows = ChildRows(session, declared)
        self._tables: OrderedDict[str, ChildTable] = OrderedDict()

    async def page(
        self, located: Located, choice: Choice, cursor: Cursor, limit: int, within: float | None
    ) -> Page[ChildRow] | float:
        """Return a page of the children that are chosen, from a place on.

        If the table is not whole ``within`` so many seconds, return how much of it is read, from 0 to 1: it goes on.

        Raises:
            InvalidQuery: the run has more children than a table holds.
        """
        table = self._tables.get(located.run)
        if table is None:
            table = self._tables[located.run] = ChildTable(self._session, located)
        self._tables.move_to_end(located.run)
        try:
            if not await table.bring_up_to_date(by_workflow(await self._declared.firsts()), within):
                return table.share
        finally:
            self._bound()
        order = await table.ordered(choice, goes_on=cursor.n > 0)
        begin = min(cursor.n, len(order.places))
        shown = order.places[begin : begin + limit]
        end = begin + len(shown)
        return Page(
            items=await self._rows_of(table, located, shown),
            next=Cursor(cursor.question, 0, end).text() if end < len(order.places) else None,
            previous=Cursor(cursor.question, 0, max(0, begin - limit)).text() if begin else None,
            total=len(order.places),
            searched=Searched(runs=len(table.columns)),
            took=order.took,
        )

    def _bound(self) -> None:
        while len(self._tables) > 1 and sum(len(table.columns) for table in self._tables.values()) > MOST_ROWS:
            _, oldest = self._tables.popitem(last=False)
            oldest.let_go()
        for run in [run for run, table in self._tables.items() if len(table.columns) > MOST_ROWS]:
            self._tables.pop(run).let_go()

    async def _rows_of(self, table: ChildTable, located: Located, places: Sequence[int]) -> tuple[ChildRow, ...]:
        names, columns = self._session.names, table.columns
        subjects = [
            names.task(kind.workflow, kind.first, located.root, located.run, columns.id(place))
            for place in places
            if (kind := columns.kind(place))
        ]
        messages: dict[str, Stored] = {}
        async for page in self._session.store.many(names.tasks_stream, subjects):
            messages.update((message.subject, message) for message in page)
        stored = [messages[subject] for subject in subjects if subject in messages]
        rows = {row.id: row for row, _ in await self._rows.of_tasks(stored)}
        return tuple(
            msgspec.structs.replace(rows[run], n=place) for place in places if (run := columns.id(place)) in rows
        )


class _Order(NamedTuple):
    """The places of a choice, of which version of the table, until when they do, and how long the rows took."""

    places: array[int]
    version: int
    until: float
    took: Took | None


class ChildTable:
    """The children of one run."""

    def __init__(self, session: Session, located: Located) -> None:
        names, filters = session.names, Filters(session.names)
        run = located.root, located.run
        connection, store = session.connection, session.store
        self._run = located.run
        self._tasks = Growing(connection, store, names.tasks_stream, filters.first_tasks(*run), bodies=False)
        self._ends = Growing(connection, store, names.records_stream, filters.ends(*run), bodies=True)
        self._lock = asyncio.Lock()
        self._read_at = -FRESH
        self._is_whole = False
        self._reading: asyncio.Task[None] | None = None
        self._orders: OrderedDict[Choice, _Order] = OrderedDict()
        self.columns: Columns = Columns()

    @property
    def share(self) -> float:
        """How much of what there is to read is read, from 0 to 1."""
        expected = self._tasks.expected + max(self._ends.expected, self._tasks.expected)
        return min(1.0, (self._tasks.read + self._ends.read) / expected) if expected else 0.0

    def let_go(self) -> None:
        """Read no more, and have the server forget it."""
        if self._reading is not None:
            self._reading.cancel()
        self._tasks.let_go()
        self._ends.let_go()

    async def bring_up_to_date(self, firsts: Firsts, within: float | None) -> bool:
        """Read what was stored since the last time. Returns False of one that is not whole ``within`` so many seconds.

        Raises:
            InvalidQuery: there are more children than a table holds.
        """
        if self._reading is None:
            if monotonic() - self._read_at < FRESH:
                return True
            self._reading = asyncio.get_running_loop().create_task(self._read(firsts))
            self._reading.add_done_callback(_heeded)
        reading = self._reading
        done, _ = await asyncio.wait([reading], timeout=within)
        if not done:
            return self._is_whole
        if self._reading is reading:
            self._reading = None
        reading.result()
        return True

    async def _read(self, firsts: Firsts) -> None:
        async with self._lock:
            async for page in self._tasks.more():
                for message in page:
                    self._add(message, firsts)
                if len(self.columns) > MOST_ROWS:
                    raise InvalidQuery(
                        f"run {self._run} has more than {MOST_ROWS:,} children: they are listed in spawn order and by "
                        "the status of their ends, and not sorted or searched"
                    )
            async for page in self._ends.more():
                for message in page:
                    self._end(message)
            self._read_at = monotonic()
            self._is_whole = True

    def _add(self, message: Stored, firsts: Firsts) -> None:
        try:
            task = parse_task(message.subject, message.headers, b"")
        except MalformedTask:
            return
        if task.step in firsts.get(task.workflow, (task.step,)):
            kind = Kind(task.workflow, task.step, task.parent_step)
            self.columns.add(bytes.fromhex(task.run), kind, task.key, triggered_at(message))

    def _end(self, message: Stored) -> None:
        try:
            end = _read_end(message.body)
        except (msgspec.DecodeError, RecursionError):
            end = End()  # one that cannot be read has failed
        self.columns.end(bytes.fromhex(message.subject[-32:]), end)

    async def ordered(self, choice: Choice, *, goes_on: bool) -> _Order:
        """Return the places of those that are chosen, in their order.

        A list that ``goes_on`` behind a page stays in the order of that page. Many are sorted beside the event loop.
        """
        known = self._orders.get(choice)
        if known is not None and (goes_on or known.version == self.columns.version or monotonic() < known.until):
            self._orders.move_to_end(choice)
            return known
        async with self._lock:
            few = len(self.columns) < FEW
            order = self._sorted(choice) if few else await asyncio.to_thread(self._sorted, choice)
        self._orders[choice] = order
        self._orders.move_to_end(choice)
        if len(self._orders) > ORDERS:
            self._orders.popitem(last=False)
        return order

    def _sorted(self, choice: Choice) -> _Order:
        began, version = monotonic(), self.columns.version
        places = self.columns.chosen(choice)
        took = self.columns.took(places)
        now = monotonic()
        until = now + SHARE * (now - began)
        return _Order(places, version, until, Took.of(took))


def _heeded(reading: asyncio.Task[None]) -> None:
    """Take the error of a reading that nobody waits for any more: whoever asks next reads on."""
    if not reading.cancelled():
        reading.exception()
