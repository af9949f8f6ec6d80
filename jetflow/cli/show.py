"""`jetflow show`: one run, its steps, and a page of its children."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.console import stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson, UsageError, Verbose
from jetflow.cli.place import Place
from jetflow.cli.tables import page_of
from jetflow.runs.query.cursors import is_cursor
from jetflow.runs.trace import RunTrace


def show(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    children: Annotated[int, Parameter(help="Children on a page; 0 leaves them out, and does not count them.")] = 20,
    page: Annotated[str | None, Parameter(help="The page of children, as printed below the one before.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show a run: its steps with attempts, times, workers and errors, and a page of its children.

    ```
    jetflow show 0199b2c3d4e5f60718293a4b5c6d7e8f --children 100
    ```
    """
    if children < 0:
        raise UsageError(f"--children is {children}: it must not be below 0")
    if page is not None and not is_cursor(page):
        raise UsageError(f"--page is {page!r}: use what the page before printed last")
    trace = loop.run(_describe(place, run, children, page))
    if as_json:
        print_json(msgspec.to_builtins(trace))
        return 0
    stdout().print(page_of(trace, verbose=verbose))
    return 0


async def _describe(place: Place, run: str, children: int, page: str | None) -> RunTrace:
    async with place.connect() as client:
        return await client.describe(run, children=children, after=page)
