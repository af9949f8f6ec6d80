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
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import msgspec

from jetflow import logs
from jetflow.broker.access import Server, access_of
from jetflow.broker.auth import Auth
from jetflow.broker.session import Session
from jetflow.errors import BrokerError, InvalidDeclaration
from jetflow.limits import check_order, limits_of, rates_of
from jetflow.processes.pool_places import check_not_importing, places_of
from jetflow.settings import value_of
from jetflow.worker.counts import Counts
from jetflow.worker.heavy import check_slots
from jetflow.worker.options import WorkerOptions
from jetflow.worker.services import Services
from jetflow.worker.sharing import Lifespan, Sharing
from jetflow.workflow import Workflow, checked_workflow

_log = logging.getLogger("jetflow.worker")


class Worker:
    """Runs the steps of some workflows.

    ``server`` is a URL, several, or a connected client; None reads ``NATS_URL``, then the local default. ``slots`` is
    how many step bodies run at once. ``auth``, ``domain``, ``inbox_prefix`` and ``context`` are those of
    `jetflow.connect`. Everything else is in ``options``; without them it is what the settings say
    (``docs/configuration.md``). ``counts`` tells what it has done. ``lifespan`` is a function that returns a context
    manager: it is entered before the first task is pulled, and left after the last one.

    Raises:
        InvalidSetting: a variable or a file says what a setting cannot be.
        InvalidDeclaration: no workflow, two of one name, steps in processes that these cannot import, or one that takes
            more slots than the worker has.
    """

    def __init__(
        self,
        workflows: Iterable[Workflow[Any, Any]] | Workflow[Any, Any],
        *,
        server: Server = None,
        namespace: str | None = None,
        slots: int | None = None,
        options: WorkerOptions | None = None,
        auth: Auth | None = None,
        domain: str | None = None,
        inbox_prefix: str | None = None,
        context: str | None = None,
        lifespan: Lifespan | None = None,
    ) -> None:
        given = [workflows] if isinstance(workflows, Workflow) or callable(workflows) else list(workflows)
        declared = [checked_workflow("a worker", one) for one in given]
        self.workflows: dict[str, Workflow[Any, Any]] = {workflow.name: workflow for workflow in declared}
        if not declared:
            raise InvalidDeclaration("a worker runs at least one workflow: Worker([...])")
        if len(self.workflows) < len(declared):
            names = [workflow.name for workflow in declared]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InvalidDeclaration(f"two workflows are named {twice[0]!r}: a worker runs no two of one name")
        for workflow in declared:
            _ = workflow.graph  # a workflow that is not whole is refused here
        limits_of((one.name, (*one.limits, *one.step_limits)) for one in declared)  # and limits that contradict others
        check_order((one.name, one.limits, one.step_limits) for one in declared)
        rates_of((one.name, one.rates) for one in declared)
        places_of(declared)  # and one whose steps no process would find
        options = options or WorkerOptions.from_settings()
        self.options: WorkerOptions = options if slots is None else msgspec.structs.replace(options, slots=slots)
        check_slots(declared, self.options.slots, self.options.labels)
        self.name: str = f"{socket.gethostname()}-{os.getpid()}"
        self._access = lambda: access_of(  # a closure: what it holds may have a password, and is in no repr
            server, auth=auth, domain=domain, inbox_prefix=inbox_prefix, context=context
        )
        self._namespace: str = value_of("namespace", namespace)
        self._sharing = Sharing(declared, lifespan)
        self._services: Services | None = None
        self._hurry = asyncio.Event()
        self._ended: BrokerError | None = None
        self._on_ended: Callable[[], None] = lambda: None
        self.counts: Counts = Counts()

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Where its health is answered, while it runs: host and port; None without ``health_port``."""
        return None if self._services is None else self._services.health.address

    # --- life

    async def __aenter__(self) -> Worker:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self._ended is not None:
            raise self._ended

    async def start(self) -> None:
        """Connect, declare the workflows, and begin to pull.

        What the lifespan or a dependency raises is raised as it is.

        Raises:
            InvalidConnection, MissingExtra: what was said of how to connect makes no sense.
            AccessDenied, PermissionDenied: this user may not connect, or not do what a worker does.
            ServerUnreachable, ServerTooOld, JetStreamUnavailable: there is no server to work with.
            RuntimeError: a process in which another worker runs steps does this when it imports them.
        """
        if self._services is not None:
            return
        check_not_importing()
        logs.install()
        options = self.options
        session = await Session.open(
            self._access(),
            self._namespace,
            timeout=options.connect_timeout,
            retention=options.retention(),
            durable=options.durable,
            patient=True,
        )
        session.connection.on_ended(self._end)
        self._services = services = Services(session, self.workflows, options, self.name, self._sharing)
        self.counts = services.counts
        try:
            await self._sharing.start()
            await services.start()
        except BaseException:
            await self.stop()
            raise
        _log.info("worker %s runs %s", self.name, ", ".join(self.workflows))

    async def run(self, *, started: Callable[[], object] | None = None) -> None:
        """Run until SIGTERM or SIGINT, then stop within the grace time. A second signal ends the grace time.

        ``started`` is called when it pulls tasks. Unless the options say otherwise it has a guard.

        It raises what `start` raises, too.

        Raises:
            AccessDenied, BrokerError: the server has ended the connection for good, as it does with users that are not
                let in any more.
        """
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        self._on_ended = told.set

        def on_signal() -> None:
            if told.is_set():
                self._hurry.set()
            told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        if self.options.guard is None:
            self.options = msgspec.structs.replace(self.options, guard=True)
        try:
            await self.start()
            _calm_collector()
            if started is not None:
                started()
            await told.wait()
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._ended is not None:
            raise self._ended

    def _end(self, error: BrokerError) -> None:
        self._ended = error
        _log.error("worker %s has no connection to NATS any more, and takes no tasks: %s", self.name, error)
        self._on_ended()

    async def stop(self) -> None:
        """Stop pulling, park the waiting, let running steps finish within the grace time, hand back the rest.

        Safe to call twice.
        """
        services, self._services = self._services, None
        if services is not None:
            _log.info("worker %s stops", self.name)
            try:
                await services.stop(self._hurry)
            finally:
                await self._sharing.stop()


def _calm_collector() -> None:
    """Take what was loaded at the start out of the garbage collector's rounds, and have it make fewer.

    A worker makes and drops a few dozen objects a task, none of them in cycles. Only for a process that is a worker's
    own: these are settings of the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
