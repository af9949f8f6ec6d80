"""The names and headers of events (``docs/wire.md``, section Events)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from jetflow.engine.awaiting import Awaited
from jetflow.engine.events import NO_KEY, event_id, is_topic, without_overlap
from jetflow.errors import InvalidInput, MalformedRecord
from jetflow.wire.headers import Header
from jetflow.wire.records import encode, header_block
from jetflow.wire.subjects import Subjects, last_token
from jetflow.wire.timer_subjects import TASK_TOKENS

EVENT: Final = "event"

ANY_KEY: Final = "="
"""Stands in subjects of waits for events with any key, or none."""

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
        self.waits_stream: str = f"JF_{names.namespace}_waits"
        self.waits_consumer: str = "waits"
        self.notice: str = f"{names.prefix}.live.waits"
        """Where whoever waits first tells the workers that somebody does."""
        self._prefix = f"{names.prefix}.{EVENT}"
        self._wait = f"{names.prefix}.wait"
        self._task = f"{names.prefix}.task"

    @property
    def all(self) -> str:
        """What the stream holds."""
        return f"{self._prefix}.>"

    def event(self, topic: str, key: str = NO_KEY) -> str:
        """The subject of an event; with a pattern, or ``*`` for the key, a filter."""
        return f"{self._prefix}.{key}.{topic}"

    # --- waits

    @property
    def all_waits(self) -> str:
        """What the stream of waits holds."""
        return f"{self._wait}.>"

    def wait(self, awaited: Awaited, task: str, number: int, *, timed: bool = False) -> str:
        """The subject of one of the waits of a parked turn, whose task has the subject ``task``.

        A topic is one token here: dots are ``=``. A ``timed`` one has a timer beside it.
        """
        key = ANY_KEY if awaited.key is None else awaited.key
        kind = ("if" if awaited.if_ else "all") + ("-timed" if timed else "")
        return f"{self._wait}.{awaited.topic.replace('.', '=')}.{key}.{task[len(self._task) + 1 :]}.{kind}-{number}"

    def waits_for(self, topic: str, key: str) -> tuple[str, str]:
        """The waits that an event of a topic, and with the token of its key, may end."""
        token = topic.replace(".", "=")
        return f"{self._wait}.{token}.{key}.>", f"{self._wait}.{token}.{ANY_KEY}.>"

    def waits_of_tree(self, root: str) -> str:
        """Every wait of a root run and its descendants."""
        return f"{self._wait}.*.*.*.*.{root}.>"

    def task_of_wait(self, subject: str) -> str | None:
        """Return the subject of the task whose turn waits; None if it is of no wait."""
        tokens = subject[len(self._wait) + 1 :].split(".")
        return ".".join([self._task, *tokens[2:-1]]) if len(tokens) == 3 + TASK_TOKENS else None

    @staticmethod
    def is_conditional(subject: str) -> bool:
        """Tell whether a wait has conditions."""
        return last_token(subject).startswith("if-")

    @staticmethod
    def is_timed(subject: str) -> bool:
        """Tell whether the turn of a wait has a timer."""
        return "-timed-" in last_token(subject)

    # --- consumers

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

    def key_of(self, subject: str) -> str:
        """Return the token of the key of an event."""
        parsed = self.parse(subject)
        return NO_KEY if parsed is None else parsed[1]

    @staticmethod
    def written_wait(awaited: Awaited) -> bytes:
        """Return the body of a wait."""
        return encode(awaited)

    @staticmethod
    def read_wait(body: bytes) -> Awaited:
        """Return what a wait waits for; raises msgspec's DecodeError for what is none."""
        return msgspec.json.decode(body, type=Awaited)

    @staticmethod
    def consumer(workflow: str) -> str:
        """The durable consumer of the events that start runs of a workflow."""
        return f"on={workflow}"


SIGNALS: Final = "run"
"""The first name of the topics of signals; the key of such an event is the id of the run."""


def signal_topic(name: str) -> str:
    """Return the topic of the signals of a name.

    Raises:
        InvalidInput: it is no name.
    """
    if not isinstance(name, str) or not is_topic(f"{SIGNALS}.{name}"):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{name!r} is no name of a signal: 1 to 64 of A-Z a-z 0-9 _ -, several with dots between")
    return f"{SIGNALS}.{name}"


def headers_of(
    message_id: str, key: str | None, metadata: bytes | None, trace: str | None, level: str | None = None
) -> bytes:
    """Return the headers of an event. ``key`` is given where it does not stand in the subject as it is."""
    headers = {Header.MESSAGE_ID: message_id}
    if key is not None and key.isprintable() and key == key.strip():
        headers[Header.KEY] = key
    if metadata is not None:
        headers[Header.METADATA] = metadata.decode()
    if trace is not None:
        headers[Header.TRACE] = trace
    if level is not None:
        headers[Header.LEVEL] = level
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
