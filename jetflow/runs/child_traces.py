"""The children of a run: how many there are by status, and where each of a page of them stands."""

from __future__ import annotations

import asyncio
from time import time

from jetflow.broker.attendance import WAITED
from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.graph import START
from jetflow.engine.tasks import Outcome, Task
from jetflow.errors import MalformedRecord
from jetflow.runs.cancelling import removed_children
from jetflow.runs.missing import is_missed
from jetflow.runs.tasks import count_children
from jetflow.runs.trace import ChildTrace, Totals
from jetflow.wire.records import MalformedTask, decode_outcome, parse_task
from jetflow.wire.subjects import last_token


async def read_totals(session: Session, root: str, run: str, *, at_least: int) -> Totals:
    """Count the children of a run by status. at_least so many were spawned, as its steps have recorded."""
    names, store = session.names, session.store
    kept, taken, ended, failed, cancelled, timed_out = await asyncio.gather(
        count_children(session, root, run),
        removed_children(session, root, run),
        store.leader_count(names.records_stream, names.runs_of_parent(root, run)),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "failed")),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "cancelled")),
        store.leader_count(names.records_stream, names.marks_of_parent(root, run, "timed_out")),
    )
    spawned = max(kept, taken, ended, at_least)  # a cancel that died, or is under way, has not removed what it counted
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


async def read_children(
    session: Session, root: str, run: str, size: int, after: int
) -> tuple[tuple[ChildTrace, ...], str | None]:
    """Return a page of a run's children, and what to ask for the next one by."""
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
            if task.turn == 0 and await _is_first(session, task):
                page.append((task, message))
        if next_page is not None:
            break
    ended = {
        last_token(message.subject): decode_outcome(message.body)
        for message in await collect(store.many(names.records_stream, [names.run_of(task) for task, _ in page]))
    }
    missed = await _missed(session, [one for one in page if one[0].run not in ended])
    traces = [
        _child(task, message, ended.get(task.run), unattended=(task.workflow, task.version) in missed)
        for task, message in page
    ]
    return tuple(traces), next_page


async def _missed(session: Session, open_ones: list[tuple[Task, Stored]]) -> set[tuple[str, str]]:
    """Return the workflows, by name and version, of which children have waited for long and no worker runs them."""
    waiting = {(task.workflow, task.version) for task, message in open_ones if time() - message.time > WAITED}
    missed = await asyncio.gather(*(is_missed(session, workflow, version) for workflow, version in waiting))
    return {one for one, is_one in zip(waiting, missed, strict=True) if is_one}


def _child(task: Task, message: Stored, outcome: Outcome | None, *, unattended: bool) -> ChildTrace:
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
        unattended=unattended and outcome is None,
    )


async def _is_first(session: Session, task: Task) -> bool:
    """Tell whether a task is the first of its run, as far as its graph can be read."""
    try:
        graph = await session.registry.graph(task.workflow, task.version)
    except MalformedRecord:
        graph = None
    return graph is None or task.step in (graph.first, START)
