"""Who works, and on what: asked of the workers themselves, for nothing that is stored tells it."""

from __future__ import annotations

from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.survey import survey
from jetflow.errors import UnknownWorker
from jetflow.runs.query.rows import RunningRow, WorkerRow
from jetflow.wire.filters import Filters

HOLDER_ANSWERS_WITHIN: Final = 0.5
"""Seconds in which who holds a step says so; nobody else answers."""

_WITH_STACK: Final = b'{"stack":true}'


async def read_workers(session: Session) -> list[WorkerRow]:
    """Return the workers that answer, by name. An answer that cannot be read counts as one of a worker of that name."""
    answers = await survey(session.connection, Filters(session.names).ask_workers())
    rows: list[WorkerRow] = []
    for answer in answers:
        try:
            rows.append(msgspec.json.decode(answer, type=WorkerRow))
        except msgspec.DecodeError:
            continue  # of another version, which tells what this one does not know
    return sorted(rows, key=lambda row: (row.name, row.pid))


async def read_running(session: Session, run: str, *, stack: bool) -> list[RunningRow]:
    """Return the steps of a run that workers hold, by step; none where none is held, or nobody answers."""
    body = _WITH_STACK if stack else b""
    rows: list[RunningRow] = []
    subject = Filters(session.names).ask_run(run)
    for answer in await survey(session.connection, subject, body, within=HOLDER_ANSWERS_WITHIN):
        try:
            rows += msgspec.json.decode(answer, type=list[RunningRow])
        except msgspec.DecodeError:
            continue
    return sorted(rows, key=lambda row: (row.step, row.turn, row.worker))


async def drain(session: Session, worker: str) -> int:
    """Tell a worker to take no more tasks; return how many of that name have heard it.

    Raises:
        UnknownWorker: none has.
    """
    answers = await survey(session.connection, Filters(session.names).drain(), worker.encode(errors="replace"))
    if not answers:
        raise UnknownWorker(worker)
    return len(answers)
