"""Root runs that wait for another attempt of one of their steps: found among those that are open.

No filter of the broker says so. So the open ones are read as any list of them is, the newest first, and then what is
stored of their attempts, for many runs at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import Attempt
from jetflow.errors import MalformedRecord
from jetflow.runs.query.rows import Page, RunRow, Searched
from jetflow.wire.records import decode_attempt
from jetflow.wire.subjects import BEGUN, last_token

MOST_LOOKED_AT: Final = 2000
"""Open runs that are looked at."""

AT_ONCE: Final = 100
"""Runs whose attempts are read at once."""

ReadOpen = Callable[[str | None], Awaitable[Page[RunRow]]]
"""Reads a page of open runs, behind the one that this is the ``next`` of."""


async def read_retrying(session: Session, read_open: ReadOpen, limit: int) -> Page[RunRow]:
    """Return those open runs that are to be tried again, each with when, and with what its last attempt failed of."""
    found: list[RunRow] = []
    after, looked, oldest = None, 0, None
    while len(found) < limit and looked < MOST_LOOKED_AT:
        page = await read_open(after)
        looked += len(page.items)
        for at in range(0, len(page.items), AT_ONCE):
            found += await _retrying(session, page.items[at : at + AT_ONCE])
        after, oldest = page.next, page.searched.since
        if after is None:
            break
    return Page(
        items=tuple(found[:limit]),
        searched=Searched(since=oldest, until=time(), runs=looked, complete=after is None and len(found) <= limit),
    )


async def _retrying(session: Session, rows: Sequence[RunRow]) -> list[RunRow]:
    names, store, now = session.names, session.store, time()
    filters = [names.attempts_of_run(row.id, row.id) for row in rows]
    read = await store.few(names.records_stream, filters)
    if read is None or read.left:  # they have very many attempts: run by run
        messages = [one for subject in filters for one in await store.all_of(names.records_stream, subject)]
    else:
        messages = read.found
    due: dict[str, Attempt] = {}
    for message in sorted(messages, key=lambda one: one.sequence):
        attempt = _attempt(message)
        if attempt is not None and attempt.again is not None and attempt.again > now:
            due[message.subject.split(".")[4]] = attempt
    return [
        msgspec.structs.replace(row, again=due[row.id].again, error=due[row.id].error) for row in rows if row.id in due
    ]


def _attempt(message: Stored) -> Attempt | None:
    if last_token(message.subject).startswith(BEGUN):
        return None
    try:
        return decode_attempt(message.body)
    except MalformedRecord:
        return None
