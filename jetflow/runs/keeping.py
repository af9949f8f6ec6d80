"""The first task of a root run, kept while its tree is cancelled.

The run's identity and its input rest on that task, and the purge of the tree takes it along. So a copy is stored first,
at a subject that the purge leaves alone. Whoever cancels puts the task back, and removes the copy; where they died
before that, or the broker was away, a worker does (`jetflow.worker.kept`). `tests/model/keeping.py` has all orders.
"""

from __future__ import annotations

from secrets import token_hex

from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.runs import points
from jetflow.runs.marks import was_deleted
from jetflow.runs.tasks import triggered_at
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block, task_headers


class KeptTask:
    """A first task, and when its run was asked for (seconds since the epoch; None if nobody knows)."""

    def __init__(self, session: Session, first: Task, triggered: float | None) -> None:
        self._session = session
        self._first = first
        self._triggered = {} if triggered is None else {Header.TRIGGERED: f"{triggered:.3f}"}
        self._copy = session.names.kept(first.root, token_hex(8))

    @classmethod
    async def read(cls, session: Session, first: Task) -> KeptTask:
        """Return a task that is stored."""
        stored = await session.store.leader_last(session.names.tasks_stream, session.names.task_of(first))
        return cls(session, first, None if stored is None else triggered_at(stored))

    async def keep(self) -> None:
        """Store the copy. Each who cancels has their own: nobody removes one that another relies on."""
        points.before("keep_first")
        task = {Header.KEPT: self._session.names.task_of(self._first)}
        await self._store(self._copy, task)
        points.after("keep_first")

    async def put_back(self) -> bool:
        """Store the task at its place, and return whether it was missing there. Workers drop it: its tree is marked."""
        points.before("put_back")
        was_missing = await self._store(self._session.names.task_of(self._first), {})
        points.after("put_back")
        return was_missing

    async def let_go(self) -> None:
        """Remove the copy. Where the tree was deleted meanwhile it stays: by it a worker finds what was put back."""
        points.before("let_go")
        if not await was_deleted(self._session, self._first.root):
            tasks = self._session.names.tasks_stream
            await self._session.connection.api(f"STREAM.PURGE.{tasks}", {"filter": self._copy})
        points.after("let_go")

    async def _store(self, subject: str, more: dict[str, str]) -> bool:
        # Each time by another message id: by the one of a cancel before, the server would take it for stored.
        headers = task_headers(self._first, f"{self._first.run}.kept.{token_hex(8)}") | self._triggered | more
        receipt = await self._session.publisher.store(subject, self._first.input, header_block(headers))
        return receipt.stored
