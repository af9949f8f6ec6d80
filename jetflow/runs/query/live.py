"""Questions about what goes on at this moment: fan-outs as they change, queues, and who works on what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from time import time
from typing import Literal

from jetflow.broker.session import Session
from jetflow.engine.sleeping import seconds_of
from jetflow.errors import InvalidInput, InvalidQuery
from jetflow.runs.query import changes, presence, queues
from jetflow.runs.query.checks import Diagnosis, checks_of, read_server_checks
from jetflow.runs.query.rows import Change, QueueRow, RunningRow, RunTotals, WorkerRow
from jetflow.runs.query.stored import StoredQueries, check_id
from jetflow.runs.query.watching import Watches
from jetflow.runs.schedules import silence
from jetflow.runs.storage import read_storage


class LiveQueries(StoredQueries):
    """What may be asked of what goes on; see `Queries`."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._watches = Watches(session, self._declared, self._counting)

    async def watch(self, run_id: str) -> AsyncGenerator[RunTotals]:
        """Yield the totals of a run now, whenever they have changed (at most four times a second), and at its end.

        With ``rate`` and ``eta``. All who watch the same run by one client share what it costs. Close it, as by
        ``contextlib.aclosing``, where you leave before the end.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        self._session.usable()
        async with aclosing(self._watches.totals(run_id)) as found:
            async for totals in found:
                yield totals

    async def follow(self, run_id: str, *, after: int | None = None) -> AsyncGenerator[Change]:
        """Yield what is stored of a run and of how its children end, as it is, until the run has ended.

        ``after`` is the ``sequence`` of the last change that is known; without, it begins now. Its own end is always
        the last change. It does not hurry for whoever reads slowly, and nobody waits for it.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        async with aclosing(changes.follow_run(self._session.usable(), run_id, after)) as found:
            async for change in found:
                yield change

    async def follow_roots(self) -> AsyncGenerator[Change]:
        """Yield new root runs (``task``, within a second), and the ends of root runs (``run``), for ever."""
        async with aclosing(changes.follow_roots(self._session.usable(), self._declared)) as found:
            async for change in found:
                yield change

    async def queues(self) -> list[QueueRow]:
        """Return the queue of each step that a worker has ever pulled: what waits, since when, and what is held."""
        return await queues.read_queues(self._session.usable())

    async def workers(self) -> list[WorkerRow]:
        """Return the workers that answer within a second, with what they run. One that is cut off is not among them."""
        return await presence.read_workers(self._session.usable())

    async def drain(self, worker: str) -> int:
        """Tell a worker, by its name, to take no more tasks; return how many of that name have heard it.

        What it runs goes on to its end, steps that wait there are parked, and what has not started is handed back. The
        worker stays, idle, until it is stopped; to take tasks again it has to be started again.

        Raises:
            UnknownWorker: none of this name answers.
        """
        return await presence.drain(self._session.usable(), worker)

    async def running(self, run_id: str, *, stack: bool = False) -> list[RunningRow]:
        """Return which steps of a run are held by workers at this moment, since when, and by whom.

        With ``stack``, where their code stands. Only those workers answer that hold one: none may mean that none does.
        """
        check_id(run_id)
        return await presence.read_running(self._session.usable(), run_id, stack=stack)

    async def doctor(self) -> Diagnosis:
        """Return what is stored, and what is worth a look: server, limits, clocks, queues, workers, leftovers."""
        session = self._session.usable()
        storage, queue_rows, workers, declared, checks = await asyncio.gather(
            read_storage(session), self.queues(), self.workers(), self.declarations(), read_server_checks(session)
        )
        return Diagnosis(storage=storage, checks=(*checks, *checks_of(queue_rows, workers, declared)))

    async def pause(
        self,
        workflow: str,
        step: str | None = None,
        *,
        until: float | None = None,
        schedules: Literal["queue", "drop"] = "queue",
        queue_ttl: float | timedelta | None = None,
    ) -> list[str]:
        """Have the broker give out no tasks of a workflow, or of one step, to any worker; return which steps it holds.

        ``until`` is seconds since the epoch; without, until `resume`. What runs goes on. It outlives workers and
        clients. What is triggered meanwhile waits, and so do the runs of its schedules; with ``schedules="drop"`` their
        ticks start nothing until then.

        With ``queue_ttl`` (seconds, or a timedelta) a run is cancelled when a task of it has waited for so long in a
        queue that is paused, counted from the beginning of the pause: also one that has begun, and would go on there.
        That needs a worker, of any workflow, and comes late by a tenth of it, and 5 s, at most. What workers hold, and
        what waits for a time, an event, children or a limit, is not cancelled.

        Raises:
            InvalidQuery: no worker has ever run it, the time is over, or schedules are to be dropped of one step.
            InvalidInput: ``queue_ttl`` is no duration.
        """
        if schedules not in ("queue", "drop"):
            raise InvalidQuery(
                f"schedules={schedules!r}: while a workflow is paused they are to 'queue' or 'drop' runs"
            )
        if schedules == "drop" and step is not None:
            raise InvalidQuery("schedules start runs, and not steps: pause the workflow to drop what they would start")
        if until is not None and until <= time():
            raise InvalidQuery(f"a pause is until a time to come, and {until} is over: seconds since the epoch")
        ttl = None if queue_ttl is None else seconds_of(queue_ttl, "how long a task waits in a paused queue at most")
        if ttl == 0:
            raise InvalidInput("a task may wait for more than 0 s in a paused queue: to have none, cancel the runs")
        paused = await queues.pause(self._session.usable(), workflow, step, until, ttl)
        if step is None:
            end = time() + queues.FOR_GOOD if until is None else until
            await silence(self._session, workflow, end if schedules == "drop" else None)
        return paused

    async def resume(self, workflow: str, step: str | None = None) -> list[str]:
        """Have the broker give out tasks again, of all steps or of one; return of which steps.

        Ticks of its schedules start runs again, from now on.

        Raises:
            InvalidQuery: no worker has ever run it.
        """
        resumed = await queues.resume(self._session.usable(), workflow, step)
        if step is None:
            await silence(self._session, workflow, None)
        return resumed
