"""The worker: pulls the tasks of its workflows' steps and runs them on its slots.

Start and stop are the whole contract: ``async with Worker(...)`` embeds one in a service, ``await worker.run()`` is a
process of its own that ends at SIGTERM or SIGINT. All of it runs on one event loop; only heartbeats have a thread.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any

import msgspec

from jetflow.broker.connection import Server
from jetflow.broker.puller import Puller
from jetflow.broker.session import Session
from jetflow.broker.topology import (
    Retention,
    consumers_of,
    ensure_due_consumer,
    ensure_inbox_consumer,
    ensure_step_consumer,
)
from jetflow.errors import BrokerError, InvalidDeclaration
from jetflow.runs.performer import Performer
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.errands import Errands
from jetflow.worker.executor import Executor
from jetflow.worker.fetching import Fetcher
from jetflow.worker.heartbeat import Heartbeat
from jetflow.worker.inbox import INBOX_WINDOW, Inbox
from jetflow.worker.options import WorkerOptions
from jetflow.worker.slots import Slots
from jetflow.worker.sweeper import Sweeper
from jetflow.worker.waking import WAKING_WINDOW, Waking
from jetflow.workflow import Workflow

_log = logging.getLogger("jetflow.worker")


class Worker:
    """Runs the steps of some workflows.

    ``server`` is a URL, several, or a connected client; None reads ``NATS_URL``, then the local default. ``slots`` is
    how many step bodies run at once. Everything else is in ``options``.

    Raises:
        InvalidDeclaration: no workflow, or two of one name.
    """

    def __init__(
        self,
        workflows: Iterable[Workflow[Any, Any]] | Workflow[Any, Any],
        *,
        server: Server = None,
        namespace: str = "default",
        slots: int | None = None,
        options: WorkerOptions | None = None,
    ) -> None:
        declared = [workflows] if isinstance(workflows, Workflow) else list(workflows)
        self.workflows: dict[str, Workflow[Any, Any]] = {workflow.name: workflow for workflow in declared}
        if not declared or len(self.workflows) < len(declared):
            raise InvalidDeclaration("a worker runs at least one workflow, and no two of one name")
        for workflow in declared:
            _ = workflow.graph  # a workflow that is not whole is refused here
        options = options or WorkerOptions()
        self.options: WorkerOptions = options if slots is None else msgspec.structs.replace(options, slots=slots)
        self.name: str = f"{socket.gethostname()}-{os.getpid()}"
        self._server = server
        self._namespace = namespace
        self._session: Session | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self._errands: list[Errands] = []

    # --- life

    async def __aenter__(self) -> Worker:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect, declare the workflows, and begin to pull.

        Raises:
            ServerUnreachable, ServerTooOld, JetStreamUnavailable: there is no server to work with.
        """
        if self._session is not None:
            return
        options = self.options
        session = await Session.open(
            self._server,
            self._namespace,
            timeout=options.connect_timeout,
            retention=Retention(replicas=options.replicas),
            durable=options.durable,
        )
        self._session = session
        self._fetcher = Fetcher()
        slots = Slots(options.slots, self._fetcher.dispatch)
        performer = Performer(session)
        self._counts = counts = Counts()
        self._deliveries = deliveries = Deliveries(session, counts, self.name)
        self._executor = Executor(session, performer, slots, deliveries, counts, self.workflows, options, self.name)
        self._fetcher.bind(slots, deliveries, self._executor)
        self._heartbeat = Heartbeat(
            session.connection, deliveries.held, self._executor.name_of, ack_wait=options.ack_wait
        )
        self._sweeper = Sweeper(session, performer, counts, every=options.sweep_every, keep=options.keep)
        inbox = Inbox(session, performer, counts, self.name)
        waking = Waking(session, performer, counts)
        names, ack_wait = session.names, options.ack_wait
        self._errands = [
            Errands(
                session,
                deliveries,
                names.inbox_stream,
                names.inbox_consumer,
                partial(ensure_inbox_consumer, session.connection, names, ack_wait=ack_wait),
                inbox.handle,
                window=INBOX_WINDOW,
            ),
            Errands(
                session,
                deliveries,
                names.timers_stream,
                names.due_consumer,
                partial(ensure_due_consumer, session.connection, names, ack_wait=ack_wait),
                waking.handle,
                window=WAKING_WINDOW,
            ),
        ]
        try:
            await self._begin(session)
        except BaseException:
            await self.stop()
            raise
        _log.info("worker %s runs %s", self.name, ", ".join(self.workflows))

    async def _begin(self, session: Session) -> None:
        await asyncio.gather(*(session.registry.declare(workflow.declaration) for workflow in self.workflows.values()))
        await self._heartbeat.start()
        await self._executor.cancellations.start()
        for workflow, step in await self._steps_to_pull(session):
            await self._add_puller(session, workflow, step)
        for errands in self._errands:
            await errands.start()
        await self._sweeper.start()
        self._fetcher.begin()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _steps_to_pull(self, session: Session) -> list[tuple[str, str]]:
        """Return the steps of this worker's workflows, and those that an earlier version of them had."""
        steps = [(workflow.name, step) for workflow in self.workflows.values() for step in workflow.consumed_steps]
        for consumer in await consumers_of(session.connection, session.names.tasks_stream):
            workflow, _, step = consumer.partition("=")
            if workflow in self.workflows and (workflow, step) not in steps:
                steps.append((workflow, step))
        return steps

    async def _add_puller(self, session: Session, workflow: str, step: str) -> None:
        declared = self.workflows[workflow].find_step(step)
        puller = Puller(
            session.connection,
            session.names.tasks_stream,
            session.names.consumer(workflow, step),
            self._fetcher.accept,
            lambda: self._in_background(make_again()),
        )

        async def ensure() -> None:
            puller.consumer_created = await ensure_step_consumer(
                session.connection,
                session.names,
                workflow,
                step,
                ack_wait=self.options.ack_wait,
                max_running=None if declared is None else declared.max_running,
            )

        async def make_again() -> None:
            try:
                await ensure()
            except BrokerError as error:  # the puller goes on asking, and asks for this again
                _log.warning("the consumer of step %r of %r could not be made again: %s", step, workflow, error)

        await ensure()
        await puller.start()
        self._fetcher.pullers.append(puller)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop within the grace time. A second signal ends the grace time.

        Raises:
            The same as `start`.
        """
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def on_signal() -> None:
            if told.is_set():
                self._hurry.set()
            told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await self.start()
            _calm_collector()
            await told.wait()
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def stop(self) -> None:
        """Stop pulling, park the waiting, let running steps finish within the grace time, hand back the rest.

        Safe to call twice.
        """
        session, self._session = self._session, None
        if session is None:
            return
        _log.info("worker %s stops", self.name)
        await self._fetcher.stop()
        await self._sweeper.stop()
        for errands in self._errands:
            await errands.stop()
        self._executor.park_waiting()
        await self._finish_running()
        if session.connection.is_connected:
            await self._drain()
        for errands in self._errands:
            await errands.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._heartbeat.stop()
        await self._executor.cancellations.stop()
        self._executor.close()
        await session.close()

    async def _drain(self) -> None:
        """Record what finished steps and messages have led to. A server that takes nothing must not hold up the end."""
        try:
            async with asyncio.timeout(self.options.grace):
                await self._executor.drained()
                for errands in self._errands:
                    await errands.drained()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        except TimeoutError:
            _log.warning("worker %s stops before everything is recorded: the rest is redelivered", self.name)

    async def _finish_running(self) -> None:
        """Let running steps finish within the grace time, then cancel them."""
        running = set(self._fetcher.running)
        if not running:
            return
        hurry = asyncio.get_running_loop().create_task(self._hurry.wait())
        finished = asyncio.gather(*running, return_exceptions=True)
        await asyncio.wait({hurry, finished}, timeout=self.options.grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(finished, return_exceptions=True)

    @property
    def counts(self) -> Counts:
        """What this worker has done since it was started."""
        return self._counts


def _calm_collector() -> None:
    """Take what was loaded at the start out of the garbage collector's rounds, and have it make fewer.

    A worker makes and drops a few dozen objects a task, none of them in cycles. Only for a process that is a worker's
    own: these are settings of the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
