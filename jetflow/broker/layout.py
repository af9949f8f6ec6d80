"""How the streams of a namespace differ from how this jetflow makes them, and bringing them up to it in place.

What an operator may choose (ages, sizes, replicas, placement) is no difference. What else differs was changed by
somebody, or is of an older layout (`jetflow.wire.subjects.LAYOUT`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.connection import Connection
from jetflow.broker.optional import ensure_event_consumer, ensure_waits_consumer, optional_streams_of
from jetflow.broker.topology import (
    Retention,
    ensure_due_consumer,
    ensure_inbox_consumer,
    ensure_step_consumer,
    found,
    layout_of,
    make_stream,
    optional_names,
    streams_of,
)
from jetflow.errors import BrokerError, BrokerRefused
from jetflow.wire.events import EventNames
from jetflow.wire.records import DeclaredEvent
from jetflow.wire.subjects import EDITION, EDITION_KEY, LAYOUT, LAYOUT_KEY, Subjects

_CHOSEN: Final = frozenset({"name", "storage", "max_age", "max_bytes", "num_replicas", "placement", "duplicate_window"})
"""Settings that are an operator's to choose."""

_OFF: Final = ("allow_rollup_hdrs", "no_ack", "sealed", "deny_delete", "deny_purge")
"""Settings that nobody may have turned on. The server turns the first one on where there are schedules."""

_UNLIMITED: Final = {"max_msgs": -1, "max_bytes": -1, "max_age": 0}
"""What a stream of schedules has to have: with any limit the server drops schedules silently."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream, or a consumer of it, has and needs. ``setting`` is empty where it does not exist.

    ``refused`` is why the server did not take the change.
    """

    stream: str
    consumer: str = ""
    setting: str = ""
    has: Any = None
    needs: Any = None
    refused: str = ""

    @property
    def told(self) -> str:
        """The change in one sentence."""
        of = f"the consumer {self.consumer} of {self.stream}" if self.consumer else f"the stream {self.stream}"
        missing = f"{of} does not exist"
        said = f"{of}: {self.setting} is {self.has}, and has to be {self.needs}" if self.setting else missing
        return f"{said} ({self.refused})" if self.refused else said


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses of streams: None leaves what is there. ``max_bytes`` is of each stream that refuses."""

    replicas: int | None = None
    max_bytes: int | None = None


async def changes_of(
    connection: Connection, names: Subjects, wanted: Wanted | None = None, *, needs_all: bool = False
) -> list[Difference]:
    """Return in what the streams differ from what they have to be, and from what is wanted.

    A stream that a namespace may do without need not be there, unless it ``needs_all``.

    Raises:
        BrokerError: they are of another edition of the wire format.
        PermissionDenied: this user may not ask.
    """
    wanted = wanted or Wanted()
    per_stream = await asyncio.gather(*(_changes(connection, config, wanted) for config in _configs(names, wanted)))
    optional = () if needs_all else optional_names(names)
    found = (change for changes in per_stream for change in changes)
    return [change for change in found if change.setting or change.stream not in optional]


async def set_up(connection: Connection, names: Subjects, wanted: Wanted | None = None) -> list[Difference]:
    """Make the streams that are missing, change those that differ, and return what was done or was refused.

    Raises:
        BrokerError: they are of another edition of the wire format.
        PermissionDenied: this user may not make or change one.
    """
    wanted = wanted or Wanted()
    done: list[Difference] = []
    for config in _configs(names, wanted):
        changes = await _changes(connection, config, wanted)
        if any(not change.setting for change in changes):
            changes = await _made(connection, config)
        elif changes:
            changes = await _changed(connection, config["name"], changes)
        done += changes
    return done


def _configs(names: Subjects, wanted: Wanted) -> list[dict[str, Any]]:
    retention = Retention(replicas=wanted.replicas or 1, max_bytes=wanted.max_bytes)
    streams = streams_of(names, retention) + optional_streams_of(names, retention)
    return [retention.applied(config) for config in streams]


async def _made(connection: Connection, config: dict[str, Any]) -> list[Difference]:
    try:
        await make_stream(connection, config)
    except BrokerRefused as error:
        return [Difference(stream=config["name"], refused=f"the server refuses to make it: {error.description}")]
    return [Difference(stream=config["name"])]


async def _changes(connection: Connection, config: dict[str, Any], wanted: Wanted) -> list[Difference]:
    name: str = config["name"]
    there = await found(connection, f"STREAM.INFO.{name}")
    if there is None:
        return [Difference(stream=name)]
    has: dict[str, Any] = there["config"]
    metadata: dict[str, str] = has.get("metadata") or {}
    if metadata.get(EDITION_KEY) != EDITION:
        raise BrokerError(
            f"the stream {name} is of edition {metadata.get(EDITION_KEY, 'none')} of the wire format, and this jetflow "
            f"needs edition {EDITION}. That cannot be changed in place: let its runs end under the jetflow that made "
            "it, and use another namespace meanwhile; or delete its streams, with all that they hold"
        )
    if layout_of(metadata) > int(LAYOUT):
        return []
    needs = _needed(config) | _chosen(config, wanted)
    changes = [
        Difference(stream=name, setting=setting, has=has.get(setting), needs=value)
        for setting, value in needs.items()
        if (has.get(setting) or None) != (value or None)
    ]
    if layout_of(metadata) < int(LAYOUT):
        changes.append(Difference(stream=name, setting="layout", has=layout_of(metadata), needs=int(LAYOUT)))
    return changes


def _needed(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a stream has to have."""
    schedules = "allow_msg_schedules" in config
    off: dict[str, Any] = {name: False for name in _OFF if not (schedules and name == "allow_rollup_hdrs")}
    limits = _UNLIMITED if schedules else {}
    most = {"max_consumers"}  # the account may allow fewer; and the server never changes it
    named = {name: value for name, value in config.items() if name not in _CHOSEN | most | {"metadata"}}
    return named | off | limits


def _chosen(config: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    chosen = {} if wanted.replicas is None else {"num_replicas": wanted.replicas}
    if wanted.max_bytes is not None and "max_bytes" in config:
        chosen |= {"max_bytes": wanted.max_bytes}
    return chosen


async def _changed(connection: Connection, name: str, changes: list[Difference]) -> list[Difference]:
    """Difference one stream, and return the changes with the server's word where it refused."""
    there: dict[str, Any] = (await connection.api(f"STREAM.INFO.{name}"))["config"]
    said: dict[str, str] = there.get("metadata") or {}
    metadata = {key: value for key, value in said.items() if not key.startswith("_nats.")}
    settings = {change.setting: change.needs for change in changes if change.setting != "layout"}
    config = there | settings | {"metadata": metadata | {LAYOUT_KEY: LAYOUT}}
    try:
        await connection.api(f"STREAM.UPDATE.{name}", config)
    except BrokerRefused as error:
        why = f"the server refuses it: {error.description}"
        return [msgspec.structs.replace(change, refused=why) for change in changes]
    return changes


class StepConsumer(msgspec.Struct, frozen=True):
    """The consumer of one step, as workers will ask for it."""

    workflow: str
    step: str
    max_running: int | None = None


class EventsConsumer(msgspec.Struct, frozen=True):
    """The consumer of the events that start runs of a workflow."""

    workflow: str
    on: tuple[DeclaredEvent, ...]


async def missing_consumers(
    connection: Connection, names: Subjects, steps: Sequence[StepConsumer], events: Sequence[EventsConsumer] = ()
) -> list[Difference]:
    """Return which consumers do not exist, or hold back another number of tasks: of these steps, and of all workers.

    Raises:
        PermissionDenied: this user may not ask.
    """
    changes: list[Difference] = []
    of_events = EventNames(names)
    wanted = [
        *((names.tasks_stream, names.consumer(one.workflow, one.step), one.max_running or -1) for one in steps),
        (names.inbox_stream, names.inbox_consumer, -1),
        (names.timers_stream, names.due_consumer, -1),
        (of_events.stream, of_events.waits_consumer, -1),
        *((of_events.stream, of_events.consumer(one.workflow), -1) for one in events),
    ]
    for stream, consumer, most in wanted:
        there = await found(connection, f"CONSUMER.INFO.{stream}.{consumer}")
        if there is None:
            changes.append(Difference(stream=stream, consumer=consumer))
        elif there["config"].get("max_ack_pending") != most:
            has = there["config"].get("max_ack_pending")
            changes.append(Difference(stream=stream, consumer=consumer, setting="max_ack_pending", has=has, needs=most))
    return changes


async def set_up_consumers(
    connection: Connection,
    names: Subjects,
    steps: Sequence[StepConsumer],
    events: Sequence[EventsConsumer] = (),
    *,
    ack_wait: float,
) -> list[Difference]:
    """Make the consumers that workers of these steps pull, and return those that were missing or have changed.

    Raises:
        PermissionDenied: this user may not make or change one.
    """
    changes = await missing_consumers(connection, names, steps, events)
    for one in steps:
        await ensure_step_consumer(
            connection, names, one.workflow, one.step, ack_wait=ack_wait, max_running=one.max_running
        )
    await ensure_inbox_consumer(connection, names, ack_wait=ack_wait)
    await ensure_due_consumer(connection, names, ack_wait=ack_wait)
    await ensure_waits_consumer(connection, names, ack_wait=ack_wait, since=time())
    for one in events:
        await ensure_event_consumer(connection, names, one.workflow, one.on, ack_wait=ack_wait, since=time())
    return changes
