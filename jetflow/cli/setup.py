"""`jetflow setup`: streams and consumers made ahead of time, and brought up to what this jetflow needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from cyclopts import Parameter

from jetflow.broker.connection import Connection
from jetflow.broker.layout import (
    Difference,
    EventsConsumer,
    StepConsumer,
    Wanted,
    changes_of,
    missing_consumers,
    set_up,
    set_up_consumers,
)
from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.loading import load_workflows
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.engine.levels import parts_of
from jetflow.settings import value_of
from jetflow.wire.events import EventNames
from jetflow.wire.subjects import Subjects
from jetflow.worker.options import WorkerOptions
from jetflow.workflow import Workflow


def setup(
    *targets: Annotated[str, Parameter(help="Workflows whose consumers are made as well: pkg.mod, path/to/file.py.")],
    check: Annotated[bool, FLAG, Parameter(help="Only say what would change; then the status is 1.")] = False,
    replicas: Annotated[int | None, Parameter(help="Replicas of each stream; else they stay.")] = None,
    max_bytes: Annotated[int | None, Parameter(help="Bytes of each stream that refuses what is new.")] = None,
    ack_wait: Annotated[float, Parameter(help="Seconds of silence after which a task goes to another worker.")] = (
        WorkerOptions().ack_wait
    ),
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Make the streams of a namespace, and bring those of an older jetflow up to this one, in place.

    Workers and clients whose users may not do so themselves then find all that they need. Name the workflows to have
    the consumers of their steps made, too. Ages, sizes and replicas that somebody has chosen stay.

    ```
    jetflow setup flows.py --replicas 3
    jetflow setup flows.py --check
    ```
    """
    for name, value in (("replicas", replicas), ("max-bytes", max_bytes), ("ack-wait", ack_wait)):
        if value is not None and value <= 0:
            raise UsageError(f"--{name} is {value}: it must be above 0")
    consumed = _consumed(load_workflows(targets)) if targets else None
    changes = loop.run(_apply(place, Wanted(replicas=replicas, max_bytes=max_bytes), consumed, ack_wait, check=check))
    _print(changes, check=check, as_json=as_json)
    return 1 if (check and changes) or any(change.refused for change in changes) else 0


async def _apply(
    place: Place, wanted: Wanted, consumed: Consumed | None, ack_wait: float, *, check: bool
) -> list[Difference]:
    names = Subjects(value_of("namespace", place.namespace))
    async with await Connection.open(place.access()) as connection:
        if check:
            changes = await changes_of(connection, names, wanted, needs_all=True)
            absent = {change.stream for change in changes if not change.setting}
            if consumed is None:
                return changes
            events = EventNames(names).stream
            if absent & {names.tasks_stream, names.inbox_stream, names.timers_stream, events}:
                return changes  # consumers are those of streams
            return changes + await missing_consumers(connection, names, consumed.steps, consumed.events)
        changes = await set_up(connection, names, wanted)
        if consumed is not None and not any(change.refused for change in changes):
            changes += await set_up_consumers(connection, names, consumed.steps, consumed.events, ack_wait=ack_wait)
        return changes


class Consumed(NamedTuple):
    """Whose consumers are made."""

    steps: list[StepConsumer]
    events: list[EventsConsumer]


def _consumed(workflows: Sequence[Workflow[Any, Any]]) -> Consumed:
    found: list[StepConsumer] = []
    for workflow in workflows:
        for name in workflow.queues:
            step = workflow.find_step(parts_of(name)[0])
            found.append(StepConsumer(workflow.name, name, None if step is None else step.max_running))
    return Consumed(found, [EventsConsumer(one.name, one.declaration.on) for one in workflows if one.subscriptions])


def _print(changes: Sequence[Difference], *, check: bool, as_json: bool) -> None:
    if as_json:
        print_json([msgspec.to_builtins(change) for change in changes])
        return
    if not changes:
        print("all is as it has to be")
    for change in changes:
        if change.refused:
            print(f"not done: {change.told}", file=sys.stderr)
        else:
            print(f"{'would change' if check else 'done'}: {change.told}")
