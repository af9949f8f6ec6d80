"""What the steps of a run say: its progress, the end of its log, and the end of what they stream."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from jetflow.dashboard.detail import read_trace
from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.hearing import MOST, Hearing, Said

ENDPOINTS = Endpoints()


class SaidQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``limit`` is of lines and of chunks: the newest."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = 200


@ENDPOINTS.get("runs/{id}/said")
async def said(ask: Ask, query: SaidQuery) -> Said:
    """Tell what the steps of a run say: how far they are, and the newest of their log lines and chunks."""
    if not ask.access.payloads:
        return Said(progress=await ask.client.run(ask.run).progress(), lines=[], chunks=[], withheld=True)
    redact = ask.dashboard.redact
    if redact is None:
        return await Hearing(ask.client, ask.run, limit=query.limit).heard()
    workflow = (await read_trace(ask.client, ask.run)).workflow
    shown = partial(redact, workflow, "chunk")
    return await Hearing(ask.client, ask.run, limit=query.limit, shown=shown).heard()
