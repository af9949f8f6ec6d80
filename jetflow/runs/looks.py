"""Looks at joins: how many of a step's children have ended, as the leader of the stream has it.

What counters say only tells when a look is worth it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.effects import Broken, JoinView, Look
from jetflow.engine.joins import ID_BYTES, JoinRecord, LookLedger, Tally, split_ids
from jetflow.engine.tasks import Failure, Outcome, StepAddress, Task
from jetflow.errors import JetflowError, MalformedRecord, UnknownVersion
from jetflow.runs.cancelling import cancelled
from jetflow.runs.joins import spawned_by, unpacked
from jetflow.runs.marks import TREE
from jetflow.runs.tasks import find_first_task, task_of
from jetflow.runs.values import LostValue
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token

JOINS_KEPT: Final = 10_000
"""Joins remembered: those that are decided, and those whose children have ended here."""

IDS_KEPT: Final = 2_000_000
"""Ids remembered of children whose outcomes this process has stored, 16 bytes each."""

COUNT_FIRST: Final = 1000
"""Children from which on a look that no counter has asked for counts before it reads ids."""

SCAN_FROM: Final = 100_000
"""Children from which on their ids are scanned first: the leader lists that many at once, and counts all each time."""

NAMED: Final = 10_000
"""Children of a stream that are looked for one by one, at most: those that a parked step names."""

READS_AT_ONCE: Final = 200
"""Records that are asked of the leader at a time."""

_log = logging.getLogger("jetflow.worker")


class Looks:
    """Looks at the joins of one session's namespace, and remembers what spares a look."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = session.names
        self._store = session.store
        self._ledger = LookLedger()
        self._decided: OrderedDict[tuple[StepAddress, int], None] = OrderedDict()
        self._stored_here: defaultdict[tuple[str, str], bytearray] = defaultdict(bytearray)
        self._ids_kept = 0
        session.connection.on_reconnect(self._forget_stored)  # a server that was away may have lost some

    def note_stored(self, task: Task, child: bytes) -> None:
        """Note that the server has acknowledged the outcome of a child, in case all of a join's come from here."""
        self._stored_here[task.parent, task.parent_step] += child
        self._ids_kept += 1
        if self._ids_kept > IDS_KEPT or len(self._stored_here) > JOINS_KEPT:
            self._forget_stored()

    def _forget_stored(self) -> None:
        self._stored_here.clear()
        self._ids_kept = 0

    @contextmanager
    def decided(self, join: StepAddress, turn: int) -> Generator[None]:
        """Look no more at a join while the rest of its children are cancelled, nor after that if it went well.

        Each of them counts, and would look, and find the rest to be cancelled.
        """
        self._decided[join, turn] = None
        if len(self._decided) > JOINS_KEPT:
            self._decided.popitem(last=False)
        try:
            yield
        except BaseException:
            self._decided.pop((join, turn), None)
            raise

    def woken(self, join: StepAddress, turn: int) -> None:
        """Note that the turn behind a parked one is stored: what ends from now on wakes it no more."""
        self._decided[join, turn] = None
        if len(self._decided) > JOINS_KEPT:
            self._decided.popitem(last=False)

    async def look(self, effect: Look) -> JoinView | Broken | None:
        """Return what the next turn begins with, if the children that a join needs have ended.

        What cannot be read now can never be: then it is told how the run ends.
        """
        if effect.value is not None and not self._ledger.worth(effect.join, effect.value):
            return None
        try:
            return await self._look(effect)
        except (MalformedRecord, UnknownVersion, LostValue) as error:
            return await self._broken(effect.join, error)

    async def _look(self, effect: Look) -> JoinView | Broken | None:
        join, value = effect.join, effect.value
        stored = await self._store.leader_last(self._names.records_stream, self._names.joins_of_step(join))
        if stored is None:
            return None
        record = await unpacked(self._session, join, stored.body)
        if (join, record.turn) in self._decided or (effect.failure and not record.policy.early):
            return None
        if not record.counted:  # it waits for a time; what ends meanwhile was spawned by an attempt before
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
    ) -> JoinView | Broken | None:
        task = await self._task(record.task)
        if task is None:
            return None
        graph = await self._session.registry.graph(task.workflow, task.version)
        if graph is None:
            raise UnknownVersion(task.workflow, task.version)
        met = not record.total or record.policy.verdict(record.total, ended - len(failed), ended) == "met"
        if not met and any(outcome.status == "cancelled" for _, outcome in failed) and await self._is_cancelled(join):
            return Broken(task, cancelled(task), graph)  # its children were cancelled with it, and were faster to end
        return JoinView(record, task, graph, failed, met=met, rest=ended < record.total)

    async def _is_cancelled(self, join: StepAddress) -> bool:
        """Tell whether a run is marked as cancelled, by itself or with its tree: its outcome may not be stored yet."""
        for run in {join.run, join.root}:
            mark = await self._store.leader_last(self._names.tasks_stream, self._names.cancelled(join.root, run))
            if mark is not None and mark.body == TREE:
                return True
        return False

    async def _broken(self, join: StepAddress, error: JetflowError) -> Broken | None:
        """Return how the run of a join that nobody can decide ends, or has ended: whoever finds it repeats that."""
        task = await find_first_task(self._session, join.run, join.root)
        if task is None:  # its tree was cancelled, and its tasks are removed
            return None
        stored = await self._store.leader_last(self._names.records_stream, self._names.run_of(task))
        if stored is None:
            _log.error("run %s of %r cannot go on behind step %r: %s", join.run, task.workflow, join.step, error)
            outcome = Outcome(
                status="failed",
                error=Failure(type(error).__name__, str(error), join.step),
                workflow=task.workflow,
                step=join.step,
                key=task.key,
                ended=time(),
            )
        else:
            outcome = decode_outcome(stored.body)
        try:
            graph = await self._session.registry.graph(task.workflow, task.version)
        except MalformedRecord:
            graph = None
        return Broken(task, outcome, graph)

    async def _ended(self, join: StepAddress, record: JoinRecord, *, likely: bool) -> tuple[int, bytes | None]:
        """Return how many of the children that a join record names have ended, and their packed ids.

        The number is a lower bound if it is too few. None for the ids says that all that are stored count. ``likely``
        says that a counter has reached the number that is needed.
        """
        if not record.needed and not record.total:
            return 0, record.members  # nothing is waited for
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
        pages = read(self._names.records_stream, outcomes)
        if record.streamed and members is not None and len(members) <= NAMED * ID_BYTES:
            pages, many = self._ended_of(join, members), False
        seen = await self._count_in(tally, pages)
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

    async def _ended_of(self, join: StepAddress, members: bytes) -> AsyncIterator[bytes]:
        """Yield those of some children that have ended, where very many others may have: each is read by its name."""
        names = self._names
        left = {names.run(join.root, join.run, join.step, child.hex()): child for child in split_ids(members)}
        async for page in self._store.many(names.records_stream, list(left)):
            yield b"".join(left.pop(stored.subject) for stored in page)
        late = list(left)  # a replica may lag behind the leader
        for at in range(0, len(late), READS_AT_ONCE):
            some = late[at : at + READS_AT_ONCE]
            read = [self._store.leader_last(names.records_stream, subject) for subject in some]
            found = await asyncio.gather(*read)
            yield b"".join(left[stored.subject] for stored in found if stored is not None)

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
