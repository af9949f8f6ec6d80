"""`jetflow queues`, `jetflow pause` and `jetflow resume`: what waits for workers, and holding it back."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import RenderableType
from rich.text import Text

from jetflow.cli.console import print_rows, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.cli.runs import age_of
from jetflow.cli.tables import clock, table_of, took
from jetflow.runs.query.rows import QueueRow


def queues(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Show the queue of each step: what waits and since when, what workers hold, limits, pauses.

    ```
    jetflow queues --server nats.example.com
    ```
    """
    rows = place.ask(lambda client: client.queues())
    if as_json:
        print_rows(rows)
    else:
        stdout().print(queues_of(rows))
    return 0


def queues_of(rows: Sequence[QueueRow]) -> RenderableType:
    """Return queues as a table. One that waits and that nobody pulls says so."""
    if not rows:
        return Text("no queue: no worker has run here yet", "dim")
    table = table_of("workflow", "step", "waiting", "oldest", "held", "redelivered", "limit", "state")
    now = time()
    for row in rows:
        table.add_row(
            Text(row.workflow),
            Text(row.step),
            Text(f"{row.waiting:,}", "yellow" if row.waiting else ""),
            Text(took(row.oldest, now)),
            Text(f"{row.held:,}"),
            Text(f"{row.redelivered:,}", "yellow" if row.redelivered else ""),
            Text("" if row.limit is None else f"{row.limit:,}"),
            _state(row, now),
        )
    return table


def _state(row: QueueRow, now: float) -> Text:
    if row.paused_until is not None:
        far = row.paused_until - now > 10 * 365 * 86400
        said = "paused" if far else f"paused until {clock(row.paused_until)}"
        return Text(said if row.queue_ttl is None else said + _cancelling(row.queue_ttl), "magenta")
    return Text("nobody pulls", "bold red") if row.waiting and not row.pulls and not row.held else Text()


def _cancelling(ttl: float) -> str:
    return f", cancels what has waited for {took(0.0, ttl)}"


def pause(
    workflow: Annotated[str, Parameter(help="The workflow's name.")],
    step: Annotated[str | None, Parameter(help="One step of it; else all that workers have run.")] = None,
    /,
    *,
    during: Annotated[str | None, Parameter(name="--for", help="How long: 90s, 15m, 2h; else until resume.")] = None,
    schedules: Annotated[
        Literal["queue", "drop"], Parameter(help="Ticks of its schedules meanwhile: runs that wait, or none.")
    ] = "queue",
    queue_ttl: Annotated[
        str | None, Parameter(help="Cancel runs that have waited in the pause for longer: 90s, 15m, 2h.")
    ] = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Have the server give out no tasks of a workflow, or of one step, to any worker. What runs goes on.

    ```
    jetflow pause send-mail --for 2h
    jetflow pause count-tree scan
    jetflow pause newsletter --queue-ttl 1h
    ```
    """
    until = None if during is None else time() + age_of(during, "--for")
    ttl = None if queue_ttl is None else age_of(queue_ttl, "--queue-ttl")

    steps = place.ask(lambda client: client.pause(workflow, step, until=until, schedules=schedules, queue_ttl=ttl))
    if as_json:
        print_json({"workflow": workflow, "steps": steps, "paused": True, "until": until, "queue_ttl": ttl})
    else:
        ends = "" if until is None else f" until {clock(until)}"
        print(f"{workflow}: {', '.join(steps)} paused{ends}{'' if ttl is None else _cancelling(ttl)}")
    return 0


def resume(
    workflow: Annotated[str, Parameter(help="The workflow's name.")],
    step: Annotated[str | None, Parameter(help="One step of it; else all that workers have run.")] = None,
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Have the server give out tasks again that were paused. The first may take some seconds.

    ```
    jetflow resume send-mail
    ```
    """
    steps = place.ask(lambda client: client.resume(workflow, step))
    if as_json:
        print_json({"workflow": workflow, "steps": steps, "paused": False})
    else:
        print(f"{workflow}: {', '.join(steps)} resumed")
    return 0
