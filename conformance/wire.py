"""The wire format as the suite knows it: every subject, what a message on it is, and how ids are made.

One table (`SUBJECTS`) serves both ways: a case builds a subject from its fields, and the log of what the tested worker
sends shows the fields of each subject.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

SEAL: Final = 2**40
START: Final = "_start"
END: Final = "_end"
NONE: Final = "-"

SUBJECTS: Final = {
    "task": "jf.{ns}.task.{workflow}.{step}.{root}.{parent}.{run}.{turn}",
    "cancel": "jf.{ns}.cancel.{root}.{run}",
    "run": "jf.{ns}.run.{root}.{parent}.{parent_step}.{run}",
    "step": "jf.{ns}.step.{root}.{run}.{step}",
    "join": "jf.{ns}.join.{root}.{run}.{step}.{turn}",
    "mark": "jf.{ns}.mark.{root}.{parent}.{parent_step}.{status}.{workflow}.{run}",
    "try": "jf.{ns}.try.{root}.{run}.{step}.{turn}.{delivery}",
    "once": "jf.{ns}.once.{root}.{run}.{step}.{name}",
    "value": "jf.{ns}.value.{root}.{digest}.{chunk}",
    "timer": "jf.{ns}.timer.wake.{workflow}.{step}.{root}.{parent}.{run}.{turn}",
    "due": "jf.{ns}.due.wake.{workflow}.{step}.{root}.{parent}.{run}.{turn}",
    "event": "jf.{ns}.event.{key}.{topic}",
    "wait": "jf.{ns}.wait.{topic}.{key}.{workflow}.{step}.{root}.{parent}.{run}.{turn}.{n}",
    "live.run": "jf.{ns}.live.run.{root}.{parent}.{parent_step}.{run}",
    "live.cancel": "jf.{ns}.live.cancel.{root}.{run}",
    "in.trigger": "jf.{ns}.in.trigger.{workflow}",
    "in.look": "jf.{ns}.in.look.{root}.{run}.{step}",
    "in.limit": "jf.{ns}.in.limit.{place}",
    "entry": "jf.{ns}.entry.{place}.{root}.{parent}.{run}",
    "gone": "jf.{ns}.gone.{root}.{run}",
    "limit": "$KV.jf_{ns}_limits.limit.{limit}",
    "rate": "$KV.jf_{ns}_limits.rate.{limit}",
    "window": "$KV.jf_{ns}_limits.window.{limit}.{key}",
    "count": "$KV.jf_{ns}_counters.join.{root}.{run}.{step}",
    "gate": "$KV.jf_{ns}_counters.gate.{root}.{run}.{step}",
    "tree": "$KV.jf_{ns}_counters.tree.{root}.{run}.{step}",
    "workflow": "$KV.jf_{ns}_workflows.{workflow}",
    "version": "$KV.jf_{ns}_workflows.{workflow}.{version}",
}
"""Every subject that a worker or a client publishes to, by the kind of the message. ``ns`` is the namespace."""

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "run": {"output": None, "value": None, "error": None, "errors": [], "step": "", "attempt": 1, "key": None},
    "step": {"output": None, "value": None, "error": None, "errors": [], "step": "", "attempt": 1, "key": None},
    "join": {
        "total": 0,
        "policy": {},
        "members": None,
        "whole": None,
        "id_sum": "",
        "borrowed": [],
        "excused": [],
        "status": "succeeded",
        "error": None,
        "output": None,
        "until": None,
        "booked": None,
        "tried": 0,
        "attempt": 1,
    },
    "try": {"attempt": 1, "error": None, "returned": False, "again": None},
}
"""What a field of a record is that was left out, as far as cases ask."""


class Names:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.tasks = f"JF_{namespace}_tasks"
        self.records = f"JF_{namespace}_records"
        self.values = f"JF_{namespace}_values"
        self.timers = f"JF_{namespace}_timers"
        self.inbox = f"JF_{namespace}_inbox"
        self.events = f"JF_{namespace}_events"
        self.gates = f"JF_{namespace}_gates"
        self.limits = f"KV_jf_{namespace}_limits"
        self.counters = f"KV_jf_{namespace}_counters"
        self.workflows = f"KV_jf_{namespace}_workflows"
        self.streams = (
            self.tasks,
            self.records,
            self.values,
            self.timers,
            self.inbox,
            self.counters,
            self.workflows,
        )
        self._patterns = {kind: _pattern(text, namespace) for kind, text in SUBJECTS.items()}

    def subject(self, kind: str, **fields: object) -> str:
        """Return the subject of a message, or, with ``*`` for a field, a filter."""
        return SUBJECTS[kind].format(ns=self.namespace, **fields)

    def parse(self, subject: str) -> tuple[str, dict[str, str]]:
        """Return the kind of a message and the fields of its subject; ``other`` for what is no message of jetflow."""
        for kind, pattern in self._patterns.items():
            if found := pattern.fullmatch(subject):
                return kind, found.groupdict()
        return "other", {}


def _pattern(text: str, namespace: str) -> re.Pattern[str]:
    escaped = re.escape(text.replace("{ns}", namespace))
    if text.endswith(".{topic}"):  # it has dots of its own
        escaped = escaped.replace(r"\{topic\}", "(?P<topic>.+)")
    escaped = escaped.replace(r"\{place\}", r"(?P<place>[^.]+\.[^.]+)")  # a limit and a key
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", escaped))


@dataclass
class Event:
    """One message that the tested process sent, or, if ``way`` is ``<``, was sent.

    An acknowledgement (``ack``, ``nak``, ``term``, ``wpi``) has the subject, the fields and the delivery count of the
    message that it is for. A request to the JetStream API is a ``get`` (STREAM.MSG.GET), a ``list`` (STREAM.INFO with a
    filter) or a ``purge``, and has the subject or filter that it asks for; any other is an ``api``.
    """

    number: int
    at: float
    way: str
    kind: str
    subject: str
    headers: dict[str, str]
    body: bytes
    fields: dict[str, str] = field(default_factory=dict)
    delivery: int = 0
    reply: str = ""

    @cached_property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body or b"null")
        except ValueError:
            return None

    def field(self, name: str) -> Any:
        """Return a field of a record: what is left out has its default."""
        record = self.json if isinstance(self.json, dict) else {}
        return record.get(name, DEFAULTS.get(self.kind, {}).get(name))

    @property
    def by(self) -> int:
        """How much a count adds."""
        return int(self.headers.get("Nats-Incr", "0"))


# --- identity


def canonical(value: Any) -> bytes:
    """Return a value as canonical JSON. Enough for the inputs of the cases: of numbers, it knows whole ones only."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def hashed(data: bytes) -> str:
    """Return the hex of SHA-256, cut to 16 bytes: all ids and digests are made so."""
    return hashlib.sha256(data).hexdigest()[:32]


def digest(value: Any) -> str:
    """Return the digest of an input."""
    return f"2-{hashed(canonical(value))}"


def root_id(workflow: str, key: str) -> str:
    """Return the id of the root run that a key names."""
    return hashed(f"-\n{workflow}\nkey\n{key}".encode())


def child_id(parent: str, workflow: str, *, value: Any = None, key: str | None = None) -> str:
    """Return the id of a child: of its key, or of its input."""
    kind, name = ("hash", digest(value)) if key is None else ("key", key)
    return hashed(f"{parent}\n{workflow}\n{kind}\n{name}".encode())


def new_id() -> str:
    """Return an id for a run that nothing names."""
    return uuid.uuid4().hex


def id_sum(ids: Iterable[str]) -> str:
    """Return the sum of ids modulo 2^128, as join records have it."""
    return f"{sum(int(one, 16) for one in ids) % 2**128:032x}"


def members(ids: Iterable[str]) -> str:
    """Return ids as join records have them."""
    return base64.b64encode(b"".join(bytes.fromhex(one) for one in ids)).decode()


def split_members(packed: str) -> set[str]:
    """Return the ids that a join record names."""
    data = base64.b64decode(packed)
    return {data[at : at + 16].hex() for at in range(0, len(data), 16)}
