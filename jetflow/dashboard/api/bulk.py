"""Actions on many runs: found and counted first, done when told to, with progress, and an end before the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from jetflow.client import Client
from jetflow.dashboard.access import Action
from jetflow.dashboard.bulk import BulkAction, Job, JobTold
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.rows import ChildRow, Page, RunRow

ENDPOINTS = Endpoints()

READ_AT_ONCE: Final = 1000
"""Rows of a page that is read for a job."""

SOON: Final = 2.0
"""Seconds for which a request waits for what it asks to be counted."""


class RunFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Root runs, by what the list of runs is filtered by; or, of ``parent``, its children by what theirs is."""

    parent: str | None = None
    workflow: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    key: str | None = None
    meta: dict[str, str] | None = None
    step: str | None = None
    q: str | None = None


class BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be done, to the runs of ``ids`` or to those that fit ``query``."""

    action: BulkAction
    ids: Annotated[list[str], Meta(min_length=1, max_length=10_000)] | None = None
    query: RunFilter | None = None


@ENDPOINTS.post("bulk", "bulk", status=202)
async def plan(ask: Ask, body: BulkBody) -> JobTold:
    """Find and count the runs that an action is for. Nothing is done to them before the job is started."""
    _check_right(ask, body.action)
    if (body.ids is None) == (body.query is None):
        raise Problem(422, "invalid-body", "a job is for ids or for a query, one of them", "give one")
    if body.query is None:
        job = ask.dashboard.jobs.plan(body.action, ask.access.user, body.ids or [])
        return _noted(ask, job)
    if body.action == "delete" and body.query.parent is not None:
        raise Problem(422, "invalid-body", "children are deleted with their root run", "delete that")
    job = ask.dashboard.jobs.plan(body.action, ask.access.user, _pages(ask.client, body.query))
    await _settled(job)
    return _noted(ask, job)


@ENDPOINTS.get("bulk/{job}")
async def look(ask: Ask) -> JobTold:
    """Tell where a job stands."""
    return ask.dashboard.jobs.find(ask.path["job"]).told


@ENDPOINTS.post("bulk/{job}/start", "bulk", status=202)
async def start(ask: Ask) -> JobTold:
    """Begin to do what was counted."""
    job = ask.dashboard.jobs.find(ask.path["job"])
    _check_right(ask, job.action)
    await ask.dashboard.jobs.start(job)
    return _noted(ask, job)


@ENDPOINTS.delete("bulk/{job}", "bulk")
async def abort(ask: Ask) -> JobTold:
    """Stop a job. What is done stays done."""
    job = ask.dashboard.jobs.find(ask.path["job"])
    await job.abort()
    return job.told


def _noted(ask: Ask, job: Job) -> JobTold:
    told = job.told
    ask.note(told.found, action=told.action, state=told.state)
    return told


def _check_right(ask: Ask, action: Action) -> None:
    if not ask.access.may(action):
        raise Problem(403, "no-right", f"you may not {action} here", "ask whoever runs the dashboard")


async def _settled(job: Job) -> None:
    if job.task is not None:
        await asyncio.wait({job.task}, timeout=SOON)


async def _pages(client: Client, asked: RunFilter) -> AsyncGenerator[tuple[Any, ...]]:
    """Yield all rows that fit, page by page."""
    after: str | None = None
    while True:
        page = await _page(client, asked, after)
        yield page.items
        after = page.next
        if after is None:
            return


async def _page(client: Client, asked: RunFilter, after: str | None) -> Page[RunRow] | Page[ChildRow]:
    if asked.parent is not None:
        return await client.children(
            asked.parent,
            step=asked.step,
            workflow=asked.workflow,
            status=asked.status,
            search=asked.q,
            after=after,
            limit=READ_AT_ONCE,
        )
    return await client.runs(
        workflow=asked.workflow,
        status=asked.status,
        since=asked.since,
        until=asked.until,
        key=asked.key,
        metadata=asked.meta,
        after=after,
        limit=READ_AT_ONCE,
    )
