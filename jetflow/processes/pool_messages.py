"""What a worker and a process of its pool say to one another: frames of MessagePack, with 4 bytes of length each.

Inputs and outputs are JSON inside, as they are on the wire. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.engine.tasks import Failure
from jetflow.logs import InStep
from jetflow.processes.pool_errors import Crossed
from jetflow.processes.pool_places import Place, Program

LENGTH: Final = 4
"""Bytes in front of each frame that tell its length."""


class Prepare(msgspec.Struct, tag="prepare", frozen=True, kw_only=True):
    """The first word to a process: what it has to import. ``levels`` are those of the worker's loggers, by name."""

    argv: list[str]
    program: Program | None
    places: list[Place]
    levels: dict[str, int]


class Call(msgspec.Struct, tag="call", frozen=True, kw_only=True):
    """One step to run. ``is_the_runs`` says that its output is that of the run, and is of the workflow's type.

    ``trace`` is the span of the attempt, as it travels.
    """

    number: int = 0
    workflow: str
    step: str
    run: str
    root: str
    attempt: int
    input: bytes
    is_the_runs: bool
    metadata: bytes | None = None
    outputs: dict[str, bytes] = {}
    skipped: tuple[str, ...] = ()
    errors: tuple[Failure, ...] = ()
    trace: str | None = None
    level: str | None = None

    @property
    def told(self) -> InStep:
        """What log records tell of it."""
        return InStep(self.run, self.root, self.workflow, self.step, self.attempt)


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What came of an `Ask`."""

    ask: int
    body: Any


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The error that an `Ask` led to."""

    ask: int
    error: Crossed


class End(msgspec.Struct, tag="end", frozen=True):
    """The last word to a process that has nothing to do."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """A process has imported everything, or why it could not."""

    trouble: str = ""


class Began(msgspec.Struct, tag="began", frozen=True):
    """A process calls the function of a step now: before that its death is no attempt."""


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """What the context of a step asks of the worker, in the call of that number."""

    call: int
    ask: int
    what: str
    given: list[Any]


class Drop(msgspec.Struct, tag="drop", frozen=True):
    """Nobody waits for the answer to an `Ask` any more."""

    ask: int


class Returned(msgspec.Struct, tag="returned", frozen=True):
    """A step's output, as JSON; and the process's memory, in MB."""

    output: bytes
    memory: float


class Raised(msgspec.Struct, tag="raised", frozen=True, kw_only=True):
    """A step's error, with all that its worker has to know of it: see `jetflow.processes.pool_errors.RaisedThere`."""

    failure: Failure
    frames: str
    is_final: bool
    pause: float | None = None
    memory: float = 0.0


class Logged(msgspec.Struct, tag="logged", frozen=True):
    """What a step has logged: the attributes of its record."""

    record: dict[str, Any]


class Spoken(msgspec.Struct, tag="spoken", frozen=True):
    """What a step says while it runs, in the call of that number: its progress, a log line, what it needs.

    It has no answer.
    """

    call: int
    what: str
    given: list[Any]


ToChild: TypeAlias = Prepare | Call | Answer | Refused | End
ToWorker: TypeAlias = Ready | Began | Ask | Drop | Returned | Raised | Logged | Spoken

_encode = msgspec.msgpack.Encoder().encode
read_by_child: Callable[[bytes], ToChild] = msgspec.msgpack.Decoder(ToChild).decode
read_by_worker: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(ToWorker).decode


def framed(message: ToChild | ToWorker) -> bytes:
    """Return a message as a frame."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH, "little") + body


class Frames:
    """Cuts what arrives into the bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are whole now."""
        buffer = self._buffer
        buffer += data
        at = 0
        while (end := at + LENGTH) <= len(buffer):
            end += int.from_bytes(buffer[at:end], "little")
            if end > len(buffer):
                break
            yield bytes(buffer[at + LENGTH : end])
            at = end
        del buffer[:at]
