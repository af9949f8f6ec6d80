"""How many children a run has: counts of what is stored, by any way of counting.

`Counting` asks a `Counts` for each number: the store counts once, by direct get; a `watching` has one that keeps
counts on consumers of the broker. Nothing here lists children, so that a million of them are counted as a hundred are.
What can change no more is counted once.

Marks are counted after ends. A mark is stored before its end, so that whoever failed among the ends is among the marks,
and none that failed counts as one that succeeded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic, time
from typing import Final, Protocol, TypeVar

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.runs.located import Located, state_of
from jetflow.runs.query.declared import FRESH, Declared
from jetflow.runs.query.rows import RunTotals, StepTotals, WorkflowTotals
from jetflow.runs.query.shapes import Firsts, Shape, by_workflow, read_shape
from jetflow.runs.trace import Totals
from jetflow.wire.filters import ANY, Filters
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token

UNWELL: Final = ("failed", "cancelled", "timed_out")
"""The statuses that have marks."""

REMEMBERED: Final = 1000
"""Runs whose counts are remembered."""

VERIFIED: Final = 1000
"""Children that did not end well, up to which it is looked how they ended, once no more can change."""

T = TypeVar("T")


class Counts(Protocol):
    """Counts the messages of a filter."""

    async def count(self, stream: str, subject: str) -> int:
        """Return how many there are."""
        ...


class _Counted(msgspec.Struct, frozen=True):
    """The counts of a run: tasks by workflow, ends by step, marks by step and by workflow in the order of `UNWELL`."""

    kept: dict[str, int]
    ended: dict[str, int]
    unwell: dict[str, list[int]]
    unwell_of: dict[str, list[int]]


class _Kept(msgspec.Struct, frozen=True):
    """How many children of each workflow have tasks, when that was counted, and while what it holds."""

    counts: dict[str, int]
    at: float
    settled: tuple[str, ...] | None


class Counting:
    """Counts the children of runs, for one client."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._over: OrderedDict[str, _Counted] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[_Kept]] = {}

    async def totals(self, located: Located, shape: Shape | None = None, counts: Counts | None = None) -> RunTotals:
        """Count the children of a run, in all, by step and by workflow."""
        shape = shape or await read_shape(self._session, self._declared, located)
        found = self._over.get(located.run)
        if found is None or located.outcome is None or found.ended.keys() != set(shape.steps):
            found = await self._count(located, shape, counts or self._session.store)
        totals = _in_all(found, shape)
        return RunTotals(
            run=located.run,
            root=located.root,
            status=state_of(located, begun=shape.begun or totals.spawned > 0),
            at=time(),
            totals=totals,
            steps=tuple(_step_totals(step, found, shape, totals) for step in shape.steps if step != ANY),
            workflows=tuple(_workflow_totals(workflow, found, totals) for workflow in found.kept),
            spawning=shape.spawning,
        )

    async def workflows(self, located: Located) -> Firsts:
        """Return the workflows of which a run has children whose tasks are stored, with their first steps."""
        known, firsts = self._kept.get(located.run), by_workflow(await self._declared.firsts())
        if known is None or (not (located.outcome is not None and known.settled) and monotonic() - known.at > FRESH):
            known = await self._kept_of(located, firsts, None, self._session.store)
        return {workflow: firsts.get(workflow, ()) for workflow in known.counts}

    async def _count(self, located: Located, shape: Shape, counts: Counts) -> _Counted:
        settled, known = _settled(located, shape), self._kept.get(located.run)
        if known is None or settled is None or known.settled != settled:
            known = await self._kept_of(located, shape.firsts, settled, counts)
        filters, stream = Filters(self._session.names), self._session.names.records_stream
        run = located.root, located.run
        ends = await asyncio.gather(*(counts.count(stream, filters.ends(*run, step=step)) for step in shape.steps))
        ended = dict(zip(shape.steps, ends, strict=True))
        several = list(known.counts) if len(known.counts) > 1 else []
        marks = await counts.count(stream, filters.marks(*run))
        is_over = located.outcome is not None and sum(known.counts.values()) == sum(ends)
        if marks and is_over and (verified := await self._verified(run, ended, known.counts, marks)) is not None:
            found = verified
        else:
            none = [0] * len(UNWELL)
            found = _Counted(
                known.counts,
                ended,
                await self._unwell(run, counts, "step", shape.steps) if marks else dict.fromkeys(shape.steps, none),
                await self._unwell(run, counts, "workflow", several) if marks else dict.fromkeys(several, none),
            )
        if is_over:
            _remember(self._over, located.run, found)
        return found

    async def _kept_of(
        self, located: Located, firsts: Firsts, settled: tuple[str, ...] | None, counts: Counts
    ) -> _Kept:
        """Count the children whose tasks are stored, once for all who ask at the same time."""
        run = located.run
        if run not in self._under_way:
            counting = asyncio.get_running_loop().create_task(self._count_kept(located, firsts, settled, counts))
            self._under_way[run] = counting
            counting.add_done_callback(lambda _: self._under_way.pop(run, None))
        return await asyncio.shield(self._under_way[run])

    async def _count_kept(
        self, located: Located, firsts: Firsts, settled: tuple[str, ...] | None, counts: Counts
    ) -> _Kept:
        """Count the children whose tasks are stored, by workflow."""
        names, filters = self._session.names, Filters(self._session.names)

        async def of(workflow: str, steps: tuple[str, ...]) -> int:
            subjects = [filters.first_tasks(located.root, located.run, workflow=workflow, step=step) for step in steps]
            return sum(await asyncio.gather(*(counts.count(names.tasks_stream, subject) for subject in subjects)))

        found = await asyncio.gather(*(of(workflow, steps) for workflow, steps in firsts.items()))
        there = {workflow: count for workflow, count in zip(firsts, found, strict=True) if count}
        kept = _Kept(there, monotonic(), settled)
        _remember(self._kept, located.run, kept)
        return kept

    async def _unwell(
        self, run: tuple[str, str], counts: Counts, what: str, chosen: Sequence[str]
    ) -> dict[str, list[int]]:
        """Count the marks of some steps, or of some workflows, by status."""
        filters, stream, size = Filters(self._session.names), self._session.names.records_stream, len(UNWELL)
        subjects = [filters.marks(*run, status=status, **{what: name}) for name in chosen for status in UNWELL]
        found = await asyncio.gather(*(counts.count(stream, subject) for subject in subjects))
        return {name: list(found[at * size : (at + 1) * size]) for at, name in enumerate(chosen)}

    async def _verified(
        self, run: tuple[str, str], ended: dict[str, int], kept: dict[str, int], marks: int
    ) -> _Counted | None:
        """Count by their ends those children that have marks; None where they are too many to be read at once.

        A mark may stand for an end that came to nothing: its worker died, and another one ended the run otherwise.
        """
        names, store = self._session.names, self._session.store
        read = await store.few(names.records_stream, [Filters(names).marks(*run)]) if marks <= VERIFIED else None
        if read is None or read.left:
            return None
        tokens = {last_token(message.subject): message.subject.split(".") for message in read.found}
        subjects = [names.run(*run, of[5], child) for child, of in tokens.items()]
        of_steps = {step: [0] * len(UNWELL) for step in ended}
        of_workflows = {workflow: [0] * len(UNWELL) for workflow in kept}
        for message in await collect(store.many(names.records_stream, subjects)):
            status = decode_outcome(message.body).status
            of = tokens[last_token(message.subject)]
            if status in UNWELL:
                at = UNWELL.index(status)
                for counted, name in ((of_steps, of[5] if of[5] in ended else ANY), (of_workflows, of[7])):
                    if name in counted:
                        counted[name][at] += 1
        return _Counted(kept, ended, of_steps, of_workflows)


def _settled(located: Located, shape: Shape) -> tuple[str, ...] | None:
    """Return while what the stored tasks of children stay as they are; None where they may change at any moment.

    While nobody spawns they do, until a further step begins. When a run is cancelled, they are removed.
    """
    if shape.spawning or not located.turns or shape.removed:
        return None
    status = "" if located.outcome is None else located.outcome.status
    return None if status == "cancelled" else (status, *sorted(shape.steps))


def _remember(known: OrderedDict[str, T], run: str, value: T) -> None:
    known[run] = value
    known.move_to_end(run)
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _in_all(found: _Counted, shape: Shape) -> Totals:
    kept, ended = sum(found.kept.values()), sum(found.ended.values())
    spawned = max(kept, shape.removed, ended, sum(shape.recorded.values()))
    is_open = min(kept, spawned - ended)
    return _totals(spawned, is_open, ended, [sum(found.unwell[step][at] for step in shape.steps) for at in range(3)])


def _totals(spawned: int, is_open: int, ended: int, unwell: list[int]) -> Totals:
    failed, cancelled, timed_out = _within(ended, unwell)
    return Totals(
        spawned=spawned,
        open=is_open,
        succeeded=ended - failed - cancelled - timed_out,
        failed=failed,
        cancelled=cancelled,
        timed_out=timed_out,
        removed=spawned - ended - is_open,
    )


def _within(ended: int, unwell: list[int]) -> list[int]:
    """Return the counts of marks, no more than there are ends: a mark is stored a moment before its end."""
    within: list[int] = []
    for count in unwell:
        within.append(min(count, ended - sum(within)))
    return within


def _step_totals(step: str, found: _Counted, shape: Shape, totals: Totals) -> StepTotals:
    """Return the totals of one step. How many one has spawned that goes on is known where only it does, or has."""
    ended = found.ended[step]
    others = [other for other in shape.steps if other != step]
    if step in shape.recorded:
        spawned = max(shape.recorded[step], ended)
    elif all(other in shape.recorded or not found.ended[other] for other in others):
        spawned = max(ended, totals.spawned - sum(shape.recorded.get(other, 0) for other in others))
    else:
        spawned = ended
    left = spawned - ended
    is_open = min(left, totals.open)
    return StepTotals(
        step=step, totals=_totals(spawned, is_open, ended, found.unwell[step]), sealed=step in shape.sealed
    )


def _workflow_totals(workflow: str, found: _Counted, totals: Totals) -> WorkflowTotals:
    """Return the totals of one workflow. Which of several the open children are of, no subject of an end tells."""
    if len(found.kept) == 1:
        return WorkflowTotals(
            workflow=workflow,
            spawned=totals.spawned,
            open=totals.open,
            succeeded=totals.succeeded,
            failed=totals.failed,
            cancelled=totals.cancelled,
            timed_out=totals.timed_out,
        )
    failed, cancelled, timed_out = found.unwell_of[workflow]
    spawned = found.kept[workflow]
    all_ended = totals.open == 0 and totals.removed == 0
    return WorkflowTotals(
        workflow=workflow,
        spawned=spawned,
        open=0 if all_ended else None,
        succeeded=max(0, spawned - failed - cancelled - timed_out) if all_ended else None,
        failed=failed,
        cancelled=cancelled,
        timed_out=timed_out,
    )
