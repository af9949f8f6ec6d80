"""Publishing events, and finding what they have started. `jetflow.Client` is one who publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from time import time
from typing import Any, Final

import msgspec
from uuid_utils import uuid7

from jetflow import hooks
from jetflow.broker.session import Session
from jetflow.engine.events import checked_id, checked_topic, key_token, run_of_event
from jetflow.engine.identity import is_name
from jetflow.errors import InvalidInput, InvalidQuery, PayloadTooLarge
from jetflow.runs.query.event_lists import filter_of
from jetflow.runs.query.stored import check_id
from jetflow.wire.codec import ANY, written
from jetflow.wire.events import SIGNALS, EventNames, PublishedEvent, headers_of, read_event, signal_topic
from jetflow.wire.metadata import METADATA_LIMIT

PUBLISH_TIMEOUT: Final = 30.0
"""Seconds for which a publish waits for the broker."""

AT_ONCE: Final = 1000
"""Events of `Publishing.publish_many` that are on their way to the broker at a time."""

MOST_LISTED: Final = 1000
"""Events of one page of `Publishing.events`."""


class Publishing:
    """Publishes events, and reads those that are stored."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def publish(
        self,
        topic: str,
        payload: Any = None,
        *,
        key: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        level: str | None = None,
    ) -> PublishedEvent:
        """Publish an event: it starts a run of each workflow that declares it by ``flow.on``.

        It is stored for a week, whether anybody takes it or not. ``topic`` is names with dots between them. An ``id``
        of the sender's makes it one event, however often it is published: for two minutes by the broker, and for as
        long as they are stored for the runs that it starts. ``metadata`` becomes that of these runs, and ``level``
        their level where their workflows declare it.

        Raises:
            InvalidInput: the topic, the key or the id is none, or the payload cannot be written as JSON.
            PayloadTooLarge: it is larger than a message may be.
            PermissionDenied: this user may not publish events, or not make their stream, which is missing.
            BrokerTimeout: the broker did not take it in time.
        """
        return await self._published(_of_no_run(topic), payload, key, id, _written(metadata), _level(level))

    async def signal(self, run_id: str, name: str, payload: Any = None, *, id: str | None = None) -> PublishedEvent:
        """Send a signal to a run, for a step that waits for it, now or later: ``ctx.wait_for(Signal(name))``.

        It is kept for a week, whether the run exists or not.

        Raises:
            InvalidInput: the name is none, or the payload cannot be written as JSON.
            UnknownRun: ``run_id`` is not the id of any run.
            The same as `publish`.
        """
        check_id(run_id)
        return await self._published(signal_topic(name), payload, run_id, id, None, None)

    async def publish_many(
        self,
        topic: str,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str | None] | None = None,
        id: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        level: str | None = None,
    ) -> list[PublishedEvent]:
        """Publish many events of one topic, and return them in order. ``key`` and ``id`` are functions of the payload.

        Raises:
            The same as `publish`. What was published before the error stays.
        """
        _of_no_run(topic)
        urgent = _level(level)
        told, events, batch = _written(metadata), list[PublishedEvent](), list[Any]()

        async def sent() -> None:
            calls = (
                self._published(
                    topic, one, None if key is None else key(one), None if id is None else id(one), told, urgent
                )
                for one in batch
            )
            answers = await asyncio.gather(*calls, return_exceptions=True)
            batch.clear()
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
                events.append(answer)

        if isinstance(payloads, AsyncIterable):
            async for payload in payloads:
                batch.append(payload)
                if len(batch) == AT_ONCE:
                    await sent()
        else:
            for payload in payloads:
                batch.append(payload)
                if len(batch) == AT_ONCE:
                    await sent()
        await sent()
        return events

    async def _published(
        self, topic: str, payload: Any, key: str | None, id: str | None, metadata: bytes | None, level: str | None
    ) -> PublishedEvent:
        session = self._session.usable()
        names = EventNames(session.names)
        token = key_token(key)
        message_id = uuid7().hex if id is None else checked_id(topic, id)
        body = written(payload, f"the payload of an event {topic!r}")
        trace = None if hooks.tracer is None else hooks.tracer.current()
        headers = headers_of(message_id, None if key == token else key, metadata, trace, level)
        await session.optional.ensure(names.stream)
        receipt = await session.publisher.store(names.event(topic, token), body, headers, timeout=PUBLISH_TIMEOUT)
        return PublishedEvent(
            id=message_id,
            topic=topic,
            key=key,
            payload=payload,
            metadata={} if metadata is None else msgspec.json.decode(metadata),
            sequence=receipt.sequence,
            at=time(),
            created=receipt.stored,
        )

    async def events(
        self, topic: str = ">", *, key: str | None = None, after: int = 0, limit: int = 100
    ) -> list[PublishedEvent]:
        """Return stored events of a topic, or of a pattern, the oldest first: those behind a ``sequence``.

        Raises:
            InvalidQuery: there is no such topic, or the limit makes no sense.
            BrokerTimeout: the broker does not answer.
        """
        if not 1 <= limit <= MOST_LISTED:
            raise InvalidQuery(f"limit={limit}: from 1 to {MOST_LISTED}")
        session = self._session.usable()
        names, subject = EventNames(session.names), filter_of(session, topic, key)
        if not await session.optional.is_there(names.stream):
            return []
        found, _ = await session.store.page(names.stream, subject, after=after, size=limit)
        return [read_event(names, one.subject, one.sequence, one.time, one.headers, one.body) for one in found]

    async def runs_of_event(self, event: PublishedEvent | str) -> dict[str, str]:
        """Return the ids of the runs that an event has started, by workflow. ``event`` is one, or the id of one.

        Raises:
            BrokerTimeout: the broker does not answer.
        """
        session = self._session.usable()
        id = event if isinstance(event, str) else event.id
        runs: dict[str, str] = {}
        for workflow in await session.registry.workflows():
            if (await session.registry.find(workflow)).on:
                runs[workflow] = run_of_event(workflow, id)
        return {workflow: run for workflow, run in runs.items() if await _is_stored(session, run)}


async def _is_stored(session: Session, run: str) -> bool:
    names, store = session.names, session.store
    if await store.leader_last(names.tasks_stream, names.tasks_of_run_id(run)) is not None:
        return True
    return await store.leader_last(names.records_stream, names.run_by_id(run)) is not None


def _of_no_run(topic: str) -> str:
    """Return a topic that anybody may publish events of; those of signals tell of one run."""
    if checked_topic(topic).partition(".")[0] == SIGNALS:
        raise InvalidInput(f"the topic {topic!r} is one of signals: send them by run.signal(name, payload)")
    return topic


def _written(metadata: Mapping[str, Any] | None) -> bytes | None:
    if metadata is None:
        return None
    body = ANY.named("metadata").encode(dict(metadata))
    if len(body) > METADATA_LIMIT - 1024:  # which tells of the event, too, in the run
        raise PayloadTooLarge("the metadata of an event", len(body), METADATA_LIMIT - 1024)
    return body


def _level(level: Any) -> str | None:
    """Return the level of an event's runs.

    Raises:
        InvalidInput: it can be that of none.
    """
    if level is not None and not (isinstance(level, str) and is_name(level)):
        raise InvalidInput(f"the level of an event's runs is a name, not {level!r}")
    return level
