"""The deliveries that a worker holds: kept alive until they are acknowledged, handed back, or left to a later one."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from time import monotonic, time
from typing import Final

from jetflow.broker.holders import GUARD
from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.broker.times import SECOND
from jetflow.engine.attempts import Recorded
from jetflow.engine.tasks import Attempt, Failure, Task
from jetflow.errors import BrokerError
from jetflow.processes.table import NOWHERE, HeldTable
from jetflow.runs import points
from jetflow.wire.records import MalformedTask, decode_attempt, encode, parse_task
from jetflow.wire.subjects import BEGUN, last_token
from jetflow.worker.counts import Counts
from jetflow.worker.failures import failure_of
from jetflow.worker.threads import Call

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
TERM: Final = b"+TERM"

BROKER_TROUBLE_DELAY: Final = 1.0
"""Seconds before a task is delivered again whose outcome the broker did not take, doubled each time."""

BROKER_TROUBLE_LONGEST: Final = 60.0
"""Seconds up to which it is: what this user may not store, another worker's may."""

_log = logging.getLogger("jetflow.worker")


class Deliveries:
    """What a worker has been given and what becomes of it.

    ``ack_wait`` is after how many seconds without a sign of life the broker gives a task to another worker: the
    shortest of the consumers that this worker pulls, whatever it has asked for itself. ``consumer_was_lost`` says that
    one of them had to be made again, so that what others run is delivered as if for the first time. ``kept`` are those
    whose functions go on in threads when the worker stops. ``table`` is where its guard reads what is held; what finds
    no place there, and all of a worker without a guard, is held in ``_held``, by its acknowledgement subject.
    """

    def __init__(self, session: Session, counts: Counts, worker: str, table: HeldTable | None = None) -> None:
        self._table = table
        self._session = session
        self._connection = session.connection
        self._counts = counts
        self._worker = worker
        self._here: dict[str, Delivery] = {}
        self._handing_back: set[asyncio.Task[None]] = set()
        self._held: dict[str, Delivery] = {}
        self.kept: dict[str, Call] = {}
        self.ack_wait: float = inf
        self.consumer_was_lost: bool = False
        self._asking: set[str] = set()

    def keep_within(self, ack_wait: float) -> None:
        """Go by the ``ack_wait`` that a consumer has, in seconds, if it is shorter than those that are known."""
        self.ack_wait = min(self.ack_wait, ack_wait)
        if self._table is not None:
            self._table.ack_wait = self.ack_wait

    def is_guarded(self, within: float) -> bool:
        """Tell whether a guard has kept alive what is held, within so many seconds."""
        return self._table is not None and monotonic() - self._table.beaten <= within

    def on_consumer_lost(self) -> None:
        """Be told that a consumer is gone, and will be made again."""
        self.consumer_was_lost = True

    def hold(self, delivery: Delivery) -> None:
        """Keep a delivery's task alive from now on."""
        delivery.held_since = monotonic()
        if self._table is not None:
            delivery.place = self._table.take(delivery.reply)
        if delivery.place == NOWHERE:
            self._held[delivery.reply] = delivery

    def held(self, before: float = inf, *, guarded: bool = False) -> list[str]:
        """Return the acknowledgement subjects of what is held, since ``before`` as far as that is known.

        ``guarded``: without what stands in the table, for a guard keeps that alive. This may be called in another
        thread: a dict is copied in one step, and the table is made to be read so.
        """
        noted = [] if guarded or self._table is None else [one.reply for one in self._table.held()]
        return [*noted, *(reply for reply, one in list(self._held.items()) if one.held_since <= before)]

    def begin_body(self, delivery: Delivery, at: float) -> None:
        """Have the guard know when the body of a delivery begins, in seconds since the epoch: it is an attempt."""
        if self._table is not None:
            self._table.numbers[delivery.place] = at

    def let_go(self, delivery: Delivery) -> None:
        """Keep a delivery's task alive no more."""
        if delivery.place == NOWHERE:
            self._held.pop(delivery.reply, None)
        elif self._table is not None:
            self._table.free(delivery.place)
            delivery.place = NOWHERE

    def receive(self, delivery: Delivery) -> bool:
        """Hold a task that was delivered. Returns False if it is here already, and goes on under this delivery.

        A server that was away for longer than ``ack_wait``, or thinks that this worker was, delivers again what is
        fetched, running or being recorded here. To run it a second time beside itself would help nobody.
        """
        here = self._here.setdefault(delivery.subject, delivery)
        # Another message on the subject is another task: the first task of a cancelled tree is put back.
        if here is delivery or here.sequence != delivery.sequence:
            self._here[delivery.subject] = delivery
            self.hold(delivery)
            return True
        self.let_go(here)
        here.reply = delivery.reply
        self.hold(here)
        if here.running is None:  # another worker may have begun it meanwhile: it is looked at before it runs
            here.count, here.again = delivery.count, delivery.again
        else:
            self.begin_body(here, time())
        return False

    def runs(self, subject: str, asker: str = "") -> bool:
        """Tell whether the task on a subject runs here, or its end is being recorded.

        Of two workers that ask one another, the one whose name comes first may go on. A guard asks for what has not
        begun, too.
        """
        here = self._here.get(subject)
        if asker.startswith(GUARD):
            return here is not None
        if here is None or here.running is None:
            return False
        return subject not in self._asking or self._session.holders.name < asker

    async def is_held(self, delivery: Delivery, task: Task) -> bool:
        """Tell whether another worker that lives runs a task, which the broker had lost sight of for a while."""
        self._asking.add(delivery.subject)
        try:
            return await self._session.holders.is_held(task.workflow, delivery.subject)
        finally:
            self._asking.discard(delivery.subject)

    def _release(self, delivery: Delivery) -> None:
        self.let_go(delivery)
        here = self._here.pop(delivery.subject, None)
        if here is not delivery and here is not None:
            self._here[delivery.subject] = here

    async def drained(self) -> None:
        """Wait until what is being handed back is."""
        await asyncio.gather(*self._handing_back, return_exceptions=True)

    # --- how one ends

    def ack(self, delivery: Delivery) -> None:
        """End a delivery whose task is done."""
        self._release(delivery)
        points.before("ack")
        self._connection.send(delivery.reply, ACK)
        points.after("ack")

    def nak(self, delivery: Delivery, delay: float) -> None:
        """Have the task delivered again in ``delay`` seconds."""
        self._release(delivery)
        body = f'-NAK {{"delay":{int(delay * SECOND)}}}' if delay > 0 else "-NAK"
        points.before("nak")
        self._session.connection.send(delivery.reply, body.encode())
        points.after("nak")

    def leave_to_holder(self, delivery: Delivery) -> None:
        """Leave a task to the worker that runs it: by its next sign of life the broker sees it again."""
        self._counts.handed_back += 1
        self.nak(delivery, self.ack_wait / 2)

    def reject(self, delivery: Delivery, error: MalformedTask) -> None:
        """End a delivery that is no task: it would not be one the next time either."""
        self._counts.rejected += 1
        self._release(delivery)
        _log.error("a message that is not a task is rejected: %s", error)
        points.before("reject")
        self._session.connection.send(delivery.reply, TERM)
        points.after("reject")

    def leave(self, delivery: Delivery, error: BaseException, attempt: int) -> None:
        """Leave a task to a later delivery, since an error that is not the step's own kept it from its end.

        Trouble with the broker is no attempt. An error of the worker itself is one, or it could go on for ever.
        """
        trouble = isinstance(error, BrokerError)
        trace = None if trouble else error
        _log.error("a task on %s is left to a later delivery: %s", delivery.subject, error, exc_info=trace)
        now = time()
        failed = Attempt(attempt=attempt, worker=self._worker, started=now, ended=now, error=failure_of(error, ""))
        delay = min(BROKER_TROUBLE_DELAY * 2.0 ** min(delivery.count - 1, 16), BROKER_TROUBLE_LONGEST)
        leaving = self.hand_back(delivery, record=None if trouble else failed, delay=delay)
        task = asyncio.get_running_loop().create_task(leaving)
        self._handing_back.add(task)
        task.add_done_callback(self._handing_back.discard)

    async def hand_back(
        self,
        delivery: Delivery,
        task: Task | None = None,
        *,
        failure: Failure | None = None,
        record: Attempt | None = None,
        delay: float = 0.0,
    ) -> None:
        """Give a task back that was not run to its end here through no fault of its own.

        ``failure`` tells why, if there is more to say; ``delay`` is seconds until the next delivery. ``record`` is what
        is recorded instead of a return that is no attempt.
        """
        if task is None:
            try:
                task = parse_task(delivery.subject, delivery.headers, delivery.body)
            except MalformedTask as error:
                self.reject(delivery, error)
                return
        self._counts.handed_back += 1
        if not self._session.connection.is_connected:
            self._release(delivery)  # it is redelivered when the server is back and ack_wait is over
            return
        await self._store_return(delivery, task, record or self._returned(delivery, failure))
        self.nak(delivery, delay)

    async def keep(self, delivery: Delivery, task: Task, call: Call) -> None:
        """Hand back a task whose function goes on in a thread. It is kept alive until that has ended."""
        self._counts.handed_back += 1
        self.kept[delivery.reply] = call
        if self._session.connection.is_connected:
            await self._store_return(delivery, task, self._returned(delivery, None))

    def _returned(self, delivery: Delivery, failure: Failure | None) -> Attempt:
        now = time()
        return Attempt(
            attempt=delivery.count, worker=self._worker, started=now, ended=now, error=failure, returned=True
        )

    async def _store_return(self, delivery: Delivery, task: Task, record: Attempt) -> None:
        if task.twin:
            return  # it is no attempt of what it is the twin of
        try:
            await self.store_attempt(delivery, task, record)
        except BrokerError as error:
            _log.warning("a task is handed back without a record: %s", error)

    # --- attempts

    async def store_attempt(self, delivery: Delivery, task: Task, record: Attempt) -> None:
        """Record how a delivery ended without an outcome."""
        subject = self._session.names.attempt(task.join, task.turn, delivery.count)
        points.before("hand_back")
        await self._session.publisher.store(subject, encode(record), timeout=30)
        points.after("hand_back")

    async def begin(self, delivery: Delivery, task: Task, attempt: int) -> None:
        """Record that the body of a task that was delivered again begins: see `jetflow.engine.attempts`."""
        record = Attempt(attempt=attempt, worker=self._worker, started=time())
        points.before("begin")
        subject = self._session.names.begun(task.join, task.turn, delivery.count)
        await self._session.publisher.store(subject, encode(record), timeout=30)
        points.after("begin")

    async def tried(self, task: Task) -> list[Recorded]:
        """Return what is recorded of earlier deliveries of a turn."""
        names, store = self._session.names, self._session.store
        points.before("read_attempts")
        attempts = names.attempts_of_turn(task.join, task.turn)
        tried = await collect(store.pages(names.records_stream, attempts))
        points.after("read_attempts")
        return [
            Recorded(last_token(stored.subject).removeprefix(BEGUN), decode_attempt(stored.body)) for stored in tried
        ]
