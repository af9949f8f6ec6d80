"""What is known of a run beside the counts of its children: who may have spawned, and what their records say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.graph import IMPLIED
from jetflow.engine.joins import JoinRecord
from jetflow.errors import MalformedRecord
from jetflow.runs.cancelling import removed_children
from jetflow.runs.located import Located
from jetflow.runs.query.declared import Declared
from jetflow.runs.step_traces import is_delivered
from jetflow.wire.filters import ANY
from jetflow.wire.records import decode_join, decode_outcome
from jetflow.wire.subjects import kind_of, last_token

Firsts: TypeAlias = dict[str, tuple[str, ...]]
"""First steps of workflows: of all versions."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run beside its counts.

    ``steps`` may have children, or ``*`` where none is known; ``sealed`` ones spawn no more, and ``recorded`` is how
    many those have spawned at least; ``exact`` is how many where nothing else can be stored under the step, and of the
    ``finished`` all children have ended. Those that have ``waited`` left no record, for all that they have spawned, if
    anything, had ended before them. ``firsts`` are the first steps of all workflows, by workflow, and ``removed``
    is how many children lost their tasks when it was cancelled.
    """

    steps: tuple[str, ...]
    sealed: frozenset[str]
    recorded: dict[str, int]
    exact: dict[str, int]
    finished: frozenset[str]
    waited: frozenset[str]
    firsts: Firsts
    removed: int
    begun: bool
    spawning: bool


async def read_shape(session: Session, declared: Declared, located: Located) -> Shape:
    """Read what is known of a run beside its counts."""
    names, store = session.names, session.store
    run = located.root, located.run
    records, removed, firsts = await asyncio.gather(
        store.all_of(names.records_stream, names.joins_of_run(*run), names.steps_of_run(*run)),
        removed_children(session, *run),
        declared.firsts(),
    )
    joined = [message for message in records if kind_of(message.subject) == "join"]
    ended = [message for message in records if kind_of(message.subject) == "step"]
    newest: dict[str, JoinRecord] = {}
    for message in joined:  # in stream order, so that the last one stands
        try:
            newest[message.subject.split(".")[5]] = decode_join(message.body)
        except MalformedRecord:
            continue
    begun = dict.fromkeys(turn.task.step for turn in located.turns if turn.task.step not in IMPLIED)
    done = {last_token(message.subject) for message in ended}
    well = {last_token(message.subject) for message in ended if decode_outcome(message.body).status == "succeeded"}
    if located.outcome is not None:
        done.update(begun)
        well.update(begun if located.outcome.status == "succeeded" else ())
    returned = {step: record for step, record in newest.items() if record.kind == "sealed"}
    sealed = frozenset(returned.keys() | done)
    return Shape(
        steps=tuple(dict.fromkeys((*begun, *newest))) or (ANY,),
        sealed=sealed,
        recorded={step: _needed(record) for step, record in returned.items()},
        exact={step: _needed(record) for step, record in returned.items() if _is_exact(record)},
        finished=frozenset(step for step, record in returned.items() if step in well and record.needed >= record.total),
        waited=frozenset(well - newest.keys()) if len(begun) > 1 else frozenset(),
        firsts=by_workflow(firsts),
        removed=removed,
        begun=bool(newest or ended) or await _has_begun(session, located),
        spawning=located.outcome is None and not sealed.issuperset(begun),
    )


def _needed(record: JoinRecord) -> int:
    return max(0, max(record.total, record.needed) - len(record.borrowed))


def _is_exact(record: JoinRecord) -> bool:
    """Tell whether a record counts all that is stored under its step: it does after a clean first attempt."""
    return record.clean and bool(record.id_sum) and record.whole is None


def by_workflow(firsts: Iterable[tuple[str, str]]) -> Firsts:
    """Return pairs of workflow and first step by workflow."""
    found: Firsts = {}
    for workflow, step in firsts:
        found[workflow] = (*found.get(workflow, ()), step)
    return found


async def _has_begun(session: Session, located: Located) -> bool:
    """Tell whether a run without records has begun: a task of it was delivered, or waits for a further turn."""
    if len(located.turns) != 1:
        return True
    [turn] = located.turns
    return await is_delivered(session, turn.task, turn.message)
