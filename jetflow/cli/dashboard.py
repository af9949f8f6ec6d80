"""`jetflow dashboard`: the pages in a browser; `jetflow open`: those of one run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import webbrowser
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.cli.project import dev_server
from jetflow.errors import MissingExtra

USUAL_PORT: Final = 4280
"""Where the dashboard is when nothing is said."""

TOKEN: Final = "JETFLOW_DASHBOARD_TOKEN"


def dashboard(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port, 0 for a free one.")] = USUAL_PORT,
    open: Annotated[bool, FLAG, Parameter(help="Open it in the browser.")] = False,
    read_only: Annotated[bool, FLAG, Parameter(help="Nothing can be triggered, cancelled, deleted or paused.")] = False,
    no_payloads: Annotated[bool, FLAG, Parameter(help="Inputs, outputs and recorded values are not shown.")] = False,
    token: Annotated[
        bool, FLAG, Parameter(help=f"Ask for a token: that in {TOKEN}, else a new one, which is printed.")
    ] = False,
    insecure: Annotated[
        bool, FLAG, Parameter(help="Let everybody in who reaches it, under any name: another host without a token.")
    ] = False,
    allow_host: Annotated[
        tuple[str, ...], Parameter(help="A name that it may be reached by, beside those of this machine.")
    ] = (),
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Serve the dashboard, until Ctrl-C: runs, children, errors, queues and workers in a browser.

    ```
    jetflow dashboard --open
    jetflow dashboard --host 0.0.0.0 --token --allow-host flows.example.com --read-only
    ```
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}: it must be from 0 to 65535")
    given = os.environ.get(TOKEN, "") if token else None
    if given and len(given) < 16:
        raise UsageError(f"{TOKEN} is {len(given)} characters long: it must be 16 or more")
    how: dict[str, Any] = {
        "host": host,
        "port": port,
        "read_only": read_only,
        "payloads": not no_payloads,
        "token": given,
        "insecure": insecure,
        "hosts": allow_host,
    }
    return loop.run(_serve(place, how, opens=open, as_json=as_json))


async def _serve(place: Place, how: dict[str, Any], *, opens: bool, as_json: bool) -> int:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with served(place, **how) as url:
        if as_json:
            print_json({"dashboard": url})
        else:
            print(f"dashboard {url}", flush=True)
        if opens:
            webbrowser.open(url.partition(" ")[0])
        await told.wait()
    return 0


@contextlib.asynccontextmanager
async def served(place: Place, **how: Any) -> AsyncGenerator[str]:
    """Serve the dashboard, and yield where it is; see `jetflow.cli.serving.Serving`.

    Raises:
        MissingExtra: what it needs is not installed.
        UsageError: it cannot be served so.
    """
    try:
        from jetflow.cli import serving  # noqa: PLC0415 - the other commands work without the extra
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f'the dashboard needs {error.name}, which is not installed: pip install "jetflow-nats[ui]"'
        ) from None
    async with serving.served(place, serving.Serving(**how)) as url:
        yield url


def open_run(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    url: Annotated[
        str | None, Parameter(help="Where the dashboard is; else that of the `jetflow dev` of this directory.")
    ] = None,
    show: Annotated[bool, FLAG, Parameter(name="--print", help="Print the link, and open nothing.")] = False,
) -> int:
    """Open the page of a run in the browser.

    ```
    jetflow open 0199b2c3d4e5f60718293a4b5c6d7e8f
    ```
    """
    link = f"{(url or _near()).rstrip('/')}/runs/{run}"
    if show or not webbrowser.open(link):
        print(link)
    return 0


def _near() -> str:
    running = dev_server()
    if running is not None and running.dashboard:
        return running.dashboard
    return f"http://127.0.0.1:{USUAL_PORT}"
