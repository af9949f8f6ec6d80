"""`jetflow cancel`: end a run, and all that it has spawned."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.errors import UnknownRun


def cancel(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    tree: Annotated[
        bool,
        Parameter(name="--tree", negative="--no-tree", help="Cancel all its descendants, too.", show_default=False),
    ] = True,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Cancel a run, and with it all that it has spawned.

    What is queued never starts, what is running is told to stop, and a parent that joins the run gets it as a cancelled
    child. A run that has ended stays as it is; the exit status is 0 then, too. One that begins later is forgotten.

    ```
    jetflow cancel 0199b2c3d4e5f60718293a4b5c6d7e8f --no-tree
    jetflow cancel 0199b2c3d4e5f60718293a4b5c6d7e8f --server nats.example.com --creds app.creds
    ```
    """
    cancelled, status = loop.run(_cancel(place, run, tree=tree))
    if as_json:
        print_json({"run": run, "cancelled": cancelled, "status": status})
    else:
        print(f"run {run} is cancelled" if cancelled else f"run {run} had ended already: {status}")
    return 0


async def _cancel(place: Place, run: str, *, tree: bool) -> tuple[bool, str]:
    """Cancel a run; return whether it had not ended before, and how it has ended now."""
    async with place.connect() as client:
        cancelled = await client.cancel(run, tree=tree)
        try:
            return cancelled, await client.run(run).status()
        except UnknownRun:  # it had not begun, and is forgotten
            if cancelled:
                return True, "cancelled"
            raise
