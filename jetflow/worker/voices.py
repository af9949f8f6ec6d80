"""The voices of the steps that run in a worker, and what they log by the standard library."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Final

from jetflow.broker.session import Session
from jetflow.logs import FIELDS, added_to
from jetflow.wire.output import OutputNames
from jetflow.worker.assignment import Assignment
from jetflow.worker.undertone import Silence, Undertone
from jetflow.worker.voice import Voice

_OWN: Final = "jetflow"
"""Loggers of this name, and below it, are the worker's own: what they tell is of no step."""


class Voices:
    """Gives each step that says something a voice; with ``keeps_logs``, all of them one for what they log.

    `start` it, and `stop` it at the end.
    """

    def __init__(self, session: Session, *, keeps_logs: bool) -> None:
        self._session = session
        self._names = OutputNames(session.names)
        self._loop = asyncio.get_running_loop()
        self._giving = threading.Lock()
        self._running: dict[tuple[Any, Any], Assignment] = {}
        self._handler = _Handler(self) if keeps_logs else None
        self.keeps_logs: bool = keeps_logs

    def start(self) -> None:
        """Listen to what is logged."""
        if self._handler is not None:
            logging.getLogger().addHandler(self._handler)

    def stop(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)

    def of(self, work: Assignment) -> Voice:
        """Return the voice of an assignment."""
        with self._giving:  # a step may have threads of its own
            if work.voice is None:
                count = work.delivery.count
                work.voice = _kind_of(work)(self._session, self._names, work.task, work.attempt, count, self._loop)
            return work.voice

    def enter(self, work: Assignment) -> None:
        """Take note that a body begins."""
        if self.keeps_logs and not work.task.twin:
            self.of(work)
            self._running[work.task.run, work.task.step] = work

    async def leave(self, work: Assignment) -> None:
        """Take note that it has ended, and wait until all that it has said is stored."""
        if self.keeps_logs and self._running.get((work.task.run, work.task.step)) is work:
            del self._running[work.task.run, work.task.step]
        if work.voice is not None:
            await work.voice.close()

    def hear(self, record: logging.LogRecord) -> None:
        """Keep what a step has logged."""
        work = self._running.get((getattr(record, "run", None), getattr(record, "step", None)))
        if work is None or work.voice is None:
            return
        message = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = _WORDS.formatException(record.exc_info)
        if record.exc_text:
            message = f"{message}\n{record.exc_text}"
        fields = {name: value for name, value in added_to(record).items() if name not in FIELDS}
        work.voice.log(record.levelname.lower(), message, logger=record.name, fields=fields, at=record.created)


def _kind_of(work: Assignment) -> type[Voice]:
    if work.task.twin:
        return Silence
    return Undertone if work.known_step.idempotent else Voice


class _Handler(logging.Handler):
    def __init__(self, voices: Voices) -> None:
        super().__init__()
        self._voices = voices

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _OWN or record.name.startswith(f"{_OWN}."):
            return
        try:
            self._voices.hear(record)
        except Exception:  # as every handler does: logging must not fail a step
            self.handleError(record)


_WORDS: Final = logging.Formatter()
