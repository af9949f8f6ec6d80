"""The names and bodies of what steps say while they run (``docs/wire.md``, section Output)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.output import LONGEST_LINE, Writing
from jetflow.engine.tasks import StepAddress
from jetflow.errors import MalformedRecord
from jetflow.wire.headers import Header
from jetflow.wire.records import encode, header_block
from jetflow.wire.subjects import Subjects

OUT: Final = "out"
LOG: Final = "log"
PROGRESS: Final = "progress"

KINDS: Final = (OUT, LOG, PROGRESS)
"""The second token of the subjects in the output stream."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What every word of a step tells of itself.

    ``sequence`` is where it stands in the stream: hand it to ``after=`` to go on behind it. ``attempt`` is of the step,
    from 1; ``turn`` is how often the step had been parked before. ``at`` is seconds since the epoch.
    """

    step: str
    sequence: int
    attempt: int
    turn: int
    at: float


class Chunk(Said, frozen=True, kw_only=True):
    """One value that a step has streamed. ``index`` counts the chunks of one attempt, from 0 in each turn.

    The first one that a reader is given has a higher index where more than 10,000 were streamed.
    """

    value: Any
    index: int


class Progress(Said, frozen=True, kw_only=True):
    """How far a step says that it is: ``fraction`` is from 0 to 1."""

    fraction: float
    text: str = ""


class LogLine(Said, frozen=True, kw_only=True):
    """One line of a step's log. ``level`` is that of logging, in small letters; ``fields`` what else was given."""

    level: str
    message: str
    logger: str = ""
    fields: dict[str, Any] = {}


class WrittenLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line as it is stored: ``docs/wire.md``, section Output."""

    at: float
    level: str = "info"
    message: str = ""
    logger: str = ""
    fields: dict[str, Any] = {}


class WrittenProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's progress as it is stored."""

    fraction: float
    text: str = ""


class Place(NamedTuple):
    """Of which attempt something is: it travels in headers."""

    attempt: int
    writing: Writing


class OutputNames:
    """The names of what steps say in one namespace."""

    def __init__(self, names: Subjects) -> None:
        self.stream: str = f"JF_{names.namespace}_output"
        self.prefix: str = names.prefix

    @property
    def all(self) -> tuple[str, ...]:
        """What the stream holds."""
        return tuple(f"{self.prefix}.{kind}.>" for kind in KINDS)

    @property
    def republished(self) -> tuple[str, str]:
        """From which of its subjects to which live ones the server republishes: all."""
        return f"{self.prefix}.>", f"{self.prefix}.live.>"

    def said(self, kind: str, step: StepAddress) -> str:
        """What one step says, of one kind."""
        return f"{self.prefix}.{kind}.{step.root}.{step.run}.{step.step}"

    def of_run(self, kind: str, run: str, *, root: str = "*", step: str = "*") -> str:
        """What the steps of a run say, of one kind."""
        return f"{self.prefix}.{kind}.{root}.{run}.{step}"

    def live(self, subject: str) -> str:
        """The live copies of a subject, or of a filter."""
        return f"{self.prefix}.live{subject[len(self.prefix) :]}"

    def of_tree(self, root: str) -> list[str]:
        """All that a root run and its descendants have said."""
        return [f"{self.prefix}.{kind}.{root}.>" for kind in KINDS]


def headers_of(place: Place, message_id: str, *, index: int | None = None, is_raw: bool = False) -> bytes:
    """Return the headers of something that a step says."""
    headers = {
        Header.MESSAGE_ID: message_id,
        Header.ATTEMPT: str(place.attempt),
        Header.TURN: str(place.writing.turn),
        Header.DELIVERY: str(place.writing.delivery),
    }
    if index is not None:
        headers[Header.INDEX] = str(index)
    if is_raw:
        headers[Header.RAW] = "1"
    return header_block(headers)


def place_of(headers: dict[str, str]) -> Place:
    """Return of which attempt something is; what says nothing, or nonsense, is of the first."""
    turn, delivery = _number(headers, Header.TURN, 0), _number(headers, Header.DELIVERY, 1)
    return Place(_number(headers, Header.ATTEMPT, 1), Writing(turn, delivery))


def _number(headers: dict[str, str], name: str, default: int) -> int:
    said = headers.get(name, "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else default


_read_lines = msgspec.json.Decoder(list[WrittenLine]).decode
_read_progress = msgspec.json.Decoder(WrittenProgress).decode


def written_lines(lines: list[WrittenLine]) -> bytes:
    """Return the body of a message of log lines."""
    return encode(lines)


def line_of(at: float, level: str, message: str, logger: str, fields: dict[str, Any]) -> WrittenLine:
    """Return a line that can be stored: a message that is too long is cut, and what JSON cannot hold is its text."""
    if len(message) > LONGEST_LINE:
        message = f"{message[: LONGEST_LINE - 1]}…"
    told = {str(name): _plain(value) for name, value in fields.items()}
    return WrittenLine(at=at, level=level, message=_writable(message), logger=_writable(logger), fields=told)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _writable(str(value)[:LONGEST_LINE])


def _writable(text: str) -> str:
    return text.encode(errors="replace").decode()


def chunk_of(step: str, sequence: int, at: float, headers: dict[str, str], body: bytes) -> Chunk:
    """Return a chunk that was stored.

    Raises:
        MalformedRecord: it cannot be read.
    """
    place = place_of(headers)
    try:
        value = body if Header.RAW in headers else msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord("chunk", str(error)) from error
    return Chunk(
        step=step,
        sequence=sequence,
        attempt=place.attempt,
        turn=place.writing.turn,
        at=at,
        value=value,
        index=_number(headers, Header.INDEX, 0),
    )


def lines_of(step: str, sequence: int, headers: dict[str, str], body: bytes) -> list[LogLine]:
    """Return the log lines of a message that was stored.

    Raises:
        MalformedRecord: they cannot be read.
    """
    place = place_of(headers)
    try:
        lines = _read_lines(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord("log", str(error)) from error
    return [
        LogLine(
            step=step,
            sequence=sequence,
            attempt=place.attempt,
            turn=place.writing.turn,
            at=line.at,
            level=line.level,
            message=line.message,
            logger=line.logger,
            fields=line.fields,
        )
        for line in lines
    ]


def progress_of(step: str, sequence: int, at: float, headers: dict[str, str], body: bytes) -> Progress:
    """Return a step's progress that was stored.

    Raises:
        MalformedRecord: it cannot be read.
    """
    place = place_of(headers)
    try:
        written = _read_progress(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord("progress", str(error)) from error
    return Progress(
        step=step,
        sequence=sequence,
        attempt=place.attempt,
        turn=place.writing.turn,
        at=at,
        fraction=written.fraction,
        text=written.text,
    )
