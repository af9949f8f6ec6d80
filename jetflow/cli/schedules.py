"""`jetflow schedules` and `jetflow delayed`: what begins by itself, and what begins later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from time import time
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import RenderableType
from rich.text import Text

from jetflow.cli.console import print_rows, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.cli.tables import clock, table_of
from jetflow.client import Client
from jetflow.runs.delays import DelayedRun
from jetflow.scheduling import ScheduleRow

schedules: App = App(
    name="schedules",
    help="""Show and change what begins by itself: list, next, pause, ...

```
jetflow schedules
jetflow schedules next nightly --count 5
jetflow schedules pause nightly
jetflow schedules backfill nightly 2026-11-01T00:00Z 2026-11-08T00:00Z
```
""",
)

Name = Annotated[str, Parameter(help="The schedule's name.")]


@schedules.default
def list_schedules(
    workflow: Annotated[str | None, Parameter(help="Only those of this workflow.")] = None,
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show schedules: when each is due, and when it is due next."""
    rows = place.ask(lambda client: client.schedules.list(workflow))
    if as_json:
        print_rows(rows)
    else:
        stdout().print(schedules_of(rows))
    return 0


@schedules.command
def show(name: Name, /, *, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Show one schedule."""
    return _told(place.ask(lambda client: client.schedules.get(name)), as_json=as_json)


@schedules.command(name="next")
def next_ticks(
    name: Name,
    /,
    *,
    count: Annotated[int, Parameter(help="How many.")] = 10,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show when a schedule is due next, in UTC and in its zone."""

    async def ask(client: Client) -> list[datetime]:
        return await client.schedules.next(name, count)

    ticks = [tick.isoformat().replace("+00:00", "Z") for tick in place.ask(ask)]
    if as_json:
        print_json(ticks)
    else:
        print("\n".join(ticks))
    return 0


@schedules.command
def pause(name: Name, /, *, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Start nothing more by a schedule until it is resumed."""
    return _told(place.ask(lambda client: client.schedules.pause(name)), as_json=as_json)


@schedules.command
def resume(name: Name, /, *, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Let a schedule that was paused go on."""
    return _told(place.ask(lambda client: client.schedules.resume(name)), as_json=as_json)


@schedules.command
def delete(name: Name, /, *, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Remove a schedule. What it has started goes on."""
    place.ask(lambda client: client.schedules.delete(name))
    print(f"{name}: deleted")
    return 0


@schedules.command
def trigger(name: Name, /, *, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Start a run now, as a tick of this moment would."""
    run = place.ask(lambda client: client.schedules.trigger(name))
    _print_runs([run.id], as_json=as_json)
    return 0


@schedules.command
def backfill(
    name: Name,
    since: Annotated[str, Parameter(help="From when on, with a zone: 2026-11-01T00:00Z.")],
    until: Annotated[str, Parameter(help="Until when.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Start the runs of all ticks in a range of time. Those that were started before are not started again."""
    begin, end = _time(since), _time(until)
    runs = place.ask(lambda client: client.schedules.backfill(name, begin, end))
    _print_runs([run.id for run in runs], as_json=as_json)
    return 0


def delayed(
    workflow: Annotated[str | None, Parameter(help="Only those of this workflow.")] = None,
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show runs that have been asked for and begin later. `jetflow cancel RUN` forgets one, `reschedule` moves it.

    ```
    jetflow delayed send-mail
    ```
    """
    rows = place.ask(lambda client: client.delayed(workflow))
    if as_json:
        print_rows(rows)
    else:
        stdout().print(_delayed_of(rows))
    return 0


def reschedule(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    at: Annotated[str | None, Parameter(help="When it begins, with a zone: 2026-11-01T00:00Z.")] = None,
    delay: Annotated[float | None, Parameter(help="Or in how many seconds.")] = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Have a run that has not begun begin at another time.

    ```
    jetflow reschedule 0199b2c3d4e5f60718293a4b5c6d7e8f --at 2026-12-01T08:00+01:00
    jetflow reschedule 0199b2c3d4e5f60718293a4b5c6d7e8f --delay 3600
    ```
    """
    if (at is None) == (delay is None):
        raise UsageError("give either --at a time, or a --delay in seconds")
    when = None if at is None else _time(at)
    place.ask(lambda client: client.reschedule(run, at=when, delay=delay))
    if as_json:
        print_json({"run": run, "begins": time() + (delay or 0.0) if when is None else when.timestamp()})
    else:
        print(f"run {run} begins {f'in {delay:g} s' if when is None else f'at {when.isoformat()}'}")
    return 0


def schedules_of(rows: Sequence[ScheduleRow]) -> RenderableType:
    """Return schedules as a table."""
    if not rows:
        return Text("no schedules", "dim")
    table = table_of("schedule", "workflow", "when", "next", "missed", "overlap", "state")
    for row in rows:
        table.add_row(
            Text(row.name),
            Text(row.workflow),
            Text(when_of(row)),
            Text("" if row.next is None else clock(row.next)),
            Text(row.catch_up),
            Text(row.overlap),
            _state(row),
        )
    return table


def when_of(row: ScheduleRow) -> str:
    """Return in a few words when a schedule is due."""
    if row.cron is not None:
        return f"{row.cron} {row.tz}"
    if row.every is not None:
        return f"every {row.every:g} s"
    return f"{len(row.times)} times"


def _state(row: ScheduleRow) -> Text:
    if not row.known:
        return Text("nobody has its workflow", "bold red")
    if row.paused:
        return Text("paused", "magenta")
    if row.silent is not None and row.silent > time():
        return Text("starts nothing: its workflow is paused", "magenta")
    return Text("over", "dim") if row.next is None else Text("declared" if row.declared else "", "dim")


def _delayed_of(rows: Sequence[DelayedRun]) -> RenderableType:
    if not rows:
        return Text("no run begins later", "dim")
    table = table_of("run", "workflow", "key", "begins", "")
    for row in rows:
        put_off = Text("if nobody asks again" if row.debounced else "", "dim")
        table.add_row(Text(row.id), Text(row.workflow), Text(row.key or ""), Text(clock(row.at)), put_off)
    return table


def _told(row: ScheduleRow, *, as_json: bool) -> int:
    if as_json:
        print_json(msgspec.to_builtins(row))
    else:
        stdout().print(schedules_of([row]))
    return 0


def _print_runs(runs: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(runs)
    else:
        print("\n".join(runs) or "no tick in that time")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write it as 2026-11-01T00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
