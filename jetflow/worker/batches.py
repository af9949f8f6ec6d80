"""Batches: the tasks of many runs, gathered in this worker, and one call of their step's function for them all.

Each task is a delivery as any other, with a runner, a body, attempts and an outcome of its own; only the call is
shared. So a run that is cancelled, timed out or unreadable leaves its batch, and no other notices. A task first *sits
down*: it is decoded as far as its key, and waits in no slot until its batch has taken one; until then it has not begun.
Then its body begins, which *arrives* at the call. The call is made when all have arrived that have not left, and ends
early when all have left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context as Variables
from contextvars import copy_context
from time import time
from typing import Any, Final, TypeAlias

from jetflow.context import Context
from jetflow.engine.batching import MOST, Batch, Gathering, key_of, results_of
from jetflow.errors import RunTimeout
from jetflow.runs import points
from jetflow.worker.assignment import Assignment
from jetflow.worker.body import Body
from jetflow.worker.inputs import Inputs
from jetflow.worker.slots import Slots
from jetflow.workflow import Step

GATHERED_BYTES: Final = 32 * 1024 * 1024
"""Bytes of gathered inputs of one step above which nothing more is fetched for it."""

SLOT_WITHIN: Final = 5.0
"""Seconds that a batch waits for a slot before other workers may have its tasks."""

Called: TypeAlias = Callable[[Step[..., Any, Any], Body, dict[str, Any], Context | None], Awaitable[Any]]
"""Calls the function of a step, here or in a thread: see `jetflow.worker.bodies`."""

_log = logging.getLogger("jetflow.worker")


class Places(Slots):
    """How many tasks of one step a worker may have gathered or in calls. ``is_closed`` says that none may come."""

    def __init__(self, batch: Batch, slots: int) -> None:
        super().__init__(max(batch.size, min(batch.size * slots, MOST)))
        self._most_bytes = max(GATHERED_BYTES, batch.max_bytes)
        self.is_closed: Callable[[], bool] = lambda: False
        self.bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another one."""
        return self.used >= self.count or self.bytes >= self._most_bytes

    @property
    def free(self) -> int:
        """See `Slots.free`."""
        return 0 if self.is_full or self.is_closed() else self.count - self.used

    def take(self) -> bool:
        """See `Slots.take`."""
        return self.free > 0 and super().take()


class _Seat:
    """One task that is gathered, or in a call.

    ``turn`` tells whether its body is to begin; ``trouble`` is what its body has to raise in the place of the call.
    """

    __slots__ = ("arguments", "body", "call", "result", "size", "trouble", "turn", "work")

    def __init__(self, work: Assignment, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.work = work
        self.size = size
        self.turn: asyncio.Future[bool] = loop.create_future()
        self.result: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        self.trouble: BaseException | None = None
        self.call: _Call | None = None
        self.arguments: dict[str, Any] = {}
        self.body: Body | None = None

    def settle(self, begins: bool) -> None:
        """Say whether its body is to begin, unless that is said."""
        if not self.turn.done():
            self.turn.set_result(begins)


class Batches:
    """The batches of all steps that have some. `stop` hands back what is gathered."""

    def __init__(self, slots: Slots, inputs: Inputs, called: Called) -> None:
        self._slots = slots
        self._inputs = inputs
        self._called = called
        self._of: dict[tuple[str, str], _Gatherer] = {}
        self._variables = copy_context()

    def places(self, step: Step[..., Any, Any], batch: Batch) -> Places:
        """Return on what a step's tasks are fetched."""
        gatherer = _Gatherer(step, batch, self._slots, self._inputs, self._called, self._variables)
        self._of[step.workflow, step.name] = gatherer
        return gatherer.places

    def of(self, step: Step[..., Any, Any]) -> _Gatherer:
        """Return what gathers a step's tasks."""
        return self._of[step.workflow, step.name]

    async def called(
        self, step: Step[..., Any, Any], body: Body, arguments: dict[str, Any], context: Context | None
    ) -> Any:
        """Return what the call of a step's function gives for one of its runs."""
        return await self.of(step).called(body, arguments)

    def cancel(self, is_cancelled: Callable[[Assignment], bool]) -> None:
        """Send away those that are gathered and whose runs are cancelled."""
        for gatherer in self._of.values():
            gatherer.cancel(is_cancelled)

    def stop(self) -> None:
        """Send away all whose calls have not begun: the worker stops."""
        for gatherer in self._of.values():
            gatherer.stop()


class _Gatherer:
    """Gathers the tasks of one step, and calls its function."""

    def __init__(
        self,
        step: Step[..., Any, Any],
        batch: Batch,
        slots: Slots,
        inputs: Inputs,
        called: Called,
        variables: Variables,
    ) -> None:
        self._step = step
        self._batch = batch
        self._slots = slots
        self._inputs = inputs
        self._called = called
        self._variables = variables
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering[_Seat](batch)
        self._seats: dict[str, _Seat] = {}
        self._calls: set[_Call] = set()
        self._waiting: set[_Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._stopping = False
        self.places: Places = Places(batch, slots.count)
        self.places.is_closed = lambda: bool(self._waiting)  # what is fetched then would wait for a slot as well

    # --- sitting down

    async def begins(self, work: Assignment) -> bool:
        """Wait until a task's body is to begin. Returns False if it is cancelled, or to be handed back.

        A task whose body was lost with its worker is called alone: the next time it ends no other's.
        """
        if self._stopping:
            return False
        seat = self._seats[work.task.run] = _Seat(work, _size_of(work))
        self.places.bytes += seat.size
        try:
            key = await self._key(work)
        except BaseException as error:  # whatever it is, it is how this step has ended, and no other
            if isinstance(error, asyncio.CancelledError):
                raise
            seat.trouble = error
            return True
        if self._stopping:
            return False
        points.before("gather")
        if work.attempt > work.task.tried + 1:
            self._begin([seat])
        else:
            for full in self._gathering.add(seat, key, seat.size, self._loop.time()):
                self._begin(full)
        points.after("gather")
        self._relieve()
        self._set_timer()
        deadline = work.task.deadline
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time())):
                return await seat.turn
        except TimeoutError:
            seat.trouble = RunTimeout("the deadline of the run passed before this step could run")
            self._away(seat)
            return True

    async def _key(self, work: Assignment) -> str:
        if self._batch.key is None:
            return ""
        task = work.task
        data = task.input if task.value is None else await self._inputs.large(task.root, task.value)
        return key_of(self._step.name, self._batch, self._step.input.decode(data))

    def leave(self, work: Assignment) -> None:
        """Let a task go, wherever it has come to."""
        seat = self._seats.pop(work.task.run, None)
        if seat is not None:
            was_full = self.places.is_full
            self.places.bytes -= seat.size
            self._away(seat)
            if was_full:
                self.places.on_free()
                self._relieve()

    def _away(self, seat: _Seat) -> None:
        self._gathering.remove(seat)
        if seat.call is not None:
            seat.call.leave(seat)

    def cancel(self, is_cancelled: Callable[[Assignment], bool]) -> None:
        """See `Batches.cancel`."""
        for seat in list(self._seats.values()):
            if not seat.turn.done() and is_cancelled(seat.work):
                self._away(seat)
                seat.settle(begins=False)

    def stop(self) -> None:
        """See `Batches.stop`."""
        self._stopping = True
        self.cancel(lambda _: True)
        self._set_timer()
        for call in list(self._waiting):
            self._calls.discard(call)
            if call.task is not None:
                call.task.cancel()

    # --- batches

    def _set_timer(self) -> None:
        due = None if self._stopping else self._gathering.due
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = due, None if due is None else self._loop.call_at(due, self._on_due)

    def _on_due(self) -> None:
        self._due = self._timer = None
        for batch in self._gathering.take_due(self._loop.time()):
            self._begin(batch)
        self._set_timer()

    def _relieve(self) -> None:
        """Let the oldest batch begin where no more tasks may come, and all that have are gathered: none makes room."""
        if self.places.is_full and not self._calls and 0 < self.places.used == len(self._gathering):
            self._begin(self._gathering.take_oldest())

    def _begin(self, seats: list[_Seat]) -> None:
        call = _Call(self._step, seats, self._called, self._slots, self._variables, self._ended)
        self._calls.add(call)
        if self._slots.take():
            call.begin()
        else:
            self._waiting.add(call)
            call.task = self._loop.create_task(self._wait_for_slot(call), context=self._variables.copy())

    async def _wait_for_slot(self, call: _Call) -> None:
        """Begin a call when there is a slot. What has waited for too long is handed back, and no more comes here."""
        late = self._loop.call_later(SLOT_WITHIN, call.hand_back)
        try:
            await self._slots.take_again()
        finally:
            late.cancel()
            self._waiting.discard(call)
        call.begin()
        self.places.on_free()

    def _ended(self, call: _Call) -> None:
        self._calls.discard(call)
        self._relieve()
        self._set_timer()
        self.places.on_free()

    # --- calling

    async def called(self, body: Body, arguments: dict[str, Any]) -> Any:
        """Have a body arrive at its call, and return what it gives for this one."""
        seat = self._seats[body.task.run]
        if seat.trouble is not None:
            raise seat.trouble
        assert seat.call is not None, "a body begins when its batch does"
        seat.body, seat.arguments = body, arguments
        seat.call.arrive(seat)
        try:
            result, error = await seat.result
        except asyncio.CancelledError:
            await seat.call.left(seat)
            raise
        if error is None:
            return result
        trace = error.__traceback__
        try:
            raise error
        finally:
            error.__traceback__ = trace  # it may be others' error as well
            del error, trace


class _Call:
    """One call of a step's function for the tasks of some runs. It has one slot from `begin` to its end."""

    def __init__(
        self,
        step: Step[..., Any, Any],
        seats: Iterable[_Seat],
        called: Called,
        slots: Slots,
        variables: Variables,
        on_end: Callable[[_Call], None],
    ) -> None:
        self._step = step
        self._variables = variables
        self._called = called
        self._slots = slots
        self._on_end = on_end
        self._expected = dict.fromkeys(seats)
        self._arrived: dict[_Seat, None] = {}
        self._has_slot = False
        self._is_made = False
        self.task: asyncio.Task[None] | None = None
        for seat in self._expected:
            seat.call = self

    def begin(self) -> None:
        """Have the bodies begin, now that there is a slot."""
        self._has_slot, self.task = True, None
        for seat in self._expected:
            seat.settle(begins=True)
        self._look()

    def hand_back(self) -> None:
        """Send away all that wait for a slot."""
        _log.info("step %r of %r: a batch has found no slot, and is handed back", self._step.name, self._step.workflow)
        for seat in list(self._expected):
            seat.settle(begins=False)

    def arrive(self, seat: _Seat) -> None:
        """Have a body wait for its result."""
        if seat.body is not None and seat.body.timeout is not None:
            seat.body.timeout.reschedule(None)  # its time begins when the call is made
        self._arrived[seat] = None
        self._look()

    def leave(self, seat: _Seat) -> None:
        """Let a run go: it is not waited for, and of its result nothing becomes."""
        self._expected.pop(seat, None)
        self._arrived.pop(seat, None)
        self._look()

    async def left(self, seat: _Seat) -> None:
        """Let a run go. The last one waits until the function has ended, as a step that is cancelled does."""
        self.leave(seat)
        if not self._expected and self.task is not None:
            await asyncio.wait({self.task})

    def _look(self) -> None:
        """Make the call if all are here; end it if all have left."""
        if not self._has_slot:
            return
        if not self._expected:
            if self.task is None:
                self._end()
            else:
                self.task.cancel()
        elif not self._is_made and len(self._arrived) == len(self._expected):
            self._is_made = True
            loop = asyncio.get_running_loop()
            name = f"a batch of step {self._step.name!r} of {self._step.workflow!r}"
            self.task = loop.create_task(self._make(list(self._arrived)), name=name, context=self._variables.copy())

    def _end(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._slots.give_back()
            self._on_end(self)

    async def _make(self, seats: list[_Seat]) -> None:
        step = self._step
        body = Body(seats[0].work.task, self.task, is_interruptible=True)
        arguments = {name: [seat.arguments[name] for seat in seats] for name in seats[0].arguments}
        if step.timeout is not None:
            until = asyncio.get_running_loop().time() + step.timeout
            for seat in seats:
                if seat.body is not None and seat.body.timeout is not None:
                    seat.body.timeout.reschedule(until)
        try:
            called = self._called(step, body, arguments, None)
            for seat in seats:
                if seat.body is not None:
                    seat.body.call = body.call
            returned = await called
            broadcast = step.batch is not None and step.batch.broadcast
            for seat, result in zip(
                seats, results_of(step.name, returned, len(seats), broadcast=broadcast), strict=True
            ):
                _tell(seat, result, result if isinstance(result, BaseException) else None)
        except BaseException as error:  # whatever it is, it is how all of them have ended
            for seat in seats:
                _tell(seat, None, error)
        finally:
            self._end()


def _tell(seat: _Seat, result: Any, error: BaseException | None) -> None:
    if not seat.result.done():
        seat.result.set_result((result, error))


def _size_of(work: Assignment) -> int:
    """Return the bytes of a task's input, also of one that does not stand in its message."""
    reference = work.task.value
    if reference is None:
        return len(work.task.input)
    chunk, _, chunks = reference.rpartition("-")[2].partition(".")
    return int(chunk) * int(chunks) if chunk.isdigit() and chunks.isdigit() else work.size
