"""`jetflow show`: one run, its steps, and a page of its children."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson, UsageError, Verbose
from jetflow.cli.place import Place
from jetflow.cli.tables import page_of
from jetflow.runs.trace import RunTrace

PIPE_WIDTH: Final = 240
"""Columns of a line where stdout is not a terminal."""


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
    trace = loop.run(_describe(place, run, children, page))
    if as_json:
        print_json(msgspec.to_builtins(trace))
        return 0
    console = _Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(page_of(trace, verbose=verbose))
    return 0


class _Console(Console):
    """A console that leaves a reader who went away to the command's end, where rich would exit with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


async def _describe(place: Place, run: str, children: int, page: str | None) -> RunTrace:
    async with place.connect() as client:
        return await client.describe(run, children=children, after=page)
