"""What log records tell of the step in which they are made: ``run``, ``root``, ``workflow``, ``step`` and ``attempt``.

They are attributes of each record, whoever logs, on the event loop, in the thread of a step and in a process of one:
for formats such as ``%(run)s``, filters, and formatters that write all that a record holds. What the caller gives as
``extra`` under the same name is kept. `JsonFormatter` writes records as lines of JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

FIELDS: Final = ("run", "root", "workflow", "step", "attempt")
"""What a record tells of its step."""

_HELD: Final = "_jetflow_step"
_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", _HELD})


class InStep(msgspec.Struct, frozen=True, gc=False):
    """The attempt in which something is logged. It holds nothing else: what is begun in a step may outlive it."""

    run: str
    root: str
    workflow: str
    step: str
    attempt: int


current: ContextVar[InStep | None] = ContextVar("jetflow_step", default=None)
"""The attempt that runs here; None outside of steps."""


def fields() -> Mapping[str, str | int]:
    """Return what records tell here, for other libraries than the standard one: nothing outside of steps."""
    step = current.get()
    return {} if step is None else msgspec.structs.asdict(step)


class _Field:
    """Reads a field of a record's step; one that was given as ``extra`` comes first."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: Any, owner: type) -> Any:
        step: InStep | None = None if record is None else record.__dict__.get(_HELD)
        if step is None:
            raise AttributeError(self._name)
        return getattr(step, self._name)


class _OfStep:
    """A record that was made in a step. Its fields are written into it when somebody reads it, behind any ``extra``."""

    run: _Field = _Field()
    root: _Field = _Field()
    workflow: _Field = _Field()
    step: _Field = _Field()
    attempt: _Field = _Field()

    def getMessage(self) -> str:  # noqa: N802 - the name of logging
        step: InStep | None = self.__dict__.pop(_HELD, None)
        if step is not None:
            for name in FIELDS:
                self.__dict__.setdefault(name, getattr(step, name))
        told: Any = super()
        return told.getMessage()


class StepRecord(_OfStep, logging.LogRecord):
    """A standard record that was made in a step."""


def install() -> None:
    """Have records tell of their step, in this process. Safe to call twice; other factories of records are kept."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Factory):
        logging.setLogRecordFactory(_Factory(factory))


class _Factory:
    def __init__(self, before: Callable[..., logging.LogRecord]) -> None:
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._before(*args, **kwargs)
        step = current.get()
        if step is not None:
            record.__class__ = _told_of(type(record))
            record.__dict__[_HELD] = step
        return record


@lru_cache(maxsize=16)
def _told_of(kind: type[logging.LogRecord]) -> type[logging.LogRecord]:
    return StepRecord if kind is logging.LogRecord else type(f"Step{kind.__name__}", (_OfStep, kind), {})


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON.

    ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message`` come first, then what is known of the step, then
    what was given as ``extra``, and ``exception`` with the traceback. What JSON cannot hold is written as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        message = record.getMessage()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        held = vars(record)
        line |= {name: held[name] for name in FIELDS if name in held}
        line |= {name: value for name, value in held.items() if name not in _OWN and name not in line}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _line(line).decode()


def added_to(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record tells beside what every record does: of its step, and what was given as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _line(line: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(line, enc_hook=str)
    except (TypeError, ValueError):  # a key that is none, a number that JSON has not, text with half a character
        return msgspec.json.encode({name: str(value).encode(errors="replace").decode() for name, value in line.items()})
