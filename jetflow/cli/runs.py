"""`jetflow list`: root runs, the newest first."""

from __future__ import annotations

import re
from time import time
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli import loop
from jetflow.cli.console import printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.cli.tables import clock, error_text, status_text, table_of, took
from jetflow.runs.query.rows import Page, RunRow

WIDE: Final = 120
"""Columns from which on it is shown, too, when runs were triggered, and their errors."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def list_runs(
    *,
    workflow: Annotated[str | None, Parameter(help="Only runs of this workflow.")] = None,
    status: Annotated[
        str | None,
        Parameter(
            help="open, queued, running, succeeded, failed, cancelled, timed_out, or several with commas between."
        ),
    ] = None,
    since: Annotated[str | None, Parameter(help="No older than this: 90s, 15m, 2h, 7d.")] = None,
    key: Annotated[str | None, Parameter(help="Only runs with this key.")] = None,
    meta: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--meta", "--metadata"), help="NAME=VALUE that the metadata have; again for more.", negative=()
        ),
    ] = (),
    search: Annotated[
        str | None, Parameter(help="Only those of the last day with this in key, metadata, error.")
    ] = None,
    sort: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Those of the last day by triggered, ended, took, status, workflow or key; -took: longest first.",
        ),
    ] = None,
    limit: Annotated[int, Parameter(help="Runs on a page, 1000 at most.")] = 20,
    page: Annotated[str | None, Parameter(help="The next page, as printed below the one before.")] = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """List root runs, the newest first; with the status of an end, those that ended last.

    With --search or --sort it reads all runs of the last day, 200,000 at most.

    ```
    jetflow list --status failed --since 24h
    jetflow list --workflow count-tree --meta customer=acme --json | jq .items[].id
    jetflow list --sort -took --limit 5
    ```
    """
    metadata = dict(pair_of(one) for one in meta) or None
    moment = None if since is None else time() - age_of(since, "--since")

    async def read() -> Page[RunRow]:
        async with place.look() as client:
            return await client.runs(
                workflow=workflow,
                status=status,
                since=moment,
                key=key,
                metadata=metadata,
                search=search,
                sort=sort,
                after=page,
                limit=limit,
            )

    found = loop.run(read())
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        console = stdout()
        console.print(_page_of(found, console.width))
    return 0


def age_of(text: str, option: str) -> float:
    """Return the seconds that an option says.

    Raises:
        UsageError: it says none.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option} is {text!r}: give a number and s, m, h, d or w, as in 90s, 15m, 2h, 7d")
    return float(found[1]) * _UNITS[found[2]]


def pair_of(text: str) -> tuple[str, str]:
    """Return the name and the value that an option --meta says.

    Raises:
        UsageError: it says none.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--meta is {text!r}: give NAME=VALUE")
    return name, value


def _page_of(found: Page[RunRow], width: int) -> RenderableType:
    columns = ("run", "status", "workflow", "key", "took", "triggered", "error")
    table = table_of(*(columns if width >= WIDE else columns[:5]))
    table.columns[0].no_wrap = True
    for row in found.items:
        cells = (
            Text(row.id),
            status_text(row.status),
            Text(row.workflow),
            Text(printable(row.key or "")),
            Text(took(row.triggered, row.ended)),
            Text(clock(row.triggered)),
            Text(printable(error_text(row.error)), "red", no_wrap=True, overflow="ellipsis"),
        )
        table.add_row(*cells[: len(table.columns)])
    parts: list[RenderableType] = [table] if found.items else []
    parts.append(Text(_told(found), "dim"))
    if found.next is not None:
        parts.append(Text(f"more: the same with --page {found.next}", "dim"))
    return Group(*parts)


def _told(found: Page[RunRow]) -> str:
    """Say how many there are, and what was looked at: none is only said where all was."""
    shown, searched = len(found.items), found.searched
    if not searched.complete and found.total is not None:
        return f"{shown:,} of {found.total:,} runs since {clock(searched.since)}; older ones were not looked at"
    if not searched.complete:
        return (
            f"{shown:,} found among {searched.runs:,} looked at, back to {clock(searched.since)}; there are older ones"
        )
    if found.total is not None and found.total > shown:
        return f"{shown:,} of {found.total:,} runs"
    return f"{shown:,} run{'' if shown == 1 else 's'}" if shown else "no run"
