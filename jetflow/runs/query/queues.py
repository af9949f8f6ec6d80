"""The queues of a namespace: one a step, as its consumer tells. Pausing is the broker's own, and outlives workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from time import time
from typing import Any, Final

from jetflow.broker.session import Session
from jetflow.broker.times import seconds_of, written
from jetflow.broker.topology import consumers_of
from jetflow.engine.expiring import Pause, Queue
from jetflow.engine.identity import is_name
from jetflow.engine.levels import BETWEEN, parts_of
from jetflow.errors import BrokerRefused, InvalidQuery
from jetflow.runs.expiring import hold, let_go_on, read_pauses
from jetflow.runs.query.rows import QueueRow
from jetflow.wire.subjects import Subjects

FOR_GOOD: Final = 100 * 365 * 86400.0
"""Seconds that a pause without an end lasts: the broker knows none."""


async def read_queues(session: Session) -> list[QueueRow]:
    """Return the queues of all steps that a worker has ever pulled, by workflow and step."""
    names = session.names
    found: list[dict[str, Any]] = []
    total, offset = 1, 0
    while offset < total:
        answer = await session.connection.api(f"CONSUMER.LIST.{names.tasks_stream}", {"offset": offset})
        page: list[dict[str, Any]] = answer.get("consumers") or []
        total, offset = int(answer.get("total", 0)), offset + len(page)
        found += [consumer for consumer in page if _is_of_step(consumer["name"])]
        if not page:
            break
    bounded = await read_pauses(session) if any(one.get("paused") for one in found) else {}
    rows = await asyncio.gather(*(_row(session, consumer, bounded) for consumer in found))
    return sorted(rows, key=lambda row: (row.workflow, row.step))


def _is_of_step(consumer: str) -> bool:
    workflow, _, step = consumer.partition("=")
    return bool(workflow and step)


async def _row(session: Session, consumer: dict[str, Any], bounded: Mapping[tuple[str, str], Pause]) -> QueueRow:
    workflow, _, step = consumer["name"].partition("=")
    limit = int(consumer["config"].get("max_ack_pending", -1))
    paused_for = int(consumer.get("pause_remaining") or 0)
    until = consumer["config"].get("pause_until")
    pause = bounded.get((workflow, step)) if until and paused_for else None
    return QueueRow(
        workflow=workflow,
        step=step,
        waiting=int(consumer["num_pending"]),
        oldest=await _oldest(session, workflow, step, consumer),
        held=int(consumer["num_ack_pending"]),
        redelivered=int(consumer["num_redelivered"]),
        limit=limit if limit > 0 else None,
        pulls=int(consumer.get("num_waiting", 0)),
        paused_until=_time(until) if until and paused_for else None,
        queue_ttl=None if pause is None else pause.ttl,
    )


async def _oldest(session: Session, workflow: str, step: str, consumer: dict[str, Any]) -> float | None:
    if not consumer["num_pending"]:
        return None
    names, after = session.names, int(consumer["delivered"]["stream_seq"])
    first = await session.store.first(names.tasks_stream, names.tasks_of_step(workflow, step), after=after)
    return None if first is None else first.time


def _time(text: str) -> float:
    return seconds_of(text) if text.endswith("Z") else datetime.fromisoformat(text).timestamp()


async def pause(session: Session, workflow: str, step: str | None, until: float | None, ttl: float | None) -> list[str]:
    """Have the broker give out no tasks of a workflow's steps, or of one; return which. ``until`` is a time.

    What waits there for longer than ``ttl`` seconds is cancelled meanwhile.

    Raises:
        InvalidQuery: no worker has ever pulled it.
    """
    steps = await _steps(session, workflow, step)
    end = time() + FOR_GOOD if until is None else until
    for name in steps:
        await _set(session, workflow, name, {"pause_until": written(end)})
    bounded = await read_pauses(session)
    for name in steps:
        if ttl is not None:
            await hold(session, Queue(workflow, name), ttl, until)
        elif (workflow, name) in bounded:
            await let_go_on(session, Queue(workflow, name))
    return steps


async def resume(session: Session, workflow: str, step: str | None) -> list[str]:
    """Have the broker give out tasks again; return of which steps.

    Raises:
        InvalidQuery: no worker has ever pulled it.
    """
    steps = await _steps(session, workflow, step)
    bounded = await read_pauses(session)
    for name in steps:  # before its tasks are given out: nothing is cancelled of what goes on
        if (workflow, name) in bounded:
            await let_go_on(session, Queue(workflow, name))
    for name in steps:
        await _set(session, workflow, name, None)
    return steps


async def _steps(session: Session, workflow: str, step: str | None) -> list[str]:
    name, level = parts_of(step or "-")
    for what, told in (("workflow", workflow), ("step", None if step is None else name), ("level", level)):
        if told is not None and not is_name(told):
            raise InvalidQuery(f"{told!r} is not the name of any {what}")
    if level is not None:
        return [f"{name}{BETWEEN}{level}"]
    if step is not None:  # with the queues of its levels, if it has any
        leveled = f"{workflow}{BETWEEN}{step}{BETWEEN}"
        consumers = await consumers_of(session.connection, session.names.tasks_stream)
        return [step, *(one.partition(BETWEEN)[2] for one in consumers if one.startswith(leveled))]
    steps = [row.step for row in await read_queues(session) if row.workflow == workflow]
    if not steps:
        raise InvalidQuery(f"no worker has ever run a step of {workflow!r}: there is no queue to pause or resume")
    return steps


async def _set(session: Session, workflow: str, step: str, body: dict[str, str] | None) -> None:
    names: Subjects = session.names
    try:
        await session.connection.api(f"CONSUMER.PAUSE.{names.tasks_stream}.{names.consumer(workflow, step)}", body)
    except BrokerRefused as error:
        if error.code != 404:
            raise
        raise InvalidQuery(
            f"no worker has ever run the step {step!r} of {workflow!r}: there is no queue to pause or resume"
        ) from None
