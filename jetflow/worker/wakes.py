"""Waking parked steps, many at once, whoever wakes them: their tasks are read together, and so are their ends.

What is asked for in the same pass of the event loop is one batch. A task never changes, so any replica that has it
will do. A step is not woken whose run has ended under the parent that its task names; it may have ended under another
one, in a tree that was cancelled, and a turn that is woken there is dropped, as one is that a replica that lags lets
through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from jetflow.broker.session import Session
from jetflow.engine.effects import Procedure
from jetflow.engine.tasks import Task
from jetflow.engine.transitions import disarm, wake, wake_early
from jetflow.errors import MalformedRecord
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import task_of

AT_ONCE: Final = 1000
"""Steps that are woken at once."""


class Parked(NamedTuple):
    """A parked turn of a step: the subject of its task, how many attempts it has had, and whether it has a timer."""

    task: str
    tried: int = 0
    timed: bool = False


class Wakes:
    """Publishes the next turns of parked steps, each write-once."""

    def __init__(self, session: Session, performer: Performer) -> None:
        self._session = session
        self._performer = performer
        self._asked: list[tuple[Parked, asyncio.Future[None]]] = []
        self._waking: set[asyncio.Task[None]] = set()

    async def one(self, parked: Parked) -> None:
        """Wake one step, with all that are asked for in the same pass.

        Raises:
            BrokerError: it may not have been woken.
        """
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._begin)
        woken: asyncio.Future[None] = loop.create_future()
        self._asked.append((parked, woken))
        await woken

    def _begin(self) -> None:
        asked, self._asked = self._asked, []
        for at in range(0, len(asked), AT_ONCE):
            waking = asyncio.get_running_loop().create_task(self._tell(asked[at : at + AT_ONCE]))
            self._waking.add(waking)
            waking.add_done_callback(self._waking.discard)

    async def _tell(self, asked: Sequence[tuple[Parked, asyncio.Future[None]]]) -> None:
        error: BaseException | None = None
        try:
            await self.all([parked for parked, _ in asked])
        except Exception as raised:  # those who asked know what to do
            error = raised
        for _, woken in asked:
            if woken.done():
                continue
            if error is None:
                woken.set_result(None)
            else:
                woken.set_exception(error)

    async def all(self, parked: Sequence[Parked]) -> None:
        """Wake some steps, at most `AT_ONCE`.

        Raises:
            BrokerError: some may not have been woken.
        """
        tasks = await self._tasks([one.task for one in parked])
        names = self._session.names
        ends = {names.run_of(task) for task in tasks.values()}
        store = self._session.store
        over = {stored.subject async for page in store.many(names.records_stream, sorted(ends)) for stored in page}
        going: list[Procedure] = []
        for one in parked:
            task = tasks.get(one.task)
            if task is None:
                continue
            if names.run_of(task) not in over or await self._is_sequel(task):
                going.append(wake_early(task, one.tried) if one.timed else wake(task, one.tried))
            elif one.timed:  # whoever woke it may have died before this was done
                going.append(disarm(task))
        await self._drive(going)

    async def _tasks(self, subjects: Sequence[str]) -> dict[str, Task]:
        """Return the tasks that are stored, by their subjects."""
        store, stream = self._session.store, self._session.names.tasks_stream
        missing, tasks = set(subjects), dict[str, Task]()
        async for page in store.many(stream, list(subjects)):
            for stored in page:
                missing.discard(stored.subject)
                if (task := task_of(stored)) is not None:
                    tasks[stored.subject] = task
        for subject in missing:  # what a replica does not have yet; or what is gone, with its run
            stored = await store.leader_last(stream, subject)
            if stored is not None and (task := task_of(stored)) is not None:
                tasks[subject] = task
        return tasks

    async def _is_sequel(self, task: Task) -> bool:
        """Tell whether it is of a step that runs when its run has ended."""
        try:
            graph = await self._session.registry.graph(task.workflow, task.version)
        except MalformedRecord:
            return True  # the turn that is woken ends its run by this name
        return graph is not None and task.step in graph.sequels

    async def _drive(self, going: Iterable[Procedure]) -> None:
        """Have all of them done, without a coroutine each."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left, first_error = 1, None

        def done(_: Any, error: BaseException | None) -> None:
            nonlocal left, first_error
            left -= 1
            first_error = first_error or error
            if left == 0 and not ended.done():
                if first_error is None:
                    ended.set_result(None)
                else:
                    ended.set_exception(first_error)

        for procedure in going:
            left += 1
            self._performer.drive(procedure, done)
        done(None, None)
        await ended
