"""Rows of root runs, from their first tasks, their marks, or their ends. What is missing is read for a whole page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import BrokerRefused
from jetflow.runs.query.child_rows import failure_of_mark
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import RunRow
from jetflow.runs.tasks import triggered_at
from jetflow.wire.records import MalformedTask, decode_mark, decode_outcome, parse_task
from jetflow.wire.subjects import last_token


class RootRows:
    """Makes rows of messages. Those that stand for no root run are left out."""

    def __init__(self, session: Session, declared: Declared) -> None:
        self._session = session
        self._declared = declared

    async def of_tasks(self, messages: Sequence[Stored]) -> list[tuple[RunRow, int]]:
        """Return a row for each first task of a root run, and the sequence of its message."""
        names = self._session.names
        first = [
            (task, message)
            for message in messages
            if (task := task_of_message(message)) is not None
            and await self._declared.is_first(task.workflow, task.step)
        ]
        subjects = [names.run_of(task) for task, _ in first]
        ends = {last_token(one.subject): one for one in await self._many(names.records_stream, subjects)}
        delivered = await self._delivered({(task.workflow, task.step) for task, _ in first if task.run not in ends})
        return [
            (
                row_of(task, message, ends.get(task.run))
                if task.run in ends
                else open_row(task, message, begun=delivered(task, message.sequence)),
                message.sequence,
            )
            for task, message in first
        ]

    async def of_marks(self, messages: Sequence[Stored]) -> list[tuple[RunRow, int]]:
        """Return a row for each mark of a root run, and the sequence of the mark."""
        names = self._session.names
        runs = [last_token(message.subject) for message in messages]
        ends_read = self._many(names.records_stream, [names.run(run, NONE, NONE, run) for run in runs])
        tasks_read = self._tasks_of(
            [(message.subject.split(".")[7], run) for message, run in zip(messages, runs, strict=True)]
        )
        ended, tasks = await asyncio.gather(ends_read, tasks_read)
        ends = {last_token(one.subject): one for one in ended}
        return [
            (_row_of_mark(message, ends.get(run), tasks.get(run)), message.sequence)
            for message, run in zip(messages, runs, strict=True)
        ]

    async def of_ends(self, messages: Sequence[Stored]) -> list[tuple[RunRow, int]]:
        """Return a row for each end of a root run, and the sequence of the end."""
        outcomes = [decode_outcome(message.body) for message in messages]
        runs = [last_token(message.subject) for message in messages]
        tasks = await self._tasks_of([(one.workflow, run) for one, run in zip(outcomes, runs, strict=True)])
        return [
            (_ended_row(run, outcome, message, tasks.get(run)), message.sequence)
            for run, outcome, message in zip(runs, outcomes, messages, strict=True)
        ]

    async def _tasks_of(self, runs: Sequence[tuple[str, str]]) -> dict[str, Stored]:
        """Return the first tasks of some root runs, each given by workflow and id."""
        names = self._session.names
        firsts = {workflow: await self._declared.firsts(workflow) for workflow in {one[0] for one in runs}}
        subjects = [
            names.task(workflow, step, run, NONE, run) for workflow, run in runs for _, step in firsts[workflow]
        ]
        return {one.subject.split(".")[7]: one for one in await self._many(names.tasks_stream, subjects)}

    async def _many(self, stream: str, subjects: Sequence[str]) -> list[Stored]:
        return await collect(self._session.store.many(stream, subjects))

    async def _delivered(self, steps: set[tuple[str, str]]) -> Callable[[Task, int], bool]:
        """Return what tells whether a task has been delivered, by how far its consumer has come."""
        come = dict(zip(steps, await asyncio.gather(*(self._come(*step) for step in steps)), strict=True))
        return lambda task, sequence: come.get((task.workflow, task.step), 0) >= sequence

    async def _come(self, workflow: str, step: str) -> int:
        names = self._session.names
        consumer = names.consumer(workflow, step)
        try:
            info = await self._session.connection.api(f"CONSUMER.INFO.{names.tasks_stream}.{consumer}")
        except BrokerRefused as error:
            if error.code != 404:
                raise
            return 0  # nobody has ever run it
        return int(info["delivered"]["stream_seq"])


def task_of_message(message: Stored) -> Task | None:
    """Return the task that a message asks for; None if it is none."""
    try:
        return parse_task(message.subject, message.headers, message.body)
    except MalformedTask:
        return None


def metadata_of(task: Task) -> Any:
    """Return the metadata of a run; None for none, or for what is no JSON."""
    try:
        return None if task.metadata is None else msgspec.json.decode(task.metadata)
    except msgspec.DecodeError:
        return None


def open_row(task: Task, message: Stored, *, begun: bool) -> RunRow:
    """Return the row of a root run that has not ended."""
    return RunRow(
        id=task.run,
        workflow=task.workflow,
        status="running" if begun else "queued",
        version=task.version,
        key=task.key,
        metadata=metadata_of(task),
        triggered=triggered_at(message),
        level=task.level,
    )


def row_of(task: Task, message: Stored, end: Stored | None) -> RunRow:
    """Return the row of a root run that has ended; of one without an end, as one that is queued."""
    if end is None:
        return open_row(task, message, begun=False)
    return _ended_row(task.run, decode_outcome(end.body), end, message)


def _ended_row(run: str, outcome: Outcome, end: Stored, message: Stored | None) -> RunRow:
    task = None if message is None else task_of_message(message)
    return RunRow(
        id=run,
        workflow=outcome.workflow or ("" if task is None else task.workflow),
        status="cancelled" if outcome.status == "skipped" else outcome.status,
        version="" if task is None else task.version,
        key=outcome.key if task is None else task.key,
        metadata=None if task is None else metadata_of(task),
        triggered=None if message is None else triggered_at(message),
        started=outcome.started or None,
        ended=end.time,
        worker=outcome.worker or None,
        error=outcome.error,
        level=None if task is None else task.level,
    )


def _row_of_mark(message: Stored, end: Stored | None, task: Stored | None) -> RunRow:
    run = last_token(message.subject)
    if end is not None:
        return _ended_row(run, decode_outcome(end.body), end, task)
    status, workflow = message.subject.split(".")[6:8]
    mark = decode_mark(message.body)
    outcome = Outcome(status="cancelled", workflow=workflow, key=mark.key, error=failure_of_mark(mark))
    if status in ("failed", "timed_out"):
        outcome = msgspec.structs.replace(outcome, status=status)
    return _ended_row(run, outcome, message, task)
