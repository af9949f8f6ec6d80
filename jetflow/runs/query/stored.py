"""Questions about what is stored: totals and lists of runs, failures, and what ended when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.identity import is_name, is_run_id
from jetflow.engine.tasks import NONE
from jetflow.errors import InvalidInput, InvalidQuery, UnknownRun
from jetflow.runs.delays import find_delayed
from jetflow.runs.describing import describe_delayed, read_trace, unattended
from jetflow.runs.located import Located, locate
from jetflow.runs.query.child_lists import ChildLists, ChildQuestion
from jetflow.runs.query.child_tables import ChildTables, check_sort
from jetflow.runs.query.columns import Choice
from jetflow.runs.query.counting import Counting
from jetflow.runs.query.cursors import Cursor, question, read_cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.error_groups import read_errors
from jetflow.runs.query.history import History
from jetflow.runs.query.retrying import read_retrying
from jetflow.runs.query.root_lists import RootLists, RootQuestion
from jetflow.runs.query.root_tables import RootTable, check_order
from jetflow.runs.query.rows import (
    RETRYING,
    STATES,
    Bucket,
    ChildRow,
    ErrorGroups,
    Page,
    RunRow,
    RunTotals,
    Searched,
    Tree,
    WorkflowSummary,
    statuses_of,
)
from jetflow.runs.query.shapes import by_workflow
from jetflow.runs.query.trees import read_tree
from jetflow.runs.trace import RunTrace
from jetflow.runs.values import chunks
from jetflow.wire.filters import ANY
from jetflow.wire.records import Declaration

LARGEST_PAGE: Final = 1000
"""Rows that one page may have."""

MOST_LEVELS: Final = 100
"""Levels that a tree may have."""

MOST_BUCKETS: Final = 1000
"""Parts that a history may have."""


class StoredQueries:
    """What may be asked of what is stored; see `Queries`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._declared = Declared(session)
        self._child_lists = ChildLists(session, self._declared)
        self._root_lists = RootLists(session, self._declared)
        self._roots: RootTable | None = None
        self._history = History(session)
        self._tables = ChildTables(session, self._declared)
        self._counting = Counting(session, self._declared)

    async def describe(
        self, run_id: str, *, children: int = 100, after: str | None = None, values: bool = True
    ) -> RunTrace:
        """Return the state of a run: its steps, attempts, and a page of its children with totals by status.

        ``children`` is how many children the page holds at most, 1000 at most; with 0 they are not counted either.
        ``after`` is the ``next_page`` of the page before. Without ``values`` a large output is not read.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        if not 0 <= children <= LARGEST_PAGE:
            raise InvalidQuery(f"children is {children}: it must be from 0 to {LARGEST_PAGE}")
        session = self._session.usable()
        try:
            located = await locate(session, run_id)
        except UnknownRun:
            return await self._not_begun(session, run_id)
        trace = await read_trace(session, located, values=values)
        declared = (await self._declared.all()).get(trace.workflow)
        known = {} if declared is None else declared.steps
        steps = tuple(msgspec.structs.replace(step, declared=known.get(step.name)) for step in trace.steps)
        if not children:
            return msgspec.structs.replace(trace, steps=steps)
        found = await self._counting.totals(located)
        page = await self.children(run_id, after=after, limit=children)
        return msgspec.structs.replace(
            trace,
            steps=steps,
            totals=found.totals,
            step_totals=found.steps,
            workflow_totals=found.workflows,
            children=page.items,
            next_page=page.next,
            unattended=unattended(trace.workflow, steps, page.items),
        )

    async def _not_begun(self, session: Session, run: str) -> RunTrace:
        """Describe a run that begins later.

        Raises:
            UnknownRun: there is no such run.
        """
        found = await find_delayed(session, run)
        if found is not None:
            return describe_delayed(*found)
        return await read_trace(session, await locate(session, run))  # it may have begun just now

    async def declarations(self) -> dict[str, Declaration]:
        """Return the newest declaration of each workflow, by name: graph, schemas, and what is told of its steps."""
        self._session.usable()
        return await self._declared.all()

    async def declaration(self, workflow: str) -> Declaration:
        """Return the newest declaration of one workflow.

        Raises:
            UnknownWorkflow: nobody has declared one of this name.
        """
        return await self._session.usable().registry.find(workflow)

    async def totals(self, run_id: str) -> RunTotals:
        """Return how many children a run has, by status; in all, by the step that spawned them, and by workflow.

        While children run it costs the broker about 0.1 ms for each thousand of them, with which writers wait; of a
        run that is over it is counted once. To see them change, `watch`.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        return await self._counting.totals(await locate(session, run_id))

    async def children(
        self,
        run_id: str,
        *,
        step: str | None = None,
        workflow: str | None = None,
        status: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        after: str | None = None,
        offset: int | None = None,
        limit: int = 100,
        within: float | None = None,
    ) -> Page[ChildRow]:
        """Return a page of the children of a run, in the order in which they were spawned.

        With a ``status`` that is an end (``failed`` and so on) they are in the order in which they ended. ``after`` is
        the ``next`` or the ``previous`` of a page of the same question; ``offset`` is the place of the first row, from
        0, instead. ``limit`` is 1000 at most.

        ``search`` is text in the key or the error, or the beginning of the id. ``sort`` is ``n``, ``status``, ``key``,
        ``workflow``, ``queued``, ``started``, ``ended``, ``took``, ``attempts`` or ``worker``, with ``-`` before it for
        the other direction. For either, and for those that are ``open`` or of several statuses (``failed,cancelled``),
        all children are read into memory first, about a second for 100,000, and then kept: two million at most. Where
        that is not done ``within`` so many seconds, ``loaded`` says how far it is, and the page is in spawn order, or
        empty where it is of a search.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        _check(step=step, workflow=workflow, status=status, limit=limit)
        check_sort(sort)
        asked = question(run=run_id, step=step, workflow=workflow, status=status, search=search, sort=sort)
        cursor = _cursor(after, offset, asked)
        session = self._session.usable()
        located = await locate(session, run_id)
        choice = Choice(step=step, workflow=workflow, status=status, search=search or "", sort=sort or "n")
        is_read_whole = status is not None and (status == "open" or len(statuses_of(status)) > 1)
        if not search and sort is None and not is_read_whole:
            return await self._listed(located, choice, cursor, limit)
        found = await self._tables.page(located, choice, cursor, limit, within)
        if isinstance(found, Page):
            return found
        if search or is_read_whole:
            return Page(searched=Searched(complete=False), loaded=found)
        page = await self._listed(located, choice, Cursor(asked, 0, cursor.n), limit)
        return msgspec.structs.replace(page, next=None, previous=None, loaded=found)

    async def _listed(self, located: Located, choice: Choice, cursor: Cursor, limit: int) -> Page[ChildRow]:
        """Return a page of children in spawn order, or, of a status, in that in which they ended."""
        children = ChildQuestion(
            located=located,
            question=cursor.question,
            kept=await self._counting.kept(located) if choice.status is None else None,
            step=choice.step,
            workflow=choice.workflow,
            status=choice.status,
        )
        return await self._child_lists.page(children, cursor, limit)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        status: str | None = None,
        since: float | None = None,
        until: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        search: str | None = None,
        sort: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[RunRow]:
        """Return a page of root runs, the newest first; with the ``status`` of an end, those that ended last.

        ``since`` and ``until`` are seconds since the epoch, of when runs were asked for or, with such a status, ended.
        ``key`` is the whole key. ``metadata`` are members that a run's must have; a text stands for any value that is
        written so. ``searched`` says how far was looked; an empty page with a ``next`` is one to go on from.

        ``search`` is text in the key, the workflow, the metadata or the error, or the beginning of the id. ``sort`` is
        ``triggered``, ``ended``, ``took``, ``status``, ``workflow`` or ``key``, with ``-`` before it for the other
        direction. For either, and for several statuses (``failed,cancelled``), the runs of the last day are read into
        memory, and then kept: the newest 200,000.

        ``status`` ``retrying`` finds those open ones of which a step waits for another attempt, among the newest 2,000
        that are open; it goes with no other status, search or order.
        """
        if status == RETRYING:
            if search or sort is not None or after is not None:
                raise InvalidQuery("status retrying goes with no search, sort or after")
            return await self._retrying(workflow, since, until, key, metadata, limit)
        _check(workflow=workflow, status=status, limit=limit)
        check_order(sort)
        asked = question(
            workflow=workflow,
            status=status,
            since=since,
            until=until,
            key=key,
            metadata=metadata,
            search=search,
            sort=sort,
        )
        roots = RootQuestion(
            question=asked, workflow=workflow, status=status, since=since, until=until, key=key, metadata=metadata
        )
        self._session.usable()
        cursor = None if after is None else read_cursor(after, asked)
        if search or sort is not None or len(statuses_of(status or "")) > 1:
            return await self._root_table().page(roots, search or "", sort or "-triggered", cursor, limit)
        return await self._root_lists.page(roots, cursor, limit)

    async def _retrying(
        self,
        workflow: str | None,
        since: float | None,
        until: float | None,
        key: str | None,
        metadata: Mapping[str, Any] | None,
        limit: int,
    ) -> Page[RunRow]:
        _check(workflow=workflow, limit=limit)

        async def read_open(after: str | None) -> Page[RunRow]:
            return await self.runs(
                workflow=workflow,
                status="open",
                since=since,
                until=until,
                key=key,
                metadata=metadata,
                after=after,
                limit=LARGEST_PAGE,
            )

        return await read_retrying(self._session.usable(), read_open, limit)

    async def summary(self, *, since: float) -> list[WorkflowSummary]:
        """Return what has become of the root runs that were asked for since a time, by workflow, with durations.

        ``since`` is seconds since the epoch, of the last day: see `runs`.
        """
        self._session.usable()
        return await self._root_table().summary(since)

    def _root_table(self) -> RootTable:
        if self._roots is None:
            self._roots = RootTable(self._session, self._declared)
        return self._roots

    async def tree(self, run_id: str, *, depth: int = 3) -> Tree:
        """Return what a run has spawned, and what that has spawned, rolled up by step and workflow.

        ``depth`` is how many levels. All runs of its tree are read, about a second for 100,000: the first 200,000.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        if not 1 <= depth <= MOST_LEVELS:
            raise InvalidQuery(f"depth is {depth}: it must be from 1 to {MOST_LEVELS}")
        session = self._session.usable()
        firsts = by_workflow(await self._declared.firsts())
        return await read_tree(session, await locate(session, run_id), firsts, depth)

    async def errors(
        self,
        run_id: str | None = None,
        *,
        workflow: str | None = None,
        since: float | None = None,
        limit: int = 50,
    ) -> ErrorGroups:
        """Return failures in groups of those that are alike: of the children of one run, or of all runs.

        ``since`` is seconds since the epoch. The newest 5,000 of each status are read; ``searched`` says whether that
        was all. ``limit`` is of groups.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        _check(workflow=workflow, limit=limit)
        session = self._session.usable()
        if run_id is None:
            return await read_errors(session, workflow=workflow, since=since, limit=limit)
        check_id(run_id)
        root = (await locate(session, run_id)).root
        return await read_errors(session, root=root, run=run_id, workflow=workflow, since=since, limit=limit)

    async def history(
        self, run_id: str | None = None, *, since: float, until: float | None = None, buckets: int = 60
    ) -> list[Bucket]:
        """Return how many root runs, or children of one run, ended in about ``buckets`` equal parts of a time.

        ``since`` and ``until`` (None is now) are seconds since the epoch; the parts begin before and end behind them.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        end = time() if until is None else until
        if not since < end:
            raise InvalidQuery(f"a history is from a time to a later one, and not from {since} to {end}")
        if not 1 <= buckets <= MOST_BUCKETS:
            raise InvalidQuery(f"buckets is {buckets}: it must be from 1 to {MOST_BUCKETS}")
        session = self._session.usable()
        if run_id is None:
            return await self._history.read(ANY, NONE, since, end, buckets)
        check_id(run_id)
        return await self._history.read((await locate(session, run_id)).root, run_id, since, end, buckets)

    async def value(self, run_id: str, reference: str) -> AsyncGenerator[bytes]:
        """Yield the chunks of a large value of a run: the JSON as it is stored, in pieces.

        ``reference`` is that of a `LargeValue`, as in ``(await client.describe(run)).large_input.reference``.

        Raises:
            UnknownRun: no run with this id is stored.
            LostValue: it is not stored any more, or was changed. That may come behind the last chunk.
        """
        check_id(run_id)
        session = self._session.usable()
        async with aclosing(chunks(session, (await locate(session, run_id)).root, reference)) as read:
            async for chunk in read:
                yield chunk


def check_id(run_id: Any) -> None:
    """Refuse what is not the id of any run.

    Raises:
        InvalidInput, UnknownRun: it is not.
    """
    if not isinstance(run_id, str):
        raise InvalidInput(f"a run is named by its id, a str, and not by {run_id!r}: give its id, as in run.id")
    if not is_run_id(run_id):
        raise UnknownRun(run_id)


def check_names(*, step: str | None = None, workflow: str | None = None) -> None:
    """Refuse what is not the name of any step or workflow.

    Raises:
        InvalidQuery: it is not.
    """
    for what, name in (("step", step), ("workflow", workflow)):
        if name is not None and not is_name(name):
            raise InvalidQuery(f"{name!r} is not the name of any {what}")


def _cursor(after: str | None, offset: int | None, asked: str) -> Cursor:
    if after is not None and offset is not None:
        raise InvalidQuery("a page begins behind a cursor or at an offset: give after or offset, not both")
    if offset is not None:
        if offset < 0:
            raise InvalidQuery(f"offset is {offset}: it must not be below 0")
        return Cursor(asked, 0, offset)
    return Cursor(asked, 0, 0) if after is None else read_cursor(after, asked)


def _check(*, step: str | None = None, workflow: str | None = None, status: str | None = None, limit: int = 1) -> None:
    check_names(step=step, workflow=workflow)
    if (
        status is not None
        and (unknown := next((one for one in statuses_of(status) if one not in STATES), None)) is not None
    ):
        raise InvalidQuery(
            f"status is {unknown!r}: it must be one of {', '.join(STATES)}, or several with commas between"
        )
    if not 1 <= limit <= LARGEST_PAGE:
        raise InvalidQuery(f"limit is {limit}: it must be from 1 to {LARGEST_PAGE}")
