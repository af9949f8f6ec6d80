"""Waking parked steps whose time has come: what a timer of the broker has become is handled by any worker.

The message names the turn that was parked; its task is read from the stream, and the next turn is published,
write-once. A step that something else has woken meanwhile, or whose run has ended, is not run for it.
"""

from __future__ import annotations

import logging
from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.engine.transitions import wake
from jetflow.errors import BrokerError, MalformedRecord
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import task_of
from jetflow.wire.headers import Header
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
        parked = await store.last(names.tasks_stream, subject)  # it never changes: any replica that has it will do
        if parked is None:
            parked = await store.leader_last(names.tasks_stream, subject)
        task = None if parked is None else task_of(parked)
        if task is not None and await self._may_run(task):
            await self._performer.run(wake(task, int(tried)))
        return ACK

    async def _may_run(self, task: Task) -> bool:
        """Tell whether the run has not ended, as far as it ends under the step that its task names as its parent.

        It may have ended under another one in a tree that was cancelled, and what is woken there is dropped. To look
        for it by its id alone would cost the server a search through all records.
        """
        names = self._session.names
        if await self._session.store.leader_last(names.records_stream, names.run_of(task)) is None:
            return True
        try:
            graph = await self._session.registry.graph(task.workflow, task.version)
        except MalformedRecord:
            return True  # the turn that is woken ends its run by this name
        return graph is not None and task.step == graph.on_failure
