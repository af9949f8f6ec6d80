"""The workflows that are declared: their graphs, their schemas, and how they fare."""

from __future__ import annotations

import asyncio
from time import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.drawing.layout import Layout, laid_out
from jetflow.engine.graph import Graph
from jetflow.runs.query.rows import QueueRow, WorkflowSummary
from jetflow.wire.records import Declaration, DeclaredStep

ENDPOINTS = Endpoints()


class WindowQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``window`` is seconds up to now, in which runs are counted: a day at most."""

    window: Annotated[float, Meta(ge=60, le=86400)] = 86400.0


class WorkflowRow(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow. ``triggered`` and ``failed`` are root runs of the window, ``summary`` tells more of them.

    ``waiting`` and ``held`` are tasks of all its steps, of root runs and of children.
    """

    name: str
    version: str
    steps: tuple[str, ...]
    doc: str = ""
    source: str = ""
    deadline: float | None = None
    triggered: int = 0
    failed: int = 0
    summary: WorkflowSummary | None = None
    waiting: int = 0
    held: int = 0


class WorkflowDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow. ``input`` and ``output`` are JSON Schema, ``steps`` what is declared of each step."""

    name: str
    version: str
    graph: Layout
    on_failure: str | None
    on_success: str | None
    fail_fast: bool
    deadline: float | None
    input: Any
    output: Any
    steps: dict[str, DeclaredStep]
    queues: tuple[QueueRow, ...]


@ENDPOINTS.get("workflows")
async def workflows(ask: Ask, query: WindowQuery) -> list[WorkflowRow]:
    """List the workflows that are declared, with what has become of their root runs."""
    found, queues, summaries = await asyncio.gather(
        ask.client.declarations(), ask.client.queues(), ask.client.summary(since=time() - query.window)
    )
    by_name = {summary.workflow: summary for summary in summaries}
    return [
        _row(name, declaration, by_name.get(name), [row for row in queues if row.workflow == name])
        for name, declaration in found.items()
    ]


def _row(name: str, declaration: Declaration, summary: WorkflowSummary | None, queues: list[QueueRow]) -> WorkflowRow:
    nodes = declaration.graph.nodes
    first = declaration.steps.get(nodes[0].name, DeclaredStep()) if nodes else DeclaredStep()
    return WorkflowRow(
        name=name,
        version=declaration.version,
        steps=tuple(node.name for node in nodes),
        doc=first.doc,
        source=first.source,
        deadline=declaration.deadline,
        triggered=0 if summary is None else summary.runs,
        failed=0 if summary is None else summary.failed,
        summary=summary,
        waiting=sum(row.waiting for row in queues),
        held=sum(row.held for row in queues),
    )


@ENDPOINTS.get("workflows/{name}")
async def workflow(ask: Ask) -> WorkflowDetail:
    """Return what is declared of a workflow."""
    name = ask.path["name"]
    declaration, queues = await asyncio.gather(ask.client.declaration(name), ask.client.queues())
    graph = declaration.graph
    return WorkflowDetail(
        name=name,
        version=declaration.version,
        graph=drawn(graph),
        on_failure=graph.on_failure,
        on_success=graph.on_success,
        fail_fast=graph.fail_fast,
        deadline=declaration.deadline,
        input=declaration.input,
        output=declaration.output,
        steps=declaration.steps,
        queues=tuple(row for row in queues if row.workflow == name),
    )


def drawn(graph: Graph) -> Layout:
    """Return where the steps of a graph are drawn."""
    return laid_out({node.name: node.after for node in graph.nodes})
