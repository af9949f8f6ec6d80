"""Performs the effects that the engine's procedures ask for.

Procedures are driven by callbacks, not by a coroutine each: an acknowledgement that arrives resumes the procedure
that waits for it, and whatever many procedures ask for in the same pass of the event loop leaves in one write.
Effects that read run as coroutines; they are rare.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from jetflow.broker.atomic import Item
from jetflow.broker.grouping import GroupCommit
from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.joins import ID_BYTES, JoinRecord, LookLedger, Tally, split_ids
from jetflow.engine.tasks import NONE, Outcome, StepAddress, Task
from jetflow.engine.transitions import (
    CancelRest,
    Count,
    Effect,
    Ended,
    JoinView,
    Look,
    ReadEnded,
    ReadOutputs,
    Start,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.runs import points
from jetflow.runs.cancelling import cancel_children
from jetflow.runs.joins import packed, spawned_by, unpacked
from jetflow.runs.tasks import task_of
from jetflow.runs.telling import Telling
from jetflow.runs.values import SMALL, by_reference, is_large, with_output
from jetflow.wire.records import (
    decode_outcome,
    encode,
    header_block,
    task_headers,
)
from jetflow.wire.subjects import last_token

DECIDED_KEPT: Final = 10_000
"""Joins remembered whose step has gone on, and whose other children are cancelled."""

IDS_KEPT: Final = 2_000_000
"""Ids remembered of children whose outcomes this process has stored, 16 bytes each."""

COUNT_FIRST: Final = 1000
"""Children from which on a look that no counter has asked for counts before it reads ids."""

SCAN_FROM: Final = 100_000
"""Children from which on their ids are scanned first: the leader lists that many at once, and counts all each time."""

Done: TypeAlias = Callable[[Any, BaseException | None], None]
AnyProcedure: TypeAlias = Generator[Effect, Any, Any]

_log = logging.getLogger("jetflow.worker")


class _Write(NamedTuple):
    """A write-once message of a stream."""

    stream: str
    item: Item


class Performer:
    """Drives procedures over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = session.names
        self._publisher = session.publisher
        self._store = session.store
        self._ledger = LookLedger()
        self._decided: OrderedDict[tuple[StepAddress, int], None] = OrderedDict()
        self.telling: Telling = Telling(session.connection, session.names)
        self._stored_here: defaultdict[tuple[str, str], bytearray] = defaultdict(bytearray)
        self._ids_kept = 0
        session.connection.on_reconnect(self._forget_stored)  # a server that was away may have lost some
        self._reading: set[asyncio.Task[None]] = set()
        self._store_large = self._reader(self._store_by_reference)
        self._store_for_sure = self._reader(self._confirm)
        self._perform: dict[type[Any], Callable[[Any, AnyProcedure, Done], None]] = {
            StoreRun: self._store_run,
            StoreMark: self._store_mark,
            StoreStep: self._store_step,
            Count: self._count,
            Start: self._start,
            StoreJoin: self._reader(self._store_join),
            CancelRest: self._reader(self._cancel_rest),
            Look: self._reader(self._look),
            ReadEnded: self._reader(self._read_ended),
            ReadOutputs: self._reader(self._read_outputs),
        }

    # --- driving

    def drive(self, procedure: AnyProcedure, done: Done) -> None:
        """Drive a procedure to its end, then call ``done`` with its result, or with the error that ended it."""
        self._advance(points.watched(procedure), None, done)

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

    def _publish(self, group: GroupCommit, item: Item, procedure: AnyProcedure, done: Done) -> None:
        group.publish(item, partial(self._on_stored, group.stream, item, procedure, done))

    def _on_stored(self, stream: str, item: Item, procedure: AnyProcedure, done: Done, receipt: Receipt) -> None:
        if receipt.error is not None:
            self._fail(procedure, receipt.error, done)
        elif receipt.stored or receipt.sequence:
            self._advance(procedure, None, done)
        else:
            self._store_for_sure(_Write(stream, item), procedure, done)

    async def _confirm(self, write: _Write) -> None:
        """Make sure that a message is stored which the server refused because its subject is taken.

        On several replicas it may have been refused for the sake of one that was then lost with its leader.
        """
        stream, item = write
        while await self._store.leader_last(stream, item.subject) is None:
            await self._publisher.store(item.subject, item.body, item.headers)

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
            item = Item(self._names.run_of(effect.task), b"", body)
            self._session.records.publish(item, partial(self._on_run_stored, effect.task, item, procedure, done))

    def _on_run_stored(self, task: Task, item: Item, procedure: AnyProcedure, done: Done, receipt: Receipt) -> None:
        if receipt.stored and task.parent != NONE:
            child = bytes.fromhex(task.run)
            self.telling.tell(task, child, item)
            self._note_stored(task, child)
        self._on_stored(self._names.records_stream, item, procedure, done, receipt)

    def _store_mark(self, effect: StoreMark, procedure: AnyProcedure, done: Done) -> None:
        item = Item(self._names.mark_of(effect.task, effect.outcome.status), b"", b"")
        self._publish(self._session.records, item, procedure, done)

    def _store_step(self, effect: StoreStep, procedure: AnyProcedure, done: Done) -> None:
        if is_large(self._session, effect.outcome.output):
            self._store_large(effect, procedure, done)
        else:
            item = Item(self._names.step(effect.task.join), b"", encode(effect.outcome))
            self._publish(self._session.records, item, procedure, done)

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

    def _note_stored(self, task: Task, child: bytes) -> None:
        """Note that the server has acknowledged the outcome of a child, in case all of a join's come from here."""
        self._stored_here[task.parent, task.parent_step] += child
        self._ids_kept += 1
        if self._ids_kept > IDS_KEPT or len(self._stored_here) > DECIDED_KEPT:
            self._forget_stored()

    def _forget_stored(self) -> None:
        self._stored_here.clear()
        self._ids_kept = 0

    def _start(self, effect: Start, procedure: AnyProcedure, done: Done) -> None:
        task = effect.task
        subject = self._names.task(task.workflow, effect.step, task.root, task.parent, task.run, effect.turn)
        headers = task_headers(task, f"{task.run}.{effect.step}.{effect.turn}")
        self._publish(self._session.tasks, Item(subject, header_block(headers), task.input), procedure, done)

    async def _store_by_reference(self, effect: StoreRun | StoreStep) -> None:
        task = effect.task
        points.before("store_output")
        outcome = await by_reference(self._session, task.root, effect.outcome)
        points.after("store_output")
        subject = self._names.run_of(task) if isinstance(effect, StoreRun) else self._names.step(task.join)
        item = Item(subject, b"", encode(outcome))
        await self._confirm(_Write(self._names.records_stream, item))
        if isinstance(effect, StoreRun):
            self.telling.tell(task, bytes.fromhex(task.run), item)

    async def _cancel_rest(self, effect: CancelRest) -> None:
        # Each child that is cancelled counts, and would look, and find the rest to be cancelled.
        done = effect.join, effect.record.turn
        self._decided[done] = None
        if len(self._decided) > DECIDED_KEPT:
            self._decided.popitem(last=False)
        try:
            await self._cancel_members(effect)
        except BaseException:
            self._decided.pop(done, None)
            raise

    async def _cancel_members(self, effect: CancelRest) -> None:
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

    async def _store_join(self, effect: StoreJoin) -> JoinRecord:
        task, record = effect.task, effect.record
        subject = self._names.join(task.join, task.turn)
        points.before("pack_join")
        body = await packed(self._session, task.root, record)
        points.after("pack_join")
        while not (await self._publisher.store(subject, body)).stored:
            stored = await self._store.leader_last(self._names.records_stream, subject)
            if stored is not None:
                return await unpacked(self._session, task.root, stored.body)
        return record

    # --- effects that read

    async def _look(self, effect: Look) -> JoinView | None:
        join, value = effect.join, effect.value
        if value is not None and not self._ledger.worth(join, value):
            return None
        stored = await self._store.leader_last(self._names.records_stream, self._names.joins_of_step(join))
        if stored is None:
            return None
        record = await unpacked(self._session, join.root, stored.body)
        if (join, record.turn) in self._decided or (effect.failure and not record.policy.early):
            return None
        ended, members = await self._ended(join, record, likely=value is not None)
        missing, failed = record.needed - ended, ()
        if record.total and (missing <= 0 or record.policy.early):
            failed = await self._failed(join, record, members)
            missing = record.policy.missing(record.total, ended - len(failed), ended)
        if missing > 0:
            if value is not None and not record.borrowed:  # what is borrowed is counted elsewhere
                self._ledger.missed(join, value, missing)
            return None
        self._ledger.closed(join)
        self._ids_kept -= len(self._stored_here.pop((join.run, join.step), b"")) // ID_BYTES
        return await self._view(join, record, ended, failed)

    async def _view(
        self, join: StepAddress, record: JoinRecord, ended: int, failed: tuple[tuple[str, Outcome], ...]
    ) -> JoinView | None:
        task = await self._task(record.task)
        if task is None:
            return None
        graph = await self._session.registry.graph(task.workflow, task.version)
        if graph is None:
            _log.error("join of run %s cannot go on: graph %s of %r is gone", join.run, task.version, task.workflow)
            return None
        met = not record.total or record.policy.verdict(record.total, ended - len(failed), ended) == "met"
        return JoinView(record, task, graph, failed, met=met, rest=ended < record.total)

    async def _ended(self, join: StepAddress, record: JoinRecord, *, likely: bool) -> tuple[int, bytes | None]:
        """Return how many of the children that a join record names have ended, and their packed ids.

        The number is a lower bound if it is too few. None for the ids says that all that are stored count. ``likely``
        says that a counter has reached the number that is needed.
        """
        here = self._stored_here.get((join.run, join.step), b"")
        if record.is_whole(here):  # each was acknowledged to this process: no reading tells more
            return record.needed, bytes(here)
        outcomes = self._names.runs_of_join(join)
        if not likely and record.needed > COUNT_FIRST and not record.policy.early:
            count = await self._store.leader_count(self._names.records_stream, outcomes)
            if count < record.needed - len(record.borrowed):
                return count + len(record.borrowed), None
        members = record.members
        tally = Tally(record, members)
        many = record.needed > SCAN_FROM
        read = self._store.ids if many else self._store.leader_ids
        seen = await self._count_in(tally, read(self._names.records_stream, outcomes))
        if many and (tally.missing > len(record.borrowed) or tally.disputed):  # a replica may not have all of them
            tally = Tally(record, members)
            seen = await self._count_in(tally, self._store.leader_ids(self._names.records_stream, outcomes))
        borrowed = 0
        for child in record.borrowed:
            subject = self._names.run(join.root, join.run, child.step, child.run)
            if await self._store.leader_last(self._names.records_stream, subject) is not None:
                borrowed += 1
                tally.add_borrowed()
        if tally.disputed:
            _log.warning("run %s, step %s: outcomes are stored that nobody spawned", join.run, join.step)
            # Which of the stored tasks the record counts cannot be told, so that all of them have to be done.
            members = await spawned_by(self._session, join)
            tally = Tally(record, members)
            await self._count_in(tally, self._store.leader_ids(self._names.records_stream, outcomes))
            open_ones = len(members) // ID_BYTES - tally.stored + len(record.borrowed) - borrowed
            return min(record.needed - open_ones, tally.stored + borrowed), members
        # Of a clean join exactly those count that were seen: what is stored from now on is nobody's.
        return tally.stored, seen if members is None and not tally.missing else members

    @staticmethod
    async def _count_in(tally: Tally, pages: AsyncIterator[bytes]) -> bytes:
        seen = bytearray()
        async for page in pages:
            tally.add(page)
            seen += page
        return bytes(seen)

    async def _failed(
        self, join: StepAddress, record: JoinRecord, members: bytes | None
    ) -> tuple[tuple[str, Outcome], ...]:
        """Return the children of a sealed join that did not end well, without those that the step has seen.

        ``members`` holds the packed ids of those that count; None if all do.
        """
        marked: set[str] = set()
        async for page in self._store.leader_ids(self._names.records_stream, self._names.marks_of_join(join)):
            marked.update(child.hex() for child in split_ids(page))
        if marked and members is not None:
            marked &= {child.hex() for child in split_ids(members)}
        owners = dict.fromkeys(sorted(marked), join.step) | {child.run: child.step for child in record.borrowed}
        subjects = [
            self._names.run(join.root, join.run, step, child)
            for child, step in owners.items()
            if child not in record.excused
        ]
        stored = await collect(self._store.many(self._names.records_stream, subjects))
        late = set(subjects).difference(message.subject for message in stored)
        # A replica may lag behind the leader that counted them; a mark may also stand before its outcome.
        read = await asyncio.gather(
            *(self._store.leader_last(self._names.records_stream, subject) for subject in sorted(late))
        )
        outcomes = (
            (last_token(message.subject), decode_outcome(message.body))
            for message in (*stored, *read)
            if message is not None
        )
        return tuple((child, outcome) for child, outcome in outcomes if outcome.status != "succeeded")

    async def _task(self, subject: str) -> Task | None:
        stored = await self._store.leader_last(self._names.tasks_stream, subject)
        return None if stored is None else task_of(stored)

    async def _read_ended(self, effect: ReadEnded) -> Ended:
        task, names = effect.task, self._names
        run, step, join = await asyncio.gather(
            self._store.leader_last(names.records_stream, names.run_of(task)),
            self._store.leader_last(names.records_stream, names.step(task.join)),
            self._store.leader_last(names.records_stream, names.join(task.join, task.turn)),
        )
        return Ended(
            run=run is not None,
            failed=run is not None and decode_outcome(run.body).status in ("failed", "timed_out"),
            step=step is not None,
            join=None if join is None else await unpacked(self._session, task.root, join.body),
        )

    async def _read_outputs(self, effect: ReadOutputs) -> dict[str, Outcome]:
        return await self.outputs(effect.task)

    async def outputs(self, task: Task) -> dict[str, Outcome]:
        """Return the outcomes of a run's finished steps, by step name, as the leader has them."""
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
        return {
            last_token(message.subject): await with_output(self._session, task.root, decode_outcome(message.body))
            for message in stored
        }
