"""Whether a step with conditions runs: decided in its own task, before its body, by whichever worker has that.

What was decided is recorded write-once, and stands. What conditions say of outputs and of the input is recorded before
anything is waited for. So whoever goes on, in a later turn and with other code, goes by the same.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.awaiting import Awaited
from jetflow.engine.conditions import ARMED, DECIDED, Armed, Decided, Undecided, weigh
from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import Outcome, StepAddress, Task
from jetflow.errors import UnknownStep
from jetflow.runs import points
from jetflow.runs.ages import check_sleep
from jetflow.runs.awaiting import Awaiting
from jetflow.runs.tasks import triggered_at
from jetflow.runs.values import get, with_output
from jetflow.wire.records import decode_outcome, encode
from jetflow.worker.assignment import Assignment
from jetflow.worker.expectations import AFORE

MILLISECOND: Final = 0.001
"""Seconds to which the server is told a time."""

_read_armed = msgspec.json.Decoder(Armed).decode
_read_decided = msgspec.json.Decoder(Decided).decode


class Deciding:
    """Decides the steps with conditions of one worker."""

    def __init__(self, session: Session, awaiting: Awaiting) -> None:
        self._session = session
        self._awaiting = awaiting

    async def decide(self, work: Assignment) -> Decided | Undecided:
        """Return what has become of a step, as it is recorded; or what has to come before that can be said.

        Raises:
            PredicateFailed: one of its conditions cannot be asked.
            UnknownStep: nothing is recorded, and this worker's code has no conditions for it.
            SleepTooLong: it would wait for longer than its run is kept.
            BrokerError: the broker could not be asked.
        """
        points.before("read_decided")
        decided, armed = await asyncio.gather(self._recorded(work.task, DECIDED), self._recorded(work.task, ARMED))
        points.after("read_decided")
        if decided is not None:
            return _read_decided(decided)
        conditions = _read_armed(armed) if armed is not None else await self._resolved(work)
        found = await self._weighed(conditions)
        if isinstance(found, Undecided):
            if found.until is not None:
                await check_sleep(self._session, work.task, found.until)
            return found
        return _read_decided(await self._record(work.task, DECIDED, encode(found), "store_decided"))

    def parking(self, work: Assignment, wanted: Undecided, worker: str) -> JoinRecord:
        """Return the record that parks a step until something comes that may decide it, or its time is over."""
        task, until = work.task, wanted.until
        if task.deadline is not None:
            until = task.deadline if until is None else min(until, task.deadline)
        return JoinRecord(
            kind="parked",
            turn=task.turn,
            task=self._session.names.task_of(task),
            needed=0,
            until=until,
            waits=wanted.events,
            worker=worker,
        )

    async def _weighed(self, armed: Armed) -> Decided | Undecided:
        """Look at what has come. What came between two looks at several events is found by looking once more."""
        now, events = time(), armed.events
        found = weigh(armed, now, await self._came(events))
        if isinstance(found, Decided) and len(events) > 1 and found.at > armed.at:
            found = weigh(armed, now, await self._came(events))
        return found

    async def _came(self, events: tuple[Awaited, ...]) -> dict[str, float]:
        found = await asyncio.gather(*map(self._awaiting.earliest, events))
        return {event.whole: one[0].at for event, one in zip(events, found, strict=True) if one is not None}

    async def _resolved(self, work: Assignment) -> Armed:
        """Resolve the conditions by this worker's code. They are recorded where they have to be waited for."""
        task, graph, step = work.task, work.known_graph, work.known_step
        if not step.conditions:
            raise UnknownStep(
                f"no worker knows the conditions of step {task.step!r} of workflow {task.workflow!r}: its code was "
                "changed while the run was under way"
            )
        after = graph.upstream[task.step]
        before = await self._before(task, set(after) | step.conditions.steps)
        outcomes = {name: outcome for name, (outcome, _) in before.items()}
        at, since = await self._times(task, [before[name][1] for name in after])
        body = task.input if task.value is None else await get(self._session, task.root, task.value)
        value = step.input.decode(body)
        armed = step.conditions.resolve(task.run, value, outcomes, after, at=at, since=since)
        if isinstance(weigh(armed, armed.at, {}), Decided) and not armed.events:
            return armed
        return _read_armed(await self._record(task, ARMED, encode(armed), "store_armed"))

    async def _times(self, task: Task, ended: list[float]) -> tuple[float, float]:
        """Return when a step's turn had come, and from when on events count for it, by the server's clock."""
        if ended:
            return max(ended), max(ended) - MILLISECOND
        names = self._session.names
        first = await self._session.store.leader_next(
            names.tasks_stream, names.tasks_of_run(task.root, task.run), after=0
        )
        began = time() if first is None else triggered_at(first)
        return max(began, task.not_before or 0.0), began - AFORE

    async def _before(self, task: Task, steps: set[str]) -> dict[str, tuple[Outcome, float]]:
        """Read how steps before have ended, and when that was stored."""
        names, store = self._session.names, self._session.store
        subjects = {step: names.step(StepAddress(task.root, task.run, step)) for step in steps}
        stored = await asyncio.gather(
            *(store.leader_last(names.records_stream, subject) for subject in subjects.values())
        )
        return {
            step: (await with_output(self._session, task.root, decode_outcome(one.body)), one.time)
            for step, one in zip(subjects, stored, strict=True)
            if one is not None
        }

    async def _recorded(self, task: Task, name: str) -> bytes | None:
        names = self._session.names
        stored = await self._session.store.leader_last(names.records_stream, names.once(task.join, name))
        return None if stored is None else stored.body

    async def _record(self, task: Task, name: str, body: bytes, point: str) -> bytes:
        """Record something write-once, and return what is recorded."""
        subject = self._session.names.once(task.join, name)
        points.before(point)
        while not (await self._session.publisher.store(subject, body, timeout=30)).stored:
            stored = await self._recorded(task, name)
            if stored is not None:
                body = stored
                break
        points.after(point)
        return body
