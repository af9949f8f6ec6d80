"""Which runs are cancelled, as far as a worker has to know: it hears of each mark, and catches up after a gap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time
from typing import Final, NamedTuple

from jetflow.broker.connection import Listening, Message
from jetflow.broker.session import Session
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError
from jetflow.runs.marks import ALONE, DELETED, REMEMBERED, REST, deleted_by, rest_but
from jetflow.wire.subjects import last_token

_log = logging.getLogger("jetflow.worker")


_FOR_ONE: Final = (None, ALONE)
"""What says nothing of the runs below."""


DELETED_REMEMBERED: Final = 50_000
"""Deleted trees that a worker remembers at most, the latest and half of that at least: only late zombies ask."""


class _Mark(NamedTuple):
    at: float
    body: bytes


class Cancellations:
    """Knows the cancelled runs. `start` and `stop` it; ``on_cancelled`` is called for each mark that is new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.on_cancelled: Callable[[], None] = lambda: None
        self._marks: dict[str, _Mark] = {}
        self._deleted: dict[str, float] = {}
        self._deleted_before: dict[str, float] = {}
        self._subscription: Listening | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        self._reads: set[asyncio.Task[None]] = set()
        self._read_to = 0

    async def start(self) -> None:
        """Begin to listen, and read the marks of the last hour."""
        if self._subscription is not None:
            return
        names = self._session.names
        self._subscription = await self._session.connection.subscribe(names.live_cancelled, self._on_live)
        self._forget_reconnect = self._session.connection.on_reconnect(self._catch_up)
        await self._read()

    async def stop(self) -> None:
        """Stop listening."""
        self._forget_reconnect()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)

    def stops(self, task: Task, graph: Graph | None) -> bool:
        """Tell whether a task is not to be run any more. What runs after a failure is not stopped by its own run's end.

        A run that fails fast is marked as cancelled itself, and its step for failures runs then.
        """
        if not self._marks and not self._deleted and not self._deleted_before:
            return False
        if graph is not None and task.step == graph.on_failure and graph.fail_fast:
            return self.covers_family(task)
        return self.covers(task)

    def covers(self, task: Task) -> bool:
        """Tell whether a task's run is cancelled, by itself, with its parent, or with its whole tree."""
        return self._of(task.run) is not None or self.covers_family(task)

    def covers_family(self, task: Task) -> bool:
        """Tell whether what a task's parent has spawned is cancelled, or its whole tree is."""
        of_parent = self._of(task.parent)
        if of_parent is not None and of_parent.startswith(REST):
            return of_parent != rest_but(task.parent_step)
        return of_parent not in _FOR_ONE or self._covers_tree(task.root)

    def knows(self, root: str, run: str) -> bool:
        """Tell whether what a run has spawned is marked as far as it has to be."""
        return self._of(run) is not None or self._covers_tree(root)

    def _covers_tree(self, root: str) -> bool:
        of_root = self._of(root)
        return of_root not in _FOR_ONE and not of_root.startswith(REST)

    @property
    def any_known(self) -> bool:
        """Whether any run is marked as cancelled."""
        return bool(self._marks)

    def deleted(self, root: str) -> bool:
        """Tell whether a tree is deleted, so that nothing may be stored of it any more."""
        return self._of(root) == DELETED

    def add(self, run: str, mark: bytes, *, age: float = 0.0) -> None:
        """Note what a mark says of a run, ``age`` seconds ago."""
        if mark == DELETED:
            self._add_deleted(run, monotonic() - age)
            return
        self._marks.pop(run, None)
        self._marks[run] = _Mark(monotonic() - age, mark)
        oldest = next(iter(self._marks))
        while self._of(oldest) is None:
            del self._marks[oldest]
            oldest = next(iter(self._marks), run)

    def _add_deleted(self, run: str, at: float) -> None:
        self._marks.pop(run, None)
        self._deleted[run] = at
        if len(self._deleted) >= DELETED_REMEMBERED // 2:
            self._deleted_before, self._deleted = self._deleted, {}

    def _of(self, run: str) -> bytes | None:
        deleted = self._deleted.get(run) or self._deleted_before.get(run)
        if deleted is not None and monotonic() - deleted <= REMEMBERED:
            return DELETED
        mark = self._marks.get(run)
        return None if mark is None or monotonic() - mark.at > REMEMBERED else mark.body

    def _on_live(self, message: Message) -> None:
        self._add_all(message.subject, message.data)
        self.on_cancelled()

    def _add_all(self, subject: str, mark: bytes, *, age: float = 0.0) -> None:
        """Note what a mark says, of its run or of the many that it names."""
        if mark.startswith(b"["):
            at = monotonic() - age
            for run in deleted_by(mark):
                self._add_deleted(run, at)
        else:
            self.add(last_token(subject), mark, age=age)

    def _catch_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._read())
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self) -> None:
        names, store = self._session.names, self._session.store
        try:
            async for page in store.pages(
                names.tasks_stream, names.all_cancelled, after=self._read_to, since=REMEMBERED
            ):
                for stored in page:
                    self._add_all(stored.subject, stored.body, age=time() - stored.time)
                    self._read_to = stored.sequence
        except BrokerError as error:
            _log.warning("the marks of cancelled runs could not be read: %s", error)
            return
        self.on_cancelled()
