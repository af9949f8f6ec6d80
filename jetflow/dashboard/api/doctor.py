"""Whether all is well with the namespace: what `jetflow doctor` tells, and what is worth a look."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import msgspec

from jetflow.broker.server_facts import ServerFacts
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import QueueRow, WorkerRow
from jetflow.runs.storage import Storage
from jetflow.wire.records import Declaration

ENDPOINTS = Endpoints()

LATE: Final = 0.5
"""Seconds by which a worker's event loop may be late."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: ``ok``, or worth a look, and then what to do."""

    name: str
    state: Literal["ok", "look"]
    detail: str
    hint: str = ""


class Doctor(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, on which server, and the checks."""

    server: ServerFacts
    storage: Storage
    checks: tuple[Check, ...]


@ENDPOINTS.get("doctor")
async def doctor(ask: Ask) -> Doctor:
    """Tell what is stored, and what is worth a look."""
    storage, queues, workers, declared = await asyncio.gather(
        ask.client.storage(), ask.client.queues(), ask.client.workers(), ask.client.declarations()
    )
    checks = (_served(queues), _paused(queues), _answering(queues, workers), _late(workers), _orphans(queues, declared))
    return Doctor(server=ask.client.server, storage=storage, checks=checks)


def _check(name: str, found: list[str], well: str, trouble: str, hint: str) -> Check:
    if not found:
        return Check(name=name, state="ok", detail=well)
    return Check(name=name, state="look", detail=f"{trouble}: {', '.join(found)}", hint=hint)


def _served(queues: list[QueueRow]) -> Check:
    found = [_name(row) for row in queues if row.waiting and not row.pulls and not row.held and not row.paused_until]
    return _check(
        *("served", found, "every queue in which tasks wait is pulled", "tasks wait, and no worker pulls"),
        "start a worker that has these workflows",
    )


def _paused(queues: list[QueueRow]) -> Check:
    found = [_name(row) for row in queues if row.paused_until]
    return _check("paused", found, "no queue is paused", "paused", "resume them when it is time")


def _answering(queues: list[QueueRow], workers: list[WorkerRow]) -> Check:
    waits = sum(row.waiting + row.held for row in queues)
    if workers or not waits:
        return Check(name="workers", state="ok", detail=f"{len(workers)} workers answer")
    return Check(
        name="workers",
        state="look",
        detail=f"no worker answers, and {waits:,} tasks wait",
        hint="start one: jetflow worker MODULE",
    )


def _late(workers: list[WorkerRow]) -> Check:
    found = [f"{row.name} by {row.lag:.1f} s" for row in workers if row.lag > LATE]
    return _check(
        *("loops", found, "no worker's event loop is late", "event loops are late"),
        'a step blocks its loop: make it a plain def, or declare it runs_in="process"',
    )


def _orphans(queues: list[QueueRow], declared: dict[str, Declaration]) -> Check:
    found = [
        _name(row) for row in queues if row.workflow not in declared or not declared[row.workflow].graph.has(row.step)
    ]
    return _check(
        "orphans", found, "every queue is of a declared step", "queues of no declared step", "delete their consumers"
    )


def _name(row: QueueRow) -> str:
    return f"{row.workflow}/{row.step}"
