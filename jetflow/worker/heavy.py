"""Steps that take several of a worker's slots: for those that need most of its memory, or all of its cores.

Where a worker has such steps its slots are `FairSlots`. A task of such a step stands in line when too few are free, and
until it has its slots nothing else begins, so that light steps do not keep it out for ever; what goes on after a wait
comes before it. One task of each weight is fetched ahead, for nobody would know otherwise that there is one; one that
has found no room is handed back, as any is, and none is fetched ahead for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jetflow.broker.connection import Connection
from jetflow.engine.labels import Label, checked_labels
from jetflow.errors import InvalidDeclaration
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.executor import Executor
from jetflow.worker.fetching import Fetcher
from jetflow.worker.slots import Slots
from jetflow.workflow import Workflow

NONE_AHEAD_FOR: Final = 15.0
"""Seconds without a task fetched ahead, after one was handed back for which there was no room."""


class FairSlots(Slots):
    """Slots of which some are taken several at a time. Nobody takes one past those who stand in line."""

    used: int

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._turns: deque[tuple[asyncio.Future[None], int]] = deque()
        self._claims: deque[tuple[HeavySlots, int]] = deque()
        self.views: list[HeavySlots] = []

    @property
    def free(self) -> int:
        """How many may be taken."""
        return 0 if self._turns or self._claims else self.count - self.used

    def take(self, number: int = 1) -> bool:
        """See `Slots.take`."""
        if self.free < number:
            return False
        self.used += number
        return True

    async def take_again(self, number: int = 1) -> None:
        """See `Slots.take_again`."""
        if not self._turns and self.count - self.used >= number:
            self.used += number
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((turn, number))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(number)
            else:
                self._serve()  # what stands behind it may be less
            raise

    def give_back(self, number: int = 1) -> None:
        """See `Slots.give_back`."""
        self.used -= number
        self._serve()

    def claim(self, view: HeavySlots, number: int) -> None:
        """Stand in line for slots of a task that has not begun: `HeavySlots.granted` is called with them."""
        self._claims.append((view, number))
        self._serve()

    def disclaim(self, view: HeavySlots) -> None:
        """Stand in line no more."""
        self._claims = deque(one for one in self._claims if one[0] is not view)
        self._serve()

    def _serve(self) -> None:
        while self._turns and (self._turns[0][0].done() or self.count - self.used >= self._turns[0][1]):
            turn, number = self._turns.popleft()
            if not turn.done():
                self.used += number
                turn.set_result(None)
        while not self._turns and self._claims and self.count - self.used >= self._claims[0][1]:
            view, number = self._claims.popleft()
            self.used += number
            view.granted()
        if self.free > 0:
            self.on_free()
            for view in self.views:
                view.on_free()


class HeavySlots(Slots):
    """The slots of the steps of one weight: each is so many of the worker's."""

    def __init__(self, slots: FairSlots, weight: int) -> None:
        super().__init__(slots.count // weight)
        self._slots = slots
        self._weight = weight
        self._stands = False
        self._granted = 0
        slots.views.append(self)

    @property
    def free(self) -> int:
        """See `Slots.free`."""
        return self._granted + self._slots.free // self._weight

    def take(self) -> bool:
        """See `Slots.take`."""
        if self._granted:
            self._granted -= 1
            return True
        return self._slots.take(self._weight)

    async def take_again(self) -> None:
        """See `Slots.take_again`."""
        await self._slots.take_again(self._weight)

    def give_back(self) -> None:
        """See `Slots.give_back`."""
        self._slots.give_back(self._weight)

    def stand_in_line(self) -> None:
        """Have slots kept for a task that has come, unless it is so."""
        if not (self._stands or self._granted):
            self._stands = True
            self._slots.claim(self, self._weight)

    def granted(self) -> None:
        """Take note that slots are kept: `take` takes them."""
        self._stands = False
        self._granted += 1
        self.on_free()

    def leave_line(self) -> None:
        """Keep none for tasks that are not here any more."""
        if self._stands:
            self._stands = False
            self._slots.disclaim(self)
        if self._granted:
            granted, self._granted = self._granted, 0
            self._slots.give_back(self._weight * granted)


class HeavyFetcher(Fetcher):
    """Fetches for the steps of one weight."""

    def __init__(self, connection: Connection, slots: HeavySlots, deliveries: Deliveries, executor: Executor) -> None:
        super().__init__(connection, slots, deliveries, executor)
        self._heavy = slots
        self._none_ahead_until = 0.0

    def _start_runners(self) -> None:
        super()._start_runners()
        if self._ready and self._may_start() and self._heavy.free <= 0:
            self._heavy.stand_in_line()

    def _ask(self) -> None:
        super()._ask()
        if not (self._ready or self._fresh):
            self._heavy.leave_line()

    def _ahead(self) -> int:
        return 1 if self._heavy.free <= 0 and self._loop.time() >= self._none_ahead_until else 0

    def _hand_back_late(self) -> None:
        before = len(self._ready)
        super()._hand_back_late()
        if len(self._ready) < before:
            self._none_ahead_until = self._loop.time() + NONE_AHEAD_FOR

    async def stop(self) -> None:
        """See `Fetcher.stop`."""
        await super().stop()
        self._heavy.leave_line()


def weights_of(workflows: Mapping[str, Workflow[Any, Any]]) -> set[int]:
    """Return how many slots those steps take that take more than one."""
    return {step.slots for flow in workflows.values() for step in flow.all_steps if step.slots > 1}


def check_slots(workflows: Iterable[Workflow[Any, Any]], slots: int, labels: Mapping[str, Label] | str | None) -> None:
    """Refuse steps that could never begin in a worker, unless it leaves them to others by its labels.

    Raises:
        InvalidDeclaration: one takes more slots than the worker has.
    """
    for step in (one for flow in workflows for one in flow.all_steps if one.slots > slots):
        if step.requires is None or step.requires.fits(checked_labels(labels)):
            raise InvalidDeclaration(
                f"{step!r} takes {step.slots} slots, and this worker has {slots}: it would never begin. Give the "
                f"worker slots={step.slots} or more, or the step fewer, or requires= for workers that have so many"
            )


def fetchers_of(
    weights: Iterable[int], connection: Connection, slots: Slots, deliveries: Deliveries, executor: Executor
) -> dict[int, Fetcher]:
    """Return what fetches for the steps of each weight."""
    if not isinstance(slots, FairSlots):
        return {}
    return {
        weight: HeavyFetcher(connection, HeavySlots(slots, weight), deliveries, executor) for weight in sorted(weights)
    }
