"""How much of what has ended stays stored: by age, by how it ended, and by number.

Any worker deletes, and as many as it takes: one that looks and finds trees whose time has just run out leaves them to
the one that is at it, and one that finds them late goes on until nothing is late any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from math import inf
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.errors import BrokerError
from jetflow.runs.deleting import mark_all_deleted, mark_deleted, remove, remove_trees, streams_in_use
from jetflow.runs.marks import DELETED, REMEMBERED, deleted_by
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token
from jetflow.worker.options import WorkerOptions

TREES_A_PAGE: Final = 256
"""Trees that one mark tells of."""

TREES_A_READ: Final = 32
"""Trees of which one question finds what is stored."""

READS_AT_ONCE: Final = 2
"""Such groups of trees that one worker removes at once."""

PAUSE: Final = 1.0
"""Seconds between two looks of a worker that is at it."""

LOOK_EVERY: Final = 30.0
"""Seconds between two looks of one that is not, unless a tree will be late sooner."""

PATIENCE: Final = 5.0
"""Seconds by which a tree may be late before another worker joins in: more than whoever is at it takes for a look."""

_log = logging.getLogger("jetflow.worker")


class History:
    """Deletes the trees of root runs that ended long ago. `start` and `stop` it; both are safe to call twice."""

    def __init__(self, session: Session, options: WorkerOptions) -> None:
        self._session = session
        self._options = options
        self._read_to: dict[str, int] = {}
        self._late_in = LOOK_EVERY
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to delete."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._delete_for_ever(), name="jetflow history")

    async def stop(self) -> None:
        """Stop deleting. What is left of a tree is found again, for the record of its root goes last."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _delete_for_ever(self) -> None:
        is_at_it, longest = False, min(LOOK_EVERY, self._options.sweep_every)
        patience = min(PATIENCE, longest)
        while True:
            pause = PAUSE if is_at_it else max(PAUSE, min(longest, self._late_in))
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            self._late_in = longest
            try:
                is_at_it = await self.delete_old(patience=0.0 if is_at_it else patience) > 0
                await self.forget_marks()
            except BrokerError as error:
                _log.warning("deleting old runs ended early: %s", error)
            except Exception:
                _log.exception("deleting old runs ended early")

    async def delete_old(self, *, patience: float = 0.0) -> int:
        """Delete the trees that are kept no longer, if the first is late by ``patience`` seconds; return how many."""
        keep, keep_failed = self._options.keep, self._options.keep_failed
        if keep_failed is None or keep_failed == keep:
            deleted = await self._delete_older("all", keep, patience, lambda _: True)
        else:
            deleted = await self._delete_older("succeeded", keep, patience, _has_succeeded)
            deleted += await self._delete_older("failed", keep_failed, patience, lambda one: not _has_succeeded(one))
        return deleted + await self._delete_excess()

    async def forget_marks(self) -> int:
        """Remove the marks of trees that were deleted so long ago that they count no more, and return how many."""
        # Those of cancelled trees stay: whoever looks at a join reads them, however old they are.
        names, store, forgotten = self._session.names, self._session.store, 0
        after = await self._place("marks", names.tasks_stream)
        while (mark := await store.first(names.tasks_stream, names.all_cancelled, after=after)) is not None:
            if time() - mark.time <= REMEMBERED:
                break
            if mark.body == DELETED or deleted_by(mark.body):
                await remove(self._session, names.tasks_stream, [mark])
                forgotten += 1
            after = self._read_to["marks"] = mark.sequence
        return forgotten

    async def _delete_older(self, kind: str, keep: float, patience: float, wanted: Callable[[Stored], bool]) -> int:
        """Delete the trees of one kind that ended more than ``keep`` seconds ago."""
        # The records stand in the order in which the runs ended, so each is read once, not with every look.
        deleted, after = 0, await self._place(kind, self._session.names.records_stream)
        self._late_in = min(self._late_in, keep + patience)  # of what ends from now on
        async for page in _ahead(self._ended(after=after, before=time() - keep - patience)):
            deleted += await self._delete([stored for stored in page if wanted(stored)])
            self._read_to[kind] = page[-1].sequence
        return deleted

    async def _delete_excess(self) -> int:
        """Delete the oldest trees, until no more are left than are kept at most."""
        deleted = 0
        excess = await self._excess()
        while excess > 0:
            oldest = [stored async for page in self._ended(most=min(excess, TREES_A_PAGE)) for stored in page]
            # Counted behind the reading: what another worker deletes meanwhile is in this page, or not in the excess.
            before = await self._excess()
            here = await self._delete(oldest[: max(0, before)])
            deleted += here
            excess = await self._excess()
            if not here and excess >= before:
                break  # what cannot be deleted is not tried for ever
        return deleted

    async def _excess(self) -> int:
        # To count by a filter holds up the writers, and is not needed while all records together are not so many.
        names, most = self._session.names, self._options.keep_runs
        if (await self._state_of(names.records_stream))["messages"] <= most:
            return 0
        return await self._session.store.count(names.records_stream, names.roots_ended) - most

    async def _place(self, kind: str, stream: str) -> int:
        """Return up to which message all was looked at before."""
        place = self._read_to.get(kind, 0)
        last = (await self._state_of(stream))["last_seq"] if place else 0
        return place if place <= last else 0  # a stream that was made anew counts from one again

    async def _state_of(self, stream: str) -> dict[str, int]:
        return (await self._session.connection.api(f"STREAM.INFO.{stream}"))["state"]

    async def _ended(self, *, after: int = 0, before: float = inf, most: float = inf) -> AsyncIterator[list[Stored]]:
        """Yield pages of the records of root runs that ended ``before`` a time, the oldest first."""
        # One by one: for a page, the server would count all that the filter holds behind it, and writers wait for that.
        names, store, page = self._session.names, self._session.store, list[Stored]()
        while most > 0 and (one := await store.first(names.records_stream, names.roots_ended, after=after)) is not None:
            if one.time >= before:
                self._late_in = min(self._late_in, one.time - before)
                break
            after, most = one.sequence, most - 1
            page.append(one)
            if len(page) == TREES_A_PAGE:
                yield page
                page = []
        if page:
            yield page

    async def _delete(self, roots: list[Stored]) -> int:
        """Delete some trees, and return how many another worker had not deleted."""
        if not roots:
            return 0
        await self._mark(roots)
        runs = [last_token(stored.subject) for stored in roots]
        random.shuffle(runs)  # two workers at the same trees share them
        groups = iter([runs[at : at + TREES_A_READ] for at in range(0, len(runs), TREES_A_READ)])
        streams = await streams_in_use(self._session)
        deleted = 0

        async def delete() -> None:
            nonlocal deleted
            for group in groups:
                deleted += await remove_trees(self._session, group, streams)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(READS_AT_ONCE):
                    tasks.create_task(delete())
        except* BrokerError as errors:
            raise errors.exceptions[0] from None
        return deleted

    async def _mark(self, roots: list[Stored]) -> None:
        """Mark those trees as deleted of which something may still be under way: what ended an hour ago is over."""
        lately = [stored for stored in roots if time() - stored.time < REMEMBERED]
        if lately:
            await mark_all_deleted(self._session, [last_token(stored.subject) for stored in lately])
            keyed = [stored for stored in lately if decode_outcome(stored.body).key is not None]
            await asyncio.gather(*(mark_deleted(self._session, last_token(stored.subject)) for stored in keyed))


async def _ahead(pages: AsyncIterator[list[Stored]]) -> AsyncIterator[list[Stored]]:
    """Read the next page while one is dealt with."""
    nothing: list[Stored] = []
    reading = asyncio.ensure_future(anext(pages, nothing))
    try:
        while page := await reading:
            reading = asyncio.ensure_future(anext(pages, nothing))
            yield page
    finally:
        reading.cancel()


def _has_succeeded(stored: Stored) -> bool:
    return decode_outcome(stored.body).status == "succeeded"
