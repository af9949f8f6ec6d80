"""All children of a run in memory, for sorting, searching and finding those that are open.

A table holds what is sorted and searched by, in arrays; the rows of a page are read by their subjects. It is loaded by
two readings of the streams, and at each question what was stored since is read. The tables of one client have a million
rows at most; the one that was asked least lately goes first.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import Failure
from jetflow.errors import InvalidQuery
from jetflow.runs.located import Located
from jetflow.runs.query.child_rows import ChildRows
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import ChildRow, Page, Searched
from jetflow.runs.tasks import triggered_at
from jetflow.wire.filters import Filters
from jetflow.wire.records import MalformedTask, parse_task

MOST_ROWS: Final = 1_000_000
"""Rows of all tables."""

FEW: Final = 20_000
"""Rows that are sorted on the event loop."""

FRESH: Final = 1.0
"""Seconds for which a table is taken as it is."""

STATUSES: Final = ("open", "succeeded", "failed", "timed_out", "cancelled")
"""In the order in which they are sorted."""

SORTS: Final = ("n", "status", "key", "workflow", "queued", "started", "ended", "took", "attempts", "worker")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which children are asked for, and in which order."""

    step: str | None = None
    workflow: str | None = None
    status: str | None = None
    search: str = ""
    sort: str = "n"


class _End(msgspec.Struct):
    status: str = "failed"
    attempt: int = 1
    started: float = 0.0
    ended: float = 0.0
    worker: str = ""
    error: Failure | None = None


_read_end: Final = msgspec.json.Decoder(_End).decode


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

    async def page(self, located: Located, choice: Choice, cursor: Cursor, limit: int) -> Page[ChildRow]:
        """Return a page of the children that are chosen, from a place on.

        Raises:
            InvalidQuery: the run has more children than a table holds.
        """
        table = self._tables.get(located.run)
        if table is None:
            table = self._tables[located.run] = ChildTable(self._session, self._declared, located)
        self._tables.move_to_end(located.run)
        try:
            await table.bring_up_to_date()
        finally:
            self._bound()
        places = await table.ordered(choice)
        begin = min(cursor.n, len(places))
        shown = places[begin : begin + limit]
        end = begin + len(shown)
        return Page(
            items=await self._rows_of(table, shown),
            next=Cursor(cursor.question, 0, end).text() if end < len(places) else None,
            previous=Cursor(cursor.question, 0, max(0, begin - limit)).text() if begin else None,
            total=len(places),
            searched=Searched(runs=len(table)),
        )

    def _bound(self) -> None:
        while len(self._tables) > 1 and sum(map(len, self._tables.values())) > MOST_ROWS:
            self._tables.popitem(last=False)
        for run in [run for run, table in self._tables.items() if table.is_too_large]:
            del self._tables[run]

    async def _rows_of(self, table: ChildTable, places: list[int]) -> tuple[ChildRow, ...]:
        names = self._session.names
        subjects = [table.subjects[place] for place in places]
        messages: dict[str, Stored] = {}
        async for page in self._session.store.many(names.tasks_stream, subjects):
            messages.update((message.subject, message) for message in page)
        stored = [messages[subject] for subject in subjects if subject in messages]
        rows = {row.id: row for row, _ in await self._rows.of_tasks(stored)}
        return tuple(
            msgspec.structs.replace(rows[run], n=place)
            for place in places
            if (run := table.subjects[place].split(".")[7]) in rows
        )


class ChildTable:
    """The children of one run. ``subjects`` are those of their first tasks."""

    def __init__(self, session: Session, declared: Declared, located: Located) -> None:
        self._session = session
        self._declared = declared
        self._located = located
        self._lock = asyncio.Lock()
        self._read_at = -FRESH
        self._tasks_read = 0
        self._ends_read = 0
        self._place: dict[bytes, int] = {}
        self._waiting: dict[bytes, _End] = {}
        self._errors: dict[int, str] = {}
        self._statuses = bytearray()
        self._queued, self._started, self._ended = array("d"), array("d"), array("d")
        self._attempts = array("i")
        self._keys: list[str | None] = []
        self._steps: list[str] = []
        self._workers: list[str] = []
        self._interned: dict[str, str] = {}
        self.subjects: list[str] = []
        self.is_too_large: bool = False

    def __len__(self) -> int:
        return len(self.subjects)

    async def bring_up_to_date(self) -> None:
        """Read what was stored since the last time.

        Raises:
            InvalidQuery: there are more children than a table holds.
        """
        async with self._lock:
            if monotonic() - self._read_at < FRESH:
                return
            names, filters = self._session.names, Filters(self._session.names)
            run = self._located.root, self._located.run
            async for messages in self._pages(names.tasks_stream, filters.first_tasks(*run), self._tasks_read, True):
                for message in messages:
                    await self._add(message)
                self._tasks_read = messages[-1].sequence
                if len(self) > MOST_ROWS:
                    self.is_too_large = True
                    raise InvalidQuery(
                        f"run {run[1]} has more than {MOST_ROWS:,} children: they are listed in spawn order and by the "
                        "status of their ends, and not sorted or searched"
                    )
            async for messages in self._pages(names.records_stream, filters.ends(*run), self._ends_read, False):
                for message in messages:
                    self._end(message)
                self._ends_read = messages[-1].sequence
            self._read_at = monotonic()

    def _pages(self, stream: str, subject: str, after: int, headers_only: bool) -> Any:
        store = self._session.store
        if after:
            return store.pages(stream, subject, after=after)
        return store.everything(stream, subject, headers_only=headers_only)

    async def _add(self, message: Stored) -> None:
        try:
            task = parse_task(message.subject, message.headers, b"")
        except MalformedTask:
            return
        run = bytes.fromhex(task.run)
        if run in self._place or not await self._declared.is_first(task.workflow, task.step):
            return
        place = self._place[run] = len(self.subjects)
        self.subjects.append(message.subject)
        self._statuses.append(0)
        self._queued.append(triggered_at(message))
        self._started.append(0.0)
        self._ended.append(0.0)
        self._attempts.append(0)
        self._keys.append(task.key)
        self._steps.append(self._interned.setdefault(task.parent_step, task.parent_step))
        self._workers.append("")
        if (end := self._waiting.pop(run, None)) is not None:
            self._take(place, end)

    def _end(self, message: Stored) -> None:
        run = bytes.fromhex(message.subject[-32:])
        try:
            end = _read_end(message.body)
        except (msgspec.DecodeError, RecursionError):
            end = _End()  # one that cannot be read has failed
        place = self._place.get(run)
        if place is None:
            self._waiting[run] = end  # its task is read later, or is gone
        else:
            self._take(place, end)

    def _take(self, place: int, end: _End) -> None:
        status = "cancelled" if end.status == "skipped" else end.status
        self._statuses[place] = STATUSES.index(status) if status in STATUSES else STATUSES.index("failed")
        self._started[place], self._ended[place] = end.started, end.ended
        self._attempts[place] = end.attempt
        self._workers[place] = self._interned.setdefault(end.worker, end.worker)
        if end.error is not None:
            self._errors[place] = f"{end.error.type}: {end.error.message}".casefold()

    async def ordered(self, choice: Choice) -> list[int]:
        """Return `chosen`, without holding up the event loop where there are many."""
        async with self._lock:
            return self.chosen(choice) if len(self) < FEW else await asyncio.to_thread(self.chosen, choice)

    def chosen(self, choice: Choice) -> list[int]:
        """Return the places in spawn order of those that are chosen, in the order that is asked for."""
        places: Any = range(len(self))
        if choice.status is not None:
            wanted = STATUSES.index(choice.status) if choice.status in STATUSES else -1
            places = [place for place in places if self._statuses[place] == wanted]
        if choice.step is not None:
            places = [place for place in places if self._steps[place] == choice.step]
        if choice.workflow is not None:
            places = [place for place in places if self._workflow(place) == choice.workflow]
        if choice.search:
            text = choice.search.casefold()
            places = [place for place in places if self._holds(place, text)]
        name = choice.sort.removeprefix("-")
        if name == "n":
            return list(places)[:: -1 if choice.sort.startswith("-") else 1]
        return sorted(places, key=self._order(name), reverse=choice.sort.startswith("-"))

    def _holds(self, place: int, text: str) -> bool:
        key = self._keys[place]
        return (
            (key is not None and text in key.casefold())
            or self.subjects[place].split(".")[7].startswith(text)
            or text in self._errors.get(place, "")
        )

    def _workflow(self, place: int) -> str:
        return self.subjects[place].split(".", 4)[3]

    def _order(self, name: str) -> Callable[[int], Any]:
        columns: dict[str, Callable[[int], Any]] = {
            "status": self._statuses.__getitem__,
            "key": lambda place: self._keys[place] or "",
            "workflow": self._workflow,
            "queued": self._queued.__getitem__,
            "started": self._started.__getitem__,
            "ended": self._ended.__getitem__,
            "took": lambda place: self._ended[place] - self._started[place],
            "attempts": self._attempts.__getitem__,
            "worker": self._workers.__getitem__,
        }
        return columns[name]
