"""Failures, in groups of those that are alike."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import ErrorGroups

ENDPOINTS = Endpoints()


class ErrorsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``since`` is seconds since the epoch. ``limit`` is of groups."""

    workflow: str | None = None
    since: float | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


@ENDPOINTS.get("errors")
async def errors(ask: Ask, query: ErrorsQuery) -> ErrorGroups:
    """Group the failures of all runs, root runs and children."""
    return await ask.client.errors(workflow=query.workflow, since=query.since, limit=query.limit)


@ENDPOINTS.get("runs/{id}/errors")
async def errors_of_children(ask: Ask, query: ErrorsQuery) -> ErrorGroups:
    """Group the failures of the children of a run."""
    return await ask.client.errors(ask.run, workflow=query.workflow, since=query.since, limit=query.limit)
