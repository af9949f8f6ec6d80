"""One delivery, from its message to its acknowledgement: decode, check, run, record, advance, ack."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, time
from typing import Any, Final, Literal

import msgspec

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.context import Context
from jetflow.engine.graph import START, Graph
from jetflow.engine.joins import JoinRecord, failed_join
from jetflow.engine.tasks import NULL, Attempt, Failure, Outcome, Task
from jetflow.engine.transitions import begin, conclude, finish, postpone, redelivered, repeat_end, seal
from jetflow.errors import (
    JetflowError,
    MalformedRecord,
    PayloadTooLarge,
    RetryAfter,
    RunTimeout,
    StepTimeout,
    UnknownStep,
    UnknownVersion,
)
from jetflow.runs import points
from jetflow.runs.cancelling import cancelled
from jetflow.runs.performer import AnyProcedure, Performer
from jetflow.runs.tasks import TaskReader
from jetflow.runs.values import LARGEST, LostValue, get, with_output
from jetflow.wire.records import MalformedTask, decode_attempt, decode_outcome
from jetflow.wire.subjects import last_token
from jetflow.worker.cancellation import Cancellations
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.execution import Body, Execution
from jetflow.worker.failures import FINAL, failure_of, poisoned, too_late
from jetflow.worker.options import WorkerOptions
from jetflow.worker.slots import LentSlot, Slots
from jetflow.worker.spawning import Limits
from jetflow.workflow import Step, Workflow

RECORDING_AHEAD: Final = 1000
"""Tasks whose outcomes may be on their way to the broker; above, nothing more is fetched."""

UNREADABLE: Final = (MalformedRecord, LostValue)
"""Errors of what an earlier step or delivery has stored: no later delivery will read it."""

_log = logging.getLogger("jetflow.worker")


class Executor:
    """Runs deliveries of the steps of some workflows."""

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
    ) -> None:
        self._cancellations = Cancellations(session, self._on_cancelled)
        self._session = session
        self._performer = performer
        self._slots = slots
        self._deliveries = deliveries
        self.counts: Counts = counts
        self._tasks = TaskReader()
        self._workflows = workflows
        self._options = options
        self._name = name
        self._threads = ThreadPoolExecutor(options.slots + options.max_waiting, thread_name_prefix="jetflow-step")
        self._recorded = asyncio.Event()
        self.bodies: set[Body] = set()
        self.recording: int = 0
        self.mean_duration: float = 0.0
        self.stopping: bool = False
        self._full_trees: set[str] = set()
        performer.timers.may_hold = self._may_hold
        performer.timers.on_holding = self._on_holding
        self.on_room: Callable[[], None] = lambda: None
        # what the crowd of waiting steps has to know
        self.waiting: int = 0
        self.park_after: float = options.park_after

    @property
    def cancellations(self) -> Cancellations:
        """Which runs are cancelled."""
        return self._cancellations

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached at this moment."""
        return self._session.connection.is_connected

    def _on_cancelled(self) -> None:
        for body in list(self.bodies):
            graph = self._session.registry.cached_graph(body.task.workflow, body.task.version)
            if self._is_cancelled(body.task, graph):
                body.cancel()

    def _is_cancelled(self, task: Task, graph: Graph | None) -> bool:
        """Tell whether a task is not to be run any more. What runs after a failure is not stopped by its own run's end.

        A run that fails fast is marked as cancelled itself, and its step for failures runs then.
        """
        if not self._cancellations:
            return False
        if graph is not None and task.step == graph.on_failure and graph.fail_fast:
            return self._cancellations.covers_family(task)
        return self._cancellations.covers(task)

    def name_of(self, running: asyncio.Task[Any]) -> str:
        """Return which step a task of the event loop runs."""
        for body in list(self.bodies):
            if body.runs_in(running):
                task = body.task
                return f"step {task.step!r} of {task.workflow!r}, run {task.run},"
        return running.get_name()

    def has_room(self) -> bool:
        """Tell whether one more step may wait warm."""
        return not self.stopping and self.waiting < self._options.max_waiting

    def park_waiting(self) -> None:
        """Park every step that waits, and every one that is about to."""
        self.stopping = True
        self._performer.timers.release()
        for body in list(self.bodies):
            body.park()

    def _may_hold(self, task: Task) -> bool:
        """Tell whether a task may be held until its time: one of a step with ``max_running`` would hold a place."""
        workflow = self._workflows.get(task.workflow)
        step = None if workflow is None else workflow.find_step(task.step)
        return not self.stopping and step is not None and step.max_running is None

    async def drained(self) -> None:
        """Wait until everything that steps have led to is recorded."""
        while self.recording:
            self._recorded.clear()
            await self._recorded.wait()
        await self._deliveries.drained()
        await self._performer.stop()

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- the pipeline

    async def execute(self, delivery: Delivery) -> None:
        """Run one delivery. The caller holds a slot for it, which is given back here."""
        slot = LentSlot(self._slots)
        points.before("receive")
        try:
            task = self._tasks.read(delivery.message)
        except MalformedTask as error:
            self._deliveries.reject(delivery, error)
        else:
            self._deliveries.begin(delivery, task)
            try:
                await self._execute(delivery, task, slot)
            except UNREADABLE as error:
                self._unreadable(delivery, task, error)
            except Exception as error:  # a step's errors are recorded below: this is the broker's, or a rule's
                self._deliveries.leave(delivery, error)
            finally:
                self._deliveries.end(delivery)
        finally:
            slot.give_back()

    async def dismiss(self, delivery: Delivery) -> None:
        """Hand back a task that was fetched and cannot start here; end it if its run is cancelled."""
        try:
            task = self._tasks.read(delivery.message)
        except MalformedTask as error:
            self._deliveries.reject(delivery, error)
            return
        if self._is_cancelled(task, self._session.registry.cached_graph(task.workflow, task.version)):
            await self._drop(delivery, task)
        else:
            await self._deliveries.hand_back(delivery, task)

    async def _execute(self, delivery: Delivery, task: Task, slot: LentSlot) -> None:
        points.after("receive")
        registry = self._session.registry
        graph = registry.cached_graph(task.workflow, task.version)
        if graph is None:
            points.before("read_graph")
            graph = await registry.graph(task.workflow, task.version)
            points.after("read_graph")
        workflow = self._workflows.get(task.workflow)
        step = None if workflow is None else workflow.find_step(task.step)
        if graph is None or workflow is None or not graph.has(task.step):
            await self._unknown(delivery, task, graph)
            return
        if self._is_cancelled(task, graph):
            await self._drop(delivery, task)
            return
        attempt = task.tried + delivery.count
        if delivery.again:
            self.counts.redelivered += 1
            if await self._performer.run(redelivered(task, graph)):
                self._deliveries.ack(delivery)
                return
            attempt = await self._deliveries.attempt(delivery, task)
        if task.step == START:
            self._drive(delivery, task, begin(task, graph))
        elif step is None:
            await self._unknown(delivery, task, graph)
        elif (late := too_late(delivery, task, step, attempt)) is not None:
            self._end(delivery, task, attempt, failure_of(late, task.step), graph, status="timed_out")
        elif attempt > step.retry.attempts:
            self._end(delivery, task, attempt, poisoned(delivery, task, step), graph)
        else:
            await self._run(delivery, task, graph, workflow, step, attempt, slot)

    async def _run(
        self,
        delivery: Delivery,
        task: Task,
        graph: Graph,
        workflow: Workflow[Any, Any],
        step: Step[..., Any, Any],
        attempt: int,
        slot: LentSlot,
    ) -> None:
        if step.context_name is None:
            context, body = None, Body(task, delivery.running, is_async=step.is_async)
        else:
            body = await self._execution(delivery, task, graph, step, attempt)
            context = Context(body)
        if (context is not None or delivery.again) and self._is_cancelled(task, graph):  # since it was looked at first
            await body.close()
            await self._drop(delivery, task)
            return
        slot.lend(body)
        self.bodies.add(body)
        self.counts.executed += 1
        started, began = time(), monotonic()
        output, failure = NULL, None
        try:
            data = task.input if task.value is None else await self._input(task.root, task.value)
            arguments = step.arguments(step.input.decode(data), context)
            points.before("body")
            if step.timeout is None and task.deadline is None:
                result = await self._invoke(step, arguments)
            else:
                result = await self._invoke_in_time(step, arguments, body, task.deadline)
            points.after("body")
            output = self._encode(workflow, graph, step, result)
        except BaseException as error:
            failure = error
        finally:
            self.bodies.discard(body)
            if context is not None:
                points.before("stop_listening")
                await body.close()
                points.after("stop_listening")
        slot.give_back()
        self.mean_duration += (monotonic() - began - self.mean_duration) / 16
        if failure is None and not body.parked and not body.cancelled:
            self._succeeded(delivery, task, graph, body, output, attempt, started)
        else:
            await self._not_succeeded(delivery, task, graph, step, body, attempt, failure, started)

    async def _not_succeeded(
        self,
        delivery: Delivery,
        task: Task,
        graph: Graph,
        step: Step[..., Any, Any],
        body: Body,
        attempt: int,
        failure: BaseException | None,
        started: float,
    ) -> None:
        if body.cancelled:
            await self._drop(delivery, task)
        elif body.parked and isinstance(body, Execution):
            self.counts.parked += 1
            self._drive(delivery, task, seal(task, body.parking()))
        elif isinstance(failure, asyncio.CancelledError) and self.stopping:
            await self._deliveries.hand_back(delivery, task)
        elif failure is not None:
            self._failed(delivery, task, graph, step, body, attempt, failure, started)

    async def _execution(
        self, delivery: Delivery, task: Task, graph: Graph, step: Step[..., Any, Any], attempt: int
    ) -> Execution:
        return Execution(
            self._session,
            task,
            delivery.running,
            attempt=attempt,
            delivery=delivery.count,
            clean=task.turn == 0 and not delivery.again,
            slots=self._slots,
            crowd=self,
            limits=Limits(self._options.max_depth, self._options.max_descendants, self._full_trees),
            cold=step.max_running is not None,
            telling=self._performer.telling if step.name in graph.in_line else None,
            policy=step.join,
            cancel_open=self._performer.cancel_open,
            is_async=step.is_async,
            outputs=await self._outputs(task, graph),
            errors=await self._errors(task) if task.step == graph.on_failure else (),
        )

    async def _input(self, root: str, reference: str) -> bytes:
        """Read a large input."""
        points.before("read_input")
        body = await get(self._session, root, reference)
        points.after("read_input")
        return body

    def _invoke(self, step: Step[..., Any, Any], arguments: dict[str, Any]) -> Awaitable[Any]:
        """Call a step's function, here or in a thread."""
        function: Callable[..., Any] = step.function
        if step.is_async:
            return function(**arguments)
        call = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._threads, lambda: call.run(function, **arguments))

    async def _invoke_in_time(
        self, step: Step[..., Any, Any], arguments: dict[str, Any], body: Body, deadline: float | None
    ) -> Any:
        """Call a step's function, and end it when its time is over."""
        timeout = asyncio.timeout(step.timeout)
        end = asyncio.timeout(None if deadline is None else max(0.0, deadline - time()))
        try:
            async with end, timeout:
                body.bound(timeout)
                return await self._invoke(step, arguments)
        except TimeoutError:
            if timeout.expired():
                raise StepTimeout(step.name, step.timeout or 0.0) from None
            if end.expired():
                raise RunTimeout("the deadline of the run passed while it was running") from None
            raise

    def _encode(
        self, workflow: Workflow[Any, Any], graph: Graph, step: Step[..., Any, Any], result: Any
    ) -> msgspec.Raw:
        codec = workflow.output if graph.sinks == (step.name,) else step.output
        output = codec.encode_output(result)
        if len(output) > LARGEST:
            raise PayloadTooLarge(
                f"the output of step {step.name!r} of workflow {workflow.name!r}", len(output), LARGEST
            )
        return msgspec.Raw(output)

    async def _outputs(self, task: Task, graph: Graph) -> dict[str, Outcome]:
        """Read the outputs of the steps before this one."""
        before = graph.ancestors.get(task.step)
        if not before:
            return {}
        names, store = self._session.names, self._session.store
        join = task.join
        points.before("read_outputs_before")
        subjects = [names.step(msgspec.structs.replace(join, step=step)) for step in before]
        stored = {message.subject: message for message in await collect(store.many(names.records_stream, subjects))}
        for subject in subjects:
            if subject not in stored:  # a replica that lags: the leader has it, or this task would not exist
                message = await store.leader_last(names.records_stream, subject)
                if message is not None:
                    stored[subject] = message
        outputs = {
            last_token(subject): await with_output(self._session, task.root, decode_outcome(message.body))
            for subject, message in stored.items()
        }
        points.after("read_outputs_before")
        return outputs

    async def _errors(self, task: Task) -> list[Failure]:
        """Read why a run has failed: the errors of its steps first, then those of the attempts before."""
        names, store = self._session.names, self._session.store
        points.before("read_errors")
        ended = await store.leader_last(names.records_stream, names.run_of(task))
        told = () if ended is None else decode_outcome(ended.body).failures
        tried = await collect(store.pages(names.records_stream, names.attempts_of_run(task.root, task.run)))
        points.after("read_errors")
        earlier = [decode_attempt(stored.body).error for stored in tried]
        return [*told, *(error for error in earlier if error is not None)]

    # --- how a delivery ends

    def _succeeded(
        self,
        delivery: Delivery,
        task: Task,
        graph: Graph,
        body: Body,
        output: msgspec.Raw,
        attempt: int,
        started: float,
    ) -> None:
        self.counts.succeeded += 1
        ended = time()
        spawned = bool(body.spawned())
        if isinstance(body, Execution):
            alone = len(graph.nodes) == 1
            record = body.sealing(output, started=started, ended=ended, worker=self._name, alone=alone)
            if record is not None:
                self._drive(delivery, task, seal(task, record))
                return
        outcome = Outcome(
            status="succeeded",
            output=output,
            workflow=task.workflow,
            step=task.step,
            key=task.key,
            attempt=attempt,
            started=started,
            ended=ended,
            worker=self._name,
        )
        self._drive(delivery, task, finish(task, graph, outcome, spawned=spawned))

    def _failed(
        self,
        delivery: Delivery,
        task: Task,
        graph: Graph,
        step: Step[..., Any, Any],
        body: Body,
        attempt: int,
        error: BaseException,
        started: float,
    ) -> None:
        failure = failure_of(error, task.step)
        delay = None if isinstance(error, FINAL) else step.retry.delay(attempt, random.random())
        if delay is not None and isinstance(error, RetryAfter):
            delay = error.seconds
        if delay is not None and task.deadline is not None and task.step != graph.on_failure:
            delay = min(delay, max(0.0, task.deadline - time()))
        if delay is None:
            status = "timed_out" if isinstance(error, StepTimeout | RunTimeout) else "failed"
            self._end(
                delivery, task, attempt, failure, graph, started=started, status=status, spawned=bool(body.spawned())
            )
            return
        self.counts.retried += 1
        _log.info(
            "run %s: attempt %d of step %r of %r failed (%s: %s), next in %.1f s",
            task.run,
            attempt,
            task.step,
            task.workflow,
            failure.type,
            failure.message,
            delay,
        )
        now = time()
        tried = Attempt(
            attempt=attempt, worker=self._name, started=started, ended=now, error=failure, again=now + delay
        )
        parked = JoinRecord(
            kind="parked",
            turn=task.turn,
            task=self._session.names.task_of(task),
            needed=0,
            until=tried.again,
            tried=attempt,
            attempt=attempt,
            started=started,
            ended=now,
            worker=self._name,
        )
        self._drive(delivery, task, postpone(task, delivery.count, tried, parked))

    async def _drop(self, delivery: Delivery, task: Task) -> None:
        """End the run of a task as cancelled. Runs that it has spawned are marked too, for others may run them.

        Of a deleted tree nothing is stored any more, and of a run that has ended what follows its end: a run that fails
        fast is marked by its own end, and a worker that died in the middle of it has left a task that is dropped here.
        """
        if self._cancellations.deleted(task.root):
            self._deliveries.ack(delivery)
            return
        ended = await self._read_end(task)
        if ended is not None:
            if ended.subject == self._session.names.run_of(task):
                graph = self._session.registry.cached_graph(task.workflow, task.version)
                self._drive(delivery, task, repeat_end(task, graph, decode_outcome(ended.body)))
            else:
                self._deliveries.ack(delivery)
            return
        mark = self._session.names.cancelled(task.root, task.run)
        if not self._cancellations.knows(task.root, task.run):
            points.before("store_cancelled_mark")
            await self._session.publisher.store(mark, b"", timeout=30)
            points.after("store_cancelled_mark")
        self._drive(delivery, task, conclude(task, cancelled(task, self._name)))

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

    def _end(
        self,
        delivery: Delivery,
        task: Task,
        attempt: int,
        failure: Failure,
        graph: Graph | None,
        *,
        started: float = 0.0,
        status: Literal["failed", "timed_out"] = "failed",
        spawned: bool = False,
    ) -> None:
        """End a step without an output; where its graph is not known, its run. ``spawned`` tells of this attempt."""
        outcome = self._without_output(task, attempt, failure, started=started, status=status)
        if graph is None:
            self._drive(delivery, task, conclude(task, outcome))
        elif len(graph.nodes) > 1 and (spawned or self._may_have_spawned(delivery, task)):
            # A step beside this one may wait for a child of it, and is woken by its join.
            self._drive(delivery, task, seal(task, failed_join(self._session.names.task_of(task), task.turn, outcome)))
        else:
            self._drive(delivery, task, finish(task, graph, outcome))

    def _without_output(
        self,
        task: Task,
        attempt: int,
        failure: Failure,
        *,
        started: float = 0.0,
        status: Literal["failed", "timed_out"] = "failed",
    ) -> Outcome:
        self.counts.failed += 1
        _log.warning(
            "run %s of %r failed in step %r: %s: %s", task.run, task.workflow, task.step, failure.type, failure.message
        )
        return Outcome(
            status=status,
            error=failure,
            workflow=task.workflow,
            step=task.step,
            key=task.key,
            attempt=attempt,
            started=started,
            ended=time(),
            worker=self._name,
        )

    def _may_have_spawned(self, delivery: Delivery, task: Task) -> bool:
        """Tell whether an earlier attempt of a step may have spawned children."""
        workflow = self._workflows.get(task.workflow)
        step = None if workflow is None else workflow.find_step(task.step)
        without_context = step is not None and step.context_name is None
        return not without_context and (delivery.again or task.turn > 0)

    def _unreadable(self, delivery: Delivery, task: Task, error: JetflowError) -> None:
        """End the run of a task that rests on what cannot be read."""
        graph = self._session.registry.cached_graph(task.workflow, task.version)
        outcome = self._without_output(task, task.tried + delivery.count, failure_of(error, task.step))
        if graph is not None and task.step == graph.on_failure:  # its run has ended
            self._drive(delivery, task, finish(task, graph, outcome))
        else:
            self._drive(delivery, task, conclude(task, outcome, graph))

    async def _unknown(self, delivery: Delivery, task: Task, graph: Graph | None) -> None:
        """Leave a step that this worker does not know to others for a while, then fail it by name.

        The while begins when a worker first did not know the step: the task may have been queued for long before.
        """
        unknown_version = None if graph is not None else UnknownVersion(task.workflow, task.version)
        error = unknown_version or UnknownStep(
            f"no worker knows step {task.step!r} of workflow {task.workflow!r} (version {task.version or 'unknown'}): "
            "its code was changed or removed while the run was under way"
        )
        failure = failure_of(error, task.step)
        tried = await self._deliveries.tried(task) if delivery.count > 1 else []
        since = [
            record.started
            for record in tried
            if record.error is not None and record.error.type == failure.type and record.started
        ]
        grace = self._options.unknown_step_grace
        if time() - min(since, default=time()) < grace:
            await self._deliveries.hand_back(delivery, task, failure=failure, delay=min(1.0, grace))
        else:
            known = graph if graph is not None and graph.has(task.step) else None
            self._end(delivery, task, task.tried + delivery.count, failure, known)

    def _drive(self, delivery: Delivery, task: Task, procedure: AnyProcedure) -> None:
        """Have a procedure performed, and acknowledge its delivery behind it."""
        self.recording += 1
        self._performer.drive(procedure, partial(self._driven, delivery, task))

    def _on_holding(self, change: int) -> None:
        """Note that a step that is held in memory until it is tried again records nothing meanwhile, or goes on."""
        if change > 0:
            self._record_less()
        else:
            self.recording += 1

    def _record_less(self) -> None:
        self.recording -= 1
        if not self.recording:
            self._recorded.set()
        if self.recording == RECORDING_AHEAD:
            self.on_room()

    def _driven(self, delivery: Delivery, task: Task, _: Any, error: BaseException | None) -> None:
        self._record_less()
        if error is None:
            self._deliveries.ack(delivery)
        elif isinstance(error, UNREADABLE):
            self._unreadable(delivery, task, error)
        else:
            self._deliveries.leave(delivery, error)
