"""The streams, buckets and consumers of a namespace, and how they are made.

What exists already is left as an operator has set it. ``NATS-Rollup`` and schedules stay off on the streams that hold
state: with either, whoever may publish to one key could wipe or forge others. Timers have a stream of their own for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from jetflow.broker.connection import Connection
from jetflow.broker.times import SECOND, seconds_of, written
from jetflow.errors import BrokerError, BrokerRefused, PermissionDenied, UnknownNamespace
from jetflow.wire.events import EventNames
from jetflow.wire.limits import LimitNames
from jetflow.wire.output import OutputNames
from jetflow.wire.subjects import EDITION, EDITION_KEY, LAYOUT, LAYOUT_KEY, Subjects

DUPLICATE_WINDOW: Final = 120.0
"""Seconds for which the server remembers message ids. Only the fast path: subjects are the guarantee."""

MOST_STEPS: Final = 100_000
"""Consumers that the stream of tasks may have. Where nothing is said, the server takes no more than 1,000."""

_STREAM_EXISTS: Final = 10058
_TOO_MANY_CONSUMERS: Final = 10026
_TOO_MANY_STREAMS: Final = 10027

_log = logging.getLogger("jetflow.broker")


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """On which servers streams are made: those of a cluster, and those that have all tags."""

    cluster: str | None = None
    tags: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Return it as a stream's configuration holds it."""
        cluster = {} if self.cluster is None else {"cluster": self.cluster}
        return cluster | ({"tags": list(self.tags)} if self.tags else {})


class Consumer(msgspec.Struct, frozen=True):
    """What the server has told of a consumer: when it was made, and its shortest ``ack_wait`` in seconds."""

    created: float
    ack_wait: float


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How records are kept, when the streams are made. ``max_age`` is seconds, ``max_bytes`` is of each stream."""

    replicas: int = 1
    max_age: float = 30 * 24 * 3600.0
    max_bytes: int | None = None
    placement: Placement = Placement()

    def applied(self, stream: dict[str, Any]) -> dict[str, Any]:
        """Return a stream's configuration with the limits that an operator has chosen.

        ``max_bytes`` is only for streams that then refuse what is new. The server refuses that setting for timers and
        counters, which would lose what is old.
        """
        placement = self.placement.settings()
        limited = self.max_bytes is not None and stream.get("discard") == "new"
        bound = {"max_bytes": self.max_bytes} if limited else {}
        return stream | bound | ({"placement": placement} if placement else {})


async def ensure_streams(connection: Connection, names: Subjects, retention: Retention) -> bool:
    """Make the streams of a namespace that do not exist, and return whether there is one for large values.

    It asks first: a user who may not make streams works on those that an administrator has made. An account that may
    have only so many streams does without the one for large values.

    Raises:
        BrokerRefused: the server does not make one.
        PermissionDenied: this user may not ask for one, or not make one that is missing.
        BrokerError: one that exists is of another edition of the wire format, or of somebody else.
    """
    streams = {stream["name"]: retention.applied(stream) for stream in streams_of(names, retention)}
    values = streams.pop(names.values_stream)
    await asyncio.gather(*(ensure_stream(connection, stream) for stream in streams.values()))
    try:
        await ensure_stream(connection, values)
    except BrokerRefused as error:
        if error.err_code != _TOO_MANY_STREAMS:
            raise
        _log.warning(
            "this account may have no more streams, and has none for large values (%s): such a value is refused until "
            "the account may have %d",
            names.values_stream,
            len(streams) + 1,
        )
        return False
    return True


async def check_streams(connection: Connection, names: Subjects) -> bool:
    """Check that a namespace is there, without making anything; return whether there is a stream for large values.

    Raises:
        UnknownNamespace: nothing was ever made of it.
        PermissionDenied: this user may not ask.
        BrokerError: a stream is of another edition of the wire format, or of somebody else.
    """
    streams = {stream["name"]: stream for stream in streams_of(names, Retention())}
    infos = await asyncio.gather(*(found(connection, f"STREAM.INFO.{name}") for name in streams))
    state = dict(zip(streams, infos, strict=True))
    for name, stream in streams.items():
        there = state[name]
        if there is not None:
            check_stream(there["config"], stream)
        elif name != names.values_stream:
            raise UnknownNamespace(names.namespace, name)
    return state[names.values_stream] is not None


def streams_of(names: Subjects, retention: Retention) -> list[dict[str, Any]]:
    """Return the configuration of each stream, as it is made where nobody has chosen anything."""
    metadata = {EDITION_KEY: EDITION, LAYOUT_KEY: LAYOUT}
    return [stream | {"metadata": metadata} for stream in _settings(names, retention)]


def _settings(names: Subjects, retention: Retention) -> list[dict[str, Any]]:
    kept: dict[str, Any] = {
        "retention": "limits",
        "storage": "file",
        "max_msgs_per_subject": 1,
        "max_age": int(retention.max_age * SECOND),
        "num_replicas": retention.replicas,
        "allow_direct": True,
    }
    write_once: dict[str, Any] = kept | {
        "discard": "new",
        "discard_new_per_subject": True,
        "allow_batched": True,
        "allow_atomic": True,
        "duplicate_window": int(DUPLICATE_WINDOW * SECOND),
    }
    return [
        write_once
        | {
            "name": names.tasks_stream,
            "subjects": list(names.all_tasks),
            "max_consumers": MOST_STEPS,
            "republish": _republish(names.republished_tasks),
        },
        write_once
        | {
            "name": names.records_stream,
            "subjects": list(names.all_records),
            "republish": _republish(names.republished_records),
        },
        {
            "name": names.timers_stream,
            "subjects": list(names.all_timers),
            "retention": "workqueue",
            "storage": "file",
            "discard": "old",  # and no limits at all: with any, the server drops schedules silently
            "num_replicas": retention.replicas,
            "allow_direct": True,
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
            "allow_atomic": True,
            "allow_batched": True,
        },
        kept | {"name": names.counters_stream, "subjects": [names.all_counters], "allow_msg_counter": True},
        kept | {"name": names.workflows_stream, "subjects": [names.all_workflows], "max_age": 0},
        {
            "name": names.inbox_stream,
            "subjects": [names.all_inbox],
            "retention": "workqueue",
            "storage": "file",
            "discard": "new",
            "num_replicas": retention.replicas,
        },
        write_once | {"name": names.values_stream, "subjects": [names.all_values]},
    ]


def _republish(subjects: tuple[str, str]) -> dict[str, str]:
    source, destination = subjects
    return {"src": source, "dest": destination}


async def ensure_stream(connection: Connection, config: dict[str, Any]) -> None:
    """Make a stream that does not exist, and check one that does.

    Raises:
        BrokerRefused, PermissionDenied: it cannot be made, or not by this user.
        BrokerError: one that exists is of another edition of the wire format, or of somebody else.
    """
    name: str = config["name"]
    there = await found(connection, f"STREAM.INFO.{name}")
    if there is None:
        try:
            there = await make_stream(connection, config)
        except PermissionDenied as denied:
            raise PermissionDenied(denied.subject, needed=f"the stream {name} does not exist") from None
        except BrokerRefused as error:
            if error.err_code != _STREAM_EXISTS:  # made meanwhile, with other settings
                raise
            there = await connection.api(f"STREAM.INFO.{name}")
    check_stream(there["config"], config)


async def make_stream(connection: Connection, config: dict[str, Any]) -> dict[str, Any]:
    """Make a stream; with as many consumers as the account may have, if those are fewer."""
    operation = f"STREAM.CREATE.{config['name']}"
    try:
        return await connection.api(operation, config)
    except BrokerRefused as error:
        if error.err_code != _TOO_MANY_CONSUMERS or "max_consumers" not in config:
            raise
    return await connection.api(operation, {name: value for name, value in config.items() if name != "max_consumers"})


def check_stream(found: dict[str, Any], config: dict[str, Any]) -> None:
    """Check that a stream that was made with other settings holds the same: how long and how often is its owner's.

    Raises:
        BrokerError: it does not.
    """
    name = config["name"]
    metadata: dict[str, str] = found.get("metadata") or {}  # where the server keeps keys of its own, too
    edition = metadata.get(EDITION_KEY)
    if edition != EDITION:
        has = "no edition" if edition is None else f"edition {edition}"
        raise BrokerError(
            f"the stream {name} has {has} of jetflow's wire format in its metadata, and this jetflow needs edition "
            f"{EDITION}: use another namespace, or delete the streams of this one"
        )
    for setting in ("subjects", "republish"):
        has, needs = found.get(setting), config.get(setting)
        if has != needs and not (setting == "subjects" and layout_of(metadata) > int(LAYOUT) and _holds(has, needs)):
            older = f" (layout {layout_of(metadata)}, and this jetflow makes {LAYOUT})"
            raise BrokerError(
                f"the stream {name} was made by another version of jetflow{older}, or by somebody else: its {setting} "
                f"is {has}, and has to be {needs}. `jetflow setup` mends it where the server allows that; else use "
                "another namespace, or delete its streams"
            )


def layout_of(metadata: Mapping[str, str]) -> int:
    """Return the layout that a stream was made with; 0 where it says none, as before there were any."""
    said = metadata.get(LAYOUT_KEY, "0")
    return int(said) if said.isdecimal() else 0


def _holds(has: list[str] | None, needs: list[str] | None) -> bool:
    """Return whether a stream of a newer layout takes all that this one sends there."""
    return set(needs or ()) <= set(has or ())


def optional_names(names: Subjects) -> tuple[str, ...]:
    """Return the names of the streams that a namespace may do without: see `jetflow.broker.optional`."""
    events, limits = EventNames(names), LimitNames(names)
    return OutputNames(names).stream, events.stream, events.waits_stream, limits.gates_stream, limits.limits_stream


async def delete_streams(connection: Connection, names: Subjects) -> None:
    """Delete a namespace with all that it holds."""
    for stream in (
        names.inbox_stream,
        names.tasks_stream,
        names.records_stream,
        names.counters_stream,
        names.workflows_stream,
        names.values_stream,
        names.timers_stream,
        *optional_names(names),
    ):
        try:
            await connection.api(f"STREAM.DELETE.{stream}")
        except BrokerRefused as error:
            if error.code != 404:
                raise


async def ensure_step_consumer(
    connection: Connection,
    names: Subjects,
    workflow: str,
    step: str,
    *,
    ack_wait: float,
    max_running: int | None,
    is_declared: bool = True,
) -> Consumer:
    """Make or update the consumer of one step, and return what it is. ``ack_wait`` is seconds.

    ``max_running`` is ``max_ack_pending``; without one it is unlimited, for a finite limit would deadlock trees whose
    parents and children share a consumer. A step that is not declared here keeps what another version of it has.
    """
    return await ensure_consumer(
        connection,
        names.tasks_stream,
        names.consumer(workflow, step),
        names.tasks_of_step(workflow, step),
        ack_wait=ack_wait,
        max_ack_pending=-1 if max_running is None else max_running,
        is_declared=is_declared,
    )


async def ensure_inbox_consumer(connection: Connection, names: Subjects, *, ack_wait: float) -> Consumer:
    """Make or update the consumer of what comes from outside. ``ack_wait`` is seconds."""
    return await ensure_consumer(
        connection,
        names.inbox_stream,
        names.inbox_consumer,
        names.all_inbox,
        ack_wait=ack_wait,
        max_ack_pending=-1,
    )


async def ensure_due_consumer(connection: Connection, names: Subjects, *, ack_wait: float) -> Consumer:
    """Make or update the consumer of what timers have become. ``ack_wait`` is seconds."""
    return await ensure_consumer(
        connection, names.timers_stream, names.due_consumer, names.all_due, ack_wait=ack_wait, max_ack_pending=-1
    )


async def ensure_consumer(
    connection: Connection,
    stream: str,
    name: str,
    subject: str | list[str],
    *,
    ack_wait: float,
    max_ack_pending: int,
    is_declared: bool = True,
    since: float | None = None,
) -> Consumer:
    """Make a consumer that is not there, and leave what somebody has set of one that is.

    It begins with the oldest message, or at a time: ``since``, seconds since the epoch. (Not with what is *new*: where
    a leader goes that has told nobody yet where it began, the next one begins anew.)

    Its ``ack_wait`` grows to that of a worker that asks for more, and never shrinks, for workers that hold tasks keep
    them alive by what it was when they started. Several filters are those of whoever asked last. With a ``backoff``
    the server has the first pause of it stand there.
    """
    filtered = {"filter_subject": subject} if isinstance(subject, str) else {"filter_subjects": sorted(subject)}
    config: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        **filtered,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": int(ack_wait * SECOND),
        "max_ack_pending": max_ack_pending,
        "max_deliver": -1,
        "max_waiting": 4096,
    }
    if since is not None:
        config |= {"deliver_policy": "by_start_time", "opt_start_time": written(since)}
    answer = await found(connection, f"CONSUMER.INFO.{stream}.{name}")
    needed = f"the consumer {name} of {stream} {'does not exist' if answer is None else 'has to be changed'}"
    if answer is not None:
        there: dict[str, Any] = answer["config"]
        longest = there["ack_wait"] if there.get("backoff") else max(there["ack_wait"], config["ack_wait"])
        chosen = filtered if isinstance(subject, list) else {}
        config = there | {"ack_wait": longest} | chosen | ({"max_ack_pending": max_ack_pending} if is_declared else {})
    if answer is None or config != answer["config"]:
        request = {"stream_name": stream, "config": config}
        of = f".{subject}" if isinstance(subject, str) else ""
        try:
            answer = await connection.api(f"CONSUMER.CREATE.{stream}.{name}{of}", request)
        except PermissionDenied as denied:
            raise PermissionDenied(denied.subject, needed=needed) from None
        except BrokerRefused:
            if since is None or (answer := await found(connection, f"CONSUMER.INFO.{stream}.{name}")) is None:
                raise
            # another worker has made it meanwhile, to begin at another time
    return Consumer(seconds_of(answer["created"]), _shortest_wait(answer["config"]))


def _shortest_wait(config: dict[str, Any]) -> float:
    """Return the seconds after which a consumer delivers again what nobody has kept alive, at the earliest."""
    backoff: list[int] = config.get("backoff") or []
    return min(config["ack_wait"], *backoff) / SECOND if backoff else config["ack_wait"] / SECOND


async def found(connection: Connection, operation: str) -> dict[str, Any] | None:
    """Return what the server tells of a stream or consumer, or None if there is none."""
    try:
        return await connection.api(operation)
    except BrokerRefused as error:
        if error.code != 404:
            raise
        return None


async def consumers_of(connection: Connection, stream: str) -> list[str]:
    """Return the names of a stream's consumers."""
    names: list[str] = []
    while True:
        answer = await connection.api(f"CONSUMER.NAMES.{stream}", {"offset": len(names)})
        page: list[str] = answer.get("consumers") or []
        names += page
        if not page or len(names) >= int(answer.get("total", 0)):
            return names
