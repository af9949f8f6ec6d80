"""The runs below a run, rolled up by step and workflow."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import Tree

ENDPOINTS = Endpoints()


class TreeQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``depth`` is how many levels below the run are shown."""

    depth: Annotated[int, Meta(ge=1, le=6)] = 3


@ENDPOINTS.get("runs/{id}/tree")
async def tree(ask: Ask, query: TreeQuery) -> Tree:
    """Roll up what a run has spawned, and what that has spawned, by step and workflow, with durations."""
    return await ask.client.tree(ask.run, depth=query.depth)
