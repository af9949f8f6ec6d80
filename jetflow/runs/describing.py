"""Describing a run: its trace is put together from what the streams hold.

Nothing is written for this: who was asked, who answered and how often it was tried is what the protocol stores anyway.
Whether a task is queued or running is told by how far its consumer has delivered.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import MalformedRecord, UnknownRun
from jetflow.runs.child_traces import read_children, read_totals
from jetflow.runs.step_traces import StepRecords, Turn, read_steps
from jetflow.runs.tasks import triggered_at
from jetflow.runs.trace import ChildTrace, LargeValue, RunTrace, StepTrace, Totals
from jetflow.runs.values import size_of, with_output
from jetflow.wire.records import MalformedTask, decode_outcome, parse_task

_NOT_BEGUN: Final = ("pending", "queued")


async def read_trace(
    session: Session, run: str, *, children: int, after: str | None = None, values: bool = True
) -> RunTrace:
    """Put together the state of a run, with a page of at most ``children`` children.

    Without ``values`` an output that is too large for its record is left out.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    names, store = session.names, session.store
    tasks, ended = await asyncio.gather(
        _tasks(session, run), store.leader_last(names.records_stream, names.run_by_id(run))
    )
    stored = None if ended is None else decode_outcome(ended.body)
    outcome = stored
    if ended is not None and stored is not None and values:
        outcome = await with_output(session, ended.subject.split(".")[3], stored)
    if not tasks:
        if ended is None or outcome is None:
            raise UnknownRun(run)
        return await _without_tasks(session, run, ended, outcome, children)
    first, message = tasks[0]
    graph = await _graph(session, first)
    steps, spawned = ((), 0) if graph is None else await read_steps(session, graph, tasks, stored)
    totals, page, next_page = Totals(), tuple[ChildTrace, ...](), None
    if children > 0:
        totals, (page, next_page) = await asyncio.gather(
            read_totals(session, first.root, run, at_least=spawned),
            read_children(session, first.root, run, children, int(after or 0)),
        )
    return RunTrace(
        id=run,
        workflow=first.workflow,
        status=outcome.status if outcome is not None else "running" if _has_begun(steps) else "queued",
        root=first.root,
        parent=None if first.parent == NONE else first.parent,
        parent_step=None if first.parent == NONE else first.parent_step,
        depth=first.depth,
        key=first.key,
        metadata=None if first.metadata is None else msgspec.json.decode(first.metadata),
        version=first.version,
        triggered=triggered_at(message),
        ended=None if ended is None else ended.time,
        input=_input(first),
        large_input=await _large_input(session, first),
        output=None if outcome is None else msgspec.json.decode(outcome.output),
        error=None if outcome is None else outcome.error,
        errors=() if outcome is None else outcome.failures,
        steps=steps,
        totals=totals,
        children=page,
        next_page=next_page,
        unattended=_unattended(first.workflow, steps, page),
    )


def _has_begun(steps: tuple[StepTrace, ...]) -> bool:
    return any(step.status not in _NOT_BEGUN or step.turns > 1 for step in steps)


def _unattended(workflow: str, steps: tuple[StepTrace, ...], children: tuple[ChildTrace, ...]) -> tuple[str, ...]:
    own = {workflow} if any(step.unattended for step in steps) else set[str]()
    return tuple(sorted(own | {child.workflow for child in children if child.unattended}))


def _input(task: Task) -> object:
    try:
        return msgspec.json.decode(task.input) if task.input else None
    except msgspec.DecodeError:
        return None  # any client may have sent it; its run has failed by name


async def _large_input(session: Session, task: Task) -> LargeValue | None:
    return None if task.value is None else LargeValue(task.value, await size_of(session, task.root, task.value))


async def _without_tasks(session: Session, run: str, stored: Stored, outcome: Outcome, children: int) -> RunTrace:
    """Return the trace of a run that ended before its first task, or whose tasks are gone.

    When a cancelled one was triggered is gone with them.
    """
    root, totals = stored.subject.split(".")[3], Totals()
    if children > 0:
        totals = await read_totals(session, root, run, at_least=(await StepRecords.read(session, root, run)).spawned())
    return RunTrace(
        id=run,
        workflow=outcome.workflow,
        status=outcome.status,
        root=root,
        totals=totals,
        key=outcome.key,
        triggered=None if outcome.status == "cancelled" else outcome.started or None,
        ended=stored.time,
        output=msgspec.json.decode(outcome.output),
        error=outcome.error,
        errors=outcome.failures,
    )


async def _graph(session: Session, task: Task) -> Graph | None:
    """Return the graph of a task's run; None if it is not stored, or cannot be read."""
    try:
        return await session.registry.graph(task.workflow, task.version)
    except MalformedRecord:
        return None


async def _tasks(session: Session, run: str) -> list[Turn]:
    """Return the tasks of a run, oldest first."""
    names, store = session.names, session.store
    subjects = [
        subject
        async for page in store.leader_subjects(names.tasks_stream, names.tasks_of_run_id(run))
        for subject in page
    ]
    messages = await asyncio.gather(*(store.leader_last(names.tasks_stream, subject) for subject in subjects))
    found: list[Turn] = []
    for message in sorted((message for message in messages if message is not None), key=lambda one: one.sequence):
        try:
            found.append((parse_task(message.subject, message.headers, message.body), message))
        except MalformedTask:
            continue  # it was rejected, and never led to anything
    return found
