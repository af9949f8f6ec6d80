"""The runs below a run: one by one where they are few, or rolled up by step and workflow."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from jetflow.client import Client
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import RunTotals, Tree

ENDPOINTS = Endpoints()

FEW: Final = 10
"""Children that are shown one by one, at most."""


class TreeQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``depth`` is how many levels below the run are shown."""

    depth: Annotated[int, Meta(ge=1, le=6)] = 3


@ENDPOINTS.get("runs/{id}/rollup")
async def rollup(ask: Ask, query: TreeQuery) -> Tree:
    """Roll up what a run has spawned, and what that has spawned, by step and workflow, with durations."""
    return await ask.client.tree(ask.run, depth=query.depth)


class RunNode(msgspec.Struct, frozen=True, kw_only=True):
    """A run with the totals of its children, which are listed one by one where they are ten or less."""

    id: str
    workflow: str
    status: str
    totals: RunTotals
    key: str | None = None
    step: str | None = None
    children: tuple[RunNode, ...] | None = None


@ENDPOINTS.get("runs/{id}/tree")
async def tree(ask: Ask, query: TreeQuery) -> RunNode:
    """Show the runs below a run, rolled up where they are many."""
    lineage = await ask.client.lineage(ask.run)
    own = lineage.path[-1]
    return await _node(ask.client, own.id, own.workflow, own.key, own.step, query.depth)


async def _node(client: Client, run_id: str, workflow: str, key: str | None, step: str | None, depth: int) -> RunNode:
    totals = await client.totals(run_id)
    children: tuple[RunNode, ...] | None = None
    if depth and 0 < totals.totals.spawned <= FEW:
        page = await client.children(run_id, limit=FEW)
        below = [_node(client, row.id, row.workflow, row.key, row.step, depth - 1) for row in page.items]
        children = tuple(await asyncio.gather(*below))
    return RunNode(
        id=run_id, workflow=workflow, status=totals.status, totals=totals, key=key, step=step, children=children
    )
