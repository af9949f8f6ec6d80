"""The workers, and what they run."""

from __future__ import annotations

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.rows import WorkerRow

ENDPOINTS = Endpoints()


@ENDPOINTS.get("workers")
async def workers(ask: Ask) -> list[WorkerRow]:
    """List the workers that answer within a second."""
    return await ask.client.workers()


@ENDPOINTS.get("workers/{name}")
async def worker(ask: Ask) -> WorkerRow:
    """Return one worker with the steps that it holds."""
    for row in await ask.client.workers():
        if row.name == ask.path["name"]:
            return row
    raise Problem(404, "unknown-worker", f"no worker named {ask.path['name']!r} answers", "it may have ended")
