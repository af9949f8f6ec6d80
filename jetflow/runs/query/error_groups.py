"""Failures in groups: those that are alike but for what differs from run to run.

They are read from the marks, which hold the error in short, so that 15,000 cost a tenth of a second. Of more than some
thousand the newest are grouped, and the answer says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from jetflow.broker.seeking import Seeker
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.runs.query.rows import ErrorGroup, ErrorGroups, Searched
from jetflow.wire.filters import ANY, Filters
from jetflow.wire.records import Mark, decode_mark

MOST_READ: Final = 5_000
"""Failures of each status that are grouped, the newest."""

SAMPLES: Final = 5
"""Runs that a group names, the newest."""

TREND: Final = 24
"""Parts of the time over which a group's failures are counted."""

STATUSES: Final = ("failed", "timed_out")
"""What counts as a failure; who was cancelled has not failed."""

_VARIES: Final = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`"""
    r"|\b0x[0-9a-fA-F]+\b"
    r"|\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{12,}\b"
    r"|[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?"
)


def normalised(message: str) -> str:
    """Return a message without what differs from one failure to the next: quoted text, ids, numbers."""
    return _VARIES.sub("…", message.partition("\n")[0]).strip()


async def read_errors(
    session: Session, *, root: str = ANY, run: str = ANY, workflow: str | None, since: float | None, limit: int
) -> ErrorGroups:
    """Group the failures of a run's children, or of all runs."""
    filters, stream = Filters(session.names), session.names.records_stream
    subjects = [filters.marks(root, run, status=status, workflow=workflow or ANY) for status in STATUSES]
    totals = await asyncio.gather(*(session.store.count(stream, subject, since=since) for subject in subjects))
    read = await asyncio.gather(
        *(_newest(session, stream, subject, total, since) for subject, total in zip(subjects, totals, strict=True))
    )
    marks = [message for messages in read for message in messages]
    total = sum(totals)
    groups = grouped(marks)
    times = [message.time for message in marks]
    return ErrorGroups(
        items=tuple(groups[:limit]),
        total=max(total, len(marks)),
        searched=Searched(
            since=min(times, default=since) if len(marks) < total else since,
            until=max(times, default=None),
            runs=len(marks),
            complete=len(marks) >= total and len(groups) <= limit,
        ),
    )


async def _newest(session: Session, stream: str, subject: str, total: int, since: float | None) -> list[Stored]:
    if not total:
        return []
    floor = 0
    if since is not None:
        first, _ = await session.store.page(stream, subject, size=1, since=since)
        floor = first[0].sequence - 1 if first else 0
    newest = await Seeker(session.store, stream, subject).newest(MOST_READ, floor=floor)
    return newest.found


class _Gathered(msgspec.Struct):
    mark: Mark
    message: str
    workflow: str
    status: str
    times: list[float] = []
    runs: list[str] = []


def grouped(marks: Iterable[Stored]) -> list[ErrorGroup]:
    """Return marks in groups, the largest first, the newest of equal ones first."""
    found: dict[tuple[str, ...], _Gathered] = {}
    ordered = sorted(marks, key=lambda message: -message.sequence)
    for message in ordered:
        status, workflow, run = message.subject.split(".")[6:9]
        mark = decode_mark(message.body)
        text = normalised(mark.message)
        key = (mark.type, text, mark.place, workflow, mark.step or "", status)
        group = found.setdefault(key, _Gathered(mark, text, workflow, status))
        group.times.append(message.time)
        group.runs.append(run)
    first = min((message.time for message in ordered), default=0.0)
    last = max((message.time for message in ordered), default=0.0)
    groups = [_group(key, one, first, last) for key, one in found.items()]
    return sorted(groups, key=lambda group: (-group.count, -group.last))


def _group(key: tuple[str, ...], one: _Gathered, first: float, last: float) -> ErrorGroup:
    trend = [0] * TREND
    for moment in one.times:
        share = (moment - first) / (last - first) if last > first else 1.0
        trend[min(TREND - 1, int(share * TREND))] += 1
    return ErrorGroup(
        fingerprint=sha256("\n".join(key).encode()).hexdigest()[:16],
        type=one.mark.type,
        message=one.message,
        sample=one.mark.message,
        workflow=one.workflow,
        status=one.status,
        step=one.mark.step,
        place=one.mark.place,
        count=len(one.runs),
        first=min(one.times),
        last=max(one.times),
        samples=tuple(one.runs[:SAMPLES]),
        trend=tuple(trend),
    )
