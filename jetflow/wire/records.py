"""Messages to and from what the engine speaks of: header blocks, tasks, JSON record bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite, nan
from typing import Any, Final, TypeVar

import msgspec

from jetflow.engine.elders import read_elders, read_rerun
from jetflow.engine.graph import Graph
from jetflow.engine.identity import is_name
from jetflow.engine.joins import JoinRecord
from jetflow.engine.levels import parts_of
from jetflow.engine.limits import WhenFull
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.tasks import NONE, Attempt, Failure, Outcome, Task
from jetflow.engine.windows import Page
from jetflow.errors import MalformedRecord
from jetflow.wire.headers import Header
from jetflow.wire.subjects import TWIN

SHOWN_KEY: Final = 200
"""Characters of a key that are kept for showing; identity uses the whole key."""

MARK_TEXT: Final = 200
"""Characters of each text in a mark."""

MARK_BYTES: Final = 1000
"""Bytes that a mark may have."""

T = TypeVar("T")

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Mark(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a run ended other than well, in short: what lists and groups of failures are made of."""

    type: str = ""
    message: str = ""
    step: str | None = None
    place: str = ""
    key: str | None = None


class DeclaredBatch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How tasks of a step are gathered for one call. ``wait`` is seconds; ``keyed``: by keys of their inputs."""

    size: int
    wait: float
    max_bytes: int
    keyed: bool = False


class DeclaredLimit(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A limit of a workflow, or a step: how many runs of a key at once. Without ``keyed`` all of them share one key."""

    name: str
    max: int
    when_full: WhenFull = "queue"
    keyed: bool = False


class DeclaredStep(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is worth knowing of a step without its code. ``timeout`` is seconds; see `jetflow.Step` for the others.

    ``doc`` is the first paragraph of the function's documentation; ``source`` tells where it is declared.
    ``conditions`` are those by which it is skipped, cancelled or run, as text.
    """

    attempts: int = 1
    timeout: float | None = None
    max_running: int | None = None
    join: JoinPolicy = ALL_SUCCEED
    conditions: dict[str, str] = {}
    batch: DeclaredBatch | None = None
    requires: tuple[tuple[str, str, Any], ...] = ()
    limits: tuple[DeclaredLimit, ...] = ()
    idempotent: bool = False
    doc: str = ""
    source: str = ""


class DeclaredEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename={"if_": "if"}):
    """Events that start runs of a workflow. ``predicate`` says that its code decides further."""

    topic: str
    key: str | None = None
    if_: tuple[tuple[str, str, Any], ...] = ()
    predicate: bool = False


class DeclaredRate(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A rate limit of a workflow: so many units of a key in ``per`` seconds. Without ``keyed`` all share one key."""

    name: str
    max: int
    per: float
    keyed: bool = False


class Declaration(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A declared workflow as the registry bucket holds it. Schemas are JSON Schema.

    ``steps`` is for showing, and no part of what the version stands for.
    """

    graph: Graph
    version: str
    deadline: float | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    output: msgspec.Raw = msgspec.Raw(b"{}")
    steps: dict[str, DeclaredStep] = {}
    on: tuple[DeclaredEvent, ...] = ()
    limits: tuple[DeclaredLimit, ...] = ()
    rates: tuple[DeclaredRate, ...] = ()


def _reader(what: str, kind: type[T]) -> Callable[[bytes | str], T]:
    """Return a function that reads records of one kind, and raises `MalformedRecord` for what is none."""
    read = msgspec.json.Decoder(kind).decode

    def decode(body: bytes | str) -> T:
        try:
            return read(body)
        except (ValueError, RecursionError) as error:
            raise MalformedRecord(what, str(error)) from error

    return decode


decode_join: Callable[[bytes | str], JoinRecord] = _reader("join record", JoinRecord)
decode_declaration: Callable[[bytes | str], Declaration] = _reader("declaration", Declaration)
decode_graph: Callable[[bytes | str], Graph] = _reader("graph", Graph)
_read_outcome: Callable[[bytes | str], Outcome] = _reader("outcome", Outcome)
_read_attempt: Callable[[bytes | str], Attempt] = _reader("attempt", Attempt)
_read_page: Callable[[bytes | str], Page] = _reader("page of a stream", Page)
_read_mark: Callable[[bytes | str], Mark] = _reader("mark", Mark)


def decode_outcome(body: bytes | str) -> Outcome:
    """Return the outcome that a record holds. One that cannot be read is a failure: whoever waits for it must go on."""
    try:
        return _read_outcome(body)
    except MalformedRecord as error:
        return Outcome(status="failed", error=Failure("MalformedOutcome", str(error)))


def decode_page(body: bytes | str) -> Page:
    """Return the page of a stream that a record holds.

    Raises:
        MalformedRecord: it cannot be read.
    """
    return _read_page(body)


def decode_attempt(body: bytes | str) -> Attempt:
    """Return the attempt that a record holds. One that cannot be read was an attempt all the same, and it failed."""
    try:
        return _read_attempt(body)
    except MalformedRecord as error:
        return Attempt(error=Failure("MalformedAttempt", str(error)))


def decode_mark(body: bytes | str) -> Mark:
    """Return the mark that a record holds. Its subject says what counts, so that one that cannot be read is empty."""
    try:
        return _read_mark(body)
    except MalformedRecord:
        return Mark()


def mark_body(outcome: Outcome) -> bytes:
    """Return the mark of a run that ended other than well."""
    error = outcome.error or Failure("", "")
    body, limit = b"", MARK_TEXT
    while not body or len(body) > MARK_BYTES:
        mark = Mark(
            type=_cut(error.type, limit),
            message=_cut(error.message, limit),
            step=error.step,
            place=_cut(error.place, limit),
            key=None if outcome.key is None else _cut(outcome.key, limit),
        )
        body, limit = encode(mark), limit // 2
    return body


def _cut(text: str, limit: int) -> str:
    """Return at most so many characters of a text that JSON can hold."""
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return shown.encode("utf-8", "replace").decode()


_TASK_SUBJECT: Final = re.compile(
    r"jf\.[^.]+\.task\.([^.]+)\.([^.]+)\.([0-9a-f]{32})\.(-|[0-9a-f]{32})\.([0-9a-f]{32})\.(0|[1-9][0-9]{0,8})"
    rf"(\.{TWIN})?"
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
    return encode(_cut(key, SHOWN_KEY)).decode()


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
    if task.shared:
        headers[Header.SHARED] = "1"
    if task.value is not None:
        headers[Header.VALUE] = task.value
    if task.not_before is not None:
        headers[Header.NOT_BEFORE] = f"{task.not_before:.3f}"
    if not (task.places is task.held is task.elder is task.level is None):
        headers |= _headers_of_few(task)
    if task.tried:
        headers[Header.ATTEMPT] = str(task.tried)
    return headers


def _headers_of_few(task: Task) -> dict[str, str]:
    """Return the headers of a run that has limits or a level, or is a rerun."""
    told = {
        Header.PLACES: task.places,
        Header.HELD: task.held,
        Header.ELDER: task.elder,
        Header.RERUN: task.rerun,
        Header.LEVEL: task.level,
    }
    return {name: value for name, value in told.items() if value is not None}


def parse_task(subject: str, headers: Mapping[str, str] | None, body: bytes) -> Task:
    """Return the task that a message asks for.

    Raises:
        MalformedTask: the subject or a header is not as ``docs/wire.md`` says.
    """
    found = _TASK_SUBJECT.fullmatch(subject)
    if found is None:
        raise MalformedTask(f"subject {subject!r} does not end in workflow, step, root, parent, run and turn")
    workflow, queue, root, parent, run, turn, twin = found.groups()
    step, level = parts_of(queue)
    headers = headers or {}
    depth = headers.get(Header.DEPTH, "0")
    parent_step = headers.get(Header.PARENT_STEP, NONE)
    if not _NUMBER.fullmatch(depth):
        raise MalformedTask(f"header {Header.DEPTH} is {depth!r}, not a number")
    if parent == NONE and root != run:
        raise MalformedTask(f"subject {subject!r} is of a root run that is not its own root")
    if (parent == NONE) != (parent_step == NONE) or not (parent_step == NONE or is_name(parent_step)):
        raise MalformedTask(f"header {Header.PARENT_STEP} is {parent_step!r}, and the parent run is {parent!r}")
    tried = headers.get(Header.ATTEMPT)
    if tried is not None and not _NUMBER.fullmatch(tried):
        raise MalformedTask(f"header {Header.ATTEMPT} is {tried!r}, not a number")
    metadata = headers.get(Header.METADATA)
    elder, rerun = headers.get(Header.ELDER), headers.get(Header.RERUN)
    if elder is not None or rerun is not None:
        _check_rerun(elder, rerun)
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
        deadline=read_time(headers, Header.DEADLINE) if Header.DEADLINE in headers else None,
        not_before=read_time(headers, Header.NOT_BEFORE) if Header.NOT_BEFORE in headers else None,
        eager=Header.EAGER in headers,
        shared=Header.SHARED in headers,
        value=headers.get(Header.VALUE),
        places=headers.get(Header.PLACES),
        held=headers.get(Header.HELD),
        tried=0 if tried is None else int(tried),
        elder=elder,
        rerun=rerun,
        level=headers.get(Header.LEVEL) if level is None else level,
        leveled=level is not None,
        twin=twin is not None,
    )


def _check_rerun(elder: str | None, rerun: str | None) -> None:
    """Refuse headers of a rerun that tell none.

    Raises:
        MalformedTask: they are such.
    """
    try:
        read_elders(elder)
        read_rerun(rerun)
    except ValueError as error:
        raise MalformedTask(f"header {Header.ELDER} or {Header.RERUN}: {error}") from None


def read_time(headers: Mapping[str, str], name: str) -> float | None:
    """Return the time that a header tells, in seconds since the epoch; None where there is no such header.

    Raises:
        MalformedTask: it is none.
    """
    text = headers.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not isfinite(seconds):
        raise MalformedTask(f"header {name} is {text!r}, not seconds since the epoch")
    return seconds


def _read_key(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text
