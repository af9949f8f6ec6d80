"""The questions: what a client, and through it every face of jetflow, may ask of what is stored and of who is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jetflow.broker.session import Session
from jetflow.engine.identity import is_name, is_run_id
from jetflow.errors import InvalidInput, InvalidQuery, UnknownRun
from jetflow.runs.query.child_lists import ChildLists, ChildQuestion
from jetflow.runs.query.counting import read_shape, read_totals, workflows_of_children
from jetflow.runs.query.cursors import Cursor, question, read_cursor
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.located import locate
from jetflow.runs.query.root_lists import RootLists, RootQuestion
from jetflow.runs.query.rows import STATES, ChildRow, Page, RunRow, RunTotals

LARGEST_PAGE: Final = 1000
"""Rows that one page may have."""


class Queries:
    """What may be asked about runs, queues and workers. All of it only reads. `jetflow.Client` is one.

    Every method raises `InvalidQuery` for a filter, a cursor or a limit that makes no sense, and the `BrokerError`s of
    a broker that is away: an empty answer always means that nothing was found.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._declared = Declared(session)
        self._child_lists = ChildLists(session, self._declared)
        self._root_lists = RootLists(session, self._declared)

    async def totals(self, run_id: str) -> RunTotals:
        """Return how many children a run has, by status; in all, by the step that spawned them, and by workflow.

        It costs about as much for ten children as for a million. To see them change, `watch`.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        located = await locate(session, run_id)
        return await read_totals(session, session.store, located, await read_shape(session, self._declared, located))

    async def children(
        self,
        run_id: str,
        *,
        step: str | None = None,
        workflow: str | None = None,
        status: str | None = None,
        after: str | None = None,
        offset: int | None = None,
        limit: int = 100,
    ) -> Page[ChildRow]:
        """Return a page of the children of a run, in the order in which they were spawned.

        With a ``status`` that is an end (``failed`` and so on) they are in the order in which they ended. ``after`` is
        the ``next`` or the ``previous`` of a page of the same question; ``offset`` is the place of the first row, from
        0, instead. ``limit`` is 1000 at most.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        _check(step=step, workflow=workflow, status=status, limit=limit)
        asked = question(run=run_id, step=step, workflow=workflow, status=status)
        cursor = _cursor(after, offset, asked)
        session = self._session.usable()
        located = await locate(session, run_id)
        children = ChildQuestion(
            located=located,
            question=asked,
            workflows=await workflows_of_children(session, self._declared, located),
            step=step,
            workflow=workflow,
            status=status,
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
        after: str | None = None,
        limit: int = 50,
    ) -> Page[RunRow]:
        """Return a page of root runs, the newest first; with the ``status`` of an end, those that ended last.

        ``since`` and ``until`` are seconds since the epoch, of when runs were asked for or, with such a status, ended.
        ``key`` is the whole key. ``metadata`` are members that a run's must have; a text stands for any value that is
        written so. ``searched`` says how far was looked; an empty page with a ``next`` is one to go on from.
        """
        _check(workflow=workflow, status=status, limit=limit)
        asked = question(workflow=workflow, status=status, since=since, until=until, key=key, metadata=metadata)
        roots = RootQuestion(
            question=asked, workflow=workflow, status=status, since=since, until=until, key=key, metadata=metadata
        )
        self._session.usable()
        return await self._root_lists.page(roots, None if after is None else read_cursor(after, asked), limit)


def check_id(run_id: Any) -> None:
    """Refuse what is not the id of any run.

    Raises:
        InvalidInput, UnknownRun: it is not.
    """
    if not isinstance(run_id, str):
        raise InvalidInput(f"a run is named by its id, a str, and not by {run_id!r}: give its id, as in run.id")
    if not is_run_id(run_id):
        raise UnknownRun(run_id)


def _cursor(after: str | None, offset: int | None, asked: str) -> Cursor:
    if after is not None and offset is not None:
        raise InvalidQuery("a page begins behind a cursor or at an offset: give after or offset, not both")
    if offset is not None:
        if offset < 0:
            raise InvalidQuery(f"offset is {offset}: it must not be below 0")
        return Cursor(asked, 0, offset)
    return Cursor(asked, 0, 0) if after is None else read_cursor(after, asked)


def _check(*, step: str | None = None, workflow: str | None = None, status: str | None = None, limit: int = 1) -> None:
    for what, name in (("step", step), ("workflow", workflow)):
        if name is not None and not is_name(name):
            raise InvalidQuery(f"{name!r} is not the name of any {what}")
    if status is not None and status not in STATES:
        raise InvalidQuery(f"status is {status!r}: it must be one of {', '.join(STATES)}")
    if not 1 <= limit <= LARGEST_PAGE:
        raise InvalidQuery(f"limit is {limit}: it must be from 1 to {LARGEST_PAGE}")
