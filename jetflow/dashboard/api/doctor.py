"""Whether all is well with the namespace: what `jetflow doctor` tells."""

from __future__ import annotations

import msgspec

from jetflow.broker.server_facts import ServerFacts
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.checks import Check
from jetflow.runs.storage import Storage

ENDPOINTS = Endpoints()


class Doctor(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, on which server, and what is worth a look."""

    server: ServerFacts
    storage: Storage
    checks: tuple[Check, ...]


@ENDPOINTS.get("doctor")
async def doctor(ask: Ask) -> Doctor:
    """Tell what is stored, and what is worth a look."""
    found = await ask.client.doctor()
    return Doctor(server=ask.client.server, storage=found.storage, checks=found.checks)
