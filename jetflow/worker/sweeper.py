"""The net under the joins: evaluates again the sealed joins that have been open too long.

By the protocol nothing ever falls into it: whoever counts last sees everything. What it finds to do is counted, and
the count should read zero. It also clears away the counters of joins that are done, and has overdue timers armed again
and the first tasks of cancelled trees put back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.engine.tasks import StepAddress
from jetflow.engine.transitions import settle
from jetflow.errors import BrokerError, MalformedRecord
from jetflow.runs.joins import read_record
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import task_of
from jetflow.worker.cancellation import Cancellations
from jetflow.worker.counts import Counts
from jetflow.worker.kept import KeptTasks
from jetflow.worker.overdue import OverdueTimers

JOINS_A_SWEEP: Final = 500
"""Joins that one sweep looks at, drawn by chance if there are more."""

_log = logging.getLogger("jetflow.worker")


class Sweeper:
    """Sweeps every ``every`` seconds, with jitter, and calls what is ``beside`` it.

    `start` and `stop` it; both are safe to call twice.
    """

    def __init__(
        self,
        session: Session,
        performer: Performer,
        cancellations: Cancellations,
        counts: Counts,
        *,
        every: float,
        beside: Sequence[Callable[[], Awaitable[int]]] = (),
    ) -> None:
        self._session = session
        self._performer = performer
        self._counts = counts
        self._every = every
        self._beside = beside
        self._overdue = OverdueTimers(session)
        self._kept = KeptTasks(session, cancellations)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._sweep_for_ever(), name="jetflow sweeper")

    async def stop(self) -> None:
        """Stop sweeping."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every * random.uniform(0.75, 1.25))
            try:
                await self.sweep()
                await self._overdue.arm_again()
                await self._kept.look()
                for look in self._beside:
                    await look()
            except BrokerError as error:
                _log.warning("a sweep ended early: %s", error)
            except Exception:
                _log.exception("a sweep ended early")

    async def sweep(self) -> int:
        """Look at the open joins, and return how many had to be moved on."""
        names, store = self._session.names, self._session.store
        moved = 0
        async for page in store.leader_subjects(names.counters_stream, names.join_counters):
            for subject in random.sample(page, min(len(page), JOINS_A_SWEEP)):
                try:
                    moved += await self._visit(subject)
                except BrokerError:
                    raise
                except Exception:  # one that cannot be read must not end the net under all others
                    _log.exception("the sweeper cannot visit %s", subject)
        return moved

    async def _visit(self, counter: str) -> bool:
        """Look at one join. Returns whether it had to be moved on."""
        names, store = self._session.names, self._session.store
        join = names.parse_counter(counter)
        stored = await store.leader_last(names.records_stream, names.joins_of_step(join))
        if stored is None:
            if await self._has_ended(join):  # without a record: it had joined all its children itself
                await self._session.connection.api(f"STREAM.PURGE.{names.counters_stream}", {"filter": counter})
            return False
        if time() - stored.time < self._every:
            return False
        try:
            record = read_record(join, stored.body)
        except MalformedRecord:
            return await self._end_broken(join, counter)
        if await self._is_done(join, record.task):
            # Whoever ended the step may have died before it started what follows. A redelivery repeats that as long as
            # the counter stands; without it nobody would, so it is done here.
            await self._performer.run(settle(join))
            await self._session.connection.api(f"STREAM.PURGE.{names.counters_stream}", {"filter": counter})
            return False
        next_turn = names.next_turn(record.task)
        if record.kind == "parked" and await store.leader_last(names.tasks_stream, next_turn) is not None:
            return False
        await self._performer.run(settle(join))
        if record.kind == "parked":
            moved = await store.leader_last(names.tasks_stream, next_turn) is not None
        else:
            moved = await self._is_done(join, record.task)
        if moved:
            self._counts.swept += 1
            _log.warning("the sweeper moved on step %r of run %s", join.step, join.run)
        return moved

    async def _end_broken(self, join: StepAddress, counter: str) -> bool:
        """End the run of a join record that cannot be read. Returns whether it had not ended."""
        had_ended = await self._has_ended(join)
        await self._performer.run(settle(join))
        if had_ended:
            await self._session.connection.api(
                f"STREAM.PURGE.{self._session.names.counters_stream}", {"filter": counter}
            )
            return False
        self._counts.swept += 1
        return True

    async def _has_ended(self, join: StepAddress) -> bool:
        """Tell whether a step or its run has ended."""
        names, store = self._session.names, self._session.store
        for subject in (names.step(join), names.run_by_id(join.run)):
            if await store.leader_last(names.records_stream, subject) is not None:
                return True
        return False

    async def _is_done(self, join: StepAddress, task_subject: str) -> bool:
        names, store = self._session.names, self._session.store
        if await store.leader_last(names.records_stream, names.step(join)) is not None:
            return True
        stored = await store.leader_last(names.tasks_stream, task_subject)
        task = None if stored is None else task_of(stored)
        if task is None:
            return stored is None
        return await store.leader_last(names.records_stream, names.run_of(task)) is not None
