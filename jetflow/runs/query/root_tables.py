"""Root runs of the last day in memory, for sorting, searching and summing up, in a process that is asked again.

It is loaded by two readings of the streams, which go on by the same consumers at each question, and holds the newest
200,000 at most. What it is asked for of older ones it does not know, and says so.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import Any, Final

import msgspec

from jetflow.broker.growing import Growing
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.errors import InvalidQuery
from jetflow.runs.query.columns import End
from jetflow.runs.query.cursors import Cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.root_lists import RootQuestion
from jetflow.runs.query.root_rows import RootRows
from jetflow.runs.query.rows import Page, RunRow, Searched, Took, WorkflowSummary, statuses_of
from jetflow.runs.query.shapes import Firsts, by_workflow
from jetflow.runs.tasks import triggered_at
from jetflow.wire.filters import Filters
from jetflow.wire.records import MalformedTask, parse_task

HISTORY: Final = 24 * 3600.0
"""Seconds for which root runs are kept in memory."""

MOST_ROWS: Final = 200_000
"""Root runs that are kept in memory, the newest."""

FRESH: Final = 0.5
"""Seconds for which the table is taken as it is."""

LONGEST_ERROR: Final = 200

SORTS: Final = ("triggered", "ended", "took", "status", "workflow", "key")

_read_end: Final = msgspec.json.Decoder(End).decode


class _Root(msgspec.Struct, gc=False):
    """A root run, as far as it is chosen and sorted."""

    run: str
    workflow: str
    step: str
    key: str | None
    metadata: str
    triggered: float
    status: str = "open"
    ended: float = 0.0
    error: str = ""

    @property
    def took(self) -> float:
        """Seconds from the trigger to the end of the run: the end itself tells when its last step has begun."""
        return max(0.0, self.ended - self.triggered) if self.ended else 0.0


def check_order(sort: str | None) -> None:
    """Refuse an order of root runs that there is none of.

    Raises:
        InvalidQuery: it is none.
    """
    if sort is not None and sort.removeprefix("-") not in SORTS:
        raise InvalidQuery(f"sort is {sort!r}: it must be one of {', '.join(SORTS)}, or one of them behind a -")


class RootTable:
    """The root runs of one namespace."""

    def __init__(self, session: Session, declared: Declared) -> None:
        names, filters = session.names, Filters(session.names)
        connection, store, since = session.connection, session.store, time() - HISTORY
        self._session = session
        self._declared = declared
        self._rows_of = RootRows(session, declared)
        self._tasks = Growing(
            connection, store, names.tasks_stream, filters.first_tasks_of_roots(), bodies=False, since=since
        )
        self._ends = Growing(connection, store, names.records_stream, names.roots_ended, bodies=True, since=since)
        self._lock = asyncio.Lock()
        self._read_at = -FRESH
        self._since = since
        self._is_all = False
        self._rows: OrderedDict[str, _Root] = OrderedDict()

    async def page(
        self, asked: RootQuestion, search: str, sort: str, cursor: Cursor | None, limit: int
    ) -> Page[RunRow]:
        """Return a page of the runs that are asked for, in an order."""
        await self._bring_up_to_date()
        chosen = list(self._chosen(asked, search.casefold()))
        chosen.sort(key=_order(sort.removeprefix("-")), reverse=sort.startswith("-"))
        begin = min(0 if cursor is None else cursor.n, len(chosen))
        shown = chosen[begin : begin + limit]
        end = begin + len(shown)
        took = sorted(row.took for row in chosen if row.ended)
        return Page(
            items=tuple(row for row in await self._read(shown) if asked.fits(row)),
            next=Cursor(asked.question, 0, end).text() if end < len(chosen) else None,
            previous=Cursor(asked.question, 0, max(0, begin - limit)).text() if begin else None,
            total=len(chosen),
            searched=self._searched(asked.since, asked.until),
            took=Took.of(took),
        )

    async def summary(self, since: float) -> list[WorkflowSummary]:
        """Return what has become of the runs that were asked for since a time, by workflow."""
        await self._bring_up_to_date()
        by_name: dict[str, list[_Root]] = {}
        for row in self._rows.values():
            if row.triggered >= since:
                by_name.setdefault(row.workflow, []).append(row)
        return [_summed(name, rows, self._searched(since, None)) for name, rows in sorted(by_name.items())]

    def let_go(self) -> None:
        """Have the server forget it."""
        self._tasks.let_go()
        self._ends.let_go()

    def _searched(self, since: float | None, until: float | None) -> Searched:
        begin = self._since if since is None else max(since, self._since)
        is_all = self._is_all or (since is not None and since >= self._since)
        return Searched(since=begin, until=until or time(), runs=len(self._rows), complete=is_all)

    async def _bring_up_to_date(self) -> None:
        async with self._lock:
            if monotonic() - self._read_at < FRESH:
                return
            if not self._rows:
                self._is_all = await self._nothing_is_older()
            firsts = by_workflow(await self._declared.firsts())
            async for page in self._tasks.more():
                for message in page:
                    self._add(message, firsts)
                while len(self._rows) > MOST_ROWS:
                    self._drop()
            async for page in self._ends.more():
                for message in page:
                    self._end(message)
            while self._rows and next(iter(self._rows.values())).triggered < time() - HISTORY:
                self._drop()
            self._read_at = monotonic()

    async def _nothing_is_older(self) -> bool:
        names = self._session.names
        oldest = await self._session.store.first(names.tasks_stream, Filters(names).first_tasks_of_roots())
        return oldest is None or oldest.time >= self._since

    def _drop(self) -> None:
        _, row = self._rows.popitem(last=False)
        self._since, self._is_all = max(self._since, row.triggered), False

    def _add(self, message: Stored, firsts: Firsts) -> None:
        try:
            task = parse_task(message.subject, message.headers, b"")
        except MalformedTask:
            return
        if task.run not in self._rows and task.step in firsts.get(task.workflow, (task.step,)):
            metadata = "" if task.metadata is None else task.metadata.decode("utf-8", "replace")
            self._rows[task.run] = _Root(task.run, task.workflow, task.step, task.key, metadata, triggered_at(message))

    def _end(self, message: Stored) -> None:
        row = self._rows.get(message.subject[-32:])
        if row is None:
            return  # it was asked for before
        try:
            end = _read_end(message.body)
        except (msgspec.DecodeError, RecursionError):
            end = End()  # one that cannot be read has failed
        row.status = "cancelled" if end.status == "skipped" else end.status
        row.ended = message.time
        if end.error is not None:
            row.error = f"{end.error.type}: {end.error.message}"[:LONGEST_ERROR]

    def _chosen(self, asked: RootQuestion, search: str) -> Iterable[_Root]:
        for row in self._rows.values():
            if (
                asked.workflow in (None, row.workflow)
                and (asked.status is None or any(_is(row.status, one) for one in statuses_of(asked.status)))
                and asked.key in (None, row.key)
                and (asked.since is None or row.triggered >= asked.since)
                and (asked.until is None or row.triggered < asked.until)
                and (not search or _holds(row, search))
                and (not asked.metadata or asked.has(msgspec.json.decode(row.metadata) if row.metadata else None))
            ):
                yield row

    async def _read(self, shown: list[_Root]) -> tuple[RunRow, ...]:
        names = self._session.names
        subjects = [names.task(row.workflow, row.step, row.run, "-", row.run) for row in shown]
        stored: dict[str, Stored] = {}
        async for page in self._session.store.many(names.tasks_stream, subjects):
            stored.update((message.subject, message) for message in page)
        there = [stored[subject] for subject in subjects if subject in stored]
        return tuple(row for row, _ in await self._rows_of.of_tasks(there))


def _is(status: str, wanted: str) -> bool:
    return status == wanted or (status == "open" and wanted in ("queued", "running"))


def _holds(row: _Root, text: str) -> bool:
    return (
        (row.key is not None and text in row.key.casefold())
        or row.run.startswith(text)
        or text in row.workflow.casefold()
        or text in row.metadata.casefold()
        or text in row.error.casefold()
    )


def _order(name: str) -> Callable[[_Root], Any]:
    orders: dict[str, Callable[[_Root], Any]] = {
        "triggered": lambda row: row.triggered,
        "ended": lambda row: row.ended,
        "took": lambda row: row.took,
        "status": lambda row: row.status,
        "workflow": lambda row: row.workflow,
        "key": lambda row: row.key or "",
    }
    return orders[name]


def _summed(name: str, rows: list[_Root], searched: Searched) -> WorkflowSummary:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return WorkflowSummary(
        workflow=name,
        runs=len(rows),
        open=counts.get("open", 0),
        succeeded=counts.get("succeeded", 0),
        failed=counts.get("failed", 0),
        cancelled=counts.get("cancelled", 0),
        timed_out=counts.get("timed_out", 0),
        took=Took.of(sorted(row.took for row in rows if row.ended)),
        searched=searched,
    )
