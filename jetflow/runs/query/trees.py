"""What a run has spawned, and what that has spawned, rolled up: a node for each step and workflow, never for each run.

All first tasks of the tree are read, and all ends, each by a reading of its own. Who spawned is stored before what it
has spawned, so that one pass over the tasks finds all that is below a run. Of more than some hundred thousand the first
are rolled up, and the answer says so.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import msgspec

from jetflow.broker.growing import Growing
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.tasks import Task
from jetflow.runs.located import Located
from jetflow.runs.query.columns import End
from jetflow.runs.query.rows import Searched, Took, Totals, Tree, TreeNode
from jetflow.runs.query.shapes import Firsts
from jetflow.runs.tasks import triggered_at
from jetflow.wire.filters import Filters
from jetflow.wire.records import MalformedTask, parse_task

MOST_READ: Final = 200_000
"""Runs that are rolled up."""

FEW: Final = 10
"""Runs of a node up to which it names them."""

_read_end: Final = msgspec.json.Decoder(End).decode


class _Node:
    """Runs of one workflow that were spawned by one step, below runs that have a node in common."""

    def __init__(self, step: str, workflow: str) -> None:
        self.step = step
        self.workflow = workflow
        self.runs: list[str] = []
        self.keys: list[str | None] = []
        self.statuses: dict[str, int] = {}
        self.took: list[float] = []
        self.first: float = 0.0
        self.last: float = 0.0
        self.below: dict[tuple[str, str], _Node] = {}

    def begin(self, run: str, key: str | None, queued: float) -> None:
        self.runs.append(run)
        if len(self.keys) <= FEW:
            self.keys.append(key)
        self.first = min(self.first or queued, queued)

    def end(self, end: End) -> None:
        status = "cancelled" if end.status == "skipped" else end.status
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if end.started and end.ended:
            self.took.append(max(0.0, end.ended - end.started))
        self.last = max(self.last, end.ended)

    def told(self, depth: int) -> TreeNode:
        """Return it as it is answered, with ``depth`` levels below it."""
        ended = sum(self.statuses.values())
        took = sorted(self.took)
        counts = {status: self.statuses.get(status, 0) for status in ("succeeded", "cancelled", "timed_out")}
        failed = ended - sum(counts.values())
        return TreeNode(
            step=self.step,
            workflow=self.workflow,
            totals=Totals(spawned=len(self.runs), open=len(self.runs) - ended, failed=failed, **counts),
            took=Took.of(took),
            first=self.first or None,
            last=self.last or None,
            runs=tuple(self.runs) if len(self.runs) <= FEW else (),
            keys=tuple(self.keys) if len(self.runs) <= FEW else (),
            children=tuple(node.told(depth - 1) for node in self.below.values()) if depth > 1 else (),
            deeper=bool(self.below) and depth <= 1,
        )


async def read_tree(session: Session, located: Located, firsts: Firsts, depth: int) -> Tree:
    """Roll up what a run has spawned, ``depth`` levels of it."""
    names, filters = session.names, Filters(session.names)
    connection, store, root = session.connection, session.store, located.root
    tasks = Growing(connection, store, names.tasks_stream, filters.first_tasks(root), bodies=False)
    ends = Growing(connection, store, names.records_stream, filters.ends(root), bodies=True)
    top = _Node("", located.workflow)
    node_of = {located.run: top}
    try:
        async with aclosing(tasks.more()) as pages:
            async for page in pages:
                for message in page:
                    _add(node_of, message, firsts)
                if tasks.read >= MOST_READ:
                    break
        node_of.pop(located.run)
        async with aclosing(ends.more()) as pages:
            async for page in pages:
                for message in page:
                    if (node := node_of.get(message.subject[-32:])) is not None:
                        node.end(_end(message))
    finally:
        tasks.let_go()
        ends.let_go()
    return Tree(
        run=located.run,
        children=tuple(node.told(depth) for node in top.below.values()),
        searched=Searched(runs=tasks.read, complete=tasks.read >= tasks.expected),
    )


def _add(node_of: dict[str, _Node], message: Stored, firsts: Firsts) -> None:
    task = _task(message)
    above = None if task is None else node_of.get(task.parent)
    if task is None or above is None or task.step not in firsts.get(task.workflow, (task.step,)):
        return
    place = task.parent_step, task.workflow
    node = above.below.get(place)
    if node is None:
        node = above.below[place] = _Node(*place)
    if task.run not in node_of:
        node_of[task.run] = node
        node.begin(task.run, task.key, triggered_at(message))


def _task(message: Stored) -> Task | None:
    try:
        return parse_task(message.subject, message.headers, b"")
    except MalformedTask:
        return None


def _end(message: Stored) -> End:
    try:
        return _read_end(message.body)
    except (msgspec.DecodeError, RecursionError):
        return End()  # one that cannot be read has failed
