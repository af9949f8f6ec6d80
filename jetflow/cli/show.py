"""`jetflow show`: one run, its steps, and a page of its children."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli import loop
from jetflow.cli.console import stdout
from jetflow.cli.failures import groups_of
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError, Verbose
from jetflow.cli.place import Place
from jetflow.cli.tables import page_of
from jetflow.cli.tree import tree_of
from jetflow.cli.workers import running_of
from jetflow.runs.query.cursors import is_cursor
from jetflow.runs.query.rows import ErrorGroups, RunningRow, Tree
from jetflow.runs.trace import RunTrace
from jetflow.wire.output import Progress


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which children are shown, and in which order."""

    status: Annotated[str | None, Parameter(help="Only children that are open, succeeded, failed and so on.")] = None
    search: Annotated[str | None, Parameter(help="Only those with this in key or error, or with such an id.")] = None
    sort: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="By n, status, key, took, started, ended, attempts or worker; -took: longest first.",
        ),
    ] = None

    def asked(self) -> dict[str, Any]:
        """Return it as `Client.children` takes it."""
        return {"status": self.status, "search": self.search, "sort": self.sort}

    def arguments(self) -> str:
        """Return the command line that says the same; empty for all of them in spawn order."""
        said = [f"--{name} {shlex.quote(value)}" for name, value in self.asked().items() if value is not None]
        return " ".join(said)


class Shown(NamedTuple):
    """What was asked about a run."""

    trace: RunTrace
    errors: ErrorGroups | None
    running: list[RunningRow] | None
    tree: Tree | None
    progress: dict[str, Progress]


def show(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    children: Annotated[int, Parameter(help="Children on a page; 0 leaves them out, and does not count them.")] = 20,
    page: Annotated[str | None, Parameter(help="The page of children, as printed below the one before.")] = None,
    chosen: Chosen = Chosen(),
    errors: Annotated[bool, FLAG, Parameter(help="Show the failures of its children in groups, too.")] = False,
    tree: Annotated[bool, FLAG, Parameter(help="Show what it has spawned, and that has spawned, rolled up.")] = False,
    stack: Annotated[bool, FLAG, Parameter(help="Show where its running steps stand, too.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Show a run: its steps with attempts, times, workers and errors, and a page of its children.

    ```
    jetflow show 0199b2c3d4e5f60718293a4b5c6d7e8f --children 100
    jetflow show 0199b2c3d4e5f60718293a4b5c6d7e8f --status failed --sort -took --errors
    jetflow show 0199b2c3d4e5f60718293a4b5c6d7e8f --tree --children 0
    ```
    """
    if children < 0:
        raise UsageError(f"--children is {children}: it must not be below 0")
    if page is not None and not is_cursor(page):
        raise UsageError(f"--page is {page!r}: use what the page before printed last")

    async def ask() -> Shown:
        async with place.connect() as client:
            trace = await client.describe(run, children=children, after=None if chosen.arguments() else page)
            if trace.status == "scheduled":
                return Shown(trace, None, None, None, {})
            if chosen.arguments() and children:
                found = await client.children(run, after=page, limit=children, **chosen.asked())
                trace = msgspec.structs.replace(trace, children=found.items, next_page=found.next)
            groups = await client.errors(run) if errors else None
            held = await client.running(run, stack=True) if stack else None
            progress = await client.run(run).progress()
            return Shown(trace, groups, held, await client.tree(run) if tree else None, progress)

    shown = loop.run(ask())
    if as_json:
        more: dict[str, Any] = {"errors_of_children": shown.errors, "running": shown.running, "tree": shown.tree}
        if shown.progress:
            more["progress"] = shown.progress
        told = {name: msgspec.to_builtins(value) for name, value in more.items() if value is not None}
        print_json(msgspec.to_builtins(shown.trace) | told)
    else:
        stdout().print(_page_of(shown, chosen, verbose=verbose))
    return 0


def _page_of(shown: Shown, chosen: Chosen, *, verbose: bool) -> RenderableType:
    parts: list[RenderableType] = [page_of(shown.trace, verbose=verbose, chosen=chosen.arguments())]
    if shown.progress:
        lines = (f"{step}: {told.fraction:.0%} {told.text}".rstrip() for step, told in shown.progress.items())
        parts += [Text(), Text("\n".join(lines))]
    if shown.tree is not None:
        parts += [Text(), tree_of(shown.tree)]
    if shown.errors is not None:
        parts += [Text(), groups_of(shown.errors)]
    if shown.running is not None:
        parts += [Text(), running_of(shown.running)]
        parts += [Text(f"\n{row.step} on {row.worker}:\n{row.stack.rstrip()}") for row in shown.running if row.stack]
    return Group(*parts)
