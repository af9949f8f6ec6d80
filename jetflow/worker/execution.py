"""One execution of one step: what its context asks for, and what it leaves behind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from sys import maxsize
from time import time
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import msgspec

from jetflow import forks, hooks
from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.children import ChildGroup
from jetflow.engine.awaiting import Group, Taken
from jetflow.engine.hedging import Hedge
from jetflow.engine.identity import cut_hash, once_token
from jetflow.engine.joins import ID_BYTES, Borrowed, JoinRecord, id_sum, split_ids
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.sleeping import Sleep, SleepNames
from jetflow.engine.tasks import NULL, Failure, Outcome, StepAddress, Task
from jetflow.engine.windows import AskedStream
from jetflow.errors import ForkedProcess, PayloadTooLarge, StepEnded, StepSkipped
from jetflow.runs import points
from jetflow.runs.ages import check_sleep
from jetflow.runs.awaiting import Awaiting
from jetflow.runs.cancelling import Run as Drive
from jetflow.runs.joins import counted_by, unpacked
from jetflow.runs.telling import Telling
from jetflow.runs.values import is_large, threshold, with_readable_output
from jetflow.wire.codec import ANY
from jetflow.wire.metadata import Told
from jetflow.wire.records import decode_outcome, encode
from jetflow.wire.subjects import last_id, last_token
from jetflow.worker.adopting import Adopting
from jetflow.worker.assignment import Assignment
from jetflow.worker.body import Body
from jetflow.worker.expectations import Expectations
from jetflow.worker.hedging import hedged
from jetflow.worker.lookout import Lookout
from jetflow.worker.slots import Slots
from jetflow.worker.spawning import Limits, Spawner
from jetflow.worker.steering import Steering
from jetflow.worker.streams import ChildStream
from jetflow.worker.voice import Voice
from jetflow.worker.waiting import Waiting
from jetflow.worker.waits import Crowd, Decision
from jetflow.workflow import Workflow

T = TypeVar("T")

CancelOpen: TypeAlias = Callable[[StepAddress, set[bytes]], Awaitable[None]]


class Execution(Body):
    """One attempt of one turn of one step; the host of its context.

    ``clean`` says that nothing of this step can have been stored before: the first delivery of the first turn, but in
    a rerun (``adopting``).
    ``telling`` is given if no other step can wait for this one's children.
    """

    def __init__(
        self,
        session: Session,
        work: Assignment,
        *,
        slots: Slots,
        crowd: Crowd,
        limits: Limits,
        lookout: Lookout,
        telling: Telling | None,
        cancel_open: CancelOpen,
        drive: Drive,
        outputs: Mapping[str, Outcome],
        errors: Sequence[Failure],
        voice: Callable[[], Voice],
        awaiting: Awaiting,
        adopting: Adopting | None,
    ) -> None:
        task, step = work.task, work.known_step
        super().__init__(task, work.delivery.running, is_interruptible=not step.in_thread)
        self._session = session
        self._task = task
        self._outputs = outputs
        self._policy = step.join
        self._cancel_open = cancel_open
        self._drive = drive
        self._graph = work.known_graph
        self._in_batch = step.batch is not None
        self._voice = voice
        self._lookout = lookout
        self._watched: set[str] = set()
        self._over = False
        self._born = forks.generation()
        self._loop = asyncio.get_running_loop()
        self.errors: tuple[Failure, ...] = tuple(errors)
        self.attempt: int = work.attempt
        self._adopting = adopting
        is_first = task.turn == 0 and not work.delivery.again and not task.twin
        self.clean: bool = is_first and adopting is None  # what was adopted has no task by which it could be found
        self._places = work.places
        self.spawner: Spawner = Spawner(
            session,
            task if work.places is None else _with_places(task, work.places),
            limits=limits,
            counted=is_first,
            policy=step.join,
            shared=task.step not in work.known_graph.in_line,
            cancelled=lambda: self.cancelled,
            adopting=adopting,
        )
        self._sleeps = SleepNames()
        self._is_sequel = work.is_sequel
        self.expecting: Expectations = Expectations(session, task, self, awaiting)
        cold = step.max_running is not None
        self.waiting: Waiting = Waiting(session, task, slots, crowd, self.spawner.owner_of, telling, cold=cold)

    # --- the body

    @property
    def parked(self) -> bool:
        """Whether the step is being unwound."""
        return self.waiting.parked

    @property
    def holds_slot(self) -> bool:
        """Whether the slot that the step was started on is still its own."""
        return self.waiting.holds_slot

    def cancel(self) -> None:
        """See `Body.cancel`."""
        self.waiting.cancel()
        super().cancel()

    def park(self) -> None:
        """See `Body.park`."""
        self.waiting.park()

    def bound(self, timeout: asyncio.Timeout) -> None:
        """See `Body.bound`."""
        self.waiting.clock.timeout = timeout

    async def close(self) -> None:
        """See `Body.close`."""
        self._over = True
        self._lookout.left(self._watched)
        await self.waiting.close()

    # --- the host of the context

    def _check_open(self) -> None:
        """Refuse a context that outlives its step: what it spawns would be in no join, and waited for by nobody.

        Raises:
            StepEnded: the step's function has ended.
            ForkedProcess: this is another process.
        """
        if forks.is_child(self._born):
            raise ForkedProcess("ctx", "return to it what it shall do")
        if self._over:
            raise StepEnded(self._task.step, self._task.run)

    @property
    def run_id(self) -> str:
        """See `Context.run_id`."""
        return self._task.run

    @property
    def idempotency_key(self) -> str:
        """See `Context.idempotency_key`."""
        return f"{self._task.run}.{self._task.step}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """See `Context.metadata`."""
        return MappingProxyType({} if self._task.metadata is None else msgspec.json.decode(self._task.metadata))

    @property
    def level(self) -> str | None:
        """See `Context.level`."""
        return self._task.level

    @property
    def outputs(self) -> dict[str, bytes]:
        """The outputs of all steps before this one, as JSON."""
        return {step: bytes(outcome.output) for step, outcome in self._outputs.items()}

    def output(self, step: str) -> msgspec.Raw:
        """See `Context.output`."""
        if step not in self._outputs:
            raise LookupError(f"step {step!r} does not come before step {self._task.step!r}: name it in after=")
        if self.was_skipped(step):
            raise StepSkipped(step)
        return self._outputs[step].output

    def was_skipped(self, step: str) -> bool:
        """See `Context.was_skipped`."""
        if step not in self._outputs:
            raise LookupError(f"step {step!r} does not come before step {self._task.step!r}: name it in after=")
        return self._outputs[step].status == "skipped"

    @property
    def skipped(self) -> tuple[str, ...]:
        """The steps before this one that were skipped."""
        return tuple(step for step, outcome in self._outputs.items() if outcome.status == "skipped")

    async def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """See `Context.children`."""
        names, store = self._session.names, self._session.store
        join = StepAddress(self._task.root, self._task.run, step)
        sealed = await store.leader_last(names.records_stream, names.joins_of_step(join))
        record = None if sealed is None else await unpacked(self._session, join, sealed.body)
        members = await counted_by(self._session, join, record)
        ids = None if members is None else set(split_ids(members))
        ended = await store.leader_last(names.records_stream, names.step(join))
        last = maxsize if ended is None else ended.sequence  # what is stored behind it is of no child that counts
        async for page in store.pages(names.records_stream, names.runs_of_join(join)):
            yield [
                await self._ended(stored)
                for stored in page
                if (child := last_id(stored.subject)) is not None
                and stored.sequence < last
                and (ids is None or child in ids)
            ]
        if record is not None and record.borrowed:
            subjects = [names.run(join.root, join.run, child.step, child.run) for child in record.borrowed]
            async for page in store.many(names.records_stream, subjects):
                yield [await self._ended(stored) for stored in page]

    async def _ended(self, stored: Stored) -> tuple[str, Outcome]:
        outcome = await with_readable_output(self._session, self._task.root, decode_outcome(stored.body))
        return last_token(stored.subject), outcome

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """See `Context.spawn_workflows`."""
        self._check_open()
        if delay:
            await check_sleep(self._session, self._task, time() + delay)
        return self._look_out(await self.spawner.spawn(workflow, inputs, key, delay=delay, level=level, told=told))

    async def spawn_one(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any,
        key: str | None,
        detached: bool,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """See `Context.spawn_workflow`."""
        self._check_open()
        if delay:
            await check_sleep(self._session, self._task, time() + delay)
        group = await self.spawner.spawn_one(
            workflow, input, key, detached=detached, delay=delay, level=level, told=told
        )
        return self._look_out(group)

    def _look_out(self, group: ChildGroup) -> ChildGroup:
        self._lookout.spawned(self._task, group.workflow, len(group.ids) // ID_BYTES, self._watched)
        return group

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> ChildStream:
        """See `Context.spawn_stream`."""
        self._check_open()
        stream = ChildStream(
            self._session,
            self._task,
            self.spawner,
            self.waiting,
            asked,
            partial(self._cancel_open, self._task.join),
            look_out=lambda name, children: self._lookout.spawned(self._task, name, children, self._watched),
        )
        await stream.open(workflow)
        return stream

    @property
    def has_spawned(self) -> bool:
        """See `Body.has_spawned`."""
        return bool(self.spawner.groups) or self.spawner.streamed > 0

    def spawned(self) -> list[ChildGroup]:
        """See `Context.spawned`."""
        return self.spawner.groups

    def wait_for(self, ids: Sequence[bytes]) -> Awaitable[list[Outcome]]:
        """See `Context.join`."""
        self._check_open()
        return self._spanned(len(ids), self.waiting.all(ids))

    def hedged(self, groups: Sequence[ChildGroup], hedge: Hedge) -> AbstractAsyncContextManager[None]:
        """See `Context.join`."""
        self._check_open()
        return hedged(self._session, self._task, self.waiting, groups, hedge)

    def _spanned(self, children: int, waiting: Awaitable[T]) -> Awaitable[T]:
        if hooks.tracer is None:
            return waiting
        return hooks.tracer.join(children, list(self.spawner.traces), waiting)

    async def decide(self, ids: Sequence[bytes], policy: JoinPolicy) -> Decision:
        """See `Context.join`."""
        self._check_open()
        deadline = None
        if policy.seconds is not None:
            joined = cut_hash(b"".join(sorted(ids))).hex()[:16]
            deadline = await self.reached(f"_join-{joined}", lambda now: now + (policy.seconds or 0.0))
        decision = await self._spanned(len(ids), self.waiting.decided(ids, policy, deadline))
        if decision.open and decision.policy.cancel_rest:
            points.before("cancel_open")
            await self._cancel_open(self._task.join, set(decision.open))
            points.after("cancel_open")
        return decision

    async def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """See `Context.once`."""
        stored = await self.recorded(name)
        if stored is None:
            value = function(*args)
            if inspect.isawaitable(value):
                value = await value
            stored = await self.record(name, ANY.named(f"the value of once({name!r})").encode_output(value))
        return None if stored is None else ANY.decode(stored)

    async def reached(self, name: str, end: Callable[[float], float]) -> float:
        """Return when a wait ends: it is fixed when it is first reached."""
        with self.waiting.arriving():
            if not self.clean:
                return float(await self.once(name, lambda: end(time())))
            self._check_open()  # nothing can be recorded but by this body: what is would refuse this, and be read
            stored = await self.record(name, encode(end(time())))
            assert stored is not None, "what is recorded is there"
            return float(ANY.decode(stored))

    async def recorded(self, name: str) -> bytes | None:
        """Return the value that is recorded under a name, if one is."""
        self._check_open()
        names = self._session.names
        points.before("read_once")
        stored = await self._session.store.leader_last(
            names.records_stream, names.once(self._task.join, once_token(name))
        )
        points.after("read_once")
        if stored is None and self._adopting is not None:
            kept = await self._adopting.once(once_token(name), name)
            return None if kept is None else await self.record(name, kept)
        return None if stored is None else stored.body

    async def record(self, name: str, body: bytes) -> bytes | None:
        """Record a value under a name, unless one is recorded; return the one that is."""
        names, session = self._session.names, self._session
        if is_large(session, body):
            raise PayloadTooLarge(f"the value of once({name!r})", len(body), threshold(session))
        points.before("store_once")
        receipt = await session.records.store(Item(names.once(self._task.join, once_token(name)), b"", body))
        points.after("store_once")
        return body if receipt.stored else await self.recorded(name)

    @property
    def voice(self) -> Voice:
        """See `Context.stream`, `Context.progress` and `Context.log`."""
        self._check_open()
        return self._voice()

    @property
    def steering(self) -> Steering:
        """See `Context.extend_timeout`, `Context.cancel` and `Context.release_slot`."""
        self._check_open()
        may_have_children = self.has_spawned or not self.clean or len(self._graph.nodes) > 1
        return Steering(
            self._session,
            self._drive,
            self,
            self.waiting,
            self._loop,
            is_sequel=self._is_sequel,
            in_batch=self._in_batch,
            may_have_children=may_have_children,
        )

    def unwind(self) -> None:
        """See `Body.unwind`."""
        self.waiting.cancel()
        super().unwind()

    async def sleep(self, sleep: Sleep) -> None:
        """See `Context.sleep`."""
        self._check_open()
        with self.waiting.arriving():  # up to where it waits: it would be parked without its time
            until = await self.reached(self._sleeps.name(sleep), sleep.end)
            if until - time() > self.waiting.park_after:
                await check_sleep(self._session, self._task, until)
        # One that its body has nothing to do beside is parked at once, if it is long.
        alone = not self._is_interruptible or asyncio.current_task() is self._running
        await self.waiting.sleep(until, alone=alone)

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """See `Context.wait_for`."""
        self._check_open()
        # One that its body has nothing to do beside is parked at once.
        alone = not self._is_interruptible or asyncio.current_task() is self._running
        return await self.expecting.all(groups, alone=alone)

    async def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """See `Context.as_completed`."""
        self._check_open()
        async with aclosing(self.waiting.each(ids)) as ended:
            async for child in ended:
                yield child
                self._check_open()

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """See `Context.block_on`."""
        self._check_open()
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None:
            raise RuntimeError("ctx.block_on is for steps that run in a thread: in an async step, use await")

        async def outcome() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(outcome(), self._loop).result()

    # --- what is left behind

    def sealing(self, work: Assignment, *, ended: float, worker: str) -> JoinRecord | None:
        """Return the record that seals the step's children; None if there is nothing to wait for or to remember.

        A step that has waited for all of them is sealed still if its children could differ from what is stored under
        it, unless it is ``alone`` in its graph: later steps read its children, and a step beside it may have borrowed
        a child that an earlier attempt spawned, whose end must be seen here.
        """
        alone = len(work.known_graph.nodes) == 1
        streamed = self.spawner.streamed > 0
        if not self.spawner.groups and (alone or (self.clean and not streamed)):
            return None
        owned = self.spawner.owned()
        borrowed = self._borrowed(self.spawner.borrowed)
        joined = self.waiting.joined
        waited = all(child in joined for child in split_ids(owned)) and joined.issuperset(self.spawner.borrowed)
        if waited and (alone or (self.clean and not borrowed and not streamed)):
            return None
        policy = ALL_SUCCEED if waited else self._policy  # what it has waited for, it has dealt with
        if waited and streamed:  # all have ended, and nobody names them
            owned = b""
        total = len(owned) // 16 + len(borrowed)
        clean = self.clean and not policy.early and not streamed
        return JoinRecord(
            kind="sealed",
            turn=self._task.turn,
            task=self._session.names.task_of(self._task),
            needed=policy.threshold(total),
            total=total,
            policy=policy,
            members=None if clean or (streamed and waited and not borrowed) else owned,
            id_sum=f"{id_sum(owned):032x}" if clean else "",
            borrowed=borrowed,
            streamed=streamed,
            excused=tuple(sorted(self.waiting.excused)),
            output=work.output,
            attempt=work.attempt,
            started=work.started,
            ended=ended,
            worker=worker,
        )

    def parking(self) -> JoinRecord:
        """Return the record that parks the step at its waits."""
        need, until = self.waiting.need, None
        assert need is not None, "only a step that waits is parked"
        if need.until is not None or need.events:  # a run whose time is over is woken to end by that
            deadline = None if self._is_sequel else self._task.deadline
            until = min((one for one in (need.until, deadline) if one is not None), default=None)
        borrowed = {child: step for child, step in self.spawner.borrowed.items() if child in need.children}
        owned, streamed = self.spawner.owned(), self.spawner.streamed > 0
        if streamed:
            members = b"".join(sorted(child for child in need.children if child not in self.spawner.borrowed))
        else:
            members = b"".join(child for child in split_ids(owned) if child in need.children)
        everything = (
            bool(need.children)
            and self.clean
            and not streamed
            and members == owned
            and need.policy is None
            and need.at_least == len(need.children)
        )
        return JoinRecord(
            kind="parked",
            turn=self._task.turn,
            task=self._session.names.task_of(self._task),
            needed=need.at_least if need.policy is None else need.policy.threshold(len(need.children)),
            total=0 if need.policy is None else len(need.children),
            policy=need.policy or ALL_SUCCEED,
            members=None if everything else members,
            id_sum=f"{id_sum(owned):032x}" if everything else "",
            borrowed=self._borrowed(borrowed),
            until=until,
            waits=need.events,
            admits=self._places,
            streamed=streamed,
            output=NULL,
            loosable=need.policy is not None,
            loosened=self.waiting.loosened or (),
        )

    @staticmethod
    def _borrowed(children: Mapping[bytes, str]) -> tuple[Borrowed, ...]:
        return tuple(Borrowed(child.hex(), step) for child, step in children.items())


def _with_places(task: Task, places: str) -> Task:
    """Return the task of a step as its children see it: they cannot have what the step holds by itself."""
    return msgspec.structs.replace(task, places=" ".join(one for one in (task.places, places) if one))
