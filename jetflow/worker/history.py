"""How much of what has ended stays stored: by age, by how it ended, and by number.

Every worker deletes, page by page until nothing is left that is too old. Each takes the trees of a page in an order of
its own, by chance, and asks for a tree before it deletes it: so two workers share the work.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.errors import BrokerError, UnknownRun
from jetflow.runs.cancelling import DELETED, REMEMBERED, delete_tree
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token
from jetflow.worker.options import WorkerOptions

TREES_A_PAGE: Final = 250
"""Trees that are looked at together."""

TREES_AT_ONCE: Final = 4
"""Trees that one worker deletes at once: each purge holds up the writers of its stream."""

_log = logging.getLogger("jetflow.worker")


class History:
    """Deletes the trees of root runs that ended long ago. `start` and `stop` it; both are safe to call twice."""

    def __init__(self, session: Session, options: WorkerOptions) -> None:
        self._session = session
        self._options = options
        self._read_to: dict[str, int] = {}
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
        while True:
            await asyncio.sleep(self._options.sweep_every * random.uniform(0.75, 1.25))
            try:
                await self.delete_old()
                await self.forget_marks()
            except BrokerError as error:
                _log.warning("deleting old runs ended early: %s", error)
            except Exception:
                _log.exception("deleting old runs ended early")

    async def delete_old(self) -> int:
        """Delete the trees that are kept no longer, and return how many."""
        keep, keep_failed = self._options.keep, self._options.keep_failed
        if keep_failed is None or keep_failed == keep:
            deleted = await self._delete_older("all", keep, lambda _: True)
        else:
            deleted = await self._delete_older("succeeded", keep, _has_succeeded)
            deleted += await self._delete_older("failed", keep_failed, lambda stored: not _has_succeeded(stored))
        return deleted + await self._delete_excess()

    async def forget_marks(self) -> int:
        """Remove the marks of trees that were deleted so long ago that they count no more, and return how many."""
        # Those of cancelled trees stay: whoever looks at a join reads them, however old they are.
        names, connection = self._session.names, self._session.connection
        after, found, removed = self._read_to.get("marks", 0), False, 0
        async for page in self._session.store.pages(names.tasks_stream, names.all_cancelled, after=after):
            found = True
            old = [stored for stored in page if time() - stored.time > REMEMBERED]
            for stored in old:
                if stored.body == DELETED:
                    only_this = {"filter": stored.subject, "seq": stored.sequence + 1}
                    await connection.api(f"STREAM.PURGE.{names.tasks_stream}", only_this)
                    removed += 1
            if old:
                self._read_to["marks"] = old[-1].sequence
            if len(old) < len(page):
                break
        if not found:
            self._read_to.pop("marks", None)
        return removed

    async def _delete_older(self, kind: str, keep: float, wanted: Callable[[Stored], bool]) -> int:
        """Delete the trees of one kind that ended more than ``keep`` seconds ago."""
        # The records stand in the order in which the runs ended, so each is read once, not with every sweep.
        names, deleted, after = self._session.names, 0, self._read_to.get(kind, 0)
        found = False
        async for page in self._session.store.pages(
            names.records_stream, names.roots_ended, after=after, size=TREES_A_PAGE
        ):
            found = True
            old = [stored for stored in page if time() - stored.time > keep]
            deleted += await self._delete([stored for stored in old if wanted(stored)])
            if old:
                self._read_to[kind] = old[-1].sequence
            if len(old) < len(page):
                break
        if not found:
            self._read_to.pop(kind, None)  # a stream that was made anew counts from one again
        return deleted

    async def _delete_excess(self) -> int:
        """Delete the oldest trees, until no more are left than are kept at most."""
        names, store, deleted = self._session.names, self._session.store, 0
        nothing: list[Stored] = []
        excess = await self._excess()
        while excess > 0:
            oldest = await anext(store.pages(names.records_stream, names.roots_ended, size=TREES_A_PAGE), nothing)
            # Counted behind the reading: what another worker deletes meanwhile is in this page, or not in the excess.
            before = await self._excess()
            here = await self._delete(oldest[: max(0, before)])
            deleted += here
            excess = await self._excess()
            if not here and excess >= before:
                break  # what cannot be deleted is not tried for ever
        return deleted

    async def _excess(self) -> int:
        names = self._session.names
        return await self._session.store.count(names.records_stream, names.roots_ended) - self._options.keep_runs

    async def _delete(self, roots: list[Stored]) -> int:
        """Delete some trees, a few at once, and return how many another worker had not deleted."""
        left = [last_token(stored.subject) for stored in roots]
        random.shuffle(left)
        deleted = 0

        async def delete() -> None:
            nonlocal deleted
            while left:
                try:
                    await delete_tree(self._session, left.pop())
                    deleted += 1
                except UnknownRun:
                    continue  # another worker was faster

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(TREES_AT_ONCE, len(left))):
                    group.create_task(delete())
        except* BrokerError as errors:
            raise errors.exceptions[0] from None
        return deleted


def _has_succeeded(stored: Stored) -> bool:
    return decode_outcome(stored.body).status == "succeeded"
