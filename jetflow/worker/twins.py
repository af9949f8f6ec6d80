"""Twins of what runs in a worker: they are made here when a join asks for them, and told to stop when they have lost.

Who runs a child knows best for how long, and whether its step may be run a second time, so it is asked, and stores the
twin itself. From then on it looks now and then whether the run has ended, and so does who runs the twin: whichever of
the two has not ended it is told to stop. A worker without idempotent steps does nothing of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from time import time
from typing import Any, Final

from jetflow.broker.connection import Listening
from jetflow.broker.parser import Message
from jetflow.broker.session import Session
from jetflow.engine.hedging import Straggler, never, twin_of
from jetflow.errors import BrokerError, MalformedRecord
from jetflow.runs import points
from jetflow.wire.filters import Filters
from jetflow.wire.hedging import Late, decode_late
from jetflow.wire.records import encode, header_block, task_headers
from jetflow.wire.subjects import TWIN, last_token
from jetflow.worker.assignment import Assignment
from jetflow.worker.body import Body
from jetflow.workflow import Workflow

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at how the runs have ended of which two tasks run."""

_log = logging.getLogger("jetflow.worker")


class Twins:
    """The twins of one worker, whose bodies are ``running``. `start` and `stop` it; both are safe to call twice."""

    def __init__(
        self, session: Session, workflows: Mapping[str, Workflow[Any, Any]], running: Mapping[Assignment, Body]
    ) -> None:
        self._session = session
        self._running = running
        self._workflows = {
            name for name, one in workflows.items() if any(step.idempotent for step in one.steps.values())
        }
        self._subscription: Listening | None = None
        self._watched: set[Assignment] = set()
        self._watching: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer, if this worker has idempotent steps."""
        if self._subscription is None and self._workflows:
            subject = Filters(self._session.names).ask_late("*")
            self._subscription = await self._session.connection.subscribe(subject, self._on_asked)

    async def stop(self) -> None:
        """Answer no more. What runs is looked at until it has ended."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def close(self) -> None:
        """Look at nothing more."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    # --- making them

    def _on_asked(self, message: Message) -> None:
        if not message.reply or last_token(message.subject) not in self._workflows:
            return
        try:
            asked = decode_late(message.data)
        except MalformedRecord:
            return
        answering = asyncio.get_running_loop().create_task(self._answer(message.reply, asked))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def _answer(self, reply: str, asked: Late) -> None:
        runs = set(asked.runs)
        held = [work for work in self._running if work.task.run in runs and not work.task.twin and work.started]
        if held:
            told = await asyncio.gather(*(self._straggler(work, asked.late_after) for work in held))
            self._session.connection.send(reply, encode([one for one in told if one is not None]))

    async def _straggler(self, work: Assignment, late_after: float) -> Straggler | None:
        """Tell of what is asked for, and make a twin of it if it is late."""
        task, seconds = work.task, time() - work.started
        why = never(task, work.known_graph, idempotent=work.known_step.idempotent)
        if not (why or work.has_twin) and seconds >= late_after:
            try:
                await self._make(work)
            except BrokerError as error:
                _log.warning("run %s: no twin of step %r is made: %s", task.run, task.step, error)
                return None
        return Straggler(run=task.run, seconds=seconds, twin=work.has_twin, never=why)

    async def _make(self, work: Assignment) -> None:
        task, twin = work.task, twin_of(work.task)
        points.before("store_twin")
        headers = header_block(task_headers(twin, f"{task.run}.{task.step}.{task.turn}.{TWIN}"))
        await self._session.publisher.store(self._session.names.task_of(twin), task.input, headers)
        points.after("store_twin")
        _log.info(
            "run %s: step %r of %r has run for %.1f s, and gets a twin",
            task.run,
            task.step,
            task.workflow,
            time() - work.started,
        )
        work.has_twin = True
        self.watch(work)

    # --- stopping them

    def watch(self, work: Assignment) -> None:
        """Look from now on whether the run of an assignment, whose body begins or runs, is ended by another."""
        self._watched.add(work)
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch_all(), name="jetflow twins")

    async def _watch_all(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_EVERY)
            self._watched.intersection_update(self._running)
            try:
                await self._look(list(self._watched))
            except BrokerError as error:
                _log.info("the runs with twins are looked at later: %s", error)
        self._watching = None

    async def _look(self, watched: Iterable[Assignment]) -> None:
        names, by_subject = self._session.names, dict[str, list[Assignment]]()
        for work in watched:
            by_subject.setdefault(names.run_of(work.task), []).append(work)
        async for page in self._session.store.many(names.records_stream, list(by_subject)):
            for stored in page:
                for work in by_subject.get(stored.subject, ()):
                    body = self._running.get(work)
                    if body is not None:
                        body.lose()
                    self._watched.discard(work)
