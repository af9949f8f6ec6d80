"""The net under the first tasks of cancelled roots: what nobody has put back is put back from its copy."""

from __future__ import annotations

import logging
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import Task
from jetflow.runs.deleting import remove
from jetflow.runs.keeping import KeptTask
from jetflow.runs.tasks import triggered_at
from jetflow.wire.headers import Header
from jetflow.wire.records import MalformedTask, parse_task
from jetflow.worker.cancellation import Cancellations

OLD: Final = 600.0
"""Seconds after which a copy is not needed any more: whatever its client has asked for has come to the server."""

_log = logging.getLogger("jetflow.worker")


class KeptTasks:
    """Looks at the copies in each sweep, as long as there are marks of cancelled runs; and in the first one."""

    def __init__(self, session: Session, cancellations: Cancellations) -> None:
        self._session = session
        self._cancellations = cancellations
        self._looked = False

    async def look(self) -> None:
        """Put back what is missing, and remove the copies that are old.

        Raises:
            BrokerError: the broker could not be asked, or takes nothing.
        """
        if self._looked and not self._cancellations.any_known:
            return
        names = self._session.names
        async for page in self._session.store.pages(names.tasks_stream, names.all_kept):
            for copy in page:
                await self._visit(copy)
        self._looked = True

    async def _visit(self, copy: Stored) -> None:
        names, store = self._session.names, self._session.store
        try:
            first = parse_task(copy.headers.get(Header.KEPT, ""), copy.headers, copy.body)
        except MalformedTask as error:
            _log.error("a copy on %s is of no task, and is removed: %s", copy.subject, error)
            await remove(self._session, names.tasks_stream, [copy])
            return
        stored = await store.leader_last(names.tasks_stream, names.task_of(first))
        is_old = time() - copy.time > OLD
        if await self._is_deleted(first):
            if is_old:
                await remove(self._session, names.tasks_stream, [copy] if stored is None else [stored, copy])
        elif stored is None:
            await self._put_back(first, copy)
        elif is_old:
            await remove(self._session, names.tasks_stream, [copy])

    async def _put_back(self, first: Task, copy: Stored) -> None:
        names = self._session.names
        if not await KeptTask(self._session, first, triggered_at(copy)).put_back():
            return
        _log.warning("the first task of run %s, which was cancelled, is put back", first.run)
        if await self._is_deleted(first):  # meanwhile, and it was missed there
            stored = await self._session.store.leader_last(names.tasks_stream, names.task_of(first))
            await remove(self._session, names.tasks_stream, [] if stored is None else [stored])

    async def _is_deleted(self, first: Task) -> bool:
        """Tell whether a tree was deleted: who cancels records how the run ended before any copy is needed."""
        if self._cancellations.deleted(first.root):
            return True
        names = self._session.names
        return await self._session.store.leader_last(names.records_stream, names.run_of(first)) is None
