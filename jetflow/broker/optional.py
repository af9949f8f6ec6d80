"""Streams that are made where they are needed: a namespace that uses nothing of them has none of them.

Whoever needs one first makes it, or is told why it cannot be. `jetflow setup` makes them all ahead of time, for users
who may not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from jetflow.broker.connection import Connection
from jetflow.broker.times import SECOND
from jetflow.broker.topology import (
    DUPLICATE_WINDOW,
    Consumer,
    Retention,
    check_stream,
    ensure_consumer,
    ensure_stream,
    found,
)
from jetflow.engine.output import KEPT_OF_STEP
from jetflow.errors import BrokerError, BrokerRefused
from jetflow.wire.events import EventNames
from jetflow.wire.limits import LimitNames
from jetflow.wire.output import OutputNames
from jetflow.wire.records import DeclaredEvent
from jetflow.wire.subjects import EDITION, EDITION_KEY, LAYOUT, LAYOUT_KEY, Subjects

OUTPUT_AGE: Final = 7 * 24 * 3600.0
"""Seconds for which is kept what steps say."""

OUTPUT_BYTES: Final = 1024**3
"""Bytes of it that are kept; then the oldest goes. The server reserves them."""

EVENTS_AGE: Final = 7 * 24 * 3600.0
"""Seconds for which events are kept: as far back as may be looked."""

LEAST_BYTES: Final = 64 * 1024**2
"""Bytes of it that are kept where a server or an account has no room for so many."""

ASKED_AGAIN: Final = 30.0
"""Seconds after which a stream that could not be made is tried again."""

_NO_ROOM: Final = frozenset({10002, 10023, 10028, 10047, 10122})

_log = logging.getLogger("jetflow.broker")

CLOCKS_DIFFER: Final = 60.0
"""Seconds before now from which on a new consumer of waits begins: an event that nobody awaits wakes none."""


def optional_streams_of(names: Subjects, retention: Retention) -> list[dict[str, Any]]:
    """Return the configuration of each stream that a namespace may do without, as it is made."""
    metadata = {EDITION_KEY: EDITION, LAYOUT_KEY: LAYOUT}
    streams = (
        _output(names, retention),
        _events(names, retention),
        _waits(names, retention),
        _gates(names, retention),
        _limits(names, retention),
    )
    return [stream | {"metadata": metadata} for stream in streams]


def _output(names: Subjects, retention: Retention) -> dict[str, Any]:
    output = OutputNames(names)
    source, destination = output.republished
    return {
        "name": output.stream,
        "subjects": list(output.all),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": KEPT_OF_STEP,
        "max_bytes": OUTPUT_BYTES,
        "max_age": int(OUTPUT_AGE * SECOND),
        "num_replicas": retention.replicas,
        "allow_direct": True,
        "duplicate_window": int(DUPLICATE_WINDOW * SECOND),
        "republish": {"src": source, "dest": destination},
    }


def _events(names: Subjects, retention: Retention) -> dict[str, Any]:
    events = EventNames(names)
    return {
        "name": events.stream,
        "subjects": [events.all],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": int(EVENTS_AGE * SECOND),
        "num_replicas": retention.replicas,
        "allow_direct": True,
        "duplicate_window": int(DUPLICATE_WINDOW * SECOND),
    }


def _waits(names: Subjects, retention: Retention) -> dict[str, Any]:
    events = EventNames(names)
    return {
        "name": events.waits_stream,
        "subjects": [events.all_waits],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": int(retention.max_age * SECOND),
        "num_replicas": retention.replicas,
        "allow_direct": True,
    }


def _gates(names: Subjects, retention: Retention) -> dict[str, Any]:
    limits = LimitNames(names)
    return {
        "name": limits.gates_stream,
        "subjects": list(limits.all_of_gates),
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 1,
        "max_age": int(retention.max_age * SECOND),
        "num_replicas": retention.replicas,
        "allow_direct": True,
        "duplicate_window": int(DUPLICATE_WINDOW * SECOND),
    }


def _limits(names: Subjects, retention: Retention) -> dict[str, Any]:
    limits = LimitNames(names)
    return {
        "name": limits.limits_stream,
        "subjects": [limits.all_settings],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "num_replicas": retention.replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
    }


async def ensure_waits_consumer(
    connection: Connection, names: Subjects, *, ack_wait: float, since: float | None
) -> Consumer:
    """Make the consumer of the events that wake steps. ``ack_wait`` is seconds.

    It begins with the events that are stored from a time on, ``since`` (seconds since the epoch), or with the oldest.

    Raises:
        PermissionDenied: this user may not, and it has to be made.
    """
    events = EventNames(names)
    return await ensure_consumer(
        connection,
        events.stream,
        events.waits_consumer,
        events.all,
        ack_wait=ack_wait,
        max_ack_pending=-1,
        since=since,
    )


async def ensure_event_consumer(
    connection: Connection,
    names: Subjects,
    workflow: str,
    subscriptions: Iterable[DeclaredEvent],
    *,
    ack_wait: float,
    since: float,
) -> Consumer:
    """Make the consumer of the events that start runs of a workflow, or bring it up to what is declared.

    It begins with the events that are stored from a time on: ``since``, seconds since the epoch. ``ack_wait`` is
    seconds.

    Raises:
        PermissionDenied: this user may not, and it has to be made or changed.
    """
    events = EventNames(names)
    return await ensure_consumer(
        connection,
        events.stream,
        events.consumer(workflow),
        events.filters_of((one.topic, one.key or "*") for one in subscriptions),
        ack_wait=ack_wait,
        max_ack_pending=-1,
        since=since,
    )


async def forget_event_consumer(connection: Connection, names: Subjects, workflow: str) -> None:
    """Delete that consumer."""
    events = EventNames(names)
    try:
        await connection.api(f"CONSUMER.DELETE.{events.stream}.{events.consumer(workflow)}")
    except BrokerRefused as error:
        if error.code != 404:
            raise


class OptionalStreams:
    """Makes such streams on one connection, each once."""

    def __init__(self, connection: Connection, names: Subjects, retention: Retention) -> None:
        self._connection = connection
        configs = optional_streams_of(names, retention)
        self._configs = {config["name"]: retention.applied(config) for config in configs}
        self._there: set[str] = set()
        self._lock = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The names of all of them."""
        return list(self._configs)

    async def ensure(self, name: str) -> None:
        """Make a stream, unless it is there.

        Raises:
            PermissionDenied: it is missing, and this user may not make it.
            BrokerError: it cannot be made, or is of another edition.
        """
        if name in self._there:
            return
        async with self._lock:  # so that those who need it at once ask once
            if name in self._there:
                return
            config = self._configs[name]
            try:
                await ensure_stream(self._connection, config)
            except BrokerRefused as error:
                if error.err_code not in _NO_ROOM or config.get("max_bytes") != OUTPUT_BYTES:
                    raise
                await ensure_stream(self._connection, config | {"max_bytes": LEAST_BYTES})
            self._there.add(name)

    def forget(self, name: str) -> None:
        """Look again whether a stream is there, when it is needed next."""
        self._there.discard(name)

    async def is_there(self, name: str) -> bool:
        """Tell whether a stream exists.

        Raises:
            PermissionDenied: this user may not ask.
            BrokerError: it is of another edition, or of somebody else.
        """
        if name not in self._there:
            info = await found(self._connection, f"STREAM.INFO.{name}")
            if info is None:
                return False
            check_stream(info["config"], self._configs[name])
            self._there.add(name)
        return True

    async def those_in_use(self) -> list[str]:
        """Return which of them hold anything."""
        infos = await asyncio.gather(*(self.info(name) for name in self._configs))
        return [name for name, info in zip(self._configs, infos, strict=True) if info and info["state"]["messages"]]

    async def info(self, name: str) -> dict[str, Any] | None:
        """Return what the server tells of one of them; None if there is none, or this user may not ask."""
        try:
            return await found(self._connection, f"STREAM.INFO.{name}")
        except BrokerError as error:
            _log.debug("whether there is a stream %s is not known: %s", name, error)
            return None
