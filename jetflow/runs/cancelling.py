"""Cancelling a run with its tree.

Cancelling stores a mark that every worker hears of, records the run's outcome (so its parent's join goes on), and
removes the queued tasks of the tree with one purge for each parent, not one message for each task. What is running is
told to stop; what is spawned late is dropped by the worker that receives it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import time
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.effects import Procedure
from jetflow.engine.gates import may_hold_places
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import CANCELLED, NONE, Failure, Outcome, StepAddress, Task
from jetflow.engine.transitions import conclude_below, conclude_from_outside
from jetflow.errors import MalformedRecord, PermissionDenied, UnknownRun
from jetflow.runs.keeping import KeptTask
from jetflow.runs.leaving import leave_below
from jetflow.runs.marks import ALONE, REST, TREE
from jetflow.runs.tasks import count_children, find_first_task, task_of
from jetflow.wire.limits import LimitNames
from jetflow.wire.records import decode_outcome, encode
from jetflow.wire.subjects import run_of_task

CANCEL: Final = "_cancel"
"""Stands for a step where a cancel keeps what it has done: no step has such a name."""

REMOVED: Final = "removed"

REASON: Final = "reason"

PURGES_AT_ONCE: Final = 32

ASKED_FROM: Final = 0.5
"""Seconds from which on a task that was queued may be one that has waited for too long."""

Run: TypeAlias = Callable[[Procedure], Awaitable[Any]]
"""Drives a procedure to its end."""


async def cancel_run(session: Session, drive: Run, run: str, *, tree: bool = True, reason: Failure = CANCELLED) -> bool:
    """Cancel a run, and its descendants unless ``tree`` is false. Returns False if it had ended already.

    ``reason`` is what its outcome says.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    first = await find_first_task(session, run)
    names, store = session.names, session.store
    if first is None:
        if await store.leader_last(names.records_stream, names.run_by_id(run)) is None:
            raise UnknownRun(run)
        return False
    stored = await store.leader_last(names.records_stream, names.run_of(first))
    if stored is not None and decode_outcome(stored.body).status != "cancelled":
        return False
    if reason is not CANCELLED:  # whoever runs it hears of the mark, and may be the first to record how it ended
        await session.publisher.store(names.once(StepAddress(first.root, run, CANCEL), REASON), encode(reason))
    # The mark first, so that nothing more is spawned; then the outcome, without which whoever waits would wait for ever
    # if this client died; the queued tasks last, for workers drop what they still receive of a marked run.
    parents = await _mark_tree(session, first) if tree else []
    if not tree:
        await session.publisher.store(names.cancelled(first.root, run), ALONE)
    if tree:  # before its outcome is stored: until then whoever asks for this asks for it again
        await leave_below(session, drive, first.root, None if first.parent == NONE else parents)
    of = await _graph_with_limits(session, first)
    await drive(conclude_from_outside(first, cancelled(first, reason=reason), of))
    if tree:
        await _note_removed(session, first)
    await _remove_queued(session, first, parents)
    return stored is None


async def cancel_itself(session: Session, drive: Run, task: Task, reason: Failure) -> None:
    """Cancel the run of a task that is under way, with its descendants. It costs what the run has, and not its tree."""
    if task.parent == NONE:
        await cancel_run(session, drive, task.run, reason=reason)
        return
    names, root, run = session.names, task.root, task.run
    await session.publisher.store(names.once(StepAddress(root, run, CANCEL), REASON), encode(reason))
    await _mark(session, root, [run])
    parents = [run, *await _parents_below(session, root, [run])]
    await _mark(session, root, parents[1:])
    await leave_below(session, drive, root, parents)
    of = await _graph_with_limits(session, task)
    await drive(conclude_from_outside(task, cancelled(task, reason=reason), of))
    await _note_removed(session, task)
    await _remove_queued_below(session, root, parents)
    await purge(session, names.timers_stream, [names.timers_of_run(root, run)])


async def cancel_children(session: Session, drive: Run, join: StepAddress, children: set[bytes]) -> None:
    """Cancel open children of one step. Their queued tasks are dropped by the workers that receive them."""
    names = session.names
    tasks: list[Task] = []
    async for page in session.store.pages(names.tasks_stream, names.tasks_of_parent(join.root, join.run)):
        for stored in page:
            task = task_of(stored)
            if task is not None and bytes.fromhex(task.run) in children:
                children.discard(bytes.fromhex(task.run))
                tasks.append(task)
    runs = [task.run for task in tasks]
    await _mark(session, join.root, runs)
    await clear_below(session, drive, join.root, runs)  # a repetition passes over those that have outcomes
    cancelled_ones = set(runs)  # first what a repetition does not find again, for these have outcomes then
    async for timers in session.store.leader_subjects(names.timers_stream, names.timers_of_parent(join.root, join.run)):
        await purge(session, names.timers_stream, [one for one in timers if one.split(".")[-2] in cancelled_ones])
    versions = {(task.workflow, task.version): task for task in tasks}
    graphs = {of: await _graph_with_limits(session, task) for of, task in versions.items()}
    await asyncio.gather(
        *(drive(conclude_below(task, cancelled(task), graphs[task.workflow, task.version])) for task in tasks)
    )


async def clear_below(session: Session, drive: Run, root: str, runs: list[str]) -> None:
    """Mark the runs below some that are marked, as far as they have children, and have all of them leave all gates."""
    below = await _parents_below(session, root, runs)
    await _mark(session, root, below)
    await leave_below(session, drive, root, [*runs, *below])


async def _graph_with_limits(session: Session, task: Task) -> Graph | None:
    """Return the graph of a run if steps of it may have limits: nobody asks where there are none at all."""
    try:
        if not await session.optional.is_there(LimitNames(session.names).gates_stream):
            return None
        graph = await session.registry.graph(task.workflow, task.version)
    except (MalformedRecord, PermissionDenied):  # the net of a worker finds who stands there
        return None
    return graph if graph is not None and graph.limited else None


def cancelled(task: Task, worker: str = "", *, reason: Failure = CANCELLED) -> Outcome:
    """Return the outcome of a cancelled run."""
    now = time()
    return Outcome(
        status="cancelled",
        error=reason,
        workflow=task.workflow,
        step=task.step,
        key=task.key,
        started=now,
        ended=now,
        worker=worker,
    )


async def reason_of(session: Session, task: Task, queued: float) -> Failure:
    """Return why a run is cancelled: only one that may hold places of limits is for another reason than any.

    Or one whose task was ``queued`` for a while, in seconds: its queue may have been paused.
    """
    if queued < ASKED_FROM and not may_hold_places(task):
        return CANCELLED
    subject = session.names.once(StepAddress(task.root, task.run, CANCEL), REASON)
    stored = await session.store.leader_last(session.names.records_stream, subject)
    try:
        return CANCELLED if stored is None else msgspec.json.decode(stored.body, type=Failure)
    except msgspec.DecodeError:
        return CANCELLED


async def _mark_tree(session: Session, first: Task) -> list[str]:
    """Mark a run and its descendants as cancelled, and return which runs were marked."""
    marked = [first.root]
    if first.parent != NONE:
        marked = _descendants(await _families(session, first.root), first.run)
    await _mark(session, first.root, marked)
    return marked


async def _note_removed(session: Session, first: Task) -> None:
    """Store how many children of a run are about to lose their tasks: afterwards nobody could tell."""
    await note_removed(session, first, await count_children(session, first.root, first.run))


async def note_removed(session: Session, task: Task, children: int) -> None:
    """Store how many children a cancelled run had, write-once, if it had any."""
    if children:
        await session.publisher.store(
            session.names.once(StepAddress(task.root, task.run, CANCEL), REMOVED), encode(children)
        )


async def removed_children(session: Session, root: str, run: str) -> int:
    """Return how many children of a run have lost their tasks when it was cancelled."""
    subject = session.names.once(StepAddress(root, run, CANCEL), REMOVED)
    stored = await session.store.leader_last(session.names.records_stream, subject)
    try:
        return 0 if stored is None else max(0, msgspec.json.decode(stored.body, type=int))
    except msgspec.DecodeError:
        return 0


async def _remove_queued(session: Session, first: Task, parents: list[str]) -> None:
    """Remove the queued tasks of what cancelled runs have spawned."""
    names, root = session.names, first.root
    if parents == [root] and first.parent == NONE:
        kept = await KeptTask.read(session, first)
        await kept.keep()
        await purge(session, names.tasks_stream, [names.tasks_of_tree(root)])
        await purge(session, names.timers_stream, [names.timers_of_tree(root)])
        await kept.put_back()
        await kept.let_go()
    else:
        await _remove_queued_below(session, root, parents)
        await purge(session, names.timers_stream, [names.timers_of_run(root, first.run)])


async def _remove_queued_below(session: Session, root: str, parents: list[str]) -> None:
    names = session.names
    await purge(session, names.tasks_stream, [names.tasks_of_parent(root, parent) for parent in parents])
    await purge(session, names.timers_stream, [names.timers_of_parent(root, parent) for parent in parents])


async def _mark(session: Session, root: str, runs: Iterable[str]) -> None:
    """Store the marks that runs are cancelled with all that they have spawned."""

    async def mark(run: str) -> None:
        subject = session.names.cancelled(root, run)
        if not (await session.publisher.store(subject, TREE)).stored:
            stored = await session.store.leader_last(session.names.tasks_stream, subject)
            if stored is not None and (stored.body == ALONE or stored.body.startswith(REST)):
                await purge(session, session.names.tasks_stream, [subject])
                await session.publisher.store(subject, TREE)

    await asyncio.gather(*(mark(run) for run in runs))


async def _parents_below(session: Session, root: str, runs: Iterable[str]) -> list[str]:
    """Return the descendants of some runs that have children: sealed or parked, they are in no worker's memory."""
    names, gate = session.names, asyncio.Semaphore(PURGES_AT_ONCE)
    found: list[str] = []

    async def children_of(run: str) -> set[str]:
        async with gate:
            pages = session.store.leader_subjects(names.tasks_stream, names.tasks_of_parent(root, run))
            return {subject.split(".")[7] async for page in pages for subject in page}

    level = [child for children in await asyncio.gather(*map(children_of, runs)) for child in children]
    while level:
        families = zip(level, await asyncio.gather(*map(children_of, level)), strict=True)
        parents = {run: children for run, children in families if children}
        found += parents
        level = [child for children in parents.values() for child in children]
    return found


async def _families(session: Session, root: str) -> dict[str, set[str]]:
    """Return the children of every run of a tree, as far as their tasks are stored."""
    families: dict[str, set[str]] = {}
    names = session.names
    async for page in session.store.leader_subjects(names.tasks_stream, names.tasks_of_tree(root)):
        for subject in page:
            if run_of_task(subject) is not None:
                parent, run = subject.split(".")[6:8]
                families.setdefault(parent, set()).add(run)
    return families


def _descendants(families: dict[str, set[str]], run: str) -> list[str]:
    """Return a run and those of its descendants that have children, or may have."""
    found: list[str] = [run]
    for parent in found:
        found += [child for child in families.get(parent, ()) if child in families]
    return found


async def purge(session: Session, stream: str, subjects: Iterable[str]) -> int:
    """Remove what some filters hold, and return how many messages that were."""
    gate = asyncio.Semaphore(PURGES_AT_ONCE)

    async def purge_one(subject: str) -> int:
        async with gate:
            answer = await session.connection.api(f"STREAM.PURGE.{stream}", {"filter": subject}, timeout=60)
            return int(answer["purged"])

    return sum(await asyncio.gather(*(purge_one(subject) for subject in subjects)))
