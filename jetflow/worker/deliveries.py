"""The deliveries that a worker holds: kept alive until they are acknowledged, handed back, or left to a later one."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, time
from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.broker.times import SECOND
from jetflow.engine.tasks import Attempt, Failure, Task
from jetflow.errors import BrokerError
from jetflow.runs import points
from jetflow.wire.records import MalformedTask, decode_attempt, encode, parse_task
from jetflow.worker.counts import Counts

ACK: Final = b"+ACK"
TERM: Final = b"+TERM"

BROKER_TROUBLE_DELAY: Final = 1.0
"""Seconds before a task is delivered again whose outcome the broker did not take, doubled each time."""

BROKER_TROUBLE_LONGEST: Final = 60.0
"""Seconds up to which it is: what this user may not store, another worker's may."""

_log = logging.getLogger("jetflow.worker")


class Deliveries:
    """What a worker has been given and what becomes of it. ``held`` is what the heartbeat keeps alive."""

    def __init__(self, session: Session, counts: Counts, worker: str) -> None:
        self._session = session
        self._counts = counts
        self._worker = worker
        self._under_way: dict[str, tuple[Delivery, Task]] = {}
        self._handing_back: set[asyncio.Task[None]] = set()
        self.held: dict[str, float] = {}

    def hold(self, delivery: Delivery) -> None:
        """Keep a delivery's task alive from now on."""
        self.held[delivery.reply] = monotonic()

    def begin(self, delivery: Delivery, task: Task) -> None:
        """Note that the body of a task is under way."""
        self._under_way[delivery.subject] = delivery, task

    def end(self, delivery: Delivery) -> None:
        """Note that it is not any more."""
        self._under_way.pop(delivery.subject, None)

    def take_over(self, delivery: Delivery) -> bool:
        """Go on under a new delivery with a task that is under way here.

        A server that was away for longer than ``ack_wait`` delivers again what its workers are still busy with. That is
        no other attempt, and must not be counted as one.
        """
        if delivery.subject not in self._under_way:
            return False
        first, task = self._under_way[delivery.subject]
        if first.sequence != delivery.sequence:  # another message: the first task of a cancelled tree is put back
            return False
        self.held.pop(first.reply, None)
        first.reply = delivery.reply
        self.hold(first)
        now = time()
        record = Attempt(attempt=delivery.count, worker=self._worker, started=now, ended=now, returned=True)
        subject = self._session.names.attempt(task.join, task.turn, delivery.count)
        self._session.publisher.publish(subject, encode(record), b"", lambda _: None)
        return True

    async def drained(self) -> None:
        """Wait until what is being handed back is."""
        await asyncio.gather(*self._handing_back, return_exceptions=True)

    # --- how one ends

    def ack(self, delivery: Delivery) -> None:
        """End a delivery whose task is done."""
        self.held.pop(delivery.reply, None)
        points.before("ack")
        self._session.connection.send(delivery.reply, ACK)
        points.after("ack")

    def nak(self, delivery: Delivery, delay: float) -> None:
        """Have the task delivered again in ``delay`` seconds."""
        self.held.pop(delivery.reply, None)
        body = f'-NAK {{"delay":{int(delay * SECOND)}}}' if delay > 0 else "-NAK"
        points.before("nak")
        self._session.connection.send(delivery.reply, body.encode())
        points.after("nak")

    def reject(self, delivery: Delivery, error: MalformedTask) -> None:
        """End a delivery that is no task: it would not be one the next time either."""
        self._counts.rejected += 1
        self.held.pop(delivery.reply, None)
        _log.error("a message that is not a task is rejected: %s", error)
        points.before("reject")
        self._session.connection.send(delivery.reply, TERM)
        points.after("reject")

    def leave(self, delivery: Delivery, error: BaseException) -> None:
        """Leave a task to a later delivery, since an error that is not the step's own kept it from its end."""
        trouble = isinstance(error, BrokerError)
        trace = None if trouble else error
        _log.error("a task on %s is left to a later delivery: %s", delivery.subject, error, exc_info=trace)
        if trouble and self._session.connection.is_connected:
            delay = min(BROKER_TROUBLE_DELAY * 2.0 ** min(delivery.count - 1, 16), BROKER_TROUBLE_LONGEST)
            # Recorded, so that it does not count as an attempt: trouble with the broker is no poison.
            task = asyncio.get_running_loop().create_task(self.hand_back(delivery, delay=delay))
            self._handing_back.add(task)
            task.add_done_callback(self._handing_back.discard)
        else:
            self.nak(delivery, BROKER_TROUBLE_DELAY)

    async def hand_back(
        self, delivery: Delivery, task: Task | None = None, *, failure: Failure | None = None, delay: float = 0.0
    ) -> None:
        """Give a task back that was not run to its end here through no fault of its own.

        ``failure`` tells why, if there is more to say; ``delay`` is seconds until the next delivery.
        """
        if task is None:
            try:
                task = parse_task(delivery.subject, delivery.headers, delivery.body)
            except MalformedTask as error:
                self.reject(delivery, error)
                return
        self._counts.handed_back += 1
        if not self._session.connection.is_connected:
            self.held.pop(delivery.reply, None)  # it is redelivered when the server is back and ack_wait is over
            return
        now = time()
        record = Attempt(
            attempt=delivery.count, worker=self._worker, started=now, ended=now, error=failure, returned=True
        )
        try:
            await self.store_attempt(delivery, task, record)
        except BrokerError as error:
            _log.warning("a task is handed back without a record: %s", error)
        self.nak(delivery, delay)

    # --- attempts

    async def store_attempt(self, delivery: Delivery, task: Task, record: Attempt) -> None:
        """Record how a delivery ended without an outcome."""
        subject = self._session.names.attempt(task.join, task.turn, delivery.count)
        points.before("hand_back")
        await self._session.publisher.store(subject, encode(record), timeout=30)
        points.after("hand_back")

    async def attempt(self, delivery: Delivery, task: Task) -> int:
        """Return which attempt a redelivery is: deliveries that were handed back do not count."""
        return task.tried + delivery.count - sum(record.returned for record in await self.tried(task))

    async def tried(self, task: Task) -> list[Attempt]:
        """Return how earlier deliveries of a turn ended without an outcome."""
        names, store = self._session.names, self._session.store
        points.before("read_attempts")
        attempts = names.attempts_of_turn(task.join, task.turn)
        tried = await collect(store.pages(names.records_stream, attempts))
        points.after("read_attempts")
        return [decode_attempt(stored.body) for stored in tried]
