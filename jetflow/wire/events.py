"""The names and headers of events (``docs/wire.md``, section Events)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from jetflow.engine.events import NO_KEY, event_id, is_topic, without_overlap
from jetflow.errors import MalformedRecord
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from jetflow.wire.subjects import Subjects

EVENT: Final = "event"

STARTED_BY: Final = "jetflow_event"
"""The member of a run's metadata that tells which event has started it."""


class PublishedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is stored. ``sequence`` is its place among all events, ``at`` seconds since the epoch.

    ``key`` is None where it has none; of a key that is no name, published by another program, it is its hash.
    ``created`` is false where an event with its id had been stored before, and nothing was stored now.
    """

    id: str
    topic: str
    key: str | None = None
    payload: Any = None
    metadata: dict[str, Any] = {}
    sequence: int
    at: float
    created: bool = True


class EventNames:
    """The names of what events are made of in one namespace."""

    def __init__(self, names: Subjects) -> None:
        self.stream: str = f"JF_{names.namespace}_events"
        self._prefix = f"{names.prefix}.{EVENT}"

    @property
    def all(self) -> str:
        """What the stream holds."""
        return f"{self._prefix}.>"

    def event(self, topic: str, key: str = NO_KEY) -> str:
        """The subject of an event; with a pattern, or ``*`` for the key, a filter."""
        return f"{self._prefix}.{key}.{topic}"

    def filters_of(self, wanted: Iterable[tuple[str, str]]) -> list[str]:
        """Return filters of events by pattern and token of the key, of which no two overlap, as the server needs them.

        Where some do, and none is part of the other, that is all events.
        """
        return without_overlap([self.event(topic, key) for topic, key in wanted], everything=self.all)

    def parse(self, subject: str) -> tuple[str, str] | None:
        """Return the topic and the token of the key of an event; None if the subject is of none."""
        if not subject.startswith(f"{self._prefix}."):
            return None
        key, _, topic = subject[len(self._prefix) + 1 :].partition(".")
        return (topic, key) if is_topic(topic) else None

    @staticmethod
    def consumer(workflow: str) -> str:
        """The durable consumer of the events that start runs of a workflow."""
        return f"on={workflow}"


def headers_of(message_id: str, key: str | None, metadata: bytes | None, trace: str | None) -> bytes:
    """Return the headers of an event. ``key`` is given where it does not stand in the subject as it is."""
    headers = {Header.MESSAGE_ID: message_id}
    if key is not None and key.isprintable() and key == key.strip():
        headers[Header.KEY] = key
    if metadata is not None:
        headers[Header.METADATA] = metadata.decode()
    if trace is not None:
        headers[Header.TRACE] = trace
    return header_block(headers)


def read_event(
    names: EventNames, subject: str, sequence: int, time: float, headers: dict[str, str], body: bytes
) -> PublishedEvent:
    """Return an event that was stored.

    Raises:
        MalformedRecord: it cannot be read.
    """
    parsed = names.parse(subject)
    if parsed is None:
        raise MalformedRecord("event", f"its subject {subject!r} has no topic")
    topic, token = parsed
    try:
        payload = msgspec.json.decode(body) if body else None
        metadata = msgspec.json.decode(headers.get(Header.METADATA, "{}"), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise MalformedRecord("event", str(error)) from error
    key = headers.get(Header.KEY, token) if token != NO_KEY else None
    return PublishedEvent(
        id=event_id(headers.get(Header.MESSAGE_ID), sequence, time),
        topic=topic,
        key=key,
        payload=payload,
        metadata=metadata,
        sequence=sequence,
        at=time,
    )
