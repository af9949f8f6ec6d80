"""One run: where it stands, how many children it has, and what is stored of it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from jetflow.dashboard.detail import RunDetail, graph_of, read_trace
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.errors import UnknownRun
from jetflow.runs.query.messages import Messages
from jetflow.runs.query.rows import RunningRow, RunTotals

ENDPOINTS = Endpoints()

TOTALS_AT_ONCE: Final = 100


@ENDPOINTS.get("runs/{id}")
async def run(ask: Ask) -> RunDetail:
    """Tell where a run stands."""
    trace, totals, lineage = await asyncio.gather(
        read_trace(ask.client, ask.run), ask.client.totals(ask.run), ask.client.lineage(ask.run)
    )
    return RunDetail(run=trace, totals=totals, graph=graph_of(trace), lineage=lineage)


@ENDPOINTS.get("runs/{id}/totals")
async def totals(ask: Ask) -> RunTotals:
    """Count the children of a run, by status; in all, by step and by workflow."""
    return await ask.client.totals(ask.run)


class TotalsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``run`` is there once for each run."""

    run: Annotated[list[str], Meta(min_length=1, max_length=TOTALS_AT_ONCE)]


@ENDPOINTS.get("totals")
async def totals_of_many(ask: Ask, query: TotalsQuery) -> dict[str, RunTotals | None]:
    """Count the children of up to 100 runs, by id; null stands for a run that is not stored."""

    async def of_one(run_id: str) -> RunTotals | None:
        try:
            return await ask.client.totals(run_id)
        except UnknownRun:
            return None

    found = await asyncio.gather(*(of_one(run_id) for run_id in query.run))
    return dict(zip(query.run, found, strict=True))


@ENDPOINTS.get("runs/{id}/messages")
async def messages(ask: Ask) -> Messages:
    """List what is stored of a run, message by message."""
    return await ask.client.messages(ask.run)


@ENDPOINTS.get("runs/{id}/running")
async def running(ask: Ask) -> list[RunningRow]:
    """List the steps of a run that workers hold at this moment."""
    return await ask.client.running(ask.run)
