"""What a started worker consists of: the services on one session, how they are bound, started and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec

from jetflow import hooks
from jetflow.broker.permissions import check_may_publish, recorded
from jetflow.broker.session import Session
from jetflow.broker.topology import ensure_due_consumer, ensure_inbox_consumer
from jetflow.engine.graph import ADMIT
from jetflow.engine.labels import checked_labels
from jetflow.limits import limits_of, rates_of
from jetflow.processes.guarding import Guarding, can_be_guarded
from jetflow.processes.pool import Pool
from jetflow.processes.pool_places import places_of
from jetflow.runs.limits import declare_limits, declare_rates
from jetflow.runs.performer import Performer
from jetflow.runs.schedules import declare
from jetflow.telemetry.catalogue import RUNNING, SLOTS, TASKS, WAITING
from jetflow.worker.answering import Answering
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.discovery import Discovery
from jetflow.worker.draining import Draining
from jetflow.worker.errands import Errands
from jetflow.worker.event_runs import errands_of, withdraw
from jetflow.worker.executor import Executor
from jetflow.worker.expecting import Expecting
from jetflow.worker.fetching import BatchFetcher, Fetcher
from jetflow.worker.gate_net import GateNet
from jetflow.worker.health import Health
from jetflow.worker.heartbeat import Heartbeat
from jetflow.worker.heavy import FairSlots, fetchers_of, weights_of
from jetflow.worker.history import History
from jetflow.worker.inbox import INBOX_WINDOW, Inbox
from jetflow.worker.leftovers import Leftovers
from jetflow.worker.options import WorkerOptions
from jetflow.worker.presence import Presence
from jetflow.worker.pullers import StepPullers
from jetflow.worker.sharing import Sharing
from jetflow.worker.slots import Slots
from jetflow.worker.starting import Starting
from jetflow.worker.sweeper import Sweeper
from jetflow.worker.ticking import Ticking
from jetflow.worker.twins import Twins
from jetflow.worker.wakes import AT_ONCE
from jetflow.worker.waking import DUE_WINDOW, Due
from jetflow.workflow import Step, Workflow

THREADS_GRACE: Final = 0.5
"""Seconds that steps in threads have behind the grace time, when ``ctx.cancelled`` has told them to end."""

ADMITTED_AT_ONCE: Final = 128
"""Runs of workflows with limits or levels that a worker admits at once."""

LONG: Final = 1.0
"""Seconds for which a step in a process is thought to run before one has: none is fetched ahead."""

_log = logging.getLogger("jetflow.worker")


class Services:
    """The services of one worker. `start` and `stop` them once; the session is theirs to close."""

    def __init__(
        self,
        session: Session,
        workflows: Mapping[str, Workflow[Any, Any]],
        options: WorkerOptions,
        name: str,
        sharing: Sharing,
    ) -> None:
        self._session = session
        self._workflows = workflows
        self._grace = options.grace
        self._name = name
        self.guarding: Guarding | None = self._guarding(options)
        self.counts: Counts = Counts()
        self.performer: Performer = Performer(session)
        self.deliveries: Deliveries = Deliveries(
            session, self.counts, name, None if self.guarding is None else self.guarding.table
        )
        weights = weights_of(workflows)
        slots = FairSlots(options.slots) if weights else Slots(options.slots)
        places = places_of(workflows.values())
        self._limits = limits_of((flow.name, (*flow.limits, *flow.step_limits)) for flow in workflows.values())
        self._rates = rates_of((flow.name, flow.rates) for flow in workflows.values())
        self.pool: Pool | None = Pool(places, workflows, options.pool()) if places else None
        self.executor: Executor = Executor(
            session, self.performer, slots, self.deliveries, self.counts, workflows, options, name, self.pool, sharing
        )
        self.fetcher: Fetcher = Fetcher(session.connection, slots, self.deliveries, self.executor)
        self.fetchers: list[Fetcher] = [self.fetcher]
        if places:  # their steps have slots of their own: so many are fetched as there are processes
            in_processes = Slots(options.pool().size, mean_duration=LONG)
            self.fetchers.append(Fetcher(session.connection, in_processes, self.deliveries, self.executor))
        self._heavy = fetchers_of(weights, session.connection, slots, self.deliveries, self.executor)
        self._in_batches: dict[tuple[str, str], Fetcher] = {}
        for step in (one for flow in workflows.values() for one in flow.all_steps):
            if step.batch is not None:  # their tasks hold no slot while they are gathered, and one in a call of many
                gathered = self.executor.bodies.batches.places(step, step.batch)
                fetcher = BatchFetcher(session.connection, gathered, self.deliveries, self.executor)
                self._in_batches[step.workflow, step.name] = fetcher
        self.fetchers += [*self._heavy.values(), *self._in_batches.values()]
        labels = checked_labels(options.labels)
        self._admits = any(ADMIT in flow.graph.implied for flow in workflows.values())
        if self._admits:  # to be admitted takes no slot of a step
            admitting = Slots(ADMITTED_AT_ONCE)
            self.fetchers.append(Fetcher(session.connection, admitting, self.deliveries, self.executor))
        self.pullers: StepPullers = StepPullers(
            session,
            workflows,
            self._fetcher_of,
            labels=labels,
            ack_wait=options.ack_wait,
            on_ack_wait=self.deliveries.keep_within,
            on_lost=self.deliveries.on_consumer_lost,
        )
        self.heartbeat: Heartbeat = Heartbeat(session.connection, self.deliveries, self.executor.bodies.name_of)
        self._starting = Starting(session, self.performer, name)
        self._ticking = Ticking(session, self.counts)
        self._gate_net = GateNet(session, self.performer, self.executor.cancellations, self.counts)
        self.sweeper: Sweeper = Sweeper(
            session,
            self.performer,
            self.executor.cancellations,
            self.counts,
            every=options.sweep_every,
            beside=[self._ticking.look, *([self._gate_net.look] if self._limits else [])],
        )
        self.history: History = History(session, options)
        self._slots = slots
        self.presence: Presence = Presence(session, workflows, name, self.deliveries.runs)
        self.answering: Answering = Answering(session, name, workflows, self.executor.bodies, slots, labels)
        self.twins: Twins = self.executor.twins
        self.draining: Draining = Draining(session, name, self.drain)
        connection = session.connection
        self.health: Health = Health(options, lambda: connection.is_connected, lambda: connection.ended is not None)
        self.discovery: Discovery | None = (
            Discovery(session, name, workflows, self.executor.bodies) if options.discoverable else None
        )
        self.errands: list[Errands] = [self._inbox(options), self._due(options)]
        self.expecting: Expecting = Expecting(session, self.deliveries, self.performer, self.counts, options.ack_wait)
        self.errands += [
            errands_of(session, self.deliveries, self.performer, self.counts, one, name, options)
            for one in workflows.values()
            if one.subscriptions
        ]

    def _guarding(self, options: WorkerOptions) -> Guarding | None:
        if not options.guard:
            return None
        access = self._session.connection.access
        if can_be_guarded(access):
            steps = [(flow.name, step) for flow in self._workflows.values() for step in flow.queues]
            return Guarding(access, self._session.names.namespace, self._name, steps)
        _log.info("worker %s has no guard: another process cannot connect as this one does", self._name)
        return None

    def _fetcher_of(self, step: Step[..., Any, Any] | None, name: str) -> Fetcher:
        if name == ADMIT and self._admits:
            return self.fetchers[-1]
        if step is None:
            return self.fetcher
        if step.batch is not None:
            return self._in_batches[step.workflow, step.name]
        if step.in_process:
            return self.fetchers[1]
        return self._heavy.get(step.slots, self.fetcher)

    @property
    def _pulling(self) -> list[Fetcher]:
        """Those that have steps: a worker may have none but in processes."""
        return [fetcher for fetcher in self.fetchers if fetcher.pullers]

    def _inbox(self, options: WorkerOptions) -> Errands:
        session, names = self._session, self._session.names
        return Errands(
            session,
            self.deliveries,
            names.inbox_stream,
            names.inbox_consumer,
            partial(ensure_inbox_consumer, session.connection, names, ack_wait=options.ack_wait),
            Inbox(session, self.performer, self.counts, self._starting).handle,
            window=INBOX_WINDOW,
        )

    def _due(self, options: WorkerOptions) -> Errands:
        session, names = self._session, self._session.names
        due = Due(session, self.performer, self.counts, self._starting, self._ticking)
        return Errands(
            session,
            self.deliveries,
            names.timers_stream,
            names.due_consumer,
            partial(ensure_due_consumer, session.connection, names, ack_wait=options.ack_wait),
            due.handle,
            window=DUE_WINDOW,
            handle_all=due.handle_all,
            at_once=AT_ONCE,
        )

    def measures(self) -> list[tuple[str, dict[str, str], float]]:
        """Return what the worker has done and holds at this moment: see `jetflow.hooks.Running`."""
        done = [
            (TASKS, {"event": event}, float(number)) for event, number in msgspec.structs.asdict(self.counts).items()
        ]
        bodies = self.executor.bodies
        return [
            *done,
            (SLOTS, {}, float(self._slots.count)),
            (RUNNING, {}, float(len(bodies.running))),
            (WAITING, {}, float(bodies.waiting)),
        ]

    async def start(self) -> None:
        """Declare the workflows, and begin to pull.

        Raises:
            PermissionDenied: this user may not do what a worker does.
        """
        await self.health.start()
        await check_may_publish(self._session.connection, recorded(self._session.names))
        registry = self._session.registry
        flows = list(self._workflows.values())
        takes_none_now = await asyncio.gather(*(registry.declare(one.declaration) for one in flows))
        for flow, none_now in zip(flows, takes_none_now, strict=True):
            if none_now:
                await withdraw(self._session, flow.name)
        await declare_limits(self._session, self._limits)
        await declare_rates(self._session, self._rates)
        await self._declare_schedules()
        await self.heartbeat.start()
        if self.guarding is not None:
            await self.guarding.start()
        await self.executor.cancellations.start()
        self.executor.bodies.voices.start()
        await self.pullers.start()
        for errands in self.errands:
            await errands.start()
        await self.expecting.start()
        await self._check_may_pull()
        await self.sweeper.start()
        await self.history.start()
        await self.presence.start()
        await self.answering.start()
        await self.twins.start()
        await self.draining.start()
        for fetcher in self._pulling:
            fetcher.begin()
        if self.discovery is not None:
            await self.discovery.start()
        hooks.running.add(self)
        self.health.ready()

    async def _declare_schedules(self) -> None:
        wanted = {
            flow.name: {
                name: msgspec.structs.replace(schedule, input=msgspec.Raw(flow.input.encode(value)))
                for name, (schedule, value) in flow.schedules.items()
            }
            for flow in self._workflows.values()
        }
        await declare(self._session, wanted)

    async def _check_may_pull(self) -> None:
        """Check that all pullers may pull, before anything runs.

        Raises:
            PermissionDenied: one was not.
        """
        await self._session.connection.settled()
        of_steps = [puller for fetcher in self.fetchers for puller in fetcher.pullers]
        for puller in (*of_steps, *(errand.puller for errand in self.errands)):
            if puller.denied is not None:
                raise puller.denied

    async def drain(self) -> None:
        """Stop pulling, hand back what has not started, and park the waiting; what runs goes on. Safe to call twice."""
        self.presence.leave()
        self.answering.leave()
        self.health.leave()
        await asyncio.gather(*(fetcher.stop() for fetcher in self.fetchers))
        for errands in self.errands:
            await errands.stop()
        await self.expecting.stop()
        self.executor.stop()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop pulling, park the waiting, let running steps finish within the grace time, hand back the rest.

        ``hurry`` ends the grace time.
        """
        await self.drain()
        await self.twins.stop()
        await self.sweeper.stop()
        await self.history.stop()
        await self._finish_running(hurry)
        if self.pool is not None:
            await self.pool.close()
        if self._session.connection.is_connected:
            await self._drain()
        for errands in (*self.errands, self.expecting.errands):
            await errands.abandon()
        await self.pullers.stop()
        await self.presence.stop()
        await self.answering.stop()
        await self.twins.close()
        await self.draining.stop()
        if self.discovery is not None:
            await self.discovery.stop()
        await self._leave_threads()
        await self.heartbeat.stop()
        if self.guarding is not None:
            await self.guarding.stop()
        await self.executor.cancellations.stop()
        await self.executor.bodies.lookout.stop()
        self.executor.bodies.close()
        hooks.running.discard(self)
        await self.health.stop()
        await self._session.close()

    async def _finish_running(self, hurry: asyncio.Event) -> None:
        """Let running steps finish within the grace time, then cancel them."""
        running = {task for fetcher in self.fetchers for task in fetcher.running}
        if not running:
            return
        hurried = asyncio.get_running_loop().create_task(hurry.wait())
        finished = asyncio.gather(*running, return_exceptions=True)
        await asyncio.wait({hurried, finished}, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(finished, return_exceptions=True)

    async def _leave_threads(self) -> None:
        """Keep those tasks from other workers whose functions go on in threads."""
        kept = self.deliveries.kept
        if kept:
            await Leftovers(self._session.connection.access, kept, self.deliveries.ack_wait).start(wait=THREADS_GRACE)
        if kept:
            _log.warning(
                "worker %s stops while %d steps go on in threads: others get their tasks when these have returned, or "
                "the process has ended",
                self._name,
                len(kept),
            )

    async def _drain(self) -> None:
        """Record what finished steps and messages have led to. A server that takes nothing must not hold up the end."""
        try:
            async with asyncio.timeout(self._grace):
                await self.executor.recorder.drained()
                for errands in (*self.errands, self.expecting.errands):
                    await errands.drained()
                await self.pullers.repaired()
        except TimeoutError:
            _log.warning("worker %s stops before everything is recorded: the rest is redelivered", self._name)
