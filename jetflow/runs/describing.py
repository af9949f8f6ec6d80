"""Describing a run: its trace is put together from what the streams hold.

Nothing is written for this: who was asked, who answered and how often it was tried is what the protocol stores anyway.
Whether a task is queued or running is told by how far its consumer has delivered.
"""

from __future__ import annotations

from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.elders import read_rerun
from jetflow.engine.gates import may_hold_places
from jetflow.engine.graph import ADMIT, Graph
from jetflow.engine.levels import at_level
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import MalformedRecord
from jetflow.runs.delays import DelayedRun
from jetflow.runs.located import Located
from jetflow.runs.rate_rows import read_turns
from jetflow.runs.rerunning import next_of
from jetflow.runs.standing import read_places
from jetflow.runs.step_traces import read_steps
from jetflow.runs.tasks import triggered_at
from jetflow.runs.trace import ChildRow, LargeValue, RunTrace, StepTrace
from jetflow.runs.values import size_of, with_output
from jetflow.wire.headers import Header

_NOT_BEGUN: Final = ("pending", "queued")


async def read_trace(session: Session, located: Located, *, values: bool = True) -> RunTrace:
    """Put together the state of a run, but for its children.

    Without ``values`` an output that is too large for its record is left out.
    """
    stored, ended = located.outcome, located.ended
    outcome = stored if stored is None or not values else await with_output(session, located.root, stored)
    if not located.turns:
        assert ended is not None, "a run that is stored has a task or an end"
        assert outcome is not None, "an end has an outcome"
        return _without_tasks(located, ended, outcome)
    turns = [(turn.task, turn.message) for turn in located.turns]
    first, message = turns[0]
    rerun = read_rerun(first.rerun)
    graph = await _graph(session, first)
    steps = () if graph is None else await read_steps(session, graph, turns, stored)
    begun = _has_begun(steps)
    return RunTrace(
        id=located.run,
        workflow=first.workflow,
        status=outcome.status if outcome is not None else "running" if begun else "queued",
        root=first.root,
        parent=None if first.parent == NONE else first.parent,
        parent_step=None if first.parent == NONE else first.parent_step,
        depth=first.depth,
        key=first.key,
        metadata=None if first.metadata is None else msgspec.json.decode(first.metadata),
        level=first.level if graph is None else at_level(first, graph).level,
        version=first.version,
        triggered=triggered_at(message),
        ended=None if ended is None else ended.time,
        input=_input(first),
        large_input=await _large_input(session, first),
        output=None if outcome is None else msgspec.json.decode(outcome.output),
        error=None if outcome is None else outcome.error,
        errors=() if outcome is None else outcome.failures,
        steps=steps,
        digest=first.digest,
        deadline=first.deadline,
        on_failure=None if graph is None else graph.on_failure,
        on_success=None if graph is None else graph.on_success,
        places=await read_places(session, first) if may_hold_places(first) and outcome is None else (),
        rates=await read_turns(session, first) if first.step == ADMIT and outcome is None and not begun else (),
        unattended=unattended(first.workflow, steps, ()),
        rerun_of=None if rerun is None else rerun.elder(first.workflow),
        rerun_only=None if rerun is None else rerun.only,
        rerun_as=None if outcome is None else await next_of(session, first),
    )


def describe_delayed(run: DelayedRun, stored: Stored) -> RunTrace:
    """Return what is known of a root run that has not begun: what it was asked for with."""
    metadata = stored.headers.get(Header.METADATA)
    try:
        given = msgspec.json.decode(stored.body) if stored.body else None
        told = None if metadata is None else msgspec.json.decode(metadata)
    except msgspec.DecodeError:
        given = told = None  # any client may have sent it: it will fail by name
    return RunTrace(
        id=run.id,
        workflow=run.workflow,
        status="scheduled",
        root=run.id,
        key=run.key,
        metadata=told,
        level=stored.headers.get(Header.LEVEL),
        input=given,
        digest=stored.headers.get(Header.DIGEST, ""),
        begins=run.at,
    )


def _has_begun(steps: tuple[StepTrace, ...]) -> bool:
    return any(step.status not in _NOT_BEGUN or step.turns > 1 for step in steps)


def unattended(workflow: str, steps: tuple[StepTrace, ...], children: tuple[ChildRow, ...]) -> tuple[str, ...]:
    """Return the workflows that steps of a run, and children of it, wait for in vain."""
    own = {workflow} if any(step.unattended for step in steps) else set[str]()
    return tuple(sorted(own | {child.workflow for child in children if child.unattended}))


def _input(task: Task) -> object:
    try:
        return msgspec.json.decode(task.input) if task.input else None
    except msgspec.DecodeError:
        return None  # any client may have sent it; its run has failed by name


async def _large_input(session: Session, task: Task) -> LargeValue | None:
    return None if task.value is None else LargeValue(task.value, await size_of(session, task.root, task.value))


def _without_tasks(located: Located, ended: Stored, outcome: Outcome) -> RunTrace:
    """Return the trace of a run that ended before its first task, or whose tasks are gone.

    When a cancelled one was triggered is gone with them.
    """
    return RunTrace(
        id=located.run,
        workflow=outcome.workflow,
        status=outcome.status,
        root=located.root,
        key=outcome.key,
        triggered=None if outcome.status == "cancelled" else outcome.started or None,
        ended=ended.time,
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
