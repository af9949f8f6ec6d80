"""Finding a run by its id: which tree it is of, which tasks it has, whether and how it has ended.

Two requests that any replica answers and that hold up nobody. They name the tree: a run is looked for as the root of
one first, and the tree of a child is remembered. A filter that leaves the tree open makes the server go through the
subjects of all runs, and is for a child that was never seen. What a replica does not have, the leader is asked for.
"""

from __future__ import annotations

import asyncio

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.errors import UnknownRun
from jetflow.runs.trace import RunState
from jetflow.wire.records import MalformedTask, decode_outcome, parse_task


class Turn(msgspec.Struct, frozen=True):
    """A task, and the message that it stands in."""

    task: Task
    message: Stored


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """A stored run: its tasks, oldest first (none where they are gone), and its end, if it has one."""

    run: str
    root: str
    turns: tuple[Turn, ...] = ()
    ended: Stored | None = None
    outcome: Outcome | None = None

    @property
    def first(self) -> Task | None:
        """Its first task."""
        return self.turns[0].task if self.turns else None

    @property
    def workflow(self) -> str:
        """Its workflow; empty where nothing tells."""
        return self.turns[0].task.workflow if self.turns else self.outcome.workflow if self.outcome else ""

    @property
    def parent(self) -> str | None:
        """The run that has spawned it; None of a root run."""
        parent = self.turns[0].task.parent if self.turns else self.ended.subject.split(".")[4] if self.ended else NONE
        return None if parent == NONE else parent


async def locate(session: Session, run: str) -> Located:
    """Find a run.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    names, store = session.names, session.store
    root = session.roots.get(run, run)
    messages, ended = await _stored(session, names.tasks_of_run(root, run), names.run_of_tree(root, run))
    if not messages and ended is None:
        messages, ended = await _stored(session, names.tasks_of_run_id(run), names.run_by_id(run))
    if not messages and ended is None:
        ended = await store.leader_last(names.records_stream, names.run_by_id(run))
        lone = await store.leader_last(names.tasks_stream, names.tasks_of_run_id(run))
        messages = [] if lone is None else [lone]
    turns = tuple(turn for message in messages if (turn := _turn(message)) is not None)
    if not turns and ended is None:
        raise UnknownRun(run)
    root = turns[0].task.root if turns else ended.subject.split(".")[3] if ended is not None else run
    if root != run:
        session.remember_root(run, root)
    outcome = None if ended is None else decode_outcome(ended.body)
    return Located(run=run, root=root, turns=turns, ended=ended, outcome=outcome)


async def _stored(session: Session, tasks: str, end: str) -> tuple[list[Stored], Stored | None]:
    """Return a run's tasks, oldest first, and its end, under two filters."""
    names, store = session.names, session.store
    found, ends = await asyncio.gather(store.all_of(names.tasks_stream, tasks), store.few(names.records_stream, [end]))
    return found, ends.found[0] if ends is not None and ends.found else None


def _turn(message: Stored) -> Turn | None:
    try:
        return Turn(parse_task(message.subject, message.headers, message.body), message)
    except MalformedTask:
        return None  # it was rejected, and never led to anything


def state_of(located: Located, *, begun: bool) -> RunState:
    """Return where a run stands, whose first step has ``begun`` or not."""
    if located.outcome is None:
        return "running" if begun else "queued"
    status = located.outcome.status
    return "succeeded" if status == "skipped" else status
