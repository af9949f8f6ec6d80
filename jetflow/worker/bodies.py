"""Running the functions of steps: here or in threads, within their time, with what they ask for."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic, time
from typing import Any, Final

import msgspec

from jetflow import forks, hooks
from jetflow.broker.session import Session
from jetflow.context import Context
from jetflow.engine.tasks import Task
from jetflow.errors import PayloadTooLarge, ProcessDied, RunTimeout, StepTimeout
from jetflow.processes.pool import Pool
from jetflow.processes.pool_messages import Call
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.runs.values import LARGEST
from jetflow.wire.codec import Codec
from jetflow.worker.adopting import Adopting
from jetflow.worker.assignment import Assignment
from jetflow.worker.batches import Batches
from jetflow.worker.body import Body
from jetflow.worker.counts import Counts
from jetflow.worker.execution import Execution
from jetflow.worker.inputs import Inputs
from jetflow.worker.lookout import Lookout
from jetflow.worker.members import Member
from jetflow.worker.options import WorkerOptions
from jetflow.worker.repeatable import Repeatable
from jetflow.worker.sharing import Sharing
from jetflow.worker.slots import Slots
from jetflow.worker.spawning import Limits
from jetflow.worker.threads import Threads
from jetflow.worker.voices import Voices
from jetflow.workflow import Step

DEAD_IN_A_ROW: Final = 3
"""Processes that may die before they have called a step's function without that it counts as an attempt."""

_log = logging.getLogger("jetflow.worker")


class Bodies:
    """The bodies that run in this worker (``running``, the newest last), and the crowd of those that wait.

    ``park_after``, in seconds, is read by each that begins to wait. ``seconds`` is how long all have run in sum.
    """

    def __init__(
        self,
        session: Session,
        performer: Performer,
        slots: Slots,
        counts: Counts,
        lookout: Lookout,
        options: WorkerOptions,
        pool: Pool | None,
        sharing: Sharing,
    ) -> None:
        self._sharing = sharing
        self._session = session
        self._performer = performer
        self._slots = slots
        self.counts: Counts = counts
        self.lookout: Lookout = lookout
        self._inputs = Inputs(session)
        self.batches: Batches = Batches(slots, self._inputs, self._called)
        self._limits = Limits(options.max_depth, options.max_descendants, set())
        self._max_waiting = options.max_waiting
        self.voices: Voices = Voices(session, keeps_logs=options.keep_logs)
        self.threads: Threads = Threads()
        self._threads_hang = False
        self._pool = pool
        self._waiting_in_processes = _CrowdInProcesses(self, options.pool().size)
        self.running: dict[Assignment, Body] = {}
        self._born = forks.generation()
        self.stopping: bool = False
        self.waiting: int = 0
        self.seconds: float = 0.0
        self.park_after: float = options.park_after

    # --- one body

    async def execution(self, work: Assignment) -> Execution:
        """Return the body of a step that has a context, with what it is given."""
        task, step, graph = work.task, work.known_step, work.known_graph
        made = Member if step.batch is not None else Repeatable if step.idempotent else Execution
        return made(
            self._session,
            work,
            slots=work.slots or self._slots,
            crowd=self._waiting_in_processes if step.in_process else self,
            limits=self._limits,
            lookout=self.lookout,
            telling=self._performer.telling if step.name in graph.in_line else None,
            cancel_open=self._performer.cancel_open,
            drive=self._performer.run,
            outputs=await self._inputs.outputs(task, graph),
            errors=await self._inputs.errors(task) if task.step == graph.on_failure else (),
            voice=partial(self.voices.of, work),
            awaiting=self._performer.awaiting,
            adopting=None if task.elder is None else Adopting(self._session, task, graph, self._performer.run),
        )

    async def run(self, work: Assignment, step: Step[..., Any, Any], body: Body) -> None:
        """Run the body of an assignment. Its output or its error is left in the assignment, and the slot is free."""
        task, work.body = work.task, body
        context = Context(body) if isinstance(body, Execution) else None
        self.running[work] = body
        self.counts.executed += 1
        began = monotonic()
        if self.voices.keeps_logs:
            self.voices.enter(work)
        try:
            data = task.input if task.value is None else await self._inputs.large(task.root, task.value)
            if step.in_process:
                output = await self._in_process(work, step, body, data)
            else:
                arguments = step.arguments(step.input.decode(data), context)
                points.before("body")
                if step.is_plain and task.deadline is None:
                    result = await step.function(**arguments)
                else:
                    called = self._called if step.batch is None else self.batches.called
                    call = partial(called, step, body, arguments, context)
                    is_timed = step.timeout is not None or task.deadline is not None
                    result = await (self._in_time(step, body, task, call) if is_timed else call())
                points.after("body")
                output = _codec(work, step).encode_output(result)
            size = len(output)
            if size > LARGEST:
                what = f"the output of step {step.name!r} of workflow {step.workflow!r}"
                raise PayloadTooLarge(what, size, LARGEST)
            work.size += size
            work.output = msgspec.Raw(output)
        except BaseException as error:  # whatever it is, it is how the step has ended
            work.error, body.is_void = error, True
        finally:
            if forks.is_child(self._born):  # the function has forked, and this is the child's return from it
                forks.end_child()
            del self.running[work]
            if context is not None:
                points.before("stop_listening")
                await body.close()
                points.after("stop_listening")
            if work.voice is not None:
                await self.voices.leave(work)
        slots = work.slots or self._slots
        took = monotonic() - began
        self.seconds += took
        slots.mean_duration += (took - slots.mean_duration) / 16
        work.give_back_slot()

    def _called(
        self, step: Step[..., Any, Any], body: Body, arguments: dict[str, Any], context: Context | None
    ) -> Awaitable[Any]:
        if not step.is_async:
            return self._in_thread(step, body, arguments, context)
        if step.dependencies:
            return self._sharing.call(step, arguments, context)
        return step.function(**arguments)

    def _in_thread(
        self, step: Step[..., Any, Any], body: Body, arguments: dict[str, Any], context: Context | None
    ) -> Awaitable[Any]:
        """Call a step's function in a thread."""
        function: Callable[[], Any] = partial(step.function, **arguments)
        if step.dependencies:
            function = self._sharing.called_beside(step, arguments, context)
        call = contextvars.copy_context()
        body.call = self.threads.call(lambda: call.run(function))
        return self._awaited(body, body.call.result) if step.wraps_async else body.call.result

    async def _awaited(self, body: Body, called: Awaitable[Any]) -> Any:
        """Return what a decorated coroutine function gives: the decorator may have run it, or hand it over."""
        result = await called
        if not inspect.isawaitable(result):
            return result
        if body.comes_to_the_loop():
            return await result
        if inspect.iscoroutine(result):
            result.close()
        raise asyncio.CancelledError

    async def _in_process(self, work: Assignment, step: Step[..., Any, Any], body: Body, data: bytes) -> bytes:
        """Call a step's function in a process, which is killed when this is cancelled."""
        pool, task = self._pool, work.task
        assert pool is not None, "a worker with such steps has a pool"
        host = body if isinstance(body, Execution) else None
        asked = Call(
            workflow=task.workflow,
            step=task.step,
            run=task.run,
            root=task.root,
            attempt=work.attempt,
            input=data,
            is_the_runs=work.known_graph.sinks == (step.name,),
            metadata=task.metadata,
            outputs={} if host is None else host.outputs,
            skipped=() if host is None else host.skipped,
            errors=() if host is None else host.errors,
            trace=None if hooks.tracer is None else hooks.tracer.current(),
            level=task.level,
        )
        for left in range(DEAD_IN_A_ROW, -1, -1):
            process = await pool.take()
            try:
                points.before("body")
                call = partial(pool.run, process, asked, host)
                if step.timeout is None and task.deadline is None:
                    output = await call()
                else:
                    output = await self._in_time(step, body, task, call)
                points.after("body")
                return output
            except ProcessDied:
                if process.has_begun or not left:
                    raise
            finally:
                pool.give_back(process)
        raise AssertionError("the last one has returned, or raised")

    async def _in_time(
        self, step: Step[..., Any, Any], body: Body, task: Task, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Call a step's function, and end it when its time is over."""
        deadline = task.deadline
        timeout = asyncio.timeout(step.timeout)
        end = asyncio.timeout(None if deadline is None else max(0.0, deadline - time()))
        try:
            async with end, timeout:
                body.bound(timeout)
                return await call()
        except TimeoutError:
            if timeout.expired():
                raise StepTimeout(step.name, (step.timeout or 0.0) + body.extended) from None
            if end.expired():
                raise RunTimeout("the deadline of the run passed while it was running") from None
            raise

    # --- all of them

    def cancel(self, is_cancelled: Callable[[Assignment], bool]) -> None:
        """Tell those that are cancelled."""
        for work, body in list(self.running.items()):
            if is_cancelled(work):
                body.cancel()
        self.batches.cancel(is_cancelled)

    def park(self) -> None:
        """Park every step that waits, and every one that is about to: the worker stops."""
        self.stopping = True
        self.batches.stop()
        for body in list(self.running.values()):
            body.park()

    def has_room(self) -> bool:
        """Tell whether one more step may wait warm."""
        return not self.stopping and self.waiting < self._max_waiting

    def has_threads(self) -> bool:
        """Tell whether a step may begin in a thread: not while more of them hang than this worker has slots."""
        hang = self.threads.has_hung(self._slots.count)
        if hang and not self._threads_hang:
            _log.error(
                "more than %d threads go on behind steps that have timed out or were cancelled: this worker begins no "
                "plain def steps until they have returned, or it is started again",
                self._slots.count,
            )
        self._threads_hang = hang
        return not hang

    def name_of(self, running: asyncio.Task[Any]) -> str:
        """Return which step a task of the event loop runs."""
        for work, body in list(self.running.items()):
            if body.runs_in(running):
                return f"step {work.task.step!r} of {work.task.workflow!r}, run {work.task.run},"
        return running.get_name()

    def close(self) -> None:
        """Let the threads go."""
        self.voices.stop()
        self.threads.close()


class _CrowdInProcesses:
    """The steps that wait in processes: each keeps its process meanwhile, so that only a few may."""

    def __init__(self, bodies: Bodies, most: int) -> None:
        self._bodies = bodies
        self._most = most
        self.waiting: int = 0

    @property
    def park_after(self) -> float:
        """See `Bodies`."""
        return self._bodies.park_after

    def has_room(self) -> bool:
        """Tell whether one more process may wait warm."""
        return not self._bodies.stopping and self.waiting < self._most


def _codec(work: Assignment, step: Step[..., Any, Any]) -> Codec[Any]:
    """Return what writes a step's output: of the last step it is the run's."""
    workflow, graph = work.workflow, work.graph
    if workflow is not None and graph is not None and graph.sinks == (step.name,):
        return workflow.output
    return step.output
