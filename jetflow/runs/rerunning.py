"""Reruns of runs that have ended: which there are, and how one is begun. The rules are in `jetflow.engine.elders`.

Reruns make a chain: each run has one at most, whose id is derived from the first run of the chain and its number. So
whoever asks for it again finds it, and the newest is found by looking at a few ids at once.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.elders import ALL, FAILED, FROM, Elder, Rerun, next_elders, read_rerun, rerun_id
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import (
    AlreadyRerun,
    InputLost,
    InvalidInput,
    NothingToRerun,
    RecentlyDeleted,
    RunNotEnded,
    UnknownRun,
)
from jetflow.runs import points
from jetflow.runs.delays import is_delayed
from jetflow.runs.marks import was_deleted
from jetflow.runs.targets import Target, resolve, start_root
from jetflow.runs.values import LostValue, get
from jetflow.wire.records import MalformedTask, decode_outcome, parse_task

AT_ONCE: Final = 8
"""Reruns of a chain that are looked for at once. So many in a row may be deleted, and those behind them are found."""


class Ended(msgspec.Struct, frozen=True):
    """A run that has ended: a task of it, and its outcome."""

    task: Task
    outcome: Outcome

    @property
    def which(self) -> Rerun:
        """Which rerun it is; number 0 is the first of its chain."""
        told = read_rerun(self.task.rerun) if self.task.parent == NONE else None
        return told or Rerun(self.task.run, 0, FAILED)


def asked(only: str, from_step: str | None) -> str:
    """Return what is to be run again, as it stands in the header.

    Raises:
        InvalidInput: there is nothing of this name, or two things are asked for.
    """
    if from_step is not None:
        if only != FAILED:
            raise InvalidInput("a rerun is of only= what, or from_step=: give one of them")
        return f"{FROM}{from_step}"
    if only not in (FAILED, ALL):
        raise InvalidInput(f"only={only!r}: a rerun is of 'failed' or of 'all'; from_step= names a step")
    return only


async def rerun(
    session: Session, run: str, only: str, *, trace: str | None, timeout: float
) -> tuple[Task, Target, bool]:
    """Begin a rerun of a run that has ended. Returns its first task, and whether it is new.

    Raises:
        UnknownRun, RunNotEnded, NothingToRerun, AlreadyRerun, RecentlyDeleted, InputLost: it cannot be.
        UnknownWorkflow, InvalidInput: nobody declares its workflow any more, or the step from which it is to begin.
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    ended = await _ended(session, run)
    which = ended.which
    if only == FAILED and ended.outcome.status == "succeeded":
        raise NothingToRerun(run)
    workflow = ended.task.workflow
    again = Rerun(which.origin, which.number + 1, only)
    new = again.run(workflow)
    newest = await _newest(session, workflow, which)
    if newest is not None and newest.run != new:
        raise AlreadyRerun(run, newest.run)
    target = await resolve(session, workflow)
    await _check_step(session, workflow, again.step)
    if newest is None:
        task = await _first_task(session, ended, again, target, trace)
        if await was_deleted(session, new):
            raise RecentlyDeleted(workflow, task.key or f"rerun {again.number} of {which.origin}", new)
        points.before("start_rerun")
        created = await start_root(session, task, timeout=timeout)
        points.after("start_rerun")
        if created:
            return task, target, True
        newest = await _task_of(session, new)
    if newest is None or newest.rerun != str(again):
        raise AlreadyRerun(run, new)
    return newest, target, False


async def newest_of(session: Session, run: str) -> str:
    """Return the newest run of the chain that a run is in: itself, if it was never run again.

    Raises:
        UnknownRun: no run with this id is stored, and no rerun of it.
    """
    task = await _task_of(session, run)
    if task is None:
        stored = await session.store.leader_last(session.names.records_stream, session.names.run_by_id(run))
        if stored is None:
            raise UnknownRun(run)
        return run
    which = _which(task)
    newest = await _newest(session, task.workflow, which)
    return run if newest is None else newest.run


async def chain_of(session: Session, run: str) -> list[str]:
    """Return the runs of the chain that a run is in, the first one first, as far as they are stored.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    task = await _task_of(session, run)
    if task is None:
        return [await newest_of(session, run)]
    which = _which(task)
    found = [] if await _task_of(session, which.origin) is None else [which.origin]
    return found + [one.run for one in await _behind(session, task.workflow, Rerun(which.origin, 0, FAILED))]


async def next_of(session: Session, task: Task) -> str | None:
    """Return the run that one was run again as, if it was. ``task`` is of that one."""
    which = _which(task)
    new = rerun_id(task.workflow, which.origin, which.number + 1)
    return None if await _task_of(session, new) is None else new


def _which(task: Task) -> Rerun:
    told = read_rerun(task.rerun) if task.parent == NONE else None
    return told or Rerun(task.run, 0, FAILED)


async def _ended(session: Session, run: str) -> Ended:
    names, store = session.names, session.store
    task, stored = await asyncio.gather(
        _task_of(session, run), store.leader_last(names.records_stream, names.run_by_id(run))
    )
    if stored is None:
        if task is not None or await is_delayed(session, run):
            raise RunNotEnded(run)
        if await was_deleted(session, run):
            raise RecentlyDeleted("", run, run)
        raise UnknownRun(run)
    if task is None:  # a child whose tree was cancelled, or a run that failed before it had a task
        raise InputLost(run, "its tasks are not stored any more")
    if await was_deleted(session, task.root):
        raise RecentlyDeleted(task.workflow, task.key or run, run)
    return Ended(task, decode_outcome(stored.body))


async def _task_of(session: Session, run: str) -> Task | None:
    """Return a task of a run: all of them hold its input, and what was said of it when it was triggered."""
    names = session.names
    stored = await session.store.leader_last(names.tasks_stream, names.tasks_of_run_id(run))
    return None if stored is None else _read(stored)


def _read(stored: Stored) -> Task | None:
    try:
        return parse_task(stored.subject, stored.headers, stored.body)
    except MalformedTask:
        return None


async def _behind(session: Session, workflow: str, which: Rerun) -> list[Task]:
    """Return tasks of the reruns behind one of a chain, in their order."""
    found: list[Task] = []
    number, names = which.number + 1, session.names
    while True:
        ids = [rerun_id(workflow, which.origin, n) for n in range(number, number + AT_ONCE)]
        stored = await asyncio.gather(
            *(session.store.leader_last(names.tasks_stream, names.tasks_of_run(run, run)) for run in ids)
        )
        new = [task for one in stored if one is not None and (task := _read(one)) is not None]
        if not new:
            return found
        found += new
        number += AT_ONCE


async def _newest(session: Session, workflow: str, which: Rerun) -> Task | None:
    behind = await _behind(session, workflow, which)
    return behind[-1] if behind else None


async def _check_step(session: Session, workflow: str, step: str | None) -> None:
    if step is None:
        return
    graph = (await session.registry.find(workflow)).graph
    if step not in graph.upstream:
        raise InvalidInput(
            f"from_step={step!r}: workflow {workflow!r} has no such step, but {', '.join(map(repr, graph.upstream))}"
        )


async def _first_task(session: Session, ended: Ended, again: Rerun, target: Target, trace: str | None) -> Task:
    task, new = ended.task, again.run(ended.task.workflow)
    data = task.input
    if task.value is not None:
        try:
            data = await get(session, task.root, task.value)
        except LostValue as error:
            raise InputLost(task.run, str(error)) from error
    elder = None
    if again.only != ALL:
        elder = next_elders(Elder(task.root, task.run), ended.which.only, task.elder)
    return msgspec.structs.replace(
        task,
        step=target.first,
        root=new,
        parent=NONE,
        run=new,
        turn=0,
        parent_step=NONE,
        version=target.version,
        depth=0,
        digest=task.digest or target.input.digest(data),
        input=data,
        trace=trace,
        deadline=None if target.deadline is None else time() + target.deadline,
        eager=False,
        shared=False,
        value=None,
        tried=0,
        not_before=None,
        elder=elder,
        rerun=str(again),
        leveled=False,
    )
