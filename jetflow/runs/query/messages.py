"""What is stored of a run, message by message: for those who want to see it with the tools of the broker."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.runs.located import Located
from jetflow.wire.filters import Filters
from jetflow.wire.subjects import kind_of

MOST: Final = 1000
"""Messages of each stream that are listed."""


class MessageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stored message. ``size`` is bytes of its body; ``command`` shows it."""

    stream: str
    sequence: int
    subject: str
    kind: str
    time: float
    size: int
    command: str


class Messages(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks and records of a run, oldest first, without its children's; not ``complete`` where there are more."""

    items: tuple[MessageRow, ...]
    complete: bool = True


async def read_messages(session: Session, located: Located) -> Messages:
    """List what is stored of a run in the streams of tasks and records."""
    names, filters = session.names, Filters(session.names)
    places = [(names.tasks_stream, names.tasks_of_run_id(located.run))]
    places += [(names.records_stream, subject) for subject in filters.records_of_run(located.root, located.run)]
    pages = await asyncio.gather(*(session.store.page(*place, size=MOST) for place in places))
    rows = [_row(stream, message) for (stream, _), (found, _) in zip(places, pages, strict=True) for message in found]
    return Messages(
        items=tuple(sorted(rows, key=lambda row: (row.time, row.sequence))), complete=not any(left for _, left in pages)
    )


def _row(stream: str, message: Stored) -> MessageRow:
    return MessageRow(
        stream=stream,
        sequence=message.sequence,
        subject=message.subject,
        kind=kind_of(message.subject),
        time=message.time,
        size=len(message.body),
        command=f"nats stream get {stream} {message.sequence}",
    )
