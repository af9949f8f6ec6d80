"""What a page has to know first: where it is, who looks, and what may be done."""

from __future__ import annotations

from importlib.metadata import version
from time import time
from typing import Any

import msgspec

from jetflow.broker.server_facts import ServerFacts
from jetflow.dashboard.endpoints import Ask, Endpoints

ENDPOINTS = Endpoints()


class AccessTold(msgspec.Struct, frozen=True, kw_only=True):
    """What the user may do: ``actions`` of ``trigger cancel delete rerun pause bulk stack``."""

    user: str
    actions: tuple[str, ...]
    payloads: bool


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The dashboard itself. ``now`` is its clock; ``features`` are names of what is there beside the usual."""

    version: str
    namespace: str
    server: ServerFacts
    access: AccessTold
    now: float
    features: tuple[str, ...]


@ENDPOINTS.get("meta")
async def meta(ask: Ask) -> Meta:
    """Tell where this is, who looks, and what may be done."""
    access = ask.access
    told = AccessTold(user=access.user, actions=tuple(sorted(access.actions)), payloads=access.payloads)
    return Meta(
        version=version("jetflow-nats"),
        namespace=ask.client.namespace,
        server=ask.client.server,
        access=told,
        now=time(),
        features=(),
    )


@ENDPOINTS.get("openapi.json")
async def openapi(ask: Ask) -> dict[str, Any]:
    """Return the description of this API."""
    from jetflow.dashboard.openapi import document  # noqa: PLC0415 - it describes what this is one of

    return document()
