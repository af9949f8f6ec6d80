"""`jetflow errors`: failures in groups of those that are alike."""

from __future__ import annotations

from time import time
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli.console import printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.cli.runs import age_of
from jetflow.cli.tables import clock, table_of
from jetflow.runs.query.rows import ErrorGroups


def errors(
    run: Annotated[str | None, Parameter(help="A run's id: failures of its children only.")] = None,
    /,
    *,
    workflow: Annotated[str | None, Parameter(help="Only failures of this workflow.")] = None,
    since: Annotated[str | None, Parameter(help="No older than this: 90s, 15m, 2h, 7d.")] = None,
    limit: Annotated[int, Parameter(help="Groups, the largest first.")] = 20,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show failures in groups: how many, of what, where, since when, and the newest run of each.

    ```
    jetflow errors --since 24h
    jetflow errors 0199b2c3d4e5f60718293a4b5c6d7e8f --json
    ```
    """
    moment = None if since is None else time() - age_of(since, "--since")

    found = place.ask(lambda client: client.errors(run, workflow=workflow, since=moment, limit=limit))
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        stdout().print(groups_of(found))
    return 0


def groups_of(found: ErrorGroups) -> RenderableType:
    """Return failures as a table."""
    table = table_of("count", "workflow", "error", "place", "first", "last", "newest run")
    for group in found.items:
        table.add_row(
            Text(f"{group.count:,}", "bold red"),
            Text(group.workflow),
            Text(f"{printable(group.type)}: {printable(group.message)}", "red"),
            Text(printable(group.place)),
            Text(clock(group.first)),
            Text(clock(group.last)),
            Text(group.samples[0] if group.samples else "", no_wrap=True),
        )
    told = f"{found.total:,} failure{'' if found.total == 1 else 's'}" if found.total else "no failure"
    if found.searched.runs < found.total:
        told = f"the newest {found.searched.runs:,} of {told}"
    return Group(*([table] if found.items else []), Text(told, "dim"))
