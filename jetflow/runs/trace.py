"""The state of a run, put together from what the streams hold: its steps, their attempts, its children.

Nothing is written for this: who was asked, who answered and how often it was tried is what the protocol stores anyway.
Whether a task is queued or running is told by how far its consumer has delivered.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.graph import START, Graph
from jetflow.engine.tasks import NONE, Failure, Outcome, Status, Task
from jetflow.errors import BrokerRefused, MalformedRecord, UnknownRun
from jetflow.runs.cancelling import removed_children
from jetflow.runs.tasks import count_children
from jetflow.runs.values import with_output
from jetflow.wire.records import (
    MalformedTask,
    decode_attempt,
    decode_outcome,
    parse_task,
)
from jetflow.wire.subjects import last_token

State = Literal[
    "pending", "queued", "running", "waiting", "retrying", "succeeded", "failed", "cancelled", "timed_out", "skipped"
]


class AttemptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that ended without an outcome. Times are seconds since the epoch."""

    attempt: int
    worker: str
    started: float
    ended: float
    error: Failure | None = None


class StepTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one step stands. Times are seconds since the epoch.

    ``waiting`` means that its function has returned or was parked, and children are still open; ``retrying`` that it
    has failed, and is tried again at ``again``. ``turns`` counts how often it was begun, parked turns included;
    ``failures`` are the attempts that failed and were tried again.
    """

    name: str
    status: State
    after: tuple[str, ...] = ()
    turns: int = 0
    attempts: int = 0
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None
    again: float | None = None
    failures: tuple[AttemptTrace, ...] = ()


class ChildTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one child run stands. Times are seconds since the epoch."""

    id: str
    workflow: str
    step: str
    status: Literal["open"] | Status
    key: str | None = None
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a run has, by status. ``removed`` were spawned, and cancelled before they could end."""

    spawned: int = 0
    open: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    removed: int = 0


class RunTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one run stands. Times are seconds since the epoch.

    ``children`` is one page; give ``next_page`` to the next call to go on. ``totals`` counts all children. ``errors``
    holds the errors of all steps that failed, and ``error`` the first of them.
    """

    id: str
    workflow: str
    status: Literal["queued", "running"] | Status
    root: str
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    key: str | None = None
    metadata: Any = None
    version: str = ""
    triggered: float | None = None
    ended: float | None = None
    output: Any = None
    error: Failure | None = None
    errors: tuple[Failure, ...] = ()
    steps: tuple[StepTrace, ...] = ()
    totals: Totals = Totals()
    children: tuple[ChildTrace, ...] = ()
    next_page: str | None = None


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
    outcome = None if ended is None else decode_outcome(ended.body)
    if ended is not None and outcome is not None and values:
        outcome = await with_output(session, ended.subject.split(".")[3], outcome)
    if not tasks:
        if ended is None or outcome is None:
            raise UnknownRun(run)
        return _without_tasks(run, ended, outcome)
    first, message = tasks[0]
    graph = await _graph(session, first)
    steps = () if graph is None else await _steps(session, graph, tasks, outcome)
    totals, page, next_page = Totals(), (), None
    if children > 0:
        totals, (page, next_page) = await asyncio.gather(
            _totals(session, first.root, run), _children(session, first.root, run, children, int(after or 0))
        )
    begun = any(step.status not in ("pending", "queued") for step in steps)
    return RunTrace(
        id=run,
        workflow=first.workflow,
        status=outcome.status if outcome is not None else "running" if begun else "queued",
        root=first.root,
        parent=None if first.parent == NONE else first.parent,
        parent_step=None if first.parent == NONE else first.parent_step,
        depth=first.depth,
        key=first.key,
        metadata=None if first.metadata is None else msgspec.json.decode(first.metadata),
        version=first.version,
        triggered=message.time,
        ended=None if ended is None else ended.time,
        output=None if outcome is None else msgspec.json.decode(outcome.output),
        error=None if outcome is None else outcome.error,
        errors=() if outcome is None else outcome.failures,
        steps=steps,
        totals=totals,
        children=page,
        next_page=next_page,
    )


def _without_tasks(run: str, stored: Stored, outcome: Outcome) -> RunTrace:
    """Return the trace of a run that ended before its first task, or whose tasks are gone."""
    return RunTrace(
        id=run,
        workflow=outcome.workflow,
        status=outcome.status,
        root=stored.subject.split(".")[3],
        key=outcome.key,
        triggered=outcome.started or None,
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


async def _tasks(session: Session, run: str) -> list[tuple[Task, Stored]]:
    """Return the tasks of a run, oldest first."""
    names, store = session.names, session.store
    subjects = [
        subject
        async for page in store.leader_subjects(names.tasks_stream, names.tasks_of_run_id(run))
        for subject in page
    ]
    messages = await asyncio.gather(*(store.leader_last(names.tasks_stream, subject) for subject in subjects))
    found: list[tuple[Task, Stored]] = []
    for message in sorted((message for message in messages if message is not None), key=lambda one: one.sequence):
        try:
            found.append((parse_task(message.subject, message.headers, message.body), message))
        except MalformedTask:
            continue  # it was rejected, and never led to anything
    return found


# --- steps -----------------------------------------------------------------------------------------------------


async def _steps(
    session: Session, graph: Graph, tasks: list[tuple[Task, Stored]], outcome: Outcome | None
) -> tuple[StepTrace, ...]:
    names, store = session.names, session.store
    first = tasks[0][0]
    records = names.records_stream
    ended, joined, tried = await asyncio.gather(
        collect(store.pages(records, names.steps_of_run(first.root, first.run))),
        collect(store.pages(records, names.joins_of_run(first.root, first.run))),
        collect(store.pages(records, names.attempts_of_run(first.root, first.run))),
    )
    outcomes = {last_token(message.subject): decode_outcome(message.body) for message in ended}
    if outcome is not None and graph.sinks == (outcome.step,) and outcome.step not in outcomes:
        outcomes[outcome.step] = outcome  # the end of the only last step is the run's
    joins = {(message.subject.split(".")[5], int(last_token(message.subject))) for message in joined}
    due: dict[tuple[str, int], float] = {}
    failures: dict[str, list[AttemptTrace]] = {}
    for message in tried:
        record = decode_attempt(message.body)
        if record.again is not None:
            due[message.subject.split(".")[5], int(message.subject.split(".")[6])] = record.again
        if not record.returned:
            failures.setdefault(message.subject.split(".")[5], []).append(
                AttemptTrace(
                    attempt=record.attempt,
                    worker=record.worker,
                    started=record.started,
                    ended=record.ended,
                    error=record.error,
                )
            )
    traces: list[StepTrace] = []
    for node in graph.nodes:
        turns = [(task, message) for task, message in tasks if task.step == node.name]
        again = due.get((node.name, turns[-1][0].turn)) if turns else None
        trace = await _step(
            session, node.name, node.after, turns, outcomes.get(node.name), joins, failures.get(node.name, []), again
        )
        if outcome is not None and trace.status in _OPEN:  # cancelled as a whole, or failed fast
            trace = msgspec.structs.replace(trace, status="cancelled", again=None)
        traces.append(trace)
    return tuple(traces)


_OPEN: Final = ("pending", "queued", "running", "waiting", "retrying")


async def _step(
    session: Session,
    name: str,
    after: tuple[str, ...],
    turns: list[tuple[Task, Stored]],
    outcome: Outcome | None,
    joins: set[tuple[str, int]],
    failures: list[AttemptTrace],
    again: float | None,
) -> StepTrace:
    if not turns:
        return StepTrace(
            name=name,
            status="pending" if outcome is None else outcome.status,
            after=after,
            ended=None if outcome is None else outcome.ended or None,
            error=None if outcome is None else outcome.error,
        )
    task, message = turns[-1]
    status: State
    if outcome is not None:
        status = outcome.status
    elif (name, task.turn) in joins:
        status = "waiting" if again is None else "retrying"
    else:
        begun = len(turns) > 1 or bool(failures)
        status = "running" if begun or await _is_delivered(session, task, message) else "queued"
    return StepTrace(
        name=name,
        status=status,
        after=after,
        turns=len(turns),
        attempts=outcome.attempt if outcome is not None else len(failures) + (status in ("running", "waiting")),
        queued=turns[0][1].time,
        started=outcome.started or None if outcome is not None else None,
        ended=outcome.ended or None if outcome is not None else None,
        worker=outcome.worker or None if outcome is not None else None,
        error=outcome.error if outcome is not None else None,
        again=again if status == "retrying" else None,
        failures=tuple(failures),
    )


async def _is_delivered(session: Session, task: Task, message: Stored) -> bool:
    consumer = session.names.consumer(task.workflow, task.step)
    try:
        info = await session.connection.api(f"CONSUMER.INFO.{session.names.tasks_stream}.{consumer}")
    except BrokerRefused:
        return False
    return int(info["delivered"]["stream_seq"]) >= message.sequence


# --- children --------------------------------------------------------------------------------------------------


async def _totals(session: Session, root: str, run: str) -> Totals:
    names, store = session.names, session.store
    kept, taken, ended, failed, cancelled, timed_out = await asyncio.gather(
        count_children(session, root, run),
        removed_children(session, root, run),
        store.leader_count(names.records_stream, names.runs_of_parent(root, run)),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "failed")),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "cancelled")),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "timed_out")),
    )
    spawned = max(kept, taken, ended)  # a cancel that died, or is under way, has not removed what it counted
    still_open = min(kept, spawned - ended)
    return Totals(
        spawned=spawned,
        open=still_open,
        succeeded=max(0, ended - failed - cancelled - timed_out),
        failed=failed,
        cancelled=cancelled,
        timed_out=timed_out,
        removed=spawned - ended - still_open,
    )


async def _children(
    session: Session, root: str, run: str, size: int, after: int
) -> tuple[tuple[ChildTrace, ...], str | None]:
    names, store = session.names, session.store
    page: list[tuple[Task, Stored]] = []
    next_page: str | None = None
    async for messages in store.pages(names.tasks_stream, names.tasks_of_parent(root, run), after=after, size=size + 1):
        for message in messages:
            if len(page) == size:
                next_page = str(page[-1][1].sequence)
                break
            try:
                task = parse_task(message.subject, message.headers, message.body)
            except MalformedTask:
                continue
            graph = await _graph(session, task)
            if task.turn == 0 and (graph is None or task.step in (graph.first, START)):
                page.append((task, message))
        if next_page is not None:
            break
    ended = {
        last_token(message.subject): decode_outcome(message.body)
        for message in await collect(store.many(names.records_stream, [names.run_of(task) for task, _ in page]))
    }
    return tuple(_child(task, message, ended.get(task.run)) for task, message in page), next_page


def _child(task: Task, message: Stored, outcome: Outcome | None) -> ChildTrace:
    return ChildTrace(
        id=task.run,
        workflow=task.workflow,
        step=task.parent_step,
        status="open" if outcome is None else outcome.status,
        key=task.key,
        queued=message.time,
        started=None if outcome is None else outcome.started or None,
        ended=None if outcome is None else outcome.ended or None,
        worker=None if outcome is None else outcome.worker or None,
        error=None if outcome is None else outcome.error,
    )
