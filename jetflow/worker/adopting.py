"""Adopting: what a step of a rerun takes over from the runs that its own was made of, instead of doing it again.

What is adopted is stored under the new run, large values included: it stands when the elder is deleted. What cannot be
read any more is run anew. The rules are in `jetflow.engine.adopting`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.atomic import Item
from jetflow.broker.ingest import BATCH
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.adopting import count_adopted
from jetflow.engine.effects import Procedure
from jetflow.engine.elders import Elder, adopted, elders_of, twin_id
from jetflow.engine.graph import Graph
from jetflow.engine.identity import child_id, child_ids
from jetflow.engine.joins import split_ids
from jetflow.engine.tasks import Outcome, StepAddress, Task
from jetflow.errors import MalformedRecord
from jetflow.runs import points
from jetflow.runs.joins import counted_by, unpacked
from jetflow.runs.targets import Target
from jetflow.runs.values import LostValue, by_reference, with_output, with_readable_output
from jetflow.wire.headers import Header
from jetflow.wire.records import decode_outcome, encode, mark_body
from jetflow.wire.subjects import last_id
from jetflow.worker.pace import BATCH_BYTES
from jetflow.worker.planned import Planned

Perform: TypeAlias = Callable[[Procedure], Awaitable[Any]]

NO_END: Final = "-until"
WAIT: Final = "_wait-"
NOTHING_CAME: Final = b"{}"
"""A wait for events whose time was over is waited for again, and has its time anew."""

_log = logging.getLogger("jetflow.worker")


class Adopting:
    """What one execution of a step may adopt: its children, and what it has recorded once.

    ``spawns`` says that it may adopt its children as it spawns them. Where another step may spawn them as well they
    adopt themselves.
    """

    def __init__(self, session: Session, task: Task, graph: Graph, perform: Perform) -> None:
        self._session = session
        self._task = task
        self._perform = perform
        self._elders = elders_of(task, graph)
        self._at_spawn = task.step in graph.in_line

    # --- children

    async def send(self, target: Target, batch: Sequence[Planned]) -> list[int]:
        """Adopt those of a batch of children that have succeeded, and spawn the others, with their elders named.

        Returns which of the batch were spawned before. Those that were adopted are counted.
        """
        points.before("read_elders")
        others = [await self._with_another_input(elder, target, batch) for elder in self._elders]
        found = await self._ended_well(target, batch, others) if self._at_spawn else {}
        points.after("read_elders")
        spawned = [at for at, planned in enumerate(batch) if planned.id not in found]
        items = [self._with_elders(target, batch[at], others) for at in spawned]
        existing, _ = await asyncio.gather(self._spawn(items), self._adopt(found))
        return [spawned[at] for at in existing]

    async def _spawn(self, items: list[Item]) -> list[int]:
        return await self._session.ingest.publish(items) if items else []

    async def _adopt(self, found: dict[bytes, Outcome]) -> None:
        if not found:
            return
        task, names = self._task, self._session.names
        await store_all(
            self._session,
            [
                Item(names.run(task.root, task.run, task.step, child.hex()), b"", encode(outcome))
                for child, outcome in found.items()
            ],
            "adopt_children",
        )
        await self._perform(count_adopted(task.join, len(found)))

    def _elder_ids(self, elder: Elder, workflow: str, batch: Iterable[Planned]) -> list[bytes]:
        """Return the ids that children have as children of an elder."""
        keyed, by_digest = (child_ids(elder.run, workflow, keyed=is_keyed) for is_keyed in (True, False))
        return [by_digest(one.digest) if one.key is None else keyed(one.key) for one in batch]

    def _with_elders(self, target: Target, planned: Planned, others: list[set[bytes]]) -> Item:
        text = ",".join(
            str(Elder(elder.root, self._elder_ids(elder, target.workflow, [planned])[0].hex()))
            for elder, other in zip(self._elders, others, strict=True)
            if planned.id not in other
        )
        if not text:
            return planned.item
        headers = planned.item.headers[:-2] + f"{Header.ELDER}: {text}\r\n\r\n".encode()
        return msgspec.structs.replace(planned.item, headers=headers)

    async def _ended_well(
        self, target: Target, batch: Sequence[Planned], others: list[set[bytes]]
    ) -> dict[bytes, Outcome]:
        """Return the outcomes of those children that have succeeded in an elder, with all that they hold."""
        found: dict[bytes, Outcome] = {}
        for elder, other in zip(self._elders, others, strict=True):
            left = [planned for planned in batch if planned.id not in found and planned.id not in other]
            if not left:
                continue
            ids = self._elder_ids(elder, target.workflow, left)
            ended = await self._of_elder(elder, ids)
            for old, planned in zip(ids, left, strict=True):
                if old in ended and (whole := await self._taken(elder, ended[old])) is not None:
                    found[planned.id] = whole
        return found

    async def _of_elder(self, elder: Elder, ids: Iterable[bytes]) -> dict[bytes, Outcome]:
        names, store = self._session.names, self._session.store
        subjects = [names.run(elder.root, elder.run, self._task.step, old.hex()) for old in ids]
        found: dict[bytes, Outcome] = {}
        async for page in store.many(names.records_stream, subjects):
            for stored in page:
                outcome, old = decode_outcome(stored.body), last_id(stored.subject)
                if outcome.status == "succeeded" and old is not None:
                    found[old] = adopted(outcome, stored.subject)
        return found

    async def _with_another_input(self, elder: Elder, target: Target, batch: Sequence[Planned]) -> set[bytes]:
        """Return those whose key stood for another input then: it is no elder of theirs.

        Where no task tells any more, for its tree was cancelled, the key alone counts.
        """
        keyed = [planned for planned in batch if planned.key is not None]
        if not keyed:
            return set()
        names, store = self._session.names, self._session.store
        before, after = names.child_tasks(target.workflow, target.first, elder.root, elder.run)
        of_elder = {
            old.hex(): planned
            for old, planned in zip(self._elder_ids(elder, target.workflow, keyed), keyed, strict=True)
        }
        others: set[bytes] = set()
        async for page in store.many(names.tasks_stream, [f"{before}{old}{after}" for old in of_elder]):
            for stored in page:
                planned = of_elder[stored.subject[len(before) : -len(after)]]
                if stored.headers.get(Header.DIGEST, "") != planned.digest:
                    others.add(planned.id)
        return others

    async def _taken(self, elder: Elder, outcome: Outcome) -> Outcome | None:
        """Return an outcome with its output kept by the new tree; None if that is gone."""
        if outcome.value is None:
            return outcome
        try:
            return await by_reference(
                self._session, self._task.root, await with_output(self._session, elder.root, outcome)
            )
        except LostValue as error:
            _log.warning("run %s: what %s holds is not adopted: %s", self._task.run, outcome.adopted, error)
            return None

    async def detached(self, target: Target, key: str | None, digest: str) -> str | None:
        """Return the run that an elder has started for a detached child, if it has."""
        names, store = self._session.names, self._session.store
        for elder in self._elders:
            run = child_id(elder.run, target.workflow, key=key, digest=digest)
            if await store.leader_last(names.tasks_stream, names.tasks_of_run(run, run)) is not None:
                return run
        return None

    # --- what is recorded once

    async def once(self, token: str, name: str) -> bytes | None:
        """Return what an elder has recorded under a name, if it has, and it counts in another run."""
        names, store = self._session.names, self._session.store
        is_wait = name.startswith(WAIT)
        if is_wait and name.endswith(NO_END):
            return None
        for elder in self._elders:
            subject = names.once(StepAddress(elder.root, elder.run, self._task.step), token)
            stored = await store.leader_last(names.records_stream, subject)
            if stored is not None and not (is_wait and stored.body == NOTHING_CAME):
                return stored.body
        return None


class AdoptedStep(msgspec.Struct, frozen=True):
    """How a step ends as its elder has ended. ``members`` are its children, whose outcomes are stored."""

    outcome: Outcome
    members: bytes


async def adopt_step(session: Session, task: Task, graph: Graph) -> AdoptedStep | None:
    """Take over how a step has ended in an elder, if that went well, with the ends of its children.

    None where there is nothing of it, or it cannot be read any more.
    """
    for elder in elders_of(task, graph):
        points.before("read_elder")
        outcome = await _ended_step(session, elder, task.step)
        points.after("read_elder")
        if outcome is None:
            continue
        try:
            whole = await with_output(session, elder.root, outcome)
            return AdoptedStep(whole, b"" if len(graph.nodes) == 1 else await _children(session, elder, task))
        except (LostValue, MalformedRecord) as error:
            _log.warning("run %s: step %r is run anew: %s", task.run, task.step, error)
    return None


async def _ended_step(session: Session, elder: Elder, step: str) -> Outcome | None:
    """Return the outcome of a step, if it has succeeded or was skipped; that of an only last step is its run's."""
    names, store = session.names, session.store
    for subject in (names.step(StepAddress(elder.root, elder.run, step)), names.run_of_tree(elder.root, elder.run)):
        stored = await store.leader_last(names.records_stream, subject)
        if stored is not None:
            outcome = decode_outcome(stored.body)
            if outcome.status in ("succeeded", "skipped") and outcome.step == step:
                return adopted(outcome, stored.subject)
    return None


async def _children(session: Session, elder: Elder, task: Task) -> bytes:
    """Store the ends of those children of an elder step that count in it; return the ids that they have here.

    Raises:
        LostValue, MalformedRecord: which they are cannot be read.
    """
    names, store = session.names, session.store
    join = StepAddress(elder.root, elder.run, task.step)
    sealed = await store.leader_last(names.records_stream, names.joins_of_step(join))
    record = None if sealed is None else await unpacked(session, join, sealed.body)
    members = await counted_by(session, join, record)
    ids = None if members is None else set(split_ids(members))
    kept, batch, size = bytearray(), list[Item](), 0
    borrowed = () if record is None else record.borrowed
    subjects = [names.run(join.root, join.run, child.step, child.run) for child in borrowed]
    own = store.pages(names.records_stream, names.runs_of_join(join))
    async for page in _both(own, store.many(names.records_stream, subjects)):
        for stored in page:
            child = last_id(stored.subject)
            if child is None or not (stored.subject in subjects or ids is None or child in ids):
                continue
            outcome = await with_readable_output(
                session, elder.root, adopted(decode_outcome(stored.body), stored.subject)
            )
            outcome = await by_reference(session, task.root, outcome)
            twin = twin_id(task.run, task.step, child.hex())
            kept += bytes.fromhex(twin)
            new = _ends_of(session, task, twin, outcome)
            batch += new
            size += sum(len(item.body) for item in new)
            if len(batch) > BATCH - 2 or size >= BATCH_BYTES:
                await store_all(session, batch, "adopt_step")
                batch, size = [], 0
    await store_all(session, batch, "adopt_step")
    return bytes(kept)


async def _both(first: AsyncIterator[list[Stored]], then: AsyncIterator[list[Stored]]) -> AsyncGenerator[list[Stored]]:
    async for page in first:
        yield page
    async for page in then:
        yield page


def _ends_of(session: Session, task: Task, twin: str, outcome: Outcome) -> list[Item]:
    """Return the records of a child that is adopted with its step: its mark, if it has one, and its outcome."""
    names = session.names
    child = msgspec.structs.replace(task, workflow=outcome.workflow, parent=task.run, parent_step=task.step, run=twin)
    ended = Item(names.run_of(child), b"", encode(outcome))
    if outcome.status == "succeeded":
        return [ended]
    return [Item(names.mark_of(child, outcome.status), b"", mark_body(outcome)), ended]


async def store_all(session: Session, items: list[Item], point: str) -> None:
    """Store records, write-once, and make sure that those are there which the server refuses as taken."""
    names, store = session.names, session.store
    for batch in _batches(items):
        points.before(point)
        existing = await session.ingest.publish(batch)
        points.after(point)
        taken = {batch[at].subject: batch[at] for at in existing}
        async for page in store.many(names.records_stream, list(taken)):
            for stored in page:
                taken.pop(stored.subject, None)
        for subject, item in taken.items():
            while await store.leader_last(names.records_stream, subject) is None:
                if (await session.publisher.store(subject, item.body, item.headers)).stored:
                    break


def _batches(items: list[Item]) -> Iterable[list[Item]]:
    batch, size = list[Item](), 0
    for item in items:
        batch.append(item)
        size += len(item.body)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
