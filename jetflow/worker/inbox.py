"""What comes from outside jetflow: triggers and requests to look, published by any NATS client.

They lie in a work-queue stream that every worker pulls from. A trigger is checked as far as its workflow is known,
and becomes an ordinary task; one of an unknown workflow becomes a failed run, so that nothing is lost unseen.
"""

from __future__ import annotations

import logging
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.identity import is_name, is_run_id, keyed_root_id
from jetflow.engine.tasks import Failure, Outcome, StepAddress, Task
from jetflow.engine.transitions import conclude, settle
from jetflow.errors import (
    BrokerError,
    InvalidInput,
    JetflowError,
    KeyConflict,
    MalformedRecord,
    PayloadTooLarge,
    UnknownWorkflow,
)
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.runs.targets import Target, resolve, root_task, start_root
from jetflow.wire.codec import ANY
from jetflow.wire.headers import Header
from jetflow.worker.counts import Counts

ACK: Final = b"+ACK"
TERM: Final = b"+TERM"
INBOX_WINDOW: Final = 64
"""Messages of the inbox that one worker handles at once."""

LATER: Final = b'-NAK {"delay":1000000000}'

_log = logging.getLogger("jetflow.worker")


class Inbox:
    """Handles the messages of the inbox stream."""

    def __init__(self, session: Session, performer: Performer, counts: Counts, worker: str) -> None:
        self._session = session
        self._performer = performer
        self._counts = counts
        self._worker = worker

    async def handle(self, delivery: Delivery) -> None:
        """Do what one message asks for, and acknowledge it."""
        points.before("inbox")
        try:
            answer = await self._handle(delivery)
        except BrokerError as error:
            _log.warning("a message on %s is left to a later delivery: %s", delivery.subject, error)
            answer = LATER
        except Exception as error:  # whatever the message holds, it must not come back for ever
            answer = self._reject(delivery, error)
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
            case _:
                return self._reject(delivery, "it asks for nothing that workers know")
        return ACK

    def _reject(self, delivery: Delivery, reason: object) -> bytes:
        self._counts.rejected += 1
        _log.error("a message on %r is rejected: %s", delivery.subject, reason)
        return TERM

    async def _trigger(self, delivery: Delivery, workflow: str) -> None:
        headers = delivery.headers or {}
        key = headers.get(Header.KEY)
        run = _run_id(delivery, workflow, key, headers.get(Header.RUN))
        try:
            target = await resolve(self._session, workflow)
            body = target.input.encode(target.input.decode(delivery.body or b"null"))
        except (UnknownWorkflow, MalformedRecord, InvalidInput) as error:
            _log.warning("the trigger at sequence %d of the inbox ends as run %s: %s", delivery.sequence, run, error)
            await self._fail(_nowhere(workflow, run, key), error)
            return
        metadata = headers.get(Header.METADATA)
        task = root_task(
            target,
            body,
            key=key,
            metadata=None if metadata is None else metadata.encode(),
            run=run,
            trace=headers.get(Header.TRACE),
        )
        try:
            _check_metadata(task.metadata)
            await start_root(self._session, task, timeout=30)
        except KeyConflict as error:
            _log.warning("a trigger was refused: %s", error)
        except (InvalidInput, PayloadTooLarge) as error:
            await self._fail(task, error)

    async def _fail(self, task: Task, error: JetflowError) -> None:
        """Store why a run that was asked for cannot be. One that exists under its id is left alone."""
        names = self._session.names
        if await self._session.store.leader_last(names.tasks_stream, names.tasks_of_run_id(task.run)) is not None:
            _log.warning("a trigger of run %s, which exists, was refused: %s", task.run, error)
            return
        now = time()
        outcome = Outcome(
            status="failed",
            error=Failure(type(error).__name__, str(error)),
            workflow=task.workflow,
            key=task.key,
            started=now,
            ended=now,
            worker=self._worker,
        )
        await self._performer.run(conclude(task, outcome))


def _run_id(delivery: Delivery, workflow: str, key: str | None, asked: str | None) -> str:
    if asked is not None and is_run_id(asked):
        return asked
    if key is not None:
        return keyed_root_id(workflow, key)
    return keyed_root_id("-inbox", f"{delivery.sequence}.{delivery.time}")


def _check_metadata(metadata: bytes | None) -> None:
    """Refuse metadata that clients could not have sent: every descendant of the run would stumble over it.

    Raises:
        InvalidInput: it is not a JSON object.
    """
    if metadata is not None:
        try:
            msgspec.json.decode(metadata, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"header {Header.METADATA}: {error}") from error


def _nowhere(workflow: str, run: str, key: str | None) -> Task:
    target = Target(workflow, "", "", ANY, ANY)
    return root_task(target, b"null", key=key, metadata=None, run=run, trace=None)
