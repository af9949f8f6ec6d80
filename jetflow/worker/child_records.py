"""Reading how the children of one step have ended, for those who wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.wire.subjects import last_id
from jetflow.worker.waits import Waits


class ChildRecords:
    """The records of children of one step. ``owner_of`` tells under which step a child's is stored."""

    def __init__(self, session: Session, task: Task, owner_of: Callable[[bytes], str], waits: Waits) -> None:
        self._names = session.names
        self._store = session.store
        self._task = task
        self._owner_of = owner_of
        self._waits = waits
        self._counter_seen: bytes | None = None

    async def look(self, unheard: set[bytes]) -> None:
        """Read the missing outcomes if the counter has moved, or if it is not the counter of all of them.

        Those that are ``unheard`` may have been counted before anybody listened.
        """
        stored = await self._store.last(self._names.counters_stream, self._names.counter("join", self._task.join))
        counter, missing = b"" if stored is None else stored.body, set(self._waits.open)
        if self._counter_seen != counter:
            await self.read(missing, in_pages=False)
            self._counter_seen = counter  # not before: what could not be read is looked for again
        else:
            elsewhere = {child for child in missing if self._owner_of(child) != self._task.step}
            await self.read(elsewhere | (missing & unheard), in_pages=False)

    async def read(self, children: set[bytes], *, in_pages: bool) -> None:
        """Tell the waits of those children that have ended; with ``in_pages``, of all that the step has spawned."""
        names, store = self._names, self._store
        if in_pages:
            async for page in store.scan(names.records_stream, names.runs_of_join(self._task.join)):
                for subject, body in page:
                    self._waits.take(last_id(subject) or b"", body)
            children = {child for child in children if self._owner_of(child) != self._task.step}
        async for page in store.many(names.records_stream, [self._subject(child) for child in children]):
            for stored in page:
                self._waits.take(last_id(stored.subject) or b"", stored.body)

    async def read_again(self, children: Iterable[bytes]) -> None:
        """Read the records of children that have ended and were not kept."""
        subjects = {self._subject(child): child for child in children}
        async for page in self._store.many(self._names.records_stream, list(subjects)):
            for stored in page:
                self._waits.put_back(subjects[stored.subject], stored.body)

    async def body(self, child: bytes) -> bytes:
        """Return the record of a child that has ended; empty if it is gone by now."""
        stored = await self._store.leader_last(self._names.records_stream, self._subject(child))
        return b"" if stored is None else stored.body

    def _subject(self, child: bytes) -> str:
        return self._names.run(self._task.root, self._task.run, self._owner_of(child), child.hex())
