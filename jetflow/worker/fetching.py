"""Fetching tasks: how many to ask for, and running them as slots come free.

A step that has work is asked for as many tasks as there are free slots, and for some ahead when its tasks are short.
Steps that have been quiet share the slots between their requests, so that a burst does not bring more than can soon
start. Tasks that were brought and cannot start are kept alive, and handed back after a while. Where workflows have
levels, each level is asked for what can start beside those that are as urgent, and the most urgent starts first.

A task of the event loop costs as much as a short step. So a runner, which is one, runs deliveries one after the other
for as long as their steps end without waiting; when one waits, the runner is its own from then on, and another takes
over. Where steps do wait, each delivery is given a runner at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from math import inf
from time import monotonic
from typing import Final

from jetflow.broker.connection import Connection
from jetflow.broker.puller import PULL_BYTES, Delivery, Puller
from jetflow.engine.levels import to_ask_for
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.executor import Executor
from jetflow.worker.ranking import Ranked
from jetflow.worker.recorder import RECORDING_BYTES
from jetflow.worker.slots import Slots

SOON: Final = 0.05
"""Seconds: tasks that the slots can start within this time may be fetched ahead."""

AHEAD: Final = 4
"""Tasks fetched ahead for each slot, at most."""

ACTIVE_FOR: Final = 5.0
"""Seconds after its last task for which a step may ask for as many tasks as there are free slots."""

AT_ONCE: Final = 100
"""Deliveries that one runner runs in one pass of the event loop: what they publish then leaves."""

READY_BYTES: Final = 32 * 1024 * 1024
"""Bytes of fetched tasks from which on no more are asked for until some have begun."""

FETCH_BYTES: Final = 32 * 1024 * 1024
"""Bytes that the steps' requests may bring, one request of each; at least one message each."""

AWAKE_WITHIN: Final = 1.2
"""Seconds within which a worker that is awake has looked at its clock again."""

DOUBTS_FOR: Final = 1.0
"""Seconds after a pause in which everything may still come that was sent to the worker meanwhile."""

HAND_BACK_AFTER: Final = 5.0
"""Seconds that a fetched task waits for a slot before another worker may have it."""


class Fetcher:
    """Runs deliveries on slots. The slots call `dispatch` when one is free."""

    def __init__(self, connection: Connection, slots: Slots, deliveries: Deliveries, executor: Executor) -> None:
        self._connection = connection
        self._client = connection.client
        self._slots = slots
        self._deliveries = deliveries
        self._executor = executor
        self._recorder = executor.recorder
        self.pullers: list[Puller] = []
        self.running: set[asyncio.Task[None]] = set()
        self._ready: deque[Delivery] | Ranked = deque()
        self._ready_bytes = 0
        self._stopping = False
        self._fresh = 0
        self._latest = 0
        self._steps_wait = False
        self._begun = -inf
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._asking = False
        self._timer: asyncio.TimerHandle | None = None
        self._awake_until = inf
        self._doubts = False
        slots.on_free = self.dispatch
        self._recorder.on_room.append(self.dispatch)

    def begin(self) -> None:
        """Ask for the first tasks."""
        if any(puller.rank for puller in self.pullers):
            self._ready = Ranked()
        for puller in self.pullers:
            puller.size.share = min(PULL_BYTES, FETCH_BYTES // len(self.pullers))
        self._ask()
        self._connection.on_reconnect(self._doubt)
        self._tick()

    def accept(self, delivery: Delivery) -> None:
        """Take a delivery, and start it if there is a slot."""
        if not self._deliveries.receive(delivery):
            return
        if self._doubts:
            delivery.again = True
        self._ready.append(delivery)
        self._ready_bytes += len(delivery.body)
        if self._steps_wait or not (self._fresh and self._asking):  # else it would have nothing to do
            self.dispatch()

    def accept_ranked(self, rank: int, delivery: Delivery) -> None:
        """Take a delivery of a level, with its rank."""
        delivery.rank = rank
        self.accept(delivery)

    def dispatch(self) -> None:
        """Have runners for what is ready, and ask for more."""
        if self._ready and (self._steps_wait or not self._fresh):
            self._start_runners()
        if not self._asking:
            self._asking = True
            self._loop.call_soon(self._ask)

    def _may_start(self) -> bool:
        # A worker that cannot reach the broker starts nothing: what it holds may be somebody else's by now.
        if self._stopping or not self._client.is_connected:
            return False
        return self._recorder.held_bytes <= RECORDING_BYTES or self._recorder.has_room()

    def _start_runners(self) -> None:
        if not self._may_start():
            return
        for _ in range(self._fresh, min(len(self._ready) if self._steps_wait else 1, self._slots.free)):
            self._fresh += 1
            runner = self._loop.create_task(self._run(), context=self._context.copy())  # this may be a step's context
            self.running.add(runner)
            runner.add_done_callback(self.running.discard)

    async def _run(self) -> None:
        """Run deliveries until one of them waits: then others have begun to, and do the rest."""
        self._fresh -= 1
        self._latest += 1
        number, runner = self._latest, asyncio.current_task()
        assert runner is not None
        ready, slots = self._ready, self._slots
        for _ in range(AT_ONCE):
            if not ready or not self._may_start() or not slots.take():
                break
            self._begun = self._loop.time()
            if self._begun > self._awake_until:
                self._doubt()
            delivery = ready.popleft()
            self._ready_bytes -= len(delivery.body)
            delivery.running = runner
            if ready and not self._fresh:
                self._start_runners()
            await self._executor.execute(delivery, slots)
            self._steps_wait = number != self._latest
            # What a step has set or was told is no other step's.
            if self._steps_wait or copy_context() != self._context or runner.cancelling():
                break
        self.dispatch()

    async def stop(self) -> None:
        """Fetch nothing more, and hand back what has not started."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(puller.stop() for puller in self.pullers))
        ready = self._ready.all() if isinstance(self._ready, Ranked) else self._ready
        self._ready, self._ready_bytes = deque(), 0
        await asyncio.gather(*(self._executor.dismiss(delivery) for delivery in ready))

    def _ask(self) -> None:
        self._asking = False
        if self._stopping or not self.pullers or not self._recorder.has_room():
            return
        room = self._slots.free - len(self._ready)
        wanted = room + self._ahead()
        if isinstance(self._ready, Ranked):
            self._ask_by_rank(self._ready)
            return
        if wanted <= 0 or self._ready_bytes >= READY_BYTES:
            for puller in self.pullers:
                puller.want(0)
            return
        quiet_share = max(1, room // len(self.pullers))
        now = self._loop.time()
        for puller in self.pullers:
            puller.want(wanted if now - puller.last_delivery < ACTIVE_FOR else min(wanted, quiet_share))

    def _ask_by_rank(self, ready: Ranked) -> None:
        room = self._slots.free + self._ahead()
        quiet_share = max(1, self._slots.free // len(self.pullers))
        now = self._loop.time()
        moving = now - self._begun < HAND_BACK_AFTER
        for puller in self.pullers:
            if self._ready_bytes >= READY_BYTES:
                count = 0
            else:
                count = to_ask_for(room, ready.as_urgent(puller.rank), ready.of(puller.rank), moving=moving)
            puller.want(count if now - puller.last_delivery < ACTIVE_FOR else min(count, quiet_share))

    def _ahead(self) -> int:
        """Return how many tasks the slots can start within `SOON`, beyond those that can start now."""
        mean = self._slots.mean_duration
        if not self._executor.counts.executed:
            return 0
        most = AHEAD * self._slots.count
        return most if mean * most <= SOON * self._slots.count else int(SOON * self._slots.count / mean)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(1.0, self._tick)
        now = self._loop.time()
        if now > self._awake_until:
            self._doubt()
        self._awake_until = now + max(AWAKE_WITHIN, self._deliveries.ack_wait / 2)
        if self._ready:
            self._hand_back_late()
        self.dispatch()

    def _doubt(self) -> None:
        """Have tasks looked at before they begin: while this worker was paused or cut off, others may have got them."""
        self._awake_until = inf  # until the next tick
        self._doubts = True
        self._loop.call_later(DOUBTS_FOR, self._trust)
        for delivery in self._ready.all() if isinstance(self._ready, Ranked) else self._ready:
            delivery.again = True

    def _trust(self) -> None:
        self._doubts = False

    def _hand_back_late(self) -> None:
        late = monotonic() - HAND_BACK_AFTER
        for ready in self._ready.queues.values() if isinstance(self._ready, Ranked) else (self._ready,):
            while ready and ready[0].held_since < late:
                delivery = ready.popleft()
                self._ready_bytes -= len(delivery.body)
                task = self._loop.create_task(self._executor.dismiss(delivery))
                self.running.add(task)
                task.add_done_callback(self.running.discard)


class BatchFetcher(Fetcher):
    """Fetches for a step whose tasks are gathered: as many as there are places for, and none ahead."""

    def _ahead(self) -> int:
        return 0
