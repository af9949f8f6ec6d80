"""Where a run stands: the runs above it up to its root, and its place among the children of its parent."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.tasks import NONE
from jetflow.errors import UnknownRun
from jetflow.runs.located import Located, locate, state_of
from jetflow.runs.query.declared import Declared
from jetflow.runs.trace import RunState
from jetflow.wire.filters import ANY, Filters

MOST_ABOVE: Final = 24
"""Runs above one that are read: of a deeper one those next to it, and the root."""


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a path. ``step`` is the step of the run above it that has spawned it."""

    id: str
    workflow: str
    status: RunState
    key: str | None = None
    step: str | None = None


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The path from the root to a run, both included. ``skipped`` runs below the root are left out of a long one.

    ``n`` is its place among the children of its parent in spawn order, from 0, where that is known.
    """

    path: tuple[Ancestor, ...]
    skipped: int = 0
    n: int | None = None


async def read_lineage(session: Session, declared: Declared, located: Located) -> Lineage:
    """Read the runs above one. What is not stored any more ends the path early."""
    place = asyncio.ensure_future(_place(session, declared, located))
    path, above, skipped = [_ancestor(located)], located.parent, 0
    depth = 0 if located.first is None else located.first.depth
    while above is not None:
        if len(path) == MOST_ABOVE and above != located.root:
            skipped, above = max(1, depth - MOST_ABOVE), located.root
        try:
            parent = await locate(session, above)
        except UnknownRun:
            break
        path.insert(0, _ancestor(parent))
        above = parent.parent
    return Lineage(path=tuple(path), skipped=skipped, n=await place)


def _ancestor(located: Located) -> Ancestor:
    first, outcome = located.first, located.outcome
    step = first.parent_step if first is not None else None
    if step is None and located.ended is not None:
        step = located.ended.subject.split(".")[5]
    return Ancestor(
        id=located.run,
        workflow=located.workflow,
        status=state_of(located, begun=True),
        key=first.key if first is not None else outcome.key if outcome is not None else None,
        step=None if step == NONE else step,
    )


async def _place(session: Session, declared: Declared, located: Located) -> int | None:
    """Count the tasks that its parent has published before; None where one of them may stand for no child."""
    first = located.first
    if first is None or first.parent == NONE:
        return None
    if not await declared.have_one_step(await declared.firsts(first.workflow)):
        return None
    names, sequence = session.names, located.turns[0].message.sequence
    subject = Filters(names).first_tasks(first.root, first.parent, workflow=first.workflow, step=ANY)
    count = session.store.count
    every, since = await asyncio.gather(
        count(names.tasks_stream, subject), count(names.tasks_stream, subject, after=sequence - 1)
    )
    return every - since
