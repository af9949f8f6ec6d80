"""What comes from outside jetflow: triggers and requests to look, published by any NATS client.

They lie in a work-queue stream that every worker pulls from. What becomes of a trigger is `worker.starting`'s business.
"""

from __future__ import annotations

from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.effects import LookAtGate
from jetflow.engine.identity import is_name, is_run_id, keyed_root_id
from jetflow.engine.limits import EVERYBODY, Place
from jetflow.engine.tasks import StepAddress
from jetflow.engine.transitions import settle
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.wire.headers import Header
from jetflow.wire.records import MalformedTask, read_time
from jetflow.worker.answers import ACK, Answers, Impossible
from jetflow.worker.counts import Counts
from jetflow.worker.starting import Starting

INBOX_WINDOW: Final = 64
"""Messages of the inbox that one worker handles at once."""


class Inbox:
    """Handles the messages of the inbox stream."""

    def __init__(self, session: Session, performer: Performer, counts: Counts, starting: Starting) -> None:
        self._session = session
        self._performer = performer
        self._answers = Answers(counts, "a message")
        self._starting = starting

    async def handle(self, delivery: Delivery) -> None:
        """Do what one message asks for, and acknowledge it."""
        points.before("inbox")
        try:
            answer = await self._handle(delivery)
        except Exception as error:  # whatever it is, somebody may wait for what it asks for
            answer = self._answers.to(delivery, error)
        points.after("inbox")
        points.before("inbox_ack")
        self._session.connection.send(delivery.reply, answer)
        points.after("inbox_ack")

    async def _handle(self, delivery: Delivery) -> bytes:
        match self._session.names.parse_inbox(delivery.subject):
            case ["trigger", workflow]:
                await self._trigger(delivery, workflow)
            case ["look", root, run, step] if is_run_id(root) and is_run_id(run) and is_name(step):
                await self._performer.run(settle(StepAddress(root, run, step)))
            case ["limit", limit] if is_name(limit):
                await self._performer.gates.look_at_all(limit)
            case ["limit", limit, key] if is_name(limit) and (is_name(key) or key == EVERYBODY):
                await self._performer.gates.look(LookAtGate(Place(limit, key)))
            case _:
                return self._answers.reject(delivery, "it asks for nothing that workers know")
        return ACK

    async def _trigger(self, delivery: Delivery, workflow: str) -> None:
        headers = delivery.headers or {}
        run = _run_id(delivery, workflow, headers.get(Header.KEY), headers.get(Header.RUN))
        try:
            at = read_time(headers, Header.NOT_BEFORE)
        except MalformedTask as error:
            raise Impossible(str(error)) from error
        await self._starting.start(workflow, delivery.body, headers, run, not_before=at)


def _run_id(delivery: Delivery, workflow: str, key: str | None, asked: str | None) -> str:
    if asked is not None and is_run_id(asked):
        return asked
    if key is not None:
        return keyed_root_id(workflow, key)
    return keyed_root_id("-inbox", f"{delivery.sequence}.{delivery.time}")
