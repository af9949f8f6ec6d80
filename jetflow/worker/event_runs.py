"""Starting runs for events: each workflow that declares some pulls them by a consumer of its own.

So the code that decides is at hand, a namespace where nothing is declared has nothing of it, and an event that is
stored after a workflow was declared is never missed. The run's id is derived from the workflow and the event: an event
that is delivered again finds its run, and starts no other.
"""

from __future__ import annotations

import logging
from math import inf
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.optional import ensure_event_consumer, forget_event_consumer
from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.broker.topology import Consumer
from jetflow.engine.events import event_id, run_of_event
from jetflow.engine.holding import Hold
from jetflow.engine.identity import checked_key
from jetflow.engine.tasks import Failure, Outcome
from jetflow.engine.transitions import conclude
from jetflow.errors import (
    BrokerError,
    InvalidInput,
    JetflowError,
    KeyConflict,
    MalformedRecord,
    PayloadTooLarge,
    PredicateFailed,
    RecentlyDeleted,
)
from jetflow.runs import points
from jetflow.runs.event_reruns import rerun_for_event
from jetflow.runs.holding import start_held
from jetflow.runs.performer import Performer
from jetflow.runs.targets import resolve, root_task, start_root
from jetflow.wire.events import STARTED_BY, EventNames, PublishedEvent, read_event
from jetflow.wire.headers import Header
from jetflow.worker.answers import ACK, LATER, Answers, Impossible
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.errands import Errands
from jetflow.worker.options import WorkerOptions
from jetflow.workflow import Workflow

EVENTS_WINDOW: Final = 64
"""Events that one worker handles at once, of each workflow."""

LOOKED_BACK: Final = 300.0
"""Seconds from which on a consumer begins, at most, before it is made. What it had given before it was lost starts
nothing.
"""

LEFT_TO_OTHERS: Final = 20
"""Times that an event of a topic that is not declared here is left to workers with another version of the workflow."""

_log = logging.getLogger("jetflow.worker")


def errands_of(
    session: Session,
    deliveries: Deliveries,
    performer: Performer,
    counts: Counts,
    workflow: Workflow[Any, Any],
    worker: str,
    options: WorkerOptions,
) -> Errands:
    """Return what pulls the events that start runs of a workflow.

    Its consumer begins with the events that came since the workflow was declared as it is. Where the server has lost
    it, it goes no further back than runs are kept for certain: those that have their run are given once more.
    """
    names = EventNames(session.names)
    back = min(LOOKED_BACK, options.keep, options.keep_failed or inf)

    async def ensure() -> Consumer:
        await session.optional.ensure(names.stream)
        declared = await session.store.leader_last(
            session.names.workflows_stream, session.names.workflow(workflow.name)
        )
        return await ensure_event_consumer(
            session.connection,
            session.names,
            workflow.name,
            workflow.declaration.on,
            ack_wait=options.ack_wait,
            since=max(time() - back, 0.0 if declared is None else declared.time),
        )

    handle = Starting(session, performer, counts, workflow, worker).handle
    return Errands(
        session, deliveries, names.stream, names.consumer(workflow.name), ensure, handle, window=EVENTS_WINDOW
    )


async def withdraw(session: Session, workflow: str) -> None:
    """Take back what an earlier version of a workflow has declared: events start no runs of it any more."""
    try:
        await forget_event_consumer(session.connection, session.names, workflow)
    except BrokerError as error:
        _log.warning("events may still be kept for workflow %r, which takes none any more: %s", workflow, error)


class Starting:
    """Handles the events of one workflow."""

    def __init__(
        self, session: Session, performer: Performer, counts: Counts, workflow: Workflow[Any, Any], worker: str
    ) -> None:
        self._session = session
        self._names = EventNames(session.names)
        self._performer = performer
        self._answers = Answers(counts, f"an event for {workflow.name!r}")
        self._workflow = workflow
        self._worker = worker
        filters = self._names.filters_of((one.topic, one.key or "*") for one in workflow.subscriptions)
        self._takes_all = filters == [self._names.all]

    async def handle(self, delivery: Delivery) -> None:
        """Start the run that an event is for, if it is for one, and acknowledge it."""
        points.before("event")
        try:
            answer = await self._handle(delivery)
        except Exception as error:  # whatever it is, the event has a run to start
            answer = self._answers.to(delivery, error)
        points.after("event")
        points.before("event_ack")
        self._session.connection.send(delivery.reply, answer)
        points.after("event_ack")

    async def _handle(self, delivery: Delivery) -> bytes:
        headers = delivery.headers or {}
        parsed = self._names.parse(delivery.subject)
        if parsed is None:
            raise Impossible("it starts no run: its subject has no topic")
        wanted = [one for one in self._workflow.subscriptions if one.is_for(*parsed)]
        if not wanted:
            return ACK if self._takes_all or delivery.count > LEFT_TO_OTHERS else LATER
        try:
            event = read_event(self._names, delivery.subject, delivery.sequence, delivery.time, headers, delivery.body)
        except MalformedRecord as error:
            await self._fail(event_id(headers.get(Header.MESSAGE_ID), delivery.sequence, delivery.time), error)
            return ACK
        try:
            takes = next((one for one in wanted if one.takes(event.payload)), None)
            by_key = None if takes is None else takes.run_key
            held = None if by_key is None else checked_key("a run", by_key(event.payload))
        except Exception as error:  # it is the user's code: its error is recorded once, as the end of the run
            await self._fail(event.id, PredicateFailed(f"{type(error).__name__}: {error}"))
            return ACK
        if takes is not None:
            hold = None if held is None or takes.hold is None else (held, takes.hold)
            await self._start(event, delivery.body or b"null", headers, hold, reruns=takes.reruns)
        return ACK

    async def _start(
        self,
        event: PublishedEvent,
        body: bytes,
        headers: dict[str, str],
        hold: tuple[str, Hold] | None,
        *,
        reruns: bool,
    ) -> None:
        told = {"id": event.id, "topic": event.topic, "key": event.key, "sequence": event.sequence}
        metadata = msgspec.json.encode(event.metadata | {STARTED_BY: told})
        try:
            target = await resolve(self._session, self._workflow)
            written = target.input.encode(target.input.decode(body))
            key = None if hold is None else hold[0]
            level = headers.get(Header.LEVEL)
            run = run_of_event(self._workflow.name, event.id)
            task = root_task(
                target,
                written,
                key=key,
                metadata=metadata,
                run=run,
                trace=headers.get(Header.TRACE),
                level=level if level in target.levels else None,
            )
            points.before("start_for_event")
            if hold is None:
                await start_root(self._session, task, timeout=30)
            elif not await self._is_stored(run):  # else this event has started it before
                found, created = await start_held(self._session, task, *hold, candidate=run, timeout=30)
                if reruns and not created:
                    await rerun_for_event(self._session, run, found, headers.get(Header.TRACE))
            points.after("start_for_event")
        except (InvalidInput, PayloadTooLarge) as error:
            await self._fail(event.id, error)
        except (KeyConflict, RecentlyDeleted) as error:
            _log.warning("an event on topic %r has its run of %r: %s", event.topic, self._workflow.name, error)

    async def _is_stored(self, run: str) -> bool:
        names, store = self._session.names, self._session.store
        return await store.leader_last(names.tasks_stream, names.tasks_of_run_id(run)) is not None

    async def _fail(self, event: str, error: JetflowError) -> None:
        """Record why an event has no run, as the end of the run that it would have."""
        session = self._session
        run = run_of_event(self._workflow.name, event)
        if await self._is_stored(run):
            return
        _log.warning("event %s ends as run %s of %r: %s", event, run, self._workflow.name, error)
        now = time()
        outcome = Outcome(
            status="failed",
            error=Failure(type(error).__name__, str(error)),
            workflow=self._workflow.name,
            started=now,
            ended=now,
            worker=self._worker,
        )
        target = await resolve(session, self._workflow)
        task = root_task(target, b"null", key=None, metadata=None, run=run, trace=None)
        await self._performer.run(conclude(task, outcome))
