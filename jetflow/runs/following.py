"""Following a run from outside: waiting for its end, noticing that it is gone, and saying why nothing happens.

Its live copy is listened for, and its record read every second in case that copy was lost. A run that nobody has
stored, or that is deleted meanwhile, is not waited for; one that waits for a worker that is not there is waited for,
and told of once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from jetflow.broker.attendance import WAITED
from jetflow.broker.connection import Message
from jetflow.broker.session import Session
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import BrokerError, BrokerTimeout, JetStreamUnavailable, ResultTimeout, UnknownRun
from jetflow.runs.delays import is_delayed
from jetflow.runs.missing import is_missed, told
from jetflow.runs.query.child_rows import waited_for
from jetflow.runs.tasks import task_of
from jetflow.wire.records import decode_outcome

CHECK_EVERY: Final = 1.0
"""Seconds between two reads of an outcome that is waited for, in case its live copy was lost."""

LOOK_BEFORE_GIVING_UP: Final = 1.0
"""Seconds of a wait from which on a timeout says whether a worker is missing. A shorter one is a look at the moment."""

CHILDREN_ASKED_ABOUT: Final = 20
"""Children of a run whose workers are looked for, the oldest: those of one spawn wait for the same."""

_log = logging.getLogger("jetflow.client")


class Following:
    """Waits for the end of one run. ``task`` is one of its tasks, where it is known."""

    def __init__(self, session: Session, run: str, task: Task | None) -> None:
        self._session = session
        self._run = run
        self._task = task
        self._is_missed = False

    async def outcome(self, timeout: float | None) -> tuple[str, Outcome]:
        """Return the id of the tree's root and how the run ended. ``timeout`` is seconds; 0 waits for nothing.

        Raises:
            UnknownRun: no such run is stored, or it was deleted meanwhile.
            ResultTimeout: it has not ended in time.
        """
        if timeout is not None and timeout <= 0:
            return await self._outcome_now()
        names, connection = self._session.names, self._session.connection
        ended: asyncio.Future[tuple[str, Outcome]] = asyncio.get_running_loop().create_future()

        def on_live(message: Message) -> None:
            if not ended.done():
                ended.set_result((message.subject.split(".")[-4], decode_outcome(message.data)))

        is_root = self._task is not None and self._task.parent == NONE
        live = names.live_root_by_id(self._run) if is_root else names.live_run_by_id(self._run)
        subscription = await connection.subscribe(live, on_live)
        try:
            async with asyncio.timeout(timeout):
                return await self._wait(ended)
        except TimeoutError:
            missing: set[str] = set()
            if timeout is not None and timeout >= LOOK_BEFORE_GIVING_UP:
                missing = await self._missing()
            raise ResultTimeout(self._run, timeout or 0.0, told(missing)) from None
        finally:
            await connection.unsubscribe(subscription)

    async def _outcome_now(self) -> tuple[str, Outcome]:
        stored = await self._stored_outcome()
        if stored is not None:
            return stored
        if not await self._exists():
            raise UnknownRun(self._run)
        raise ResultTimeout(self._run, 0.0)

    async def _wait(self, ended: asyncio.Future[tuple[str, Outcome]]) -> tuple[str, Outcome]:
        loop = asyncio.get_running_loop()
        look_after = WAITED
        look_at, absent = loop.time() + look_after, False
        was_asked_for = self._task is not None  # by whoever waits: its trigger has just been acknowledged
        while True:
            try:
                stored = await self._stored_outcome()
                if stored is not None:
                    return stored
                # Twice in a row: a trigger through the inbox is under way for a moment, and so is a cancel.
                was_absent, absent = absent, not was_asked_for and not await self._exists()
                if absent and was_absent:
                    raise UnknownRun(self._run)
            except (BrokerTimeout, JetStreamUnavailable) as error:  # whoever waits, waits through an outage
                _log.info("the outcome of run %s cannot be read at this moment: %s", self._run, error)
            was_asked_for = False
            if loop.time() >= look_at and not self._is_missed:
                look_after *= 2
                look_at = loop.time() + look_after
                await self._tell_of_missing()
            await asyncio.wait({ended}, timeout=CHECK_EVERY)
            if ended.done():
                return ended.result()

    async def _stored_outcome(self) -> tuple[str, Outcome] | None:
        names, store = self._session.names, self._session.store
        if self._task is not None:
            stored = await store.last(names.records_stream, names.run_of(self._task))
        else:
            stored = await store.leader_last(names.records_stream, names.run_by_id(self._run))
        return None if stored is None else (stored.subject.split(".")[-4], decode_outcome(stored.body))

    async def _exists(self) -> bool:
        """Tell whether a task of the run is stored: it has one from its beginning until it is deleted."""
        if self._session.only_asks:  # this user may not read tasks
            return True
        names, store = self._session.names, self._session.store
        subject = names.tasks_of_run_id(self._run) if self._task is None else names.task_of(self._task)
        if self._task is not None and await store.last(names.tasks_stream, subject) is not None:
            return True
        stored = await store.leader_last(names.tasks_stream, subject)
        if self._task is None and stored is not None:
            self._task = task_of(stored)
        return stored is not None or await is_delayed(self._session, self._run)

    # --- why nothing happens

    async def _tell_of_missing(self) -> None:
        missing = await self._missing()
        if missing:
            self._is_missed = True
            _log.warning("run %s waits: %s", self._run, told(missing))

    async def _missing(self) -> set[str]:
        """Return the workflows, of the run and of its children, whose tasks wait and which no worker runs."""
        task, session = self._task, self._session
        if task is None or session.only_asks:
            return set()
        try:
            if await is_missed(session, task.workflow, task.version):
                return {task.workflow}
            return await waited_for(session, task.root, task.run, CHILDREN_ASKED_ABOUT)
        except BrokerError:
            return set()
