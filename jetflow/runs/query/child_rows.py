"""Rows of children, from whatever a list was read from: their tasks, their marks, or how they ended.

What is missing of each is read for all of a page at once, by subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import time

from jetflow.broker.attendance import WAITED
from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.tasks import Failure, Outcome, Task
from jetflow.runs.missing import is_missed
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import ChildRow, ChildState
from jetflow.runs.tasks import triggered_at
from jetflow.wire.filters import Filters
from jetflow.wire.records import MalformedTask, Mark, decode_mark, decode_outcome, parse_task
from jetflow.wire.subjects import last_token


class ChildRows:
    """Makes rows of messages. Those that stand for no child are left out."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared

    async def of_tasks(self, messages: Iterable[Stored]) -> list[tuple[ChildRow, int]]:
        """Return a row for each first task of a child, and the sequence of its message."""
        first = [
            (task, message)
            for message in messages
            if (task := _task(message)) is not None
            and task.turn == 0
            and await self._declared.is_first(task.workflow, task.step)
        ]
        names = self._session.names
        ends = await self._many(names.records_stream, [names.run_of(task) for task, _ in first])
        by_run = {last_token(subject): stored for subject, stored in ends.items()}
        missed = await self._missed([one for one in first if one[0].run not in by_run])
        return [
            (
                _row(task, message, by_run.get(task.run), unattended=(task.workflow, task.version) in missed),
                message.sequence,
            )
            for task, message in first
        ]

    async def of_marks(self, messages: Sequence[Stored]) -> list[tuple[ChildRow, int]]:
        """Return a row for each mark of a child, and the sequence of the mark."""
        names = self._session.names
        tokens = [message.subject.split(".") for message in messages]
        subjects = [names.run(root, parent, step, run) for _, _, _, root, parent, step, _, _, run in tokens]
        where = [(workflow, root, parent, run) for _, _, _, root, parent, _, _, workflow, run in tokens]
        ends, tasks = await asyncio.gather(self._many(names.records_stream, subjects), self._tasks_of(where))
        return [
            (_row_of_mark(message, ends.get(subject), tasks.get(last_token(message.subject))), message.sequence)
            for message, subject in zip(messages, subjects, strict=True)
        ]

    async def of_ends(self, messages: Sequence[Stored]) -> list[tuple[ChildRow, int]]:
        """Return a row for each end of a child, and the sequence of the end."""
        outcomes = [decode_outcome(message.body) for message in messages]
        tokens = [message.subject.split(".") for message in messages]
        tasks = await self._tasks_of(
            [(outcome.workflow, t[3], t[4], t[6]) for outcome, t in zip(outcomes, tokens, strict=True)]
        )
        return [
            (_ended_row(t[6], t[5], outcome, tasks.get(t[6])), message.sequence)
            for message, outcome, t in zip(messages, outcomes, tokens, strict=True)
        ]

    async def _tasks_of(self, runs: Sequence[tuple[str, str, str, str]]) -> dict[str, Stored]:
        """Return the first tasks of some runs, each given by workflow, root, parent and run."""
        names = self._session.names
        firsts = {workflow: await self._declared.firsts(workflow) for workflow in {one[0] for one in runs}}
        subjects = [
            names.task(workflow, step, root, parent, run)
            for workflow, root, parent, run in runs
            for _, step in firsts[workflow]
        ]
        found = await self._many(names.tasks_stream, subjects)
        return {subject.split(".")[7]: stored for subject, stored in found.items()}

    async def _many(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        return {one.subject: one for one in await collect(self._session.store.many(stream, subjects))}

    async def _missed(self, open_ones: list[tuple[Task, Stored]]) -> set[tuple[str, str]]:
        """Return the workflows, by name and version, of which runs have waited for long and no worker runs them."""
        waiting = {(task.workflow, task.version) for task, message in open_ones if time() - message.time > WAITED}
        missed = await asyncio.gather(*(is_missed(self._session, *one) for one in waiting))
        return {one for one, is_one in zip(waiting, missed, strict=True) if is_one}


async def waited_for(session: Session, root: str, run: str, count: int) -> set[str]:
    """Return the workflows that the first children of a run wait for, and that no worker runs."""
    page, _ = await session.store.page(
        session.names.tasks_stream, Filters(session.names).first_tasks(root, run), size=count
    )
    rows = await ChildRows(session, Declared(session)).of_tasks(page)
    return {row.workflow for row, _ in rows if row.unattended}


def _task(message: Stored) -> Task | None:
    try:
        return parse_task(message.subject, message.headers, message.body)
    except MalformedTask:
        return None


def _row(task: Task, message: Stored, end: Stored | None, *, unattended: bool) -> ChildRow:
    if end is not None:
        return _ended_row(task.run, task.parent_step, decode_outcome(end.body), message)
    return ChildRow(
        id=task.run,
        workflow=task.workflow,
        step=task.parent_step,
        status="open",
        key=task.key,
        queued=triggered_at(message),
        unattended=unattended,
    )


def _ended_row(run: str, step: str, outcome: Outcome, message: Stored | None) -> ChildRow:
    task = None if message is None else _task(message)
    return ChildRow(
        id=run,
        workflow=outcome.workflow or ("" if task is None else task.workflow),
        step=step,
        status=child_state(outcome),
        key=outcome.key if task is None else task.key,
        queued=None if message is None else triggered_at(message),
        started=outcome.started or None,
        ended=outcome.ended or None,
        attempts=outcome.attempt,
        worker=outcome.worker or None,
        error=outcome.error,
    )


def _row_of_mark(message: Stored, end: Stored | None, task: Stored | None) -> ChildRow:
    _, _, _, _, _, step, status, workflow, run = message.subject.split(".")
    if end is not None:
        return _ended_row(run, step, decode_outcome(end.body), task)
    mark = decode_mark(message.body)
    return ChildRow(
        id=run,
        workflow=workflow,
        step=step,
        status=_marked(status),
        key=mark.key,
        queued=None if task is None else triggered_at(task),
        ended=message.time,
        error=failure_of_mark(mark),
    )


def _marked(status: str) -> ChildState:
    return "cancelled" if status == "cancelled" else "timed_out" if status == "timed_out" else "failed"


def failure_of_mark(mark: Mark) -> Failure | None:
    """Return the error that a mark tells of, in short; None of one that tells of none."""
    return Failure(mark.type, mark.message, mark.step, place=mark.place) if mark.type else None


def child_state(outcome: Outcome) -> ChildState:
    """Return how a run has ended. No run is skipped, so that one that says so was left out."""
    return "cancelled" if outcome.status == "skipped" else outcome.status
