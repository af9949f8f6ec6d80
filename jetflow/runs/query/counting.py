"""How many children a run has: counts of what is stored, by any way of counting.

`read_totals` asks a `Counts` for each number: the store counts once, by direct get; a `watching` has one that keeps
counts on consumers of the broker. Nothing here lists children, so that a million of them are counted as a hundred are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import time
from typing import Final, Protocol, TypeAlias

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.graph import START
from jetflow.engine.joins import JoinRecord
from jetflow.errors import MalformedRecord
from jetflow.runs.cancelling import removed_children
from jetflow.runs.located import Located, state_of
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import RunTotals, StepTotals, WorkflowTotals
from jetflow.runs.step_traces import is_delivered
from jetflow.runs.trace import Totals
from jetflow.wire.filters import ANY, Filters
from jetflow.wire.records import decode_join
from jetflow.wire.subjects import last_token

Firsts: TypeAlias = dict[str, tuple[str, ...]]
"""First steps of workflows: of all versions."""

UNWELL: Final = ("failed", "cancelled", "timed_out")
"""The statuses that have marks."""


class Counts(Protocol):
    """Counts the messages of a filter."""

    async def count(self, stream: str, subject: str) -> int:
        """Return how many there are."""
        ...


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run beside its counts: who may have spawned, and what their records say.

    ``steps`` may have children, or ``*`` where none is known; ``sealed`` ones spawn no more, and ``recorded`` is how
    many those have spawned at least. ``firsts`` are the first steps of all workflows, by workflow, and ``removed`` is
    how many children lost their tasks when it was cancelled.
    """

    steps: tuple[str, ...]
    sealed: frozenset[str]
    recorded: dict[str, int]
    firsts: Firsts
    removed: int
    begun: bool
    spawning: bool


async def read_shape(session: Session, declared: Declared, located: Located) -> Shape:
    """Read what is known of a run beside its counts."""
    names, store = session.names, session.store
    joined, ended, removed, firsts = await asyncio.gather(
        collect(store.pages(names.records_stream, names.joins_of_run(located.root, located.run))),
        collect(store.pages(names.records_stream, names.steps_of_run(located.root, located.run))),
        removed_children(session, located.root, located.run),
        declared.firsts(),
    )
    newest: dict[str, JoinRecord] = {}
    for message in joined:  # in stream order, so that the last one stands
        try:
            newest[message.subject.split(".")[5]] = decode_join(message.body)
        except MalformedRecord:
            continue
    begun = dict.fromkeys(turn.task.step for turn in located.turns if turn.task.step != START)
    done = {last_token(message.subject) for message in ended}
    if located.outcome is not None:
        done.update(begun)
    returned = {step: record for step, record in newest.items() if record.kind == "sealed"}
    sealed = frozenset(returned.keys() | done)
    return Shape(
        steps=tuple(dict.fromkeys((*begun, *newest))) or (ANY,),
        sealed=sealed,
        recorded={
            step: max(0, max(record.total, record.needed) - len(record.borrowed)) for step, record in returned.items()
        },
        firsts=by_workflow(firsts),
        removed=removed,
        begun=bool(newest or ended) or await _has_begun(session, located),
        spawning=located.outcome is None and not sealed.issuperset(begun),
    )


async def workflows_of_children(session: Session, declared: Declared, located: Located) -> Firsts:
    """Return the workflows of which a run has children whose tasks are stored, with their first steps."""
    names, filters = session.names, Filters(session.names)
    firsts = await declared.firsts()
    counts = await asyncio.gather(
        *(
            session.store.count(
                names.tasks_stream, filters.first_tasks(located.root, located.run, workflow=workflow, step=step)
            )
            for workflow, step in firsts
        )
    )
    return by_workflow(first for first, count in zip(firsts, counts, strict=True) if count)


def by_workflow(firsts: Iterable[tuple[str, str]]) -> Firsts:
    """Return pairs of workflow and first step by workflow."""
    found: dict[str, tuple[str, ...]] = {}
    for workflow, step in firsts:
        found[workflow] = (*found.get(workflow, ()), step)
    return found


async def _has_begun(session: Session, located: Located) -> bool:
    """Tell whether a run without records has begun: a task of it was delivered, or waits for a further turn."""
    if len(located.turns) != 1:
        return True
    [turn] = located.turns
    return await is_delivered(session, turn.task, turn.message)


async def read_totals(session: Session, counts: Counts, located: Located, shape: Shape) -> RunTotals:
    """Count the children of a run, in all, by step and by workflow."""
    found = await _Counted.read(session, counts, located, shape)
    kept, ended = sum(found.kept.values()), sum(found.ended.values())
    spawned = max(kept, shape.removed, ended, sum(shape.recorded.values()))
    is_open = min(kept, spawned - ended)
    totals = _totals(spawned, is_open, ended, [sum(found.unwell[step][at] for step in shape.steps) for at in range(3)])
    return RunTotals(
        run=located.run,
        root=located.root,
        status=state_of(located, begun=shape.begun or spawned > 0),
        at=time(),
        totals=totals,
        steps=tuple(_step_totals(step, found, shape, totals) for step in shape.steps if step != ANY),
        workflows=tuple(_workflow_totals(workflow, found, totals) for workflow in found.kept),
        spawning=shape.spawning,
    )


class _Counted(msgspec.Struct, frozen=True):
    """The counts of a run: ends by step, tasks by workflow, marks by step and by workflow in the order of `UNWELL`."""

    ended: dict[str, int]
    kept: dict[str, int]
    unwell: dict[str, list[int]]
    unwell_of: dict[str, list[int]]

    @classmethod
    async def read(cls, session: Session, counts: Counts, located: Located, shape: Shape) -> _Counted:
        names, filters = session.names, Filters(session.names)
        run = located.root, located.run

        async def kept(workflow: str, steps: tuple[str, ...]) -> int:
            subjects = [filters.first_tasks(*run, workflow=workflow, step=step) for step in steps]
            return sum(await asyncio.gather(*(counts.count(names.tasks_stream, subject) for subject in subjects)))

        async def unwell(*, step: str = ANY, workflow: str = ANY) -> list[int]:
            subjects = [filters.marks(*run, step=step, status=status, workflow=workflow) for status in UNWELL]
            return await asyncio.gather(*(counts.count(names.records_stream, subject) for subject in subjects))

        tasks, ends, by_step = await asyncio.gather(
            asyncio.gather(*(kept(workflow, steps) for workflow, steps in shape.firsts.items())),
            asyncio.gather(
                *(counts.count(names.records_stream, filters.ends(*run, step=step)) for step in shape.steps)
            ),
            asyncio.gather(*(unwell(step=step) for step in shape.steps)),
        )
        there = {workflow: count for workflow, count in zip(shape.firsts, tasks, strict=True) if count}
        several = list(there) if len(there) > 1 else []
        of_workflows = await asyncio.gather(*(unwell(workflow=workflow) for workflow in several))
        return cls(
            ended=dict(zip(shape.steps, ends, strict=True)),
            kept=there,
            unwell=dict(zip(shape.steps, by_step, strict=True)),
            unwell_of=dict(zip(several, of_workflows, strict=True)),
        )


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
