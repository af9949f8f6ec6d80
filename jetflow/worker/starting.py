"""Starting root runs that were asked for by a message: from outside, or by a timer.

What is asked for is checked as far as its workflow is known, and becomes an ordinary task; a run of an unknown workflow
becomes a failed one, so that nothing is lost unseen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import time
from typing import Any

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.levels import checked_level
from jetflow.engine.tasks import Failure, Outcome, Task
from jetflow.engine.transitions import conclude
from jetflow.errors import (
    InvalidInput,
    JetflowError,
    KeyConflict,
    MalformedRecord,
    PayloadTooLarge,
    RecentlyDeleted,
    UnknownLevel,
    UnknownWorkflow,
)
from jetflow.runs.delays import delay_root
from jetflow.runs.performer import Performer
from jetflow.runs.targets import Target, resolve, root_task, start_root
from jetflow.wire.codec import ANY
from jetflow.wire.headers import Header
from jetflow.worker.answers import Impossible

PATIENCE = 30.0
"""Seconds for which the broker may take nothing before a message is left to a later delivery."""

_log = logging.getLogger("jetflow.worker")


class Starting:
    """Starts root runs for one worker."""

    def __init__(self, session: Session, performer: Performer, worker: str) -> None:
        self._session = session
        self._performer = performer
        self._worker = worker

    async def start(
        self, workflow: str, body: bytes, headers: Mapping[str, str], run: str, *, not_before: float | None = None
    ) -> None:
        """Start a root run of this id, or have it begin later. One that cannot be fails by name.

        Raises:
            BrokerError: the broker takes nothing.
            Impossible: the run was deleted.
        """
        key = headers.get(Header.KEY)
        try:
            target = await resolve(self._session, workflow)
            body = target.input.encode(target.input.decode(body or b"null"))
        except (UnknownWorkflow, MalformedRecord, InvalidInput) as error:
            _log.warning("run %s of %r fails before it begins: %s", run, workflow, error)
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
            level=headers.get(Header.LEVEL),
        )
        try:
            _check_metadata(task.metadata)
            if task.level is not None:
                checked_level(workflow, target.levels, task.level)
            if not_before is not None and not_before > time():
                await delay_root(self._session, task, not_before, timeout=PATIENCE)
            else:
                await start_root(self._session, task, timeout=PATIENCE)
        except KeyConflict as error:
            _log.warning("a trigger was refused: %s", error)
        except RecentlyDeleted as error:
            raise Impossible(f"a run is not started: {error}") from error
        except (InvalidInput, PayloadTooLarge, UnknownLevel) as error:
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
