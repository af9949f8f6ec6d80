"""Waiting for children inside a step: warm in memory first, then parked cold.

Warm, the step listens to the live copies of its children's outcomes and reads from the stream what was stored before
it listened. A live copy that got lost is noticed by the join's counter, within a second or so. Parking raises
`StepParked` in every wait of the step: the coroutine unwinds, and a later turn begins the step again from its top.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from time import time
from typing import Any, Final

from jetflow.broker.connection import Listening, Message
from jetflow.broker.session import Session
from jetflow.engine.awaiting import Awaited
from jetflow.engine.joins import Loosened
from jetflow.engine.loosening import policy_of
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import Outcome, Task
from jetflow.errors import BrokerError, BrokerTimeout
from jetflow.runs import points
from jetflow.runs.loosening import read_loosened
from jetflow.runs.telling import Telling
from jetflow.runs.values import with_readable_output
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_id
from jetflow.worker.child_records import ChildRecords
from jetflow.worker.clock import StepClock
from jetflow.worker.slots import Slots
from jetflow.worker.waits import Crowd, Decision, Need, Wait, Waits, need_of

CHECK_EVERY: Final = 1.0
"""Seconds of silence after which a wait looks at the counter, with up to a hundred waits in one worker."""

NEAR: Final = 1.0
"""Seconds before its deadline from which on a wait stays in memory."""

READ_ALL_FROM: Final = 250
"""From this many children on, all outcomes of the step are read by a scan rather than by their subjects."""

_log = logging.getLogger("jetflow.worker")


class StepParked(BaseException):
    """Unwinds a step that is parked: it goes on in a later turn, in any worker. Let it pass."""


class Waiting:
    """The waits of one execution of one step."""

    def __init__(
        self,
        session: Session,
        task: Task,
        slots: Slots,
        crowd: Crowd,
        owner_of: Callable[[bytes], str],
        telling: Telling | None,
        *,
        cold: bool,
    ) -> None:
        self._session = session
        self._task = task
        self._slots = slots
        self._crowd = crowd
        self._owner_of = owner_of
        self._telling = telling
        self._cold = cold
        self._cancelled = False
        self._waits = Waits()
        self._ended = self._waits.ended
        self._records = ChildRecords(session, task, owner_of, self._waits)
        self._unread = set[bytes]()
        self._unheard = set[bytes]()
        self._streams = 0
        self._is_reading = False
        self._arriving = 0
        self._scanned = False
        self._subscription: Listening | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        self._reads: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._last_arrival = 0.0
        self._last_check = 0.0
        self._outside = 0
        self._timer: asyncio.TimerHandle | None = None
        self.holds_slot: bool = True
        self._is_taking = False
        self._released = False
        self._is_closed = False
        self.clock: StepClock = StepClock()
        self.need: Need | None = None
        self.joined: set[bytes] = set()
        self.excused: set[str] = set()
        self.loosened: tuple[Loosened, ...] | None = None
        if telling is not None:
            telling.begin(task.join, self.told)

    @property
    def parked(self) -> bool:
        """Whether the step is being unwound."""
        return self.need is not None

    @property
    def park_after(self) -> float:
        """Seconds that the step waits in memory before it is parked."""
        return self._crowd.park_after

    async def all(self, children: Sequence[bytes]) -> list[Outcome]:
        """Wait until all children have ended, and return how, in their order."""
        distinct = set(children)
        if (wait := self._wait_for(distinct, len(distinct))) is not None:
            await self._wait(wait)
        self.joined |= distinct
        if self._waits.has_let_go:
            await self._records.read_again([child for child in distinct if not self._ended[child]])
        outcomes = [await self._outcome(child) for child in children]
        self._waits.let_go(distinct)
        return outcomes

    async def some(self, children: set[bytes], enough: int) -> None:
        """Wait until so many of some children have ended."""
        if (wait := self._wait_for(children, enough)) is not None:
            await self._wait(wait)

    def ended_of(self, children: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return those of some children that have ended, with their records; empty where they are not kept."""
        return {child: self._ended[child] for child in children if child in self._ended}

    async def decided(self, children: Sequence[bytes], policy: JoinPolicy, deadline: float | None) -> Decision:
        """Wait until a policy is decided over children, or until ``deadline`` (seconds since the epoch)."""
        distinct = set(children)
        total, ended = len(distinct), dict[bytes, Outcome]()
        verdict = "open"
        in_time = True
        asked = self._task.turn == 0  # a join is loosened where it is parked

        async def ask() -> bool:
            nonlocal policy, asked
            asked = True
            looser = await self._looser(distinct)
            policy = looser or policy
            return looser is not None

        while verdict == "open" and in_time:
            await self._add(distinct.difference(ended) & self._ended.keys(), ended)
            succeeded = sum(outcome.status == "succeeded" for outcome in ended.values())
            verdict = policy.verdict(total, succeeded, len(ended))
            if verdict == "missed" and not asked and await ask():
                verdict = policy.verdict(total, succeeded, len(ended))
            if verdict == "open":
                enough = total if policy.quorum is None else len(ended) + policy.quorum - succeeded
                in_time = await self._in_time(distinct, enough, policy, deadline, None if asked else ask)
        await self._add(distinct.difference(ended) & self._ended.keys(), ended)
        if verdict == "open":  # the time is up: what has ended decides
            succeeded = sum(outcome.status == "succeeded" for outcome in ended.values())
            verdict = "met" if policy.verdict(len(ended), succeeded, len(ended)) == "met" else "missed"
        self.joined |= distinct
        rest = distinct.difference(ended)
        self.excused.update(child.hex() for child in rest)  # however they end, the step has decided without them
        return Decision(ended, rest, verdict == "met", policy)

    async def _looser(self, children: set[bytes]) -> JoinPolicy | None:
        """Return the policy by which a join of these children goes, if it was loosened in a turn before."""
        if self.loosened is None:
            with self.arriving():
                points.before("read_loosened")
                self.loosened = await read_loosened(self._session, self._task.join)
                points.after("read_loosened")
        return policy_of(self.loosened, children) if self.loosened else None

    @contextmanager
    def arriving(self) -> Generator[None]:
        """Do not park the step while it finds out until when it has to wait in one place."""
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def sleep(self, until: float, *, alone: bool) -> None:
        """Wait until a time, in seconds since the epoch. ``alone`` says that the step does nothing else meanwhile."""
        while (left := until - time()) > 0:  # the event loop's clock may run ahead of the time of day
            self._check_goes_on()
            wait = Wait(set(), 1, None, until)
            self._waits.add(wait)
            if alone and left > self.park_after:
                self.park()
            try:
                await self._wait(wait)
            except BrokerTimeout:
                raise
            except TimeoutError:
                continue

    async def expect(self, events: tuple[Awaited, ...], until: float | None, *, alone: bool) -> None:
        """Wait for some events, or until a time. It returns when it is worth looking again; see `sleep`."""
        self._check_goes_on()
        wait = Wait(set(), 1, None, until)
        wait.events = events
        self._waits.add(wait)
        if alone:
            self.park()  # nothing else is to be done: it costs no worker anything
        looking = self._loop.call_later(CHECK_EVERY, wait.come)
        try:
            await self._wait(wait)
        except BrokerTimeout:
            raise
        except TimeoutError:
            return
        finally:
            looking.cancel()

    async def _in_time(
        self,
        children: set[bytes],
        enough: int,
        policy: JoinPolicy,
        deadline: float | None,
        ask: Callable[[], Awaitable[bool]] | None,
    ) -> bool:
        """Wait, unless ``ask`` then says that it goes on; tell whether it was worth it before the deadline."""
        try:
            if (wait := self._wait_for(children, enough, policy, deadline)) is not None:
                await self._wait(wait, ask)
        except BrokerTimeout:  # a TimeoutError too, but not the join's
            raise
        except TimeoutError:
            return False
        return True

    async def _add(self, children: set[bytes], outcomes: dict[bytes, Outcome]) -> None:
        if self._waits.has_let_go:
            await self._records.read_again([child for child in children if not self._ended[child]])
        for child in children:
            outcomes[child] = await self._outcome(child)

    async def _outcome(self, child: bytes) -> Outcome:
        outcome = decode_outcome(self._ended[child] or await self._records.body(child))
        if outcome.status != "succeeded":
            self.excused.add(child.hex())
        if outcome.value is None:  # which spares thousands of results a coroutine
            return outcome
        return await with_readable_output(self._session, self._task.root, outcome)

    def cancel(self) -> None:
        """End the waits of a cancelled run."""
        self._cancelled = True
        self._waits.wake()

    async def each(self, children: set[bytes]) -> AsyncGenerator[bytes]:
        """Yield children as they end. They are looked for once, however often it waits."""
        wait = Wait.for_each(children, self._ended)
        arrived, left = wait.arrived, len(children)
        self._waits.watch(wait)
        self._unread |= children.difference(self._ended)
        try:
            while left:
                self._check_goes_on()
                if not arrived:
                    self._waits.renew(wait)
                    await self._wait(wait)
                while arrived:
                    left -= 1
                    yield arrived.popleft()
        finally:
            self._waits.unwatch(wait)

    async def open_stream(self) -> Wait:
        """Begin to wait for children that are told by and by: `widen` it before they are spawned."""
        self._check_goes_on()
        self._streams += 1
        if self._subscription is None and not self._cold:
            points.before("listen")
            await self._listen()
            points.after("listen")
        return Wait.for_each(set(), ())

    def widen(self, wait: Wait, children: Iterable[bytes], *, unread: bool) -> None:
        """Wait for more children of a stream. Some may have ended, and are ``unread``.

        Of the others nobody hears who were spawned before, and recognised: they are read in the next silence.
        """
        self._waits.widen(wait, children)
        (self._unread if unread else self._unheard).update(wait.children.intersection(children))

    async def some_of(self, wait: Wait, parks_for: int) -> list[tuple[bytes, Outcome]]:
        """Wait until at least one child of a stream has ended, and return which have, and how.

        A step that is parked goes on when ``parks_for`` of them have.
        """
        self._check_goes_on()
        if not wait.arrived and wait.children:
            wait.parks_for = parks_for
            self._waits.renew(wait)
            await self._wait(wait)
        handed = self._waits.hand_over(wait)
        self._unheard.difference_update([child for child, _ in handed])
        return [(child, decode_outcome(body or await self._records.body(child))) for child, body in handed]

    def release(self) -> None:
        """Give the slot back for good: the step goes on without one. What has ended gives it back by its end."""
        self._released = True
        if self.holds_slot and not (self._is_taking or self._is_closed):
            self.holds_slot = False
            self._slots.give_back()

    def close_stream(self, wait: Wait) -> None:
        """Wait no more for the children of a stream."""
        self._streams -= 1
        self._waits.unwatch(wait)

    def park(self) -> None:
        """Unwind the step where it waits; or at its next wait, if it does not.

        One that waits for a time alone needs no child, and is woken by its timer.
        """
        self._cold = True
        if self._is_reading or self._arriving:
            return  # what it finds may be enough, and what is about to wait has to be waited for, too
        waits = [] if self.parked else self._waits.standing
        if not waits:
            return
        need = need_of(waits, self._ended)
        if need.until is not None and need.until - time() < NEAR:
            return  # it goes on before another turn could begin
        self.need = need
        self._waits.wake()

    async def close(self) -> None:
        """Stop listening. Nothing is extended or released any more."""
        self._is_closed, self.clock.timeout = True, None
        if self._telling is not None:
            self._telling.end(self._task.join, self.told)
        self._forget_reconnect()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)

    # --- waiting

    def _wait_for(
        self, children: set[bytes], enough: int, policy: JoinPolicy | None = None, deadline: float | None = None
    ) -> Wait | None:
        """Begin to wait for ``enough`` of the children. Returns None if so many have ended."""
        self._check_goes_on()
        missing = children.difference(self._ended)
        left = enough - (len(children) - len(missing))
        if left <= 0:
            return None
        wait = Wait(children, left, policy, deadline)
        self._waits.add(wait)
        self._unread |= missing
        return wait

    def _check_goes_on(self) -> None:
        if self.parked:
            raise StepParked
        if self._cancelled:
            raise asyncio.CancelledError

    async def _wait(self, wait: Wait, ask: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Read what is stored, and wait for the rest outside the step's slot."""
        try:
            if self._unread and not self._is_reading:
                await self._read_stored()
            if wait.left <= 0 or (ask is not None and await ask()):
                return
            self._leave_slot()
            try:
                points.before("wait")
                if wait.deadline is None:
                    await wait.moved
                else:
                    async with asyncio.timeout(max(0.0, wait.deadline - time())):
                        await wait.moved
                points.after("wait")
                if wait.left > 0 or self.parked:  # it may have become enough in the pass in which it was parked
                    self._check_goes_on()
            finally:
                self._outside -= 1
                # A step that waits in several places goes on without a slot until the last of them: the child that it
                # still waits for may need the slot.
                if not self._outside:
                    await self._come_back()
        finally:
            self._waits.end(wait)

    def _leave_slot(self) -> None:
        # However many places a step waits in, it is one that waits.
        if self._cold or (not self._outside and not self._crowd.has_room()):
            self.park()
        self._check_goes_on()
        if self.holds_slot:
            self.holds_slot = False
            self._slots.give_back()
        self._outside += 1
        if self._outside == 1:
            self._crowd.waiting += 1
            self.clock.stop()
            self._set_timer()

    async def _come_back(self) -> None:
        self._crowd.waiting -= 1
        if self._timer is not None:
            self._timer.cancel()
        await self._take_slot()
        if not self._outside:
            self.clock.go_on()

    async def _take_slot(self) -> None:
        if not (self.parked or self._cancelled or self.holds_slot or self._released):
            self.holds_slot = self._is_taking = True  # before the wait for it: only one of the step's waits takes it
            try:
                points.before("take_slot")
                await self._slots.take_again()
                points.after("take_slot")
            except BaseException:
                self.holds_slot = False
                raise
            finally:
                self._is_taking = False
            if self._released:  # meanwhile
                self.release()

    def _silence(self) -> float:
        """Return after how many seconds without an outcome the counter is looked at."""
        return CHECK_EVERY * max(1.0, self._crowd.waiting / 100)

    def _set_timer(self) -> None:
        """Look at the waits again when they may have been missed, or when it is time to park."""
        left = self._waits.oldest.began + self._crowd.park_after - self._loop.time()
        delay = self._silence() if self._cold else min(self._silence(), max(0.0, left))
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._cold or now - self._waits.oldest.began >= self._crowd.park_after:
            self.park()
        if self.parked or self._cancelled:
            return
        if now - max(self._last_arrival, self._last_check) >= self._silence():
            self._last_check = now
            unheard, self._unheard = self._unheard, set[bytes]()
            self._in_background(self._records.look(unheard))
        self._set_timer()

    # --- outcomes

    async def _listen(self) -> None:
        subject = self._session.names.live_runs_of_parent(self._task.root, self._task.run)
        self._subscription = await self._session.connection.subscribe(subject, self._on_live)
        self._forget_reconnect = self._session.connection.on_reconnect(self._catch_up)

    def _on_live(self, message: Message) -> None:
        child = last_id(message.subject)
        if child is not None:  # anybody may publish there
            self.told(child, message.data)

    def told(self, child: bytes, body: bytes) -> None:
        """Take the record of an outcome that has just been stored."""
        if self._waits.take(child, body):
            self._last_arrival = self._loop.time()

    def _catch_up(self) -> None:
        self._in_background(self._records.read(set(self._waits.open), in_pages=False))

    def _in_background(self, look: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._try(look))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _try(self, look: Coroutine[Any, Any, None]) -> None:
        """Look for outcomes, now or another time: a broker that is away must not cost the step an attempt."""
        try:
            await look
        except BrokerError as error:
            _log.warning("run %s waits on, though the broker could not be asked: %s", self._task.run, error)

    async def _read_stored(self) -> None:
        """Listen, and read those outcomes that are stored. A wait that begins meanwhile is told later."""
        self._is_reading = True
        try:
            if self._subscription is None and not self._cold:
                points.before("listen")
                await self._listen()
                points.after("listen")
            unread, self._unread = self._unread, set[bytes]()
            points.before("read_ended_children")
            in_pages = not self._streams and len(unread) >= READ_ALL_FROM and (self._cold or not self._scanned)
            await self._try(self._records.read(unread, in_pages=in_pages))
            points.after("read_ended_children")
            self._scanned = self._scanned or in_pages
        except BrokerError:
            self._unread.clear()  # the waits that came meanwhile look at the counter
            raise
        finally:
            self._is_reading = False
            if self._unread:
                self._in_background(self._read_stored())
            elif self._cold:
                self.park()
