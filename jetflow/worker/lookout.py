"""Looking out for workers that are missing: a step whose children nobody runs waits in silence otherwise.

Spawning children of a workflow that this worker does not run itself costs one entry in a dict. Five seconds later, and
then for as long as a step that spawned such children goes on here, it is asked whether anybody runs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from time import monotonic

from jetflow.broker.attendance import WAITED
from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError
from jetflow.runs.missing import steps_of

_log = logging.getLogger("jetflow.worker")


class _Watch:
    """A workflow whose children were spawned here: by whom last, how many, and by how many steps that go on."""

    __slots__ = ("by", "children", "is_missed", "since", "steps")

    def __init__(self) -> None:
        self.since = monotonic()
        self.steps = 0
        self.children = 0
        self.by: Task | None = None
        self.is_missed = False


class Lookout:
    """Says, once for each absence, that children wait for a workflow which no worker runs. `stop` it at the end."""

    def __init__(self, session: Session, own: Collection[str]) -> None:
        self._session = session
        self._own = own
        self._watched: dict[str, _Watch] = {}
        self._task: asyncio.Task[None] | None = None

    def spawned(self, task: Task, workflow: str, children: int, known: set[str]) -> None:
        """Note children of a step. ``known`` are the workflows that are watched for it: give them to `left`."""
        if workflow in self._own or not children:
            return
        watch = self._watched.setdefault(workflow, _Watch())
        watch.by, watch.children = task, children
        watch.steps += workflow not in known
        known.add(workflow)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), name="jetflow lookout")

    def left(self, known: set[str]) -> None:
        """Note that a step which has spawned children of some workflows is not in this worker's memory any more."""
        for workflow in known:
            if workflow in self._watched:
                self._watched[workflow].steps -= 1

    async def stop(self) -> None:
        """Look out no more. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look_for_ever(self) -> None:
        while self._watched:
            await asyncio.sleep(WAITED / 5)
            for workflow, watch in list(self._watched.items()):
                if monotonic() - watch.since >= WAITED:
                    watch.since = monotonic()
                    with contextlib.suppress(BrokerError):  # it is asked again
                        await self._look(workflow, watch)
        self._task = None

    async def _look(self, workflow: str, watch: _Watch) -> None:
        task = watch.by
        is_missed = await self._session.attendance.is_missed(workflow, await steps_of(self._session, workflow, ""))
        if is_missed and not watch.is_missed and task is not None:
            _log.warning(
                "children of %r wait for workflow %r, which no worker runs: step %r of run %s has spawned %d; "
                "this worker runs %s",
                task.workflow,
                workflow,
                task.step,
                task.run,
                watch.children,
                ", ".join(self._own),
            )
        elif watch.is_missed and not is_missed:
            _log.info("workflow %r is run again", workflow)
        watch.is_missed = is_missed
        if not is_missed and watch.steps <= 0:
            self._watched.pop(workflow, None)
