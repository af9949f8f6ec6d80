"""The stream of events: what changes of some topics, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from jetflow.dashboard.endpoints import Ask, Endpoints

ENDPOINTS = Endpoints()

AGAIN_AFTER: Final = 2000
"""Milliseconds after which a browser whose stream was cut asks again."""

PING: Final = b"event: ping\ndata: {}\n\n"
"""An event and not a comment: pages do not see comments, and could not tell a quiet stream from one that is cut off."""


class LiveQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``topic`` is there once for each topic."""

    topic: Annotated[list[str], Meta(min_length=1, max_length=20)]


@ENDPOINTS.get("live")
async def live(ask: Ask, query: LiveQuery) -> Response:
    """Stream the states of some topics, each first as it is, then as it changes."""
    topics = list(dict.fromkeys(query.topic))
    ask.dashboard.hub.check(topics)

    async def stream() -> AsyncGenerator[bytes]:
        yield f"retry: {AGAIN_AFTER}\n\n".encode()
        async with aclosing(ask.dashboard.hub.listen(topics)) as events:
            async for event in events:
                yield PING if event is None else b"event: %s\ndata: %s\n\n" % (event.name.encode(), event.data)

    return StreamingResponse(
        stream(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, media_type="text/event-stream"
    )
