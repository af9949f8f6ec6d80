"""`jetflow top`: queues, workers, running roots and failures on one screen, live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from jetflow.cli import loop
from jetflow.cli.console import printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.cli.tables import status_text, took
from jetflow.client import Client
from jetflow.errors import BrokerError
from jetflow.runs.query.rows import Bucket, ErrorGroups, Page, QueueRow, RunRow, WorkerRow

WINDOW: Final = 3600.0
"""Seconds that failures and ends are counted over."""

LOOKED_AT: Final = 10
"""Root runs that are shown at most."""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on in a namespace, at one moment."""

    at: float
    queues: list[QueueRow]
    workers: list[WorkerRow]
    open: Page[RunRow]
    errors: ErrorGroups
    history: list[Bucket]


def top(
    *,
    every: Annotated[float, Parameter(help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, FLAG, Parameter(help="Look once, and end.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show what goes on, until Ctrl-C: queues, workers, open runs, and the failures of the last hour.

    Where stdout is no terminal, or with --json, it looks once.

    ```
    jetflow top --every 5
    ```
    """
    if every < 0.5:
        raise UsageError(f"--every is {every:g}: it must be 0.5 or more")
    return loop.run(_top(place, every, once=once, as_json=as_json))


async def _top(place: Place, every: float, *, once: bool, as_json: bool) -> int:
    console = stdout()
    async with place.look() as client:
        overview = await read_overview(client)
        if as_json:
            print_json(msgspec.to_builtins(overview))
            return 0
        if once or not console.is_terminal:
            console.print(overview_of(overview, height=1000))
            return 0
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(overview_of(overview, height=max(5, console.height - 1)), refresh=True)
                await asyncio.sleep(every)
                try:
                    overview = await read_overview(client)
                except BrokerError:
                    continue  # the last state stays, with its age


async def read_overview(client: Client) -> Overview:
    """Ask for all of it at once."""
    now = time()
    queues, workers, open_runs, errors, history = await asyncio.gather(
        client.queues(),
        client.workers(),
        client.runs(status="open", limit=LOOKED_AT),
        client.errors(since=now - WINDOW, limit=5),
        client.history(since=now - WINDOW, buckets=60),
    )
    return Overview(at=now, queues=queues, workers=workers, open=open_runs, errors=errors, history=history)


def overview_of(seen: Overview, *, height: int) -> RenderableType:
    """Return an overview on at most ``height`` lines, each of which is one line of the screen."""
    waiting = sum(row.waiting for row in seen.queues)
    used, slots = sum(row.used for row in seen.workers), sum(row.slots for row in seen.workers)
    ended = sum(bucket.ended for bucket in seen.history)
    stale = time() - seen.at
    head = Text.assemble(
        ("jetflow top  ", "bold"),
        f"{waiting:,} waiting  {used}/{slots} slots of {len(seen.workers)} workers  ",
        f"{ended:,} root runs and {seen.errors.total:,} failures in the last hour",
        (f"  as of {took(0.0, stale)} ago" if stale > 5 else "", "bold red"),
    )
    if waiting and not seen.workers:
        head.append("  no worker answers", "bold red")
    sections = [
        _section("queues that wait", [_queue(row) for row in _busy(seen.queues)]),
        _section("open root runs", [_run(row, seen.at) for row in seen.open.items]),
        _section("failures", [_failure(seen.errors, at) for at in range(len(seen.errors.items))]),
        _section("workers", [_worker(row) for row in seen.workers]),
    ]
    lines, room = [head], height - 1
    for at, section in enumerate(sections):
        share = max(2, room // (len(sections) - at))
        cut = (
            section if len(section) <= share else [*section[: share - 1], Text(f"  … {len(section) - share + 1} more")]
        )
        lines += cut[:room]
        room = height - len(lines)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines[:height])


def _section(title: str, lines: list[Text]) -> list[Text]:
    return [Text(title, "dim"), *(lines or [Text("  none", "dim")])]


def _busy(rows: Sequence[QueueRow]) -> list[QueueRow]:
    return sorted((row for row in rows if row.waiting or row.paused_until), key=lambda row: row.oldest or 0.0)


def _queue(row: QueueRow) -> Text:
    oldest = f"  oldest {took(row.oldest, time())}" if row.oldest else ""
    text = Text(f"  {row.workflow} {row.step}  {row.waiting:,} waiting  {row.held:,} held{oldest}")
    return text.append("  paused", "magenta") if row.paused_until else text


def _run(row: RunRow, now: float) -> Text:
    key = f" {printable(row.key)}" if row.key else ""
    return Text.assemble(f"  {row.id}  ", status_text(row.status), f"  {row.workflow}{key}  {took(row.triggered, now)}")


def _failure(found: ErrorGroups, at: int) -> Text:
    group = found.items[at]
    text = f"{group.workflow}  {printable(group.type)}: {printable(group.message)}  {printable(group.place)}"
    return Text.assemble((f"  {group.count:,} x ", "bold red"), text)


def _worker(row: WorkerRow) -> Text:
    return Text(f"  {printable(row.name)}  {row.used}/{row.slots} slots  {row.waiting} wait  {row.succeeded:,} done")
