"""What becomes of the tasks of a worker that has died: each is delivered again at once, and what was lost is recorded.

The record comes first, for whoever is given the task counts its attempts by that. Beside what the worker is known to
have held there is what it was given in its last moment and never saw: that is looked for among the tasks which were
delivered last, and of which no worker that lives says that it has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from contextlib import suppress
from secrets import token_hex
from time import time
from typing import Any, Final, NamedTuple

from jetflow.broker.connection import Connection
from jetflow.broker.holders import GUARD, Holders
from jetflow.broker.publisher import Publisher
from jetflow.broker.puller import Given, given_by
from jetflow.broker.store import Store
from jetflow.engine.tasks import Attempt, Failure, Task
from jetflow.errors import BrokerError
from jetflow.processes.table import Held
from jetflow.runs import points
from jetflow.wire.records import MalformedTask, decode_attempt, encode, parse_task
from jetflow.wire.subjects import Subjects

LOST: Final = "WorkerLost"
"""The type of the error of an attempt whose worker died."""

AT_ONCE: Final = 256

LOOKED_AT: Final = 5000
"""Sequences of the stream, the last ones that were delivered, among which it is looked for what was never seen."""

FIRST: Final = 1

NAK: Final = b"-NAK"

_log = logging.getLogger("jetflow.guard")


class _Consumer(NamedTuple):
    """One that the worker pulled, and its state when that died."""

    name: str
    workflow: str
    step: str
    state: dict[str, Any]


class _Open(NamedTuple):
    """A task that was delivered, and has not ended as far as it is known."""

    sequence: int
    task: Task


class Releasing:
    """Gives back what one worker has held. `start` it before use, `stop` it at the end."""

    def __init__(self, connection: Connection, namespace: str, worker: str) -> None:
        self._connection = connection
        self._names = Subjects(namespace)
        self._worker = worker
        self._publisher = Publisher(connection)
        self._store = Store(connection)
        self._holders = Holders(connection, self._names)
        self._holders.name = f"{GUARD}{token_hex(8)}"
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """Begin to listen for answers."""
        await self._publisher.start()
        await self._store.start()

    async def stop(self) -> None:
        """Wait until all that was said is acknowledged."""
        self._holders.stop()
        await self._publisher.stop()

    async def release(self, held: Sequence[Held], steps: Sequence[tuple[str, str]], reason: str) -> int:
        """Give back what was held, and what was given by consumers of these steps and never seen; return how many.

        ``reason`` is how the worker has ended, for people.
        """
        consumers = await asyncio.gather(*(self._state_of(*step) for step in steps))
        await asyncio.gather(*(self._release_one(one, reason) for one in held))
        given = [found for one in held if (found := given_by(one.reply)) is not None]
        place = _place_of(held, self._names.tasks_stream)
        unseen = [self._release_unseen(one, given, place) for one in consumers if one is not None]
        released = len(held) + sum(await asyncio.gather(*unseen))
        await self._connection.settled()
        return released

    # --- what was held

    async def _release_one(self, held: Held, reason: str) -> None:
        async with self._gate:
            points.before("guard_record")
            try:
                await self._record(held, reason)
            except BrokerError as error:
                _log.warning("a task of a worker that died is given back without a record: %s", error)
            points.after("guard_record")
            self._nak(held.reply)

    def _nak(self, reply: str) -> None:
        points.before("guard_nak")
        self._connection.send(reply, NAK)
        points.after("guard_nak")

    async def _record(self, held: Held, reason: str) -> None:
        """Record what became of a delivery: its body was lost, or it had not begun and is no attempt."""
        given = given_by(held.reply)
        if given is None or given.stream != self._names.tasks_stream:
            return
        stored = await self._store.leader_at(given.stream, given.sequence)
        if stored is None:
            return
        try:
            task = parse_task(stored.subject, stored.headers, stored.body)
        except MalformedTask:
            return  # whoever is given it next rejects it
        if task.twin:
            return  # it is no attempt of what it is the twin of
        now = time()
        ended = self._returned(task.tried + 1)
        if held.started:
            begun = self._names.begun(task.join, task.turn, given.delivery)
            known = await self._store.leader_last(self._names.records_stream, begun) if given.delivery > FIRST else None
            ended = Attempt(
                attempt=ended.attempt if known is None else decode_attempt(known.body).attempt,
                worker=self._worker,
                started=held.started,
                ended=now,
                error=Failure(LOST, f"worker {self._worker} {reason} while it ran this step"),
            )
        subject = self._names.attempt(task.join, task.turn, given.delivery)
        await self._publisher.store(subject, encode(ended), timeout=30)

    def _returned(self, attempt: int) -> Attempt:
        now = time()
        return Attempt(attempt=attempt, worker=self._worker, started=now, ended=now, returned=True)

    # --- what was never seen

    async def _state_of(self, workflow: str, step: str) -> _Consumer | None:
        name = self._names.consumer(workflow, step)
        try:
            state = await self._connection.api(f"CONSUMER.INFO.{self._names.tasks_stream}.{name}")
        except BrokerError as error:
            _log.warning("it is not known what else a worker that died was given: %s", error)
            return None
        return _Consumer(name, workflow, step, state)

    async def _release_unseen(self, consumer: _Consumer, given: Sequence[Given], place: str) -> int:
        own = {one.sequence for one in given if one.consumer == consumer.name}
        if int(consumer.state["num_ack_pending"]) <= len(own):
            return 0
        try:
            unseen = await self._unseen(consumer, own)
            await asyncio.gather(*(self._record_unseen(one.task) for one in unseen))
        except BrokerError as error:
            _log.warning("what a worker that died was given at last is delivered again after a while: %s", error)
            return 0
        last = consumer.state["delivered"]["consumer_seq"]
        for one in unseen:  # of what was acknowledged the server takes no notice
            self._nak(f"{place}.{consumer.name}.{FIRST}.{one.sequence}.{last}.0.0")
        return len(unseen)

    async def _unseen(self, consumer: _Consumer, own: Set[int]) -> list[_Open]:
        """Return what was delivered last, has not ended, and is had by no worker that lives."""
        found = {one.task: one for one in await self._delivered_last(consumer) if one.sequence not in own}
        ends = {self._names.run_of(task): task for task in found}
        ends |= {self._names.step(task.join): task for task in found}
        async for page in self._store.many(self._names.records_stream, list(ends)):
            for stored in page:
                found.pop(ends[stored.subject], None)
        asked = (self._holders.is_held(consumer.workflow, self._names.task_of(task)) for task in found)
        held = await asyncio.gather(*asked)
        return [one for one, is_held in zip(found.values(), held, strict=True) if not is_held]

    async def _delivered_last(self, consumer: _Consumer) -> list[_Open]:
        last, floor = (int(consumer.state[key]["stream_seq"]) for key in ("delivered", "ack_floor"))
        subject = self._names.tasks_of_step(consumer.workflow, consumer.step)
        found: list[_Open] = []
        pages = self._store.pages(self._names.tasks_stream, subject, after=max(floor, last - LOOKED_AT))
        async for page in pages:
            for stored in page:
                with suppress(MalformedTask):  # whoever is given it next rejects it
                    if stored.sequence <= last:
                        found.append(_Open(stored.sequence, parse_task(stored.subject, stored.headers, b"")))
            if page[-1].sequence >= last:
                break
        return found

    async def _record_unseen(self, task: Task) -> None:
        """Record that the first delivery of a task has reached nobody, if nothing is recorded of any."""
        if task.twin:
            return
        async with self._gate:
            attempts = self._names.attempts_of_turn(task.join, task.turn)
            if await self._store.leader_last(self._names.records_stream, attempts) is None:
                subject = self._names.attempt(task.join, task.turn, FIRST)
                await self._publisher.store(subject, encode(self._returned(task.tried + 1)), timeout=30)


def _place_of(held: Sequence[Held], stream: str) -> str:
    """Return how acknowledgement subjects of a stream begin: with a domain and an account, where there are such."""
    for one in held:
        before, found, _ = one.reply.partition(f".{stream}.")
        if found:
            return f"{before}.{stream}"
    return f"$JS.ACK.{stream}"
