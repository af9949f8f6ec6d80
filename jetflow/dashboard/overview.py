"""What goes on in the namespace, on one page."""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec

from jetflow.client import Client
from jetflow.runs.query.rows import Bucket, ErrorGroups, Page, QueueRow, RunRow, WorkerRow

BUCKETS: Final = 60
LISTED: Final = 10
NEWEST: Final = 20
FEW: Final = 5_000
"""Root runs up to which those that are open are looked for among all; of more, among those of the last day."""

MOST: Final = 1000
"""Open root runs that are looked at for the longest."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The four figures. ``running`` are steps, ``waiting`` tasks; ``failed`` and ``ended`` are root runs of the window.

    ``rate`` is how many root runs ended a second in the last part of the window that is over.
    """

    running: int
    waiting: int
    failed: int
    ended: int
    rate: float


class WorkersTold(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that answer, in all."""

    count: int
    slots: int
    used: int
    waiting: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on. ``queues`` are those whose oldest task has waited for longest; ``longest`` are open root runs.

    ``longest_complete`` is false where more are open than were looked at.
    """

    at: float
    window: float
    counts: Counts
    series: tuple[Bucket, ...]
    queues: tuple[QueueRow, ...]
    errors: ErrorGroups
    longest: tuple[RunRow, ...]
    longest_complete: bool
    workers: WorkersTold
    newest: tuple[RunRow, ...]


async def read_overview(client: Client, window: float) -> Overview:
    """Ask for all of it at once."""
    now = time()
    (newest, is_open, are_few), queues, workers, errors, series = await asyncio.gather(
        _roots(client),
        client.queues(),
        client.workers(),
        client.errors(since=now - window, limit=LISTED),
        client.history(since=now - window, buckets=BUCKETS),
    )
    waits = sorted((row for row in queues if row.oldest is not None), key=lambda row: row.oldest or 0.0)
    longest = sorted(is_open.items, key=lambda row: row.triggered or 0.0)
    return Overview(
        at=now,
        window=window,
        counts=_counts(queues, workers, series, now),
        series=tuple(series),
        queues=tuple(waits[:LISTED]),
        errors=errors,
        longest=tuple(longest[:LISTED]),
        longest_complete=is_open.searched.complete and (not are_few or is_open.next is None),
        workers=WorkersTold(
            count=len(workers),
            slots=sum(row.slots for row in workers),
            used=sum(row.used for row in workers),
            waiting=sum(row.waiting for row in workers),
        ),
        newest=newest.items,
    )


async def _roots(client: Client) -> tuple[Page[RunRow], Page[RunRow], bool]:
    """Return the newest root runs, those that are open, and whether those were looked for among all."""
    newest = await client.runs(limit=NEWEST)
    are_few = newest.total is not None and newest.total <= FEW
    if are_few:
        return newest, await client.runs(status="open", limit=MOST), True
    return newest, await client.runs(status="open", sort="triggered", limit=LISTED), False


def _counts(queues: list[QueueRow], workers: list[WorkerRow], series: list[Bucket], now: float) -> Counts:
    over = [bucket for bucket in series if bucket.until <= now]
    last = over[-1] if over else None
    return Counts(
        running=sum(row.used for row in workers),
        waiting=sum(row.waiting for row in queues),
        failed=sum(bucket.failed + bucket.timed_out for bucket in series),
        ended=sum(bucket.ended for bucket in series),
        rate=0.0 if last is None else last.ended / (last.until - last.since),
    )
