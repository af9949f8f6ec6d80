"""`jetflow workers`: who works, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli.console import print_rows, printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson
from jetflow.cli.place import Place
from jetflow.cli.tables import table_of, took
from jetflow.runs.query.rows import RunningRow, WorkerRow


def workers(
    *,
    running: Annotated[bool, FLAG, Parameter(help="Show the steps that they run, too.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show the workers that answer within a second: slots, what waits in their memory, what they have done.

    ```
    jetflow workers --running
    ```
    """
    rows = place.ask(lambda client: client.workers())
    if as_json:
        print_rows(rows)
        return 0
    parts = [workers_of(rows)]
    if running:
        parts += [Text(), running_of([one for row in rows for one in row.running])]
    stdout().print(Group(*parts))
    return 0


def drain(
    worker: Annotated[str, Parameter(help="The worker's name, as `jetflow workers` tells it.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Tell a worker to take no more tasks. What it runs goes on, and it stays until it is stopped.

    ```
    jetflow drain build-7-4711
    ```
    """
    told = place.ask(lambda client: client.drain(worker))
    if as_json:
        print_json({"worker": worker, "told": told})
    else:
        print(f"{printable(worker)} takes no more tasks{'' if told == 1 else f' ({told} workers of that name)'}")
    return 0


def workers_of(rows: Sequence[WorkerRow]) -> RenderableType:
    """Return workers as a table."""
    if not rows:
        return Text("no worker answers: start one with `jetflow worker MODULE`", "dim")
    counts = ("waiting", "done", "failed", "retried")
    labels = ("labels",) if any(row.labels for row in rows) else ()
    table = table_of("worker", "up", "slots", *counts, "lag", "version", *labels, "workflows")
    now = time()
    for row in rows:
        table.add_row(
            Text(printable(row.name) + (" (stops)" if row.leaving else "")),
            Text(took(row.started, now)),
            Text(f"{row.used}/{row.slots}", "yellow" if row.used >= row.slots else ""),
            Text(f"{row.waiting:,}"),
            Text(f"{row.succeeded:,}"),
            Text(f"{row.failed:,}", "red" if row.failed else ""),
            Text(f"{row.retried:,}"),
            Text(f"{row.lag * 1000:.0f} ms", "red" if row.lag > 0.5 else ""),
            Text(printable(row.version)),
            *([Text(printable(", ".join(_label(*one) for one in row.labels.items())))] if labels else []),
            Text(", ".join(row.workflows)),
        )
    return table


def _label(name: str, value: object) -> str:
    return name if value is True else f"{name}={str(value).lower() if value is False else value}"


def running_of(rows: Sequence[RunningRow]) -> RenderableType:
    """Return running steps as a table, the longest first."""
    if not rows:
        return Text("no step runs", "dim")
    table = table_of("run", "workflow", "step", "state", "since", "attempt", "worker")
    now = time()
    for row in sorted(rows, key=lambda one: one.started or now):
        table.add_row(
            Text(row.run, no_wrap=True),
            Text(row.workflow),
            Text(row.step),
            Text(row.state, "cyan" if row.state == "running" else "yellow"),
            Text(took(row.started, now)),
            Text(str(row.attempt)),
            Text(printable(row.worker)),
        )
    return table
