"""Root runs: the list of them, and beginning one."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.inputs import check_input
from jetflow.runs.query.rows import Page, RunRow

ENDPOINTS = Endpoints()


class RunsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``since`` and ``until`` are seconds since the epoch; ``meta.<name>`` are members of the metadata.

    ``q`` is text in the key, the workflow, the metadata or the error, or the beginning of the id. For it, and for
    ``sort``, the runs of the last day are read.
    """

    workflow: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    key: str | None = None
    meta: dict[str, str] = {}
    q: str | None = None
    sort: str | None = None
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


@ENDPOINTS.get("runs")
async def list_runs(ask: Ask, query: RunsQuery) -> Page[RunRow]:
    """List root runs, the newest first; with the status of an end, those that ended last."""
    return await ask.client.runs(
        workflow=query.workflow,
        status=query.status,
        since=query.since,
        until=query.until,
        key=query.key,
        metadata=query.meta or None,
        search=query.q,
        sort=query.sort,
        after=query.after,
        limit=query.limit,
    )


class TriggerBody(msgspec.Struct, forbid_unknown_fields=True):
    """A run to begin. Without ``input`` it is null; ``metadata`` is an object."""

    workflow: str
    input: Any = None
    key: str | None = None
    metadata: dict[str, Any] | UnsetType | None = UNSET


class Triggered(msgspec.Struct, frozen=True):
    """The run that was begun, or that has the same key and input: then it was not ``created``."""

    id: str
    created: bool


@ENDPOINTS.post("runs", "trigger", status=201)
async def trigger(ask: Ask, body: TriggerBody) -> Triggered:
    """Begin a root run."""
    await check_input(ask.client, body.workflow, body.input)
    metadata = None if isinstance(body.metadata, UnsetType) else body.metadata
    run = await ask.client.trigger(body.workflow, body.input, key=body.key, metadata=metadata)
    return Triggered(run.id, bool(run.created))
