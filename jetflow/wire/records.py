"""Messages to and from what the engine speaks of: header blocks, tasks, JSON record bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite, nan
from typing import Any, Final

import msgspec

from jetflow.engine.graph import Graph
from jetflow.engine.identity import is_name
from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import NONE, Attempt, Failure, Outcome, Task
from jetflow.wire.subjects import Header

SHOWN_KEY: Final = 200
"""Characters of a key that are kept for showing; identity uses the whole key."""

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
decode_join: Callable[[bytes | str], JoinRecord] = msgspec.json.Decoder(JoinRecord).decode
decode_attempt: Callable[[bytes | str], Attempt] = msgspec.json.Decoder(Attempt).decode


_read_outcome: Callable[[bytes | str], Outcome] = msgspec.json.Decoder(Outcome).decode


def decode_outcome(body: bytes | str) -> Outcome:
    """Return the outcome that a record holds. One that cannot be read is a failure: whoever waits for it must go on."""
    try:
        return _read_outcome(body)
    except (ValueError, RecursionError) as error:
        unreadable = Failure("MalformedOutcome", f"the stored outcome cannot be read: {error}")
        return Outcome(status="failed", error=unreadable)


class Declaration(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A declared workflow as the registry bucket holds it. Schemas are JSON Schema."""

    graph: Graph
    version: str
    deadline: float | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    output: msgspec.Raw = msgspec.Raw(b"{}")


decode_declaration: Callable[[bytes | str], Declaration] = msgspec.json.Decoder(Declaration).decode
decode_graph: Callable[[bytes | str], Graph] = msgspec.json.Decoder(Graph).decode


_TASK_SUBJECT: Final = re.compile(
    r"jf\.[^.]+\.task\.([^.]+)\.([^.]+)\.([0-9a-f]{32})\.(-|[0-9a-f]{32})\.([0-9a-f]{32})\.(0|[1-9][0-9]{0,8})"
)

_NUMBER: Final = re.compile("[0-9]{1,9}")


class MalformedTask(ValueError):
    """A message on a task subject that no rule of ``docs/wire.md`` produces."""


def header_block(headers: Mapping[str, str]) -> bytes:
    """Return headers as they stand on the wire. Values hold no line breaks: they are tokens, numbers or JSON."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def shown_key(key: str) -> str:
    """Return a key as it is kept for showing, on one line."""
    shown = key if len(key) <= SHOWN_KEY else f"{key[: SHOWN_KEY - 1]}…"
    return encode(shown.encode("utf-8", "replace").decode()).decode()


def task_headers(task: Task, message_id: str) -> dict[str, str]:
    """Return the headers of a task's message."""
    headers = {
        Header.MESSAGE_ID: message_id,
        Header.PARENT_STEP: task.parent_step,
        Header.VERSION: task.version,
        Header.DEPTH: str(task.depth),
    }
    if task.digest:
        headers[Header.DIGEST] = task.digest
    if task.key is not None:
        headers[Header.KEY] = shown_key(task.key)
    if task.metadata is not None:
        headers[Header.METADATA] = task.metadata.decode()
    if task.trace is not None:
        headers[Header.TRACE] = task.trace
    if task.deadline is not None:
        headers[Header.DEADLINE] = f"{task.deadline:.3f}"
    if task.eager:
        headers[Header.EAGER] = "1"
    if task.value is not None:
        headers[Header.VALUE] = task.value
    if task.tried:
        headers[Header.ATTEMPT] = str(task.tried)
    return headers


def parse_task(subject: str, headers: Mapping[str, str] | None, body: bytes) -> Task:
    """Return the task that a message asks for.

    Raises:
        MalformedTask: the subject or a header is not as ``docs/wire.md`` says.
    """
    found = _TASK_SUBJECT.fullmatch(subject)
    if found is None:
        raise MalformedTask(f"subject {subject!r} does not end in workflow, step, root, parent, run and turn")
    workflow, step, root, parent, run, turn = found.groups()
    headers = headers or {}
    depth = headers.get(Header.DEPTH, "0")
    parent_step = headers.get(Header.PARENT_STEP, NONE)
    if not _NUMBER.fullmatch(depth):
        raise MalformedTask(f"header {Header.DEPTH} is {depth!r}, not a number")
    if parent == NONE and root != run:
        raise MalformedTask(f"subject {subject!r} is of a root run that is not its own root")
    if (parent == NONE) != (parent_step == NONE) or not (parent_step == NONE or is_name(parent_step)):
        raise MalformedTask(f"header {Header.PARENT_STEP} is {parent_step!r}, and the parent run is {parent!r}")
    tried = headers.get(Header.ATTEMPT, "0")
    if not _NUMBER.fullmatch(tried):
        raise MalformedTask(f"header {Header.ATTEMPT} is {tried!r}, not a number")
    metadata = headers.get(Header.METADATA)
    return Task(
        workflow=workflow,
        step=step,
        root=root,
        parent=parent,
        run=run,
        turn=int(turn),
        parent_step=parent_step,
        version=headers.get(Header.VERSION, ""),
        depth=int(depth),
        digest=headers.get(Header.DIGEST, ""),
        input=body,
        key=_read_key(headers.get(Header.KEY)),
        metadata=None if metadata is None else metadata.encode(),
        trace=headers.get(Header.TRACE),
        deadline=_read_deadline(headers.get(Header.DEADLINE)),
        eager=Header.EAGER in headers,
        value=headers.get(Header.VALUE),
        tried=int(tried),
    )


def _read_deadline(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        deadline = float(text)
    except ValueError:
        deadline = nan
    if not isfinite(deadline):
        raise MalformedTask(f"header {Header.DEADLINE} is {text!r}, not seconds since the epoch")
    return deadline


def _read_key(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text
