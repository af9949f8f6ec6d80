"""Waking parked steps whose time has come: what a timer of the broker has become is handled by any worker.

The message names the turn that was parked; its task is read from the stream, and the next turn is published,
write-once. A step that something else has woken meanwhile, or whose run has ended, is not run for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.engine.transitions import wake
from jetflow.errors import BrokerError
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import task_of
from jetflow.wire.subjects import Header
from jetflow.worker.counts import Counts
from jetflow.worker.inbox import ACK, LATER, TERM

WAKING_WINDOW: Final = 256
"""Messages of timers that one worker handles at once."""

_log = logging.getLogger("jetflow.worker")


class Waking:
    """Handles the messages that timers have become."""

    def __init__(self, session: Session, performer: Performer, counts: Counts) -> None:
        self._session = session
        self._performer = performer
        self._counts = counts

    async def handle(self, delivery: Delivery) -> None:
        """Publish the turn that one message is for, and acknowledge it."""
        points.before("due")
        try:
            answer = await self._wake(delivery)
        except BrokerError as error:
            _log.warning("a message on %s is left to a later delivery: %s", delivery.subject, error)
            answer = LATER
        points.after("due")
        points.before("due_ack")
        self._session.connection.send(delivery.reply, answer)
        points.after("due_ack")

    async def _wake(self, delivery: Delivery) -> bytes:
        names, store = self._session.names, self._session.store
        subject = names.task_of_due(delivery.subject)
        tried = delivery.headers.get(Header.ATTEMPT, "0")
        if subject is None or not tried.isdecimal():
            self._counts.rejected += 1
            _log.error("a message on %r is rejected: it is no timer that workers know", delivery.subject)
            return TERM
        parked, ended = await asyncio.gather(
            store.leader_last(names.tasks_stream, subject),
            store.leader_last(names.records_stream, names.run_by_id(subject.split(".")[-2])),
        )
        task = None if parked is None else task_of(parked)
        if task is not None and (ended is None or await self._runs_after_the_end(task)):
            await self._performer.run(wake(task, int(tried)))
        return ACK

    async def _runs_after_the_end(self, task: Task) -> bool:
        graph = await self._session.registry.graph(task.workflow, task.version)
        return graph is not None and task.step == graph.on_failure
