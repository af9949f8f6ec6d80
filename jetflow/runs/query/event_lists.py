"""Pages of events, the newest first, each with the runs that it has started.

The id of such a run follows from the event and the workflow: the runs of a page are read by their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from jetflow.broker.seeking import Seeker
from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.events import checked_pattern, key_token, run_of_event
from jetflow.engine.tasks import NONE
from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidQuery, MalformedRecord
from jetflow.runs.query.declared import Declared
from jetflow.wire.events import SIGNALS, EventNames, PublishedEvent, read_event
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token


class StartedRun(msgspec.Struct, frozen=True):
    """A run that an event has started. ``status`` is that of its end, or ``open`` while it goes on."""

    workflow: str
    run: str
    status: str


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored event; see `PublishedEvent`. ``size`` is the bytes of its payload.

    A signal is one to a ``run``: its ``topic`` is the name of the signal. One that cannot be ``read``, for it is no
    JSON, starts nothing.
    """

    id: str
    topic: str
    key: str | None = None
    run: str | None = None
    payload: Any = None
    metadata: dict[str, Any] = {}
    sequence: int
    at: float
    size: int = 0
    read: bool = True
    started: tuple[StartedRun, ...] = ()


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some events, the newest first. ``next`` is what to give as ``before`` for those that are older.

    ``total`` is how many there are in all, ``started_by`` the workflows that events start.
    """

    items: tuple[EventRow, ...] = ()
    next: int | None = None
    total: int = 0
    started_by: tuple[str, ...] = ()


def filter_of(session: Session, topic: str, key: str | None) -> str:
    """Return the filter of the events of a topic, or of a pattern.

    Raises:
        InvalidQuery: there is no such topic, or no such key.
    """
    try:
        pattern = checked_pattern("events", topic)
        token = "*" if key is None else key_token(key)
    except (InvalidDeclaration, InvalidInput) as error:
        raise InvalidQuery(str(error)) from None
    return EventNames(session.names).event(pattern, token)


async def read_events(
    session: Session, declared: Declared, subject: str, *, before: int | None, limit: int
) -> EventPage:
    """Return those events of a filter that are older than the one with the sequence ``before``; the newest without."""
    names = EventNames(session.names)
    seeker = Seeker(session.store, names.stream, subject)
    total, newest, declarations = await asyncio.gather(
        seeker.count(), seeker.newest(limit, before=before), declared.all()
    )
    workflows = [name for name, declaration in declarations.items() if declaration.on]
    events = [_event(names, stored) for stored in newest.found]
    started = await _started(session, declared, workflows, [event for event in events if event is not None])
    rows = (
        _row(stored, event, () if event is None else started.get(event.id, ()))
        for stored, event in zip(newest.found, events, strict=True)
    )
    return EventPage(
        items=tuple(rows),
        next=None if newest.is_all or not newest.found else newest.found[-1].sequence,
        total=total,
        started_by=tuple(workflows),
    )


def _event(names: EventNames, stored: Stored) -> PublishedEvent | None:
    try:
        return read_event(names, stored.subject, stored.sequence, stored.time, stored.headers, stored.body)
    except MalformedRecord:
        return None


async def _started(
    session: Session, declared: Declared, workflows: Sequence[str], events: Sequence[PublishedEvent]
) -> dict[str, tuple[StartedRun, ...]]:
    """Return the runs that events have started, by the id of the event."""
    names, store = session.names, session.store
    runs = {run_of_event(workflow, event.id): (workflow, event.id) for event in events for workflow in workflows}
    firsts = {workflow: [step for _, step in await declared.firsts(workflow)] for workflow in workflows}
    tasks = [
        names.task(workflow, step, run, NONE, run) for run, (workflow, _) in runs.items() for step in firsts[workflow]
    ]
    begun, ended = await asyncio.gather(
        collect(store.many(names.tasks_stream, tasks)),
        collect(store.many(names.records_stream, [names.run(run, NONE, NONE, run) for run in runs])),
    )
    statuses = {one.subject.split(".")[7]: "open" for one in begun}
    statuses |= {last_token(one.subject): decode_outcome(one.body).status for one in ended}
    found: dict[str, tuple[StartedRun, ...]] = {}
    for run, (workflow, event) in runs.items():
        if run in statuses:
            found[event] = (*found.get(event, ()), StartedRun(workflow, run, statuses[run]))
    return found


def _row(stored: Stored, event: PublishedEvent | None, started: tuple[StartedRun, ...]) -> EventRow:
    if event is None:
        return EventRow(
            id="", topic=stored.subject, sequence=stored.sequence, at=stored.time, size=len(stored.body), read=False
        )
    name = event.topic.removeprefix(f"{SIGNALS}.")
    is_signal = name != event.topic
    return EventRow(
        id=event.id,
        topic=name if is_signal else event.topic,
        key=None if is_signal else event.key,
        run=event.key if is_signal else None,
        payload=event.payload,
        metadata=event.metadata,
        sequence=event.sequence,
        at=event.at,
        size=len(stored.body),
        started=started,
    )
