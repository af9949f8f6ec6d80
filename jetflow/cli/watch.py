"""`jetflow watch`: look at a run until it ends."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.live import Live

from jetflow.cli import loop
from jetflow.cli.console import stdout
from jetflow.cli.looking import looks
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.cli.progress import draw
from jetflow.cli.view import Seen, changes_of
from jetflow.errors import JetflowError

ENDED: Final = {"succeeded": 0, "failed": 1, "cancelled": 3, "timed_out": 4}
"""The exit status that tells how a run has ended."""


def watch(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Look at a run until it ends: its steps, and its children with counts, rate and time left.

    Where stdout is no terminal, it prints a line for each change; with --json, a JSON object for each. The exit status
    tells how the run has ended: 0 succeeded, 1 failed, 3 cancelled, 4 timed out.

    ```
    jetflow watch 0199b2c3d4e5f60718293a4b5c6d7e8f
    jetflow watch 0199b2c3d4e5f60718293a4b5c6d7e8f --json | jq .totals.succeeded
    ```
    """
    return loop.run(_watch(place, run, as_json=as_json))


async def _watch(place: Place, run: str, *, as_json: bool) -> int:
    console = stdout()
    async with place.look() as client:
        if console.is_terminal and not as_json:
            await client.run(run).status()  # which says that there is no such run
            with Live(console=console, auto_refresh=False) as live:
                seen = await draw(client, run, console, live)
            return _status(run, seen)
        before = seen = Seen()
        async with aclosing(looks(client, run)) as found:
            async for seen in found:
                if as_json:
                    print(_line(seen), flush=True)
                else:
                    for line in changes_of(before, seen):
                        print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
                before = seen
        return _status(run, seen)


def _line(seen: Seen) -> str:
    trace, totals = seen.trace, seen.totals
    state = {
        "run": None if trace is None else trace.id,
        "status": None if trace is None else trace.status,
        "steps": {} if trace is None else {step.name: step.status for step in trace.steps},
        "totals": None if totals is None else msgspec.to_builtins(totals.totals),
        "rate": None if totals is None else totals.rate,
        "eta": None if totals is None else totals.eta,
    }
    return msgspec.json.encode(state).decode()


def _status(run: str, seen: Seen) -> int:
    """Return the exit status that tells how a run has ended.

    Raises:
        JetflowError: it could not be watched to its end.
    """
    status = "" if seen.trace is None else seen.trace.status
    if status not in ENDED:
        raise JetflowError(f"run {run} goes on, and could not be watched any longer: the server does not answer")
    return ENDED[status]
