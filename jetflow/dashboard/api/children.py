"""The children of a run: pages of them, one by its place, and their ends over time."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.rows import ChildRow, Page

ENDPOINTS = Endpoints()


class ChildrenQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``q`` is text in the key or the error, or the beginning of the id. ``offset`` is the place of the first row."""

    step: str | None = None
    workflow: str | None = None
    status: str | None = None
    q: str | None = None
    sort: str | None = None
    after: str | None = None
    offset: Annotated[int, Meta(ge=0)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@ENDPOINTS.get("runs/{id}/children")
async def children(ask: Ask, query: ChildrenQuery) -> Page[ChildRow]:
    """List the children of a run: in spawn order, with the status of an end in the order of their ends."""
    return await ask.client.children(
        ask.run,
        step=query.step,
        workflow=query.workflow,
        status=query.status,
        search=query.q,
        sort=query.sort,
        after=query.after,
        offset=query.offset,
        limit=query.limit,
    )


@ENDPOINTS.get("runs/{id}/children/{n:int}")
async def child(ask: Ask) -> ChildRow:
    """Return the child at place n of the order in which they were spawned, from 0."""
    n = int(ask.path["n"])
    page = await ask.client.children(ask.run, offset=n, limit=1)
    if not page.items:
        raise Problem(404, "unknown-child", f"the run {ask.run} has no child at place {n}", "count from 0")
    return page.items[0]
