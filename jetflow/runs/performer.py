"""Performs the effects that the engine's procedures ask for.

Procedures are driven by callbacks, not by a coroutine each: an acknowledgement that arrives resumes the procedure
that waits for it, and whatever many procedures ask for in the same pass of the event loop leaves in one write.
Effects that read run as coroutines; they are rare.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgspec

from jetflow.broker.grouping import GroupCommit
from jetflow.broker.item import Item
from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.effects import (
    Arm,
    CancelRest,
    CancelRun,
    Count,
    Disarm,
    Effect,
    Ended,
    Look,
    ReadEnded,
    ReadSteps,
    Stand,
    Start,
    StoreAttempt,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.engine.failures import fitted
from jetflow.engine.joins import JoinRecord, split_ids
from jetflow.engine.levels import queue_of
from jetflow.engine.tasks import NONE, Failure, Outcome, StepAddress, Task
from jetflow.errors import BrokerError
from jetflow.runs import points
from jetflow.runs.announcing import announce_end
from jetflow.runs.awaiting import Awaiting
from jetflow.runs.cancelling import cancel_children
from jetflow.runs.gates import Gates
from jetflow.runs.joins import packed, spawned_by, unpacked
from jetflow.runs.looks import Looks
from jetflow.runs.marks import rest_but
from jetflow.runs.rates import Rates
from jetflow.runs.telling import Telling
from jetflow.runs.timers import Timers
from jetflow.runs.values import SMALL, LostValue, by_reference, is_large, with_output
from jetflow.wire.headers import Header
from jetflow.wire.records import (
    decode_outcome,
    encode,
    header_block,
    mark_body,
    task_headers,
)
from jetflow.wire.subjects import last_token

Done: TypeAlias = Callable[[Any, BaseException | None], None]
AnyProcedure: TypeAlias = Generator[Effect, Any, Any]

_log = logging.getLogger("jetflow.worker")


class _Write(NamedTuple):
    """A message that a stored one refuses that fits ``taken``. ``outcome`` is what it tells, if it is one."""

    group: GroupCommit
    item: Item
    taken: str
    outcome: Outcome | None


class Performer:
    """Drives procedures over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = session.names
        self._publisher = session.publisher
        self._store = session.store
        self.telling: Telling = Telling(session.connection, session.names)
        self.timers: Timers = Timers(session)
        self.awaiting: Awaiting = Awaiting(session)
        self.gates: Gates = Gates(session, self.run)
        self.rates: Rates = Rates(session)
        self.looks: Looks = Looks(session)
        self._reading: set[asyncio.Task[None]] = set()
        self._store_large = self._reader(self._store_by_reference)
        self._store_for_sure = self._reader(self._confirm)
        self._store_join_for_sure = self._reader(self._confirm_join)
        self._perform: dict[type[Any], Callable[[Any, AnyProcedure, Done], None]] = {
            StoreRun: self._store_run,
            StoreMark: self._store_mark,
            StoreStep: self._store_step,
            Count: self._count,
            Start: self._start,
            StoreAttempt: self._store_attempt,
            Arm: self._arm,
            Disarm: self._reader(self.timers.disarm),
            Stand: self._reader(self.awaiting.stand),
            CancelRun: self._reader(self._cancel_run),
            StoreJoin: self._store_join,
            CancelRest: self._reader(self._cancel_rest),
            Look: self._reader(self.looks.look),
            ReadEnded: self._reader(self._read_ended),
            ReadSteps: self._reader(self._read_steps),
            **{kind: self._reader(one) for kind, one in (self.gates.performed() | self.rates.performed()).items()},
        }

    # --- driving

    def drive(self, procedure: AnyProcedure, done: Done) -> None:
        """Drive a procedure to its end, then call ``done`` with its result, or with the error that ended it."""
        self._advance(points.watched(procedure) if points.ARMED else procedure, None, done)

    async def run(self, procedure: AnyProcedure) -> Any:
        """Drive a procedure to its end, and return its result."""
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if waiting.done():
                return
            if error is None:
                waiting.set_result(result)
            else:
                waiting.set_exception(error)

        self.drive(procedure, done)
        return await waiting

    async def stop(self) -> None:
        """Wait for the reads under way."""
        await asyncio.gather(*self._reading, return_exceptions=True)

    def _advance(self, procedure: AnyProcedure, result: Any, done: Done) -> None:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            done(stop.value, None)
        except Exception as error:  # a rule that raises must not take the worker down; the caller records it
            done(None, error)
        else:
            self._perform[type(effect)](effect, procedure, done)

    def _fail(self, procedure: AnyProcedure, error: BaseException, done: Done) -> None:
        procedure.close()
        done(None, error)

    def _publish(
        self, group: GroupCommit, item: Item, procedure: AnyProcedure, done: Done, outcome: Outcome | None = None
    ) -> None:
        group.publish(item, partial(self._on_stored, group, item, outcome, procedure, done))

    def _on_stored(
        self,
        group: GroupCommit,
        item: Item,
        outcome: Outcome | None,
        procedure: AnyProcedure,
        done: Done,
        receipt: Receipt,
    ) -> None:
        if receipt.error is not None:
            self._fail(procedure, receipt.error, done)
        elif receipt.stored or receipt.sequence:
            self._advance(procedure, outcome, done)
        else:
            self._store_for_sure(_Write(group, item, item.subject, outcome), procedure, done)

    async def _confirm(self, write: _Write) -> Outcome | None:
        """Make sure that a message is stored which the server refused because its subject is taken.

        On several replicas it may have been refused for the sake of one that was then lost with its leader. Returns the
        outcome that is stored, if it is one.
        """
        item = write.item
        while (stored := await self._store.leader_last(write.group.stream, write.taken)) is None:
            await self._publisher.store(item.subject, item.body, item.headers)
        return None if write.outcome is None else decode_outcome(stored.body)

    def _reader(self, read: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[Any, AnyProcedure, Done], None]:
        async def run(effect: Any, procedure: AnyProcedure, done: Done) -> None:
            try:
                result = await read(effect)
            except Exception as error:  # whatever it is, the procedure must end, or its task is held for ever
                self._fail(procedure, error, done)
            else:
                self._advance(procedure, result, done)

        def start(effect: Any, procedure: AnyProcedure, done: Done) -> None:
            task = asyncio.get_running_loop().create_task(run(effect, procedure, done))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

        return start

    # --- effects that write

    def _store_run(self, effect: StoreRun, procedure: AnyProcedure, done: Done) -> None:
        body = encode(effect.outcome)
        if len(body) > SMALL and is_large(self._session, effect.outcome.output):
            self._store_large(effect, procedure, done)
        else:
            if effect.outcome.errors and len(body) > (room := self._session.connection.max_payload // 2):
                effect = msgspec.structs.replace(effect, outcome=fitted(effect.outcome, room))
                body = encode(effect.outcome)
            headers = self._alone_of(effect.task) if effect.task.shared else b""
            item = Item(self._names.run_of(effect.task), headers, body)
            self._session.records.publish(item, partial(self._on_run_stored, effect, item, procedure, done))

    def _alone_of(self, task: Task) -> bytes:
        """Return the headers that have the broker refuse an outcome where one is stored under another step.

        When the tree of a shared run was cancelled, and its task removed, a step that had not heard of it may have
        spawned it again.
        """
        return header_block({Header.EXPECTED_LAST: "0", Header.EXPECTED_LAST_OF: self._names.run_of_any_step(task)})

    def _where_refused(self, task: Task, item: Item) -> str:
        """Return the filter under which an outcome is stored that has refused one."""
        return self._names.run_of_any_step(task) if task.shared else item.subject

    def _on_run_stored(
        self, effect: StoreRun, item: Item, procedure: AnyProcedure, done: Done, receipt: Receipt
    ) -> None:
        task, outcome = effect.task, effect.outcome
        if receipt.stored:
            if outcome.status != "succeeded" or _log.isEnabledFor(logging.INFO):
                announce_end(task, outcome)
            if task.parent != NONE:
                child = bytes.fromhex(task.run)
                self.telling.tell(task, child, item)
                self.looks.note_stored(task, child)
            self._advance(procedure, outcome, done)
        elif receipt.error is None and not receipt.sequence:
            write = _Write(self._session.records, item, self._where_refused(task, item), outcome)
            self._store_for_sure(write, procedure, done)
        else:
            self._on_stored(self._session.records, item, outcome, procedure, done, receipt)

    def _store_mark(self, effect: StoreMark, procedure: AnyProcedure, done: Done) -> None:
        item = Item(self._names.mark_of(effect.task, effect.outcome.status), b"", mark_body(effect.outcome))
        self._publish(self._session.records, item, procedure, done)

    def _store_step(self, effect: StoreStep, procedure: AnyProcedure, done: Done) -> None:
        if is_large(self._session, effect.outcome.output):
            self._store_large(effect, procedure, done)
        else:
            item = Item(self._names.step(effect.task.join), b"", encode(effect.outcome))
            self._publish(self._session.records, item, procedure, done, effect.outcome)

    def _store_attempt(self, effect: StoreAttempt, procedure: AnyProcedure, done: Done) -> None:
        subject = self._names.attempt(effect.task.join, effect.task.turn, effect.delivery)
        self._publish(self._session.records, Item(subject, b"", encode(effect.attempt)), procedure, done)

    def _store_join(self, effect: StoreJoin, procedure: AnyProcedure, done: Done) -> None:
        points.before("pack_join")
        body = encode(effect.record)
        if is_large(self._session, body):
            self._store_join_for_sure(effect, procedure, done)
        else:
            points.after("pack_join")
            item = Item(self._names.join(effect.task.join, effect.task.turn), b"", body)
            self._session.records.publish(item, partial(self._on_join_stored, effect, procedure, done))

    def _on_join_stored(self, effect: StoreJoin, procedure: AnyProcedure, done: Done, receipt: Receipt) -> None:
        if receipt.error is not None:
            self._fail(procedure, receipt.error, done)
        elif receipt.stored:
            if effect.record.gate is not None:
                self.gates.note_parked(effect.task, effect.record)
            self._advance(procedure, effect.record, done)
        else:
            self._store_join_for_sure(effect, procedure, done)

    def _arm(self, effect: Arm, procedure: AnyProcedure, done: Done) -> None:
        self.timers.arm(effect, partial(self._on_armed, procedure, done))

    def _on_armed(self, procedure: AnyProcedure, done: Done, due: bool, error: BrokerError | None) -> None:
        if error is None:
            self._advance(procedure, due, done)
        else:
            self._fail(procedure, error, done)

    def _count(self, effect: Count, procedure: AnyProcedure, done: Done) -> None:
        counter = self._names.counter(effect.kind, effect.address)
        self._publisher.count(counter, effect.by, partial(self._on_counted, effect.address, procedure, done))

    def _on_counted(self, join: StepAddress, procedure: AnyProcedure, done: Done, receipt: Receipt) -> None:
        if receipt.value is not None:
            self.telling.note(join, receipt.value)
        if receipt.error is None:
            self._advance(procedure, receipt.value, done)
        else:
            self._fail(procedure, receipt.error, done)

    def _start(self, effect: Start, procedure: AnyProcedure, done: Done) -> None:
        task = effect.task
        queue = queue_of(task, effect.step)
        subject = self._names.task(task.workflow, queue, task.root, task.parent, task.run, effect.turn)
        if task.tried != effect.tried:
            task = msgspec.structs.replace(task, tried=effect.tried)
        headers = task_headers(task, f"{task.run}.{effect.step}.{effect.turn}")
        if effect.turn:
            done = partial(self._woken, effect, done)
        self._publish(self._session.tasks, Item(subject, header_block(headers), task.input), procedure, done)

    def _woken(self, effect: Start, done: Done, result: Any, error: BaseException | None) -> None:
        """Spare further looks at a parked turn whose next one is stored."""
        if error is None:
            self.looks.woken(StepAddress(effect.task.root, effect.task.run, effect.step), effect.turn - 1)
        done(result, error)

    async def _store_by_reference(self, effect: StoreRun | StoreStep) -> Outcome | None:
        task = effect.task
        points.before("store_output")
        outcome = await by_reference(self._session, task.root, effect.outcome)
        points.after("store_output")
        if isinstance(effect, StoreStep):
            item = Item(self._names.step(task.join), b"", encode(outcome))
            return await self._confirm(_Write(self._session.records, item, item.subject, outcome))
        item = Item(self._names.run_of(task), self._alone_of(task) if task.shared else b"", encode(outcome))
        stored = await self._confirm(_Write(self._session.records, item, self._where_refused(task, item), outcome))
        announce_end(task, outcome)
        self.telling.tell(task, bytes.fromhex(task.run), item)
        return stored

    async def _cancel_run(self, effect: CancelRun) -> None:
        task, names = effect.task, self._names
        await self._publisher.store(names.cancelled(task.root, task.run), rest_but(effect.spared))
        for step in effect.steps:
            join = StepAddress(task.root, task.run, step)
            await self.cancel_open(join, set(split_ids(await spawned_by(self._session, join))))
            await self.timers.remove(names.timers_of_step(task, step))

    async def _cancel_rest(self, effect: CancelRest) -> None:
        with self.looks.decided(effect.join, effect.record.turn):
            members = effect.record.members
            if members is None:
                members = await spawned_by(self._session, effect.join)
            await self.cancel_open(effect.join, set(split_ids(members)))

    async def cancel_open(self, join: StepAddress, children: set[bytes]) -> None:
        """Cancel those of a step's children that have not ended."""
        async for page in self._store.leader_ids(self._names.records_stream, self._names.runs_of_join(join)):
            children.difference_update(split_ids(page))
        if children:
            await cancel_children(self._session, self.run, join, children)

    async def _confirm_join(self, effect: StoreJoin) -> JoinRecord:
        """Store a join record that is large, or of a turn that has one already; return the one that is stored."""
        task, record = effect.task, effect.record
        subject = self._names.join(task.join, task.turn)
        points.before("pack_join")
        body = await packed(self._session, task.root, record)
        points.after("pack_join")
        while not (await self._publisher.store(subject, body)).stored:
            stored = await self._store.leader_last(self._names.records_stream, subject)
            if stored is not None:
                return await unpacked(self._session, task.join, stored.body)
        return record

    # --- effects that read

    async def _read_ended(self, effect: ReadEnded) -> Ended:
        task, names = effect.task, self._names
        run, step, join = await asyncio.gather(
            self._store.leader_last(names.records_stream, names.run_of(task)),
            self._store.leader_last(names.records_stream, names.step(task.join)),
            self._store.leader_last(names.records_stream, names.join(task.join, task.turn)),
        )
        open_join = join if step is None and (run is None or effect.sequel) else None
        return Ended(
            run=None if run is None else decode_outcome(run.body),
            step=None if step is None else decode_outcome(step.body),
            join=None if open_join is None else await unpacked(self._session, task.join, open_join.body),
            joined=join is not None,
        )

    async def _read_steps(self, effect: ReadSteps) -> dict[str, Outcome]:
        """Return the outcomes of a run's finished steps, by step name, as the leader has them."""
        task = effect.task
        subjects: list[str] = []
        steps = self._names.steps_of_run(task.root, task.run)
        async for page in self._store.leader_subjects(self._names.records_stream, steps):
            subjects += page
        stored = await collect(self._store.many(self._names.records_stream, subjects))
        if len(stored) < len(subjects):  # a replica that lags: ask the leader for each
            read = await asyncio.gather(
                *(self._store.leader_last(self._names.records_stream, subject) for subject in subjects)
            )
            stored = [message for message in read if message is not None]
        outcomes = {last_token(message.subject): decode_outcome(message.body) for message in stored}
        if not effect.outputs:
            return outcomes
        return {step: await self._whole(task, step, ended) for step, ended in outcomes.items()}

    async def _whole(self, task: Task, step: str, ended: Outcome) -> Outcome:
        """Return the outcome of a step with its output; a step whose output is gone has failed."""
        try:
            return await with_output(self._session, task.root, ended)
        except LostValue as error:
            failure = Failure(type(error).__name__, str(error), step)
            return msgspec.structs.replace(ended, status="failed", error=failure, value=None)
