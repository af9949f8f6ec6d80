"""Events that were published, and what they have started."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.event_lists import EventRow, StartedRun
from jetflow.runs.query.inspecting import MOST_EVENTS

ENDPOINTS = Endpoints()

LONGEST: Final = 2000
"""Characters of a payload that are told."""


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``topic`` may be a pattern, ``key`` is that of the events, ``before`` is the ``next`` of the page before."""

    topic: str = ">"
    key: str | None = None
    before: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_EVENTS)] = 50


class ShownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event. ``payload`` is its JSON, cut to what fits a page, or None where it is ``withheld``.

    A signal is one to a ``run``: its ``topic`` is the name of the signal. One that cannot be ``read`` starts nothing.
    """

    id: str
    topic: str
    key: str | None
    run: str | None
    sequence: int
    at: float
    size: int
    payload: str | None
    withheld: bool
    read: bool
    metadata: dict[str, Any]
    started: tuple[StartedRun, ...]


class ShownEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Some events, the newest first. ``started_by`` are the workflows that events start."""

    items: tuple[ShownEvent, ...]
    next: int | None
    total: int
    started_by: tuple[str, ...]


@ENDPOINTS.get("events")
async def events(ask: Ask, query: EventsQuery) -> ShownEvents:
    """List the events that are stored, the newest first, with the runs that they have started."""
    page = await ask.client.published(query.topic, key=query.key, before=query.before, limit=query.limit)
    return ShownEvents(
        items=tuple(_shown(ask, row) for row in page.items),
        next=page.next,
        total=page.total,
        started_by=page.started_by,
    )


def _shown(ask: Ask, row: EventRow) -> ShownEvent:
    return ShownEvent(
        id=row.id,
        topic=row.topic,
        key=row.key,
        run=row.run,
        sequence=row.sequence,
        at=row.at,
        size=row.size,
        payload=_payload(ask, row),
        withheld=not ask.access.payloads,
        read=row.read,
        metadata=row.metadata,
        started=row.started,
    )


def _payload(ask: Ask, row: EventRow) -> str | None:
    if not ask.access.payloads:
        return None
    redact = ask.dashboard.redact
    value = row.payload if redact is None else redact(row.topic, "event", row.payload)
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
