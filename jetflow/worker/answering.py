"""Answering whoever asks what a worker does: it costs nothing while nobody does (``docs/wire.md``, Asking workers).

Every worker answers for itself; who holds a step of the run that is asked for answers for that.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from time import monotonic, time
from typing import Any, Final

import msgspec

from jetflow.broker.connection import Listening
from jetflow.broker.parser import Message
from jetflow.broker.session import Session
from jetflow.engine.labels import Label
from jetflow.runs.query.rows import RunningRow, WorkerRow
from jetflow.wire.filters import Filters
from jetflow.wire.records import encode
from jetflow.wire.subjects import last_token
from jetflow.worker.assignment import Assignment
from jetflow.worker.bodies import Bodies
from jetflow.worker.body import Body
from jetflow.worker.counts import Counts
from jetflow.worker.slots import Slots
from jetflow.worker.stacks import stack_of_task, stack_of_thread

SHOWN: Final = 200
"""Running steps that an answer tells of, the newest."""

STACKS: Final = 20
"""Steps of one run whose stacks are told."""


class Asked(msgspec.Struct, frozen=True):
    """What may be asked for beside: where the code of the steps stands."""

    stack: bool = False


class Answering:
    """Answers for one worker. `start` and `stop` it; both are safe to call twice."""

    def __init__(
        self,
        session: Session,
        name: str,
        workflows: Mapping[str, Any],
        bodies: Bodies,
        slots: Slots,
        labels: Mapping[str, Label],
    ) -> None:
        self._session = session
        self._name = name
        self._workflows = tuple(sorted(workflows))
        self._bodies = bodies
        self._slots = slots
        self._labels = labels
        self._counts: Counts = bodies.counts
        self._started = time()
        self._subscriptions: list[Listening] = []
        self.leaving: bool = False

    async def start(self) -> None:
        """Begin to answer."""
        if self._subscriptions:
            return
        filters, connection = Filters(self._session.names), self._session.connection
        self._subscriptions.append(await connection.subscribe(filters.ask_workers(), self._on_workers))
        self._subscriptions.append(await connection.subscribe(filters.ask_run("*"), self._on_run))

    def leave(self) -> None:
        """Say from now on that this worker takes no more tasks."""
        self.leaving = True

    async def stop(self) -> None:
        """Answer no more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await self._session.connection.unsubscribe(subscription)

    def _on_workers(self, message: Message) -> None:
        if message.reply:
            asyncio.get_running_loop().call_soon(self._answer, message.reply, monotonic())

    def _answer(self, reply: str, asked: float) -> None:
        counts, running = self._counts, list(self._bodies.running.items())
        row = WorkerRow(
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=_own_version(),
            python=platform.python_version(),
            started=self._started,
            workflows=self._workflows,
            labels=self._labels,
            slots=self._slots.count,
            used=self._slots.used,
            waiting=self._bodies.waiting,
            lag=monotonic() - asked,
            leaving=self.leaving,
            executed=counts.executed,
            succeeded=counts.succeeded,
            failed=counts.failed,
            retried=counts.retried,
            redelivered=counts.redelivered,
            swept=counts.swept,
            running=tuple(self._row(work, body) for work, body in running[-SHOWN:]),
        )
        self._session.connection.send(reply, encode(row))

    def _on_run(self, message: Message) -> None:
        if not message.reply:
            return
        run = last_token(message.subject)
        held = [(work, body) for work, body in self._bodies.running.items() if work.task.run == run]
        if not held:
            return
        try:
            asked = msgspec.json.decode(message.data, type=Asked) if message.data else Asked()
        except msgspec.DecodeError:
            asked = Asked()  # whoever asks for what this worker does not know gets what it does know
        rows = [self._row(work, body, stack=asked.stack) for work, body in held[:STACKS]]
        self._session.connection.send(message.reply, encode(rows))

    def _row(self, work: Assignment, body: Body, *, stack: bool = False) -> RunningRow:
        task = work.task
        return RunningRow(
            run=task.run,
            root=task.root,
            workflow=task.workflow,
            step=task.step,
            worker=self._name,
            attempt=work.attempt,
            turn=task.turn,
            started=work.started or None,
            state="running" if body.holds_slot else "waiting",
            stack="\n".join(_stacks(work, body)) if stack else "",
        )


def _stacks(work: Assignment, body: Body) -> Iterator[str]:
    """Yield where a step's code stands: in its thread, if it has one, else in the event loop."""
    if body.call is not None and not body.call.has_ended:
        yield stack_of_thread(body.call.thread)
    elif work.delivery.running is not None:
        yield stack_of_task(work.delivery.running)


def _own_version() -> str:
    try:
        return version("jetflow-nats")
    except PackageNotFoundError:  # a copy of the code that was not installed
        return ""
