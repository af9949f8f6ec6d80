"""What goes on in the namespace, on one page."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.overview import Overview, read_overview

ENDPOINTS = Endpoints()


class OverviewQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``window`` is seconds up to now."""

    window: Annotated[float, Meta(ge=60, le=30 * 86400)] = 3600.0


@ENDPOINTS.get("overview")
async def overview(ask: Ask, query: OverviewQuery) -> Overview:
    """Tell what goes on in the namespace."""
    return await read_overview(ask.client, query.window)
