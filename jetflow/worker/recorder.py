"""Recording how deliveries end: what the engine's rules ask for is performed, then the delivery is acknowledged."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from time import time
from typing import Any, Final, Literal

from jetflow.broker.permissions import is_recorded
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.conditions import Decided
from jetflow.engine.effects import Procedure
from jetflow.engine.endings import decided_against
from jetflow.engine.failures import room_for
from jetflow.engine.graph import Graph
from jetflow.engine.joins import ID_BYTES, failed_join, parked_until
from jetflow.engine.tasks import Attempt, Failure, Outcome, Task
from jetflow.engine.transitions import conclude, conclude_cancelled, finish, leave_out, postpone, repeat_end, seal
from jetflow.errors import (
    MalformedRecord,
    PermissionDenied,
    RunTimeout,
    StepTimeout,
    UnknownStep,
    UnknownVersion,
)
from jetflow.runs import points
from jetflow.runs.announcing import one_line
from jetflow.runs.cancelling import cancelled, note_removed, reason_of
from jetflow.runs.performer import Performer
from jetflow.runs.values import LostValue
from jetflow.wire.records import decode_outcome
from jetflow.worker.assignment import Assignment
from jetflow.worker.cancellation import Cancellations
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.execution import Execution
from jetflow.worker.failures import failure_of, frames_of, is_final, passes, pause_of, refused_for_good

RECORDING_AHEAD: Final = 1000
"""Tasks whose outcomes may be on their way to the broker; above, nothing more is fetched."""

RECORDING_BYTES: Final = 32 * 1024 * 1024
"""Bytes of their inputs and outputs above which no more are begun."""

HELD_AGAIN_AFTER: Final = 5.0
"""Seconds after which is recorded again what this user may not record, or the broker refuses for good."""

AGAIN_AFTER: Final = 0.5
"""Seconds after which is recorded again what the broker could not do."""

UNREADABLE: Final = (MalformedRecord, LostValue)
"""Errors of what an earlier step or delivery has stored: no later delivery will read it."""

_log = logging.getLogger("jetflow.worker")

_finish_spawning: Final = partial(finish, spawned=True)


class Recorder:
    """Records how deliveries end. All of ``on_room`` is called when so few are being recorded that more may be fetched.

    ``held_bytes`` are those of the inputs and outputs of the tasks that are being recorded, or held for a retry.
    """

    def __init__(
        self,
        session: Session,
        performer: Performer,
        deliveries: Deliveries,
        cancellations: Cancellations,
        counts: Counts,
        worker: str,
    ) -> None:
        self._session = session
        self._performer = performer
        self._deliveries = deliveries
        self._cancellations = cancellations
        self._counts = counts
        self._worker = worker
        self._recorded = asyncio.Event()
        self._room_is_awaited = False
        self._held_for: set[tuple[str, ...]] = set()
        self.recording: int = 0
        self.held_bytes: int = 0
        self.on_room: list[Callable[[], None]] = []
        performer.timers.on_holding = performer.rates.on_holding = self._on_holding

    # --- what a body has led to

    def succeeded(self, work: Assignment) -> None:
        """Record the output of a step, or what it waits for at its boundary."""
        self._counts.succeeded += 1
        ended = time()
        body, rule = work.body, finish
        if isinstance(body, Execution):
            record = body.sealing(work, ended=ended, worker=self._worker)
            if record is not None:
                self.drive(work, seal, work.task, record)
                return
            if body.has_spawned:
                rule = _finish_spawning
        task = work.task
        outcome = Outcome(
            status="succeeded",
            output=work.output,
            workflow=task.workflow,
            step=task.step,
            key=task.key,
            attempt=work.attempt,
            started=work.started,
            ended=ended,
            worker=self._worker,
        )
        self.drive(work, rule, task, work.graph, outcome)

    def parked(self, work: Assignment, body: Execution) -> None:
        """Record what a step waits for."""
        self._counts.parked += 1
        self.drive(work, seal, work.task, body.parking())

    def defer(self, work: Assignment, until: float) -> None:
        """Park the first turn of a run that is to begin later. Its time may end before."""
        task = work.task
        until = until if task.deadline is None else min(until, task.deadline)
        record = parked_until(self._session.names.task_of(task), task.turn, until, worker=self._worker)
        self.drive(work, seal, task, record)

    def left_out(self, work: Assignment, decided: Decided) -> None:
        """Record that the conditions of a step have decided against it."""
        task = work.task
        outcome = decided_against(task, decided.verdict, decided.reason, time(), self._worker)
        self.drive(work, leave_out, task, work.known_graph, outcome)

    def failed(self, work: Assignment, error: BaseException) -> None:
        """Record that an attempt failed: the step is tried again, or has failed."""
        task, failure = work.task, self._failure_of(error, work)
        delay = self._delay(work, error)
        _log.warning(
            "run %s: attempt %d of step %r of %r failed: %s: %s%s; %s",
            task.run,
            work.attempt,
            task.step,
            task.workflow,
            failure.type,
            one_line(failure.message),
            frames_of(error),
            "it is the last one" if delay is None else f"next in {delay:.1f} s",
        )
        if delay is None:
            status = "timed_out" if isinstance(error, StepTimeout | RunTimeout) else "failed"
            self.end(work, failure, status)
        else:
            self._postpone(work, failure, delay)

    def _failure_of(self, error: BaseException, work: Assignment) -> Failure:
        return failure_of(error, work.task.step, room=room_for(self._session.connection.max_payload))

    @staticmethod
    def _delay(work: Assignment, error: BaseException) -> float | None:
        """Return after how many seconds a step is tried again; None for never."""
        retry = work.known_step.retry
        if is_final(error, retry):
            return None
        delay = retry.delay(work.attempt, random.random())
        if delay is not None and (pause := pause_of(error)) is not None:
            delay = pause
        deadline = None if work.is_sequel else work.task.deadline
        return delay if delay is None or deadline is None else min(delay, max(0.0, deadline - time()))

    def _postpone(self, work: Assignment, failure: Failure, delay: float) -> None:
        task, now = work.task, time()
        self._counts.retried += 1
        tried = Attempt(
            attempt=work.attempt,
            worker=self._worker,
            started=work.started,
            ended=now,
            error=failure,
            again=now + delay,
        )
        parked = parked_until(
            self._session.names.task_of(task),
            task.turn,
            now + delay,
            tried=work.attempt,
            attempt=work.attempt,
            started=work.started,
            ended=now,
            worker=self._worker,
            admits=work.places,
        )
        self.drive(work, postpone, task, work.delivery.count, tried, parked)

    # --- ends without an output

    def end(self, work: Assignment, failure: Failure, status: Literal["failed", "timed_out"] = "failed") -> None:
        """End a step without an output; where its graph is not known, its run."""
        outcome, task, graph = self._without_output(work, failure, status), work.task, work.graph
        if graph is None:
            self.drive(work, conclude, task, outcome)
        elif len(graph.nodes) > 1 and work.may_have_spawned:
            # A step beside this one may wait for a child of it, and is woken by its join.
            self.drive(work, seal, task, failed_join(self._session.names.task_of(task), task.turn, outcome))
        else:
            self.drive(work, finish, task, graph, outcome)

    async def drop(self, work: Assignment) -> None:
        """End the run of a task as cancelled. Runs that it has spawned are marked too, for others may run them.

        Of a deleted tree nothing is stored any more, and of a run that has ended what follows its end: a run that fails
        fast is marked by its own end, and a worker that died in the middle of it has left a task that is dropped here.
        """
        task = work.task
        if self._cancellations.deleted(task.root):
            self._deliveries.ack(work.delivery)
            return
        ended = await self._read_end(task)
        if ended is not None:
            if ended.subject == self._session.names.run_of(task):
                self.drive(work, repeat_end, task, work.graph, decode_outcome(ended.body))
            else:
                self._deliveries.ack(work.delivery)
            return
        mark = self._session.names.cancelled(task.root, task.run)
        if not self._cancellations.knows(task.root, task.run):
            points.before("store_cancelled_mark")
            await self._session.publisher.store(mark, b"", timeout=30)
            points.after("store_cancelled_mark")
        if isinstance(work.body, Execution):  # its children are removed with the tree, and nobody else could tell
            spawner = work.body.spawner
            await note_removed(self._session, task, len(spawner.owned()) // ID_BYTES + spawner.streamed)
        own = None if work.body is None else work.body.reason
        reason = own or await reason_of(self._session, task, time() - work.delivery.time)
        outcome = cancelled(task, self._worker, reason=reason)
        self.drive(work, conclude_cancelled, task, outcome, None, await self._graph_of(work))

    async def _graph_of(self, work: Assignment) -> Graph | None:
        """Return the graph of a run that is dropped, if it can be had: its steps may stand at gates."""
        if work.graph is not None:
            return work.graph
        try:
            return await self._session.registry.graph(work.task.workflow, work.task.version)
        except MalformedRecord:
            return None

    async def _read_end(self, task: Task) -> Stored | None:
        """Read how the run of a task that is dropped has ended, if it has.

        It may be stored under another step than the task names. Then the first task, of that step, was removed with its
        tree, and this one was put in its place by a step that had not heard of the cancelling: an outcome would be a
        second one.
        """
        names = self._session.names
        points.before("read_end")
        stored = await self._session.store.leader_last(names.records_stream, names.run_by_id(task.run))
        points.after("read_end")
        return stored

    def end_run(self, work: Assignment, error: BaseException) -> None:
        """End the run of a task that rests on what cannot be read, or leads to what the broker never takes."""
        task, outcome = work.task, self._without_output(work, self._failure_of(error, work), "failed")
        if work.is_sequel and work.graph is not None:
            self.drive(work, finish, task, work.graph, outcome)
        else:
            self.drive(work, conclude, task, outcome, work.graph)

    async def unknown(self, work: Assignment, grace: float, why: UnknownStep | None = None) -> None:
        """Leave a step that this worker does not know to others for ``grace`` seconds, then fail it by name.

        They begin when a worker first did not know the step: the task may have been queued for long before.
        """
        task, graph = work.task, work.graph
        unknown_version = None if graph is not None else UnknownVersion(task.workflow, task.version)
        unknown_step = why or UnknownStep(
            f"no worker knows step {task.step!r} of workflow {task.workflow!r} (version {task.version or 'unknown'}): "
            "its code was changed or removed while the run was under way"
        )
        error = unknown_version or unknown_step
        failure = failure_of(error, task.step)
        if not await self.left_to_others(work, grace, failure):
            work.graph = _with_step(graph, task.step)
            self.end(work, failure)

    async def left_to_others(self, work: Assignment, grace: float, failure: Failure) -> bool:
        """Hand a task back that others may know how to run, unless it was so for ``grace`` seconds."""
        task, delivery = work.task, work.delivery
        tried = await self._deliveries.tried(task) if delivery.count > 1 else []
        since = [
            record.started
            for record in (one.attempt for one in tried)
            if record.error is not None and record.error.type == failure.type and record.started
        ]
        if time() - min(since, default=time()) >= grace:
            return False
        await self._deliveries.hand_back(delivery, task, failure=failure, delay=min(1.0, grace))
        return True

    def _without_output(self, work: Assignment, failure: Failure, status: Literal["failed", "timed_out"]) -> Outcome:
        task = work.task
        self._counts.failed += 1
        return Outcome(
            status=status,
            error=failure,
            workflow=task.workflow,
            step=task.step,
            key=task.key,
            attempt=work.attempt,
            started=work.started,
            ended=time(),
            worker=self._worker,
        )

    # --- performing

    def drive(self, work: Assignment, rule: Callable[..., Procedure], *given: Any) -> None:
        """Have a rule's procedure performed, and acknowledge its delivery behind it.

        What the broker cannot do at this moment is asked of it again, from the procedure's beginning: all of it is
        write-once, or may be counted twice. Meanwhile the task is kept alive, and its body is not run again.
        """
        self.recording += 1
        self.held_bytes += work.size
        self._performer.drive(rule(*given), partial(self._driven, work, rule, given))

    def _driven(
        self,
        work: Assignment,
        rule: Callable[..., Procedure],
        given: tuple[Any, ...],
        _: Any,
        error: BaseException | None,
        said: str = "",
    ) -> None:
        if error is None:
            self._record_less(work.size)
            self._deliveries.ack(work.delivery)
        elif passes(error):
            if said != str(error):
                _log.warning("how a task on %s has ended is recorded again: %s", work.delivery.subject, error)
            asyncio.get_running_loop().call_later(AGAIN_AFTER, self._drive_again, work, rule, given, str(error))
        else:
            self._not_recorded(work, rule, given, error)

    def _not_recorded(
        self, work: Assignment, rule: Callable[..., Procedure], given: tuple[Any, ...], error: BaseException
    ) -> None:
        refused = refused_for_good(error)
        if refused and (work.refused or self._may_not_record(error)):
            self._hold(work, rule, given, error)
            return
        self._record_less(work.size)
        if work.task.twin and (refused or isinstance(error, UNREADABLE)):
            self._deliveries.ack(work.delivery)  # what it is the twin of tells of that
        elif isinstance(error, UNREADABLE):
            self.end_run(work, error)
        elif refused:
            work.refused = True  # should this very end be refused, too, it is held
            self.end_run(work, error.__cause__ or error)
        else:
            self._deliveries.leave(work.delivery, error, work.attempt)

    def _may_not_record(self, error: BaseException) -> bool:
        return isinstance(error, PermissionDenied) and is_recorded(self._session.names, error.subject)

    def _hold(
        self, work: Assignment, rule: Callable[..., Procedure], given: tuple[Any, ...], error: BaseException
    ) -> None:
        """Keep what a task has led to, and its delivery alive, until it may be recorded: its body is not run again."""
        kind = tuple(error.subject.split(".")[:3]) if isinstance(error, PermissionDenied) else (str(error),)
        if kind not in self._held_for:
            self._held_for.add(kind)
            _log.error(
                "how tasks have ended is kept here and recorded when that is allowed, that on %s first: %s",
                work.delivery.subject,
                error,
            )
        asyncio.get_running_loop().call_later(HELD_AGAIN_AFTER, self._drive_again, work, rule, given, str(error))

    def _drive_again(self, work: Assignment, rule: Callable[..., Procedure], given: tuple[Any, ...], said: str) -> None:
        if self._session.connection.is_closed:  # the worker has stopped: the task is delivered again
            self._record_less(work.size)
        else:
            self._performer.drive(rule(*given), partial(self._driven, work, rule, given, said=said))

    def _on_holding(self, change: int) -> None:
        """Note that a step that is held in memory until it is tried again records nothing meanwhile, or goes on."""
        if change > 0:
            self._record_less(0)  # its bytes are held still
        else:
            self.recording += 1

    def _record_less(self, size: int) -> None:
        self.recording -= 1
        self.held_bytes -= size
        if not self.recording:
            self._recorded.set()
        if self._room_is_awaited and self.has_room():
            for on_room in self.on_room:
                on_room()

    def has_room(self) -> bool:
        """Tell whether more may be fetched. If not, `on_room` is called when it may."""
        has_room = self.recording <= RECORDING_AHEAD and self.held_bytes <= RECORDING_BYTES
        self._room_is_awaited = not has_room
        return has_room

    def may_hold(self) -> bool:
        """Tell whether tasks may be held for a retry beside those that are being recorded."""
        return self.held_bytes <= RECORDING_BYTES // 2

    async def drained(self) -> None:
        """Wait until everything that steps have led to is recorded."""
        while self.recording:
            self._recorded.clear()
            await self._recorded.wait()
        await self._deliveries.drained()
        await self._performer.stop()


def _with_step(graph: Graph | None, step: str) -> Graph | None:
    """Return a graph if it has a step."""
    return graph if graph is not None and graph.has(step) else None
