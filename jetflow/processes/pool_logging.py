"""What steps log in processes: each record goes to the worker, and to the handlers there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final

import msgspec

from jetflow.processes.pool_messages import Call, Logged

_PLAIN: Final = (str, int, float, bool, type(None))
_LEFT_OUT: Final = frozenset({"msg", "args", "exc_info"})
_ROOT: Final = ""


class ToWorker(logging.Handler):
    """Sends records on. ``call`` is the step that runs."""

    def __init__(self, send: Callable[[Logged], None]) -> None:
        super().__init__()
        self._send = send
        self._words = logging.Formatter()
        self.call: Call | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, with what is known of the run."""
        try:
            if record.exc_info and not record.exc_text:
                record.exc_text = self._words.formatException(record.exc_info)
            message = record.getMessage()
            told = {
                name: value if isinstance(value, _PLAIN) else str(value)
                for name, value in vars(record).items()
                if name not in _LEFT_OUT
            }
            told["msg"] = message
            if self.call is not None:  # known here also where the record was made in a thread of the step's own
                told = msgspec.structs.asdict(self.call.told) | told
            self._send(Logged(told))
        except Exception:  # as every handler does: logging must not fail a step
            self.handleError(record)


def begin(levels: Mapping[str, int], send: Callable[[Logged], None]) -> ToWorker:
    """In a process: have all that is logged sent, at the levels that the worker's loggers have."""
    handler = ToWorker(send)
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    return handler


def levels_here() -> dict[str, int]:
    """Return the levels that loggers were given, by name; the root's name is empty."""
    loggers = logging.getLogger().manager.loggerDict.items()
    levels = {name: one.level for name, one in loggers if isinstance(one, logging.Logger) and one.level}
    return {_ROOT: logging.getLogger().level, **levels}


def hand_on(message: Logged) -> None:
    """In the worker: have a record handled as if it had been made here."""
    record: dict[str, Any] = message.record
    made = Context().run(logging.makeLogRecord, record)  # which is of no step that happens to run here
    logger = logging.getLogger(made.name)
    if logger.isEnabledFor(made.levelno):
        logger.handle(made)
