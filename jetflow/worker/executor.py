"""One delivery, from its message to its acknowledgement: decode, check, run, record, advance, ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import time
from typing import Any, Final

from jetflow import hooks, logs
from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.adopting import adopt
from jetflow.engine.attempts import attempts_made, has_only_queued, may_run_elsewhere
from jetflow.engine.conditions import Decided, Undecided
from jetflow.engine.graph import IMPLIED, START, Graph
from jetflow.engine.hedging import MOST_DELIVERIES, never
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, written_places
from jetflow.engine.tasks import Failure, Task
from jetflow.engine.transitions import begin, leave_out, redelivered, seal
from jetflow.errors import (
    InvalidInput,
    LimitKeyFailed,
    PlaceHeld,
    PredicateFailed,
    RateUnitsFailed,
    RunTimeout,
    SleepTooLong,
    UnknownStep,
)
from jetflow.processes.pool import Pool
from jetflow.runs import points
from jetflow.runs.announcing import one_line
from jetflow.runs.marks import REMEMBERED
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import TaskReader
from jetflow.telemetry.catalogue import QUEUE_DURATION, STEP_DURATION
from jetflow.wire.limits import Needed
from jetflow.wire.records import MalformedTask
from jetflow.worker.admitting import Admitting
from jetflow.worker.adopting import adopt_step
from jetflow.worker.assignment import Assignment
from jetflow.worker.bodies import Bodies
from jetflow.worker.body import Body
from jetflow.worker.cancellation import Cancellations
from jetflow.worker.counts import Counts
from jetflow.worker.deciding import Deciding
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.execution import Execution
from jetflow.worker.failures import failure_of, poisoned, too_late
from jetflow.worker.lookout import Lookout
from jetflow.worker.options import WorkerOptions
from jetflow.worker.recorder import UNREADABLE, Recorder
from jetflow.worker.sharing import Sharing
from jetflow.worker.slots import Slots
from jetflow.worker.twins import Twins
from jetflow.workflow import Step, Workflow

ASKED_AGAIN: Final = 3
"""Times that a task which was begun too often is looked for once more before it is given up."""

LOOKED_AFTER: Final = 2.0
"""Seconds before each of them, or ``ack_wait`` if that is less."""

LONG_AGO: Final = REMEMBERED / 2
"""Seconds for which a task may have been queued whose run, had it been cancelled, workers would know to be."""

NO_THREADS_DELAY: Final = 5.0
"""Seconds after which a task is delivered again that needs a thread of a worker where too many hang."""

_log = logging.getLogger("jetflow.worker")


class Executor:
    """Runs deliveries of the steps of some workflows. The bodies and the recording of their ends are others' rooms."""

    def __init__(
        self,
        session: Session,
        performer: Performer,
        slots: Slots,
        deliveries: Deliveries,
        counts: Counts,
        workflows: Mapping[str, Workflow[Any, Any]],
        options: WorkerOptions,
        name: str,
        pool: Pool | None,
        sharing: Sharing,
    ) -> None:
        self._session = session
        self._performer = performer
        self._deliveries = deliveries
        self._workflows = workflows
        self._grace = options.unknown_step_grace
        self._name = name
        self._tasks = TaskReader()
        self._found: dict[tuple[str, str, str], tuple[Graph, Workflow[Any, Any], Step[..., Any, Any] | None]] = {}
        self.counts: Counts = counts
        self.cancellations: Cancellations = Cancellations(session)
        self.bodies: Bodies = Bodies(
            session, performer, slots, counts, Lookout(session, workflows), options, pool, sharing
        )
        self._admitting = Admitting(session, performer)
        self.recorder: Recorder = Recorder(session, performer, deliveries, self.cancellations, counts, name)
        self.cancellations.on_cancelled = lambda: self.bodies.cancel(self._is_cancelled)
        self._deciding = Deciding(session, performer.awaiting)
        self.twins: Twins = Twins(session, workflows, self.bodies.running)
        performer.timers.may_hold = self._may_hold

    # --- the pipeline

    async def execute(self, delivery: Delivery, slots: Slots) -> None:  # noqa: PLR0912 - one coroutine for each task
        """Run one delivery. The caller holds one of the slots for it, which is given back here."""
        points.before("receive")
        try:
            task = self._tasks.read(delivery.message)
        except MalformedTask as error:
            self._deliveries.reject(delivery, error)
            slots.give_back()
            return
        work = Assignment(delivery, task, task.tried + 1, len(delivery.body), slots)
        points.after("receive")
        try:
            if task.twin:
                await self._run_twin(work)
                return
            found = self._found.get((task.workflow, task.version, task.step)) or await self._find(work)
            if found is None:
                await self.recorder.unknown(work, self._grace)
                return
            graph, _, step = work.graph, work.workflow, work.step = found
            if self.cancellations.stops(task, graph):
                await self.recorder.drop(work)
            elif delivery.again and await self._is_done(work):
                self._deliveries.ack(delivery)
            elif delivery.time < time() - LONG_AGO and await self._ended_long_ago(work):
                await self.recorder.drop(work)
            elif task.not_before is not None and task.turn == 0 and task.not_before > time():
                self.recorder.defer(work, task.not_before)
            elif task.step in IMPLIED:
                await self._begin(work)
            elif step is None:
                await self.recorder.unknown(work, self._grace)
            elif work.may_run_elsewhere and await self._is_held(work):
                self._deliveries.leave_to_holder(delivery)
            elif (late := _too_late(work, step)) is not None:
                self.recorder.end(work, failure_of(late, task.step), "timed_out")
            elif work.attempt > step.retry.attempts:
                await self._give_up(work, step)
            elif not step.in_thread or self.bodies.has_threads():
                run = self._run if step.batch is None else self._run_in_batch
                await run(work, step)
            else:
                await self._deliveries.hand_back(delivery, task, delay=NO_THREADS_DELAY)
        except UNREADABLE as error:
            self._unreadable(work, error)
        except Exception as error:  # a step's errors are recorded: this is the broker's, or a rule's
            self._deliveries.leave(delivery, error, work.attempt)
        finally:
            if work.slots is not None:
                work.give_back_slot()

    async def dismiss(self, delivery: Delivery) -> None:
        """Hand back a task that was fetched and cannot start here; end it if its run is cancelled."""
        try:
            task = self._tasks.read(delivery.message)
        except MalformedTask as error:
            self._deliveries.reject(delivery, error)
            return
        work = Assignment(delivery, task, task.tried + 1, len(delivery.body))
        work.graph = self._session.registry.cached_graph(task.workflow, task.version)
        if self._is_cancelled(work):
            await self._drop(work)
        else:
            await self._deliveries.hand_back(delivery, task)

    def _unreadable(self, work: Assignment, error: Exception) -> None:
        """End a task that rests on what cannot be read: its run, unless it is a twin."""
        if work.task.twin:
            self._forget(work)
        else:
            self.recorder.end_run(work, error)

    async def _find(self, work: Assignment) -> tuple[Graph, Workflow[Any, Any], Step[..., Any, Any] | None] | None:
        """Find what a task names, which stays what it is: the graph of its version, and the code that is here."""
        task = work.task
        work.graph = self._session.registry.cached_graph(task.workflow, task.version) or await self._read_graph(task)
        work.workflow = self._workflows.get(task.workflow)
        if work.workflow is not None:
            work.step = work.workflow.find_step(task.step)
        if work.workflow is None or work.graph is None or not work.graph.has(task.step):
            return None
        found = work.graph, work.workflow, work.step
        if task.version:  # without one it is the newest
            self._found[task.workflow, task.version, task.step] = found
        return found

    async def _begin(self, work: Assignment) -> None:
        """Begin the first steps of a run: where it has limits, when it has the places that they ask for."""
        if work.task.step == START or not work.known_graph.gated:  # `_admit` is there for its levels alone
            self.recorder.drive(work, begin, work.task, work.known_graph)
            return
        try:
            needed = await self._admitting.needed(work)
        except (LimitKeyFailed, RateUnitsFailed, PlaceHeld, InvalidInput) as error:
            self.recorder.end_run(work, error)
            return
        given = await self._admitting.admission(work, needed)
        # While a flood of runs is admitted, those that were go on: so it holds its slot to the end, unless it waits.
        ended = (lambda: None) if needed.rates else work.keep_slot()
        self.recorder.drive(work, self._admitting.admitted, ended, *given)

    async def _adopts(self, work: Assignment) -> bool:
        """End a step of a rerun as its elder has ended, if that went well, or was left out by its conditions."""
        found = await adopt_step(self._session, work.task, work.known_graph)
        if found is None:
            return False
        self.counts.adopted += 1
        if found.outcome.status == "skipped":
            self.recorder.drive(work, leave_out, work.task, work.known_graph, found.outcome)
            return True
        subject = self._session.names.task_of(work.task)
        self.recorder.drive(work, adopt, work.task, work.known_graph, subject, found.outcome, found.members)
        return True

    async def _read_graph(self, task: Task) -> Graph | None:
        points.before("read_graph")
        graph = await self._session.registry.graph(task.workflow, task.version)
        points.after("read_graph")
        return graph

    async def _is_done(self, work: Assignment) -> bool:
        """Go on from what earlier deliveries of a task have led to. Returns False if it must run (again)."""
        self.counts.redelivered += 1
        if await self._performer.run(redelivered(work.task, work.known_graph)):
            return True
        task, delivery = work.task, work.delivery
        tried = await self._deliveries.tried(task)
        work.attempt = task.tried + attempts_made(tried) + 1
        work.is_fresh = has_only_queued(tried, delivery.count)
        is_first = delivery.count == 1 and not self._deliveries.consumer_was_lost
        work.may_run_elsewhere = may_run_elsewhere(tried, is_first=is_first)
        return False

    async def _ended_long_ago(self, work: Assignment) -> bool:
        """Tell whether the run of a task has ended while that was queued: the mark that says so may be forgotten."""
        task, graph = work.task, work.known_graph
        return task.step not in graph.sequels and await self._has_ended(task)

    async def _has_ended(self, task: Task) -> bool:
        """Tell whether the run of a task has ended."""
        names = self._session.names
        return await self._session.store.leader_last(names.records_stream, names.run_of(task)) is not None

    async def _is_held(self, work: Assignment) -> bool:
        """Tell whether a live worker runs what may have begun and not ended. If not, that one's worker is lost."""
        task, delivery = work.task, work.delivery
        if await self._deliveries.is_held(delivery, task):
            _log.info("run %s: step %r of %r is left to the worker that runs it", task.run, task.step, task.workflow)
            return True
        if not work.is_fresh and delivery.count > 1:
            _log.warning(
                "run %s: step %r of %r is taken over from a worker that was lost: attempt %d",
                task.run,
                task.step,
                task.workflow,
                work.attempt,
            )
        return False

    async def _give_up(self, work: Assignment, step: Step[..., Any, Any]) -> None:
        """Fail a task that was begun too often, unless who began it comes back: it may be cut off for a moment."""
        for _ in range(ASKED_AGAIN if work.may_run_elsewhere else 0):
            await asyncio.sleep(min(self._deliveries.ack_wait, LOOKED_AFTER))
            if await self._performer.run(redelivered(work.task, work.known_graph)):
                self._deliveries.ack(work.delivery)
                return
            if await self._deliveries.is_held(work.delivery, work.task):
                self._deliveries.leave_to_holder(work.delivery)
                return
        self.recorder.end(work, poisoned(work.task, step))

    async def _run_twin(self, work: Assignment) -> None:
        """Run a twin, if that is worth it still. What it leads to is recorded if it is a success, and forgotten else.

        What it is the twin of, and not this, sees to it that the run ends and is counted (`jetflow.engine.hedging`).
        """
        task, delivery = work.task, work.delivery
        found = self._found.get((task.workflow, task.version, task.step)) or await self._find(work)
        if found is not None:
            work.graph, work.workflow, work.step = found
        step = work.step
        if (
            step is None
            or never(task, work.known_graph, idempotent=step.idempotent)
            or delivery.count > MOST_DELIVERIES
            or (step.in_thread and not self.bodies.has_threads())
            or self._is_cancelled(work)
            or await self._has_ended(task)
        ):
            self._deliveries.ack(delivery)
            return
        await self._run(work, step)

    async def _run(self, work: Assignment, step: Step[..., Any, Any]) -> None:
        task, delivery = work.task, work.delivery
        is_first = not task.twin  # what it is the twin of has come through all of this
        if task.elder is not None and task.turn == 0 and is_first and await self._adopts(work):
            return
        if delivery.again and is_first:
            await self._deliveries.begin(delivery, task, work.attempt)
        graph = work.known_graph
        if (task.step in graph.conditional and is_first and not await self._is_decided(work)) or (
            task.step in graph.limited and not await self._has_places(work)
        ):
            return
        if step.context_name is None:
            body = Body(task, delivery.running, is_interruptible=not step.in_thread)
        else:
            body = await self.bodies.execution(work)
        if (delivery.again or step.context_name is not None) and self._is_cancelled(work):  # since it was looked at
            await body.close()
            await self._drop(work)
            return
        work.started = started = time()
        self._deliveries.begin_body(delivery, started)
        if step.idempotent and (delivery.again or task.turn or task.twin):  # there may be a twin that was made before
            self.twins.watch(work)
        told = logs.current.set(logs.InStep(task.run, task.root, task.workflow, task.step, work.attempt))
        try:
            if hooks.tracer is None and not hooks.meters:
                await self.bodies.run(work, step, body)
            else:
                await self._run_told(work, step, body)
            if work.error is None and not (body.cancelled or body.parked):
                self.recorder.succeeded(work)
            else:
                await self._record(work, body)
        finally:  # a runner goes on with the next task only where a step has left nothing in its context
            logs.current.reset(told)

    async def _is_decided(self, work: Assignment) -> bool:
        """Tell whether a step with conditions may run. If it may not, or not yet, that is recorded."""
        try:
            found = await self._deciding.decide(work)
        except UnknownStep as error:
            await self.recorder.unknown(work, self._grace, error)
            return False
        except (PredicateFailed, SleepTooLong, InvalidInput) as error:
            self.recorder.end(work, failure_of(error, work.task.step))
            return False
        if isinstance(found, Undecided):
            self.recorder.drive(work, seal, work.task, self._deciding.parking(work, found, self._name))
        elif found.verdict != "run":
            self.recorder.left_out(work, found)
        return isinstance(found, Decided) and found.verdict == "run"

    async def _has_places(self, work: Assignment) -> bool:
        """Tell whether a step has the places that its own limits ask for. If it has not, that is recorded."""
        task = work.task
        try:
            needed = await self._admitting.step_needed(work)
        except (LimitKeyFailed, PlaceHeld, InvalidInput) as error:
            self.recorder.end(work, failure_of(error, task.step))
            return False
        if needed is None:
            why = UnknownStep(f"no worker knows the limits of step {task.step!r} of workflow {task.workflow!r}")
            if await self.recorder.left_to_others(work, self._grace, failure_of(why, task.step)):
                return False
            _log.warning("run %s: step %r of %r has no limits any more", task.run, task.step, task.workflow)
            needed = await self._admitting.record_step(work, Needed(since=work.queued_at))
        if not needed.places:
            return True
        found = await self._admitting.step_admission(work, needed)
        if isinstance(found, JoinRecord):
            self.recorder.drive(work, seal, task, found)
        elif isinstance(found, Failure):
            self.recorder.end(work, found, "timed_out")
        elif found == "has gone":  # it has ended; or it was cancelled from above, and nobody but this may know of it
            if await self._performer.run(redelivered(task, work.known_graph)):
                self._deliveries.ack(work.delivery)
            else:
                await self.recorder.drop(work)
        else:
            work.places = written_places(Place(*one) for one in needed.places)
        return found == "has all"

    async def _run_in_batch(self, work: Assignment, step: Step[..., Any, Any]) -> None:
        """Run a task when others have come that one call of its step's function handles together with it."""
        if not (step.is_async or self.bodies.has_threads()):
            await self._deliveries.hand_back(work.delivery, work.task, delay=NO_THREADS_DELAY)
            return
        batches = self.bodies.batches.of(step)
        try:
            if await batches.begins(work):
                await self._run(work, step)
            elif self._is_cancelled(work):
                await self.recorder.drop(work)
            else:
                await self._deliveries.hand_back(work.delivery, work.task)
        finally:
            batches.leave(work)

    async def _record(self, work: Assignment, body: Body) -> None:
        """Record how a body has ended that did not succeed."""
        if work.task.twin:
            self._forget(work)
        elif body.has_lost and not body.cancelled:
            await self._leave_to_twin(work)
        elif body.cancelled:
            await self.recorder.drop(work)
        elif body.parked and isinstance(body, Execution):
            self.recorder.parked(work, body)
        elif isinstance(work.error, asyncio.CancelledError) and self.bodies.stopping:
            if body.call is not None and body.call.is_hung:
                await self._deliveries.keep(work.delivery, work.task, body.call)
            else:
                await self._deliveries.hand_back(work.delivery, work.task)
        elif work.error is not None:
            error, work.error = work.error, None  # its traceback holds the assignment: a circle keeps large inputs
            self.recorder.failed(work, error)

    def _forget(self, work: Assignment) -> None:
        """End a twin that did not succeed, and leave the run to what it is the twin of."""
        task, error = work.task, work.error
        work.error = None
        self._deliveries.ack(work.delivery)
        if error is not None and not isinstance(error, asyncio.CancelledError):
            told = one_line(f"{type(error).__name__}: {error}")
            _log.warning("run %s: the twin of step %r of %r failed: %s", task.run, task.step, task.workflow, told)

    async def _leave_to_twin(self, work: Assignment) -> None:
        """End a task whose run its twin has ended, behind what follows that: the twin's worker may have died in it."""
        task, work.error = work.task, None
        _log.info("run %s: step %r of %r is stopped, for its twin was faster", task.run, task.step, task.workflow)
        if await self._performer.run(redelivered(task, work.known_graph)):
            self._deliveries.ack(work.delivery)
        else:
            await self._deliveries.hand_back(work.delivery, task)

    async def _drop(self, work: Assignment) -> None:
        """End the run of a task as cancelled; of a twin, its task alone."""
        if work.task.twin:
            self._deliveries.ack(work.delivery)
        else:
            await self.recorder.drop(work)

    async def _run_told(self, work: Assignment, step: Step[..., Any, Any], body: Body) -> None:
        """Run a body, and tell those who have asked to be told."""
        if hooks.tracer is None:
            await self.bodies.run(work, step, body)
        else:
            with hooks.tracer.attempt(work):
                await self.bodies.run(work, step, body)
        if hooks.meters:
            _measure(work)

    def _is_cancelled(self, work: Assignment) -> bool:
        return self.cancellations.stops(work.task, work.graph)

    # --- with the worker

    def stop(self) -> None:
        """Park every step that waits, and every one that is about to."""
        self.bodies.park()
        self._performer.timers.release()

    def _may_hold(self, task: Task) -> bool:
        """Tell whether a task may be held until its time: one of a step with ``max_running`` would hold a place."""
        if self.bodies.stopping or not self.recorder.may_hold():
            return False
        workflow = self._workflows.get(task.workflow)
        step = None if workflow is None else workflow.find_step(task.step)
        return step is not None and step.max_running is None


def _too_late(work: Assignment, step: Step[..., Any, Any]) -> RunTimeout | None:
    if step.schedule_timeout is None and work.task.deadline is None:
        return None
    return too_late(work.delivery, work.task, step, is_first=work.attempt == 1 and work.is_fresh)


def _measure(work: Assignment) -> None:
    """Tell how long a task was queued, and how long its body has run."""
    labels = {"workflow": work.task.workflow, "step": work.task.step}
    hooks.observe(QUEUE_DURATION, max(0.0, work.started - work.queued_at), labels)
    hooks.observe(STEP_DURATION, max(0.0, time() - work.started), labels | {"status": work.status})
