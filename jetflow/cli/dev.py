"""`jetflow dev`: a server and a worker in one command."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import webbrowser
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from cyclopts import Parameter

from jetflow.cli import loop, project
from jetflow.cli.dashboard import USUAL_PORT as DASHBOARD_PORT
from jetflow.cli.dashboard import served
from jetflow.cli.json_text import print_json
from jetflow.cli.loading import directory_of, load_workflows
from jetflow.cli.options import FLAG, AsJson, UsageError, WorkerFlags
from jetflow.cli.place import Place
from jetflow.cli.supervising import run_supervised
from jetflow.errors import MissingExtra
from jetflow.server import ServerOptions, local_server

USUAL_PORT: Final = 4222
"""Where jetflow looks for a server when nothing is said."""


def dev(
    *targets: Annotated[str, Parameter(help="pkg.mod, pkg.mod:flow, path/to/file.py or path/to/file.py:flow.")],
    store: Annotated[
        Path | None, Parameter(help="Where the embedded server keeps its data; else it is gone at the end.")
    ] = None,
    port: Annotated[
        int | None, Parameter(help="The embedded server's port, 0 for a free one; else 4222 if that is free.")
    ] = None,
    reload: Annotated[bool, FLAG, Parameter(help="Restart the worker when a .py file changes.")] = False,
    dashboard: Annotated[
        bool, Parameter(help="Serve the dashboard, too.", negative="--no-dashboard", show_default=False)
    ] = True,
    dashboard_port: Annotated[
        int | None, Parameter(help=f"Its port, 0 for a free one; else {DASHBOARD_PORT} if that is free.")
    ] = None,
    open: Annotated[bool, FLAG, Parameter(help="Open it in the browser.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
    flags: WorkerFlags = WorkerFlags(),  # noqa: B008 - frozen
) -> int:
    """Run an embedded NATS server, a worker and the dashboard, until Ctrl-C.

    The server's URL is printed as NATS_URL=..., for programs in other terminals; other jetflow commands in this
    directory find it by themselves. When NATS_URL is set (or --server or --context given), that server is used, and
    none is started. The worker is a process of its own, which is started again when it dies.

    ```
    jetflow dev flows.indexing --reload --store .jetflow
    ```
    """
    flags.start_logging()
    flags.options()
    given = place.server or (None if place.context else os.environ.get("NATS_URL", "").strip())
    if (given or place.context) and (store is not None or port is not None):
        raise UsageError(
            f"--store and --port are for an embedded server, and {place.shown} is to be used: unset NATS_URL"
        )
    if not given and not place.context and place.of_a_named_server():
        raise UsageError(f"{place.of_a_named_server()[0]} is for a server that is named: give --server or --context")
    if port is not None:
        _check_port(port)
    if not targets:
        load_workflows(targets)
    server = _named(place, given) if given or place.context else _embedded(store, port)
    manner = _Manner(reload, as_json, dashboard, dashboard_port, open)
    return loop.run(_dev(server, targets, place, flags, manner))


class _Manner(NamedTuple):
    reload: bool
    as_json: bool
    dashboard: bool
    dashboard_port: int | None
    opens: bool


async def _dev(
    server: contextlib.AbstractAsyncContextManager[str],
    targets: tuple[str, ...],
    place: Place,
    flags: WorkerFlags,
    manner: _Manner,
) -> int:
    async with server as urls, _dashboard(place, manner) as link:
        if manner.as_json:
            print_json({"url": urls, "dashboard": link})
        else:
            print(f"NATS_URL={urls}", flush=True)
            if link is not None:
                print(f"dashboard {link}", flush=True)
        watched = {Path.cwd(), *map(directory_of, targets)} if manner.reload else set[Path]()
        return await run_supervised(["worker", *targets, *place.arguments(), *flags.arguments()], watched)


@contextlib.asynccontextmanager
async def _dashboard(place: Place, manner: _Manner) -> AsyncGenerator[str | None]:
    """Serve the dashboard, and yield where it is; None where it is not wanted, or not installed."""
    async with contextlib.AsyncExitStack() as stack:
        link: str | None = None
        port = manner.dashboard_port
        how = {"port": DASHBOARD_PORT if port is None else port, "must": port is not None}
        if manner.dashboard:
            try:
                link = await stack.enter_async_context(served(place, **how))
            except MissingExtra as error:
                print(error, file=sys.stderr)
        if link is not None:
            project.tell_dashboard(link)
            if manner.opens:
                webbrowser.open(link)
        yield link


@contextlib.asynccontextmanager
async def _named(place: Place, given: str | None) -> AsyncGenerator[str]:
    """Let the user's own clients in these modules use that server, too."""
    if given:
        os.environ["NATS_URL"] = given
    elif place.context:
        os.environ.pop("NATS_URL", None)
        os.environ["NATS_CONTEXT"] = place.context
    yield place.shown


@contextlib.asynccontextmanager
async def _embedded(store: Path | None, port: int | None) -> AsyncGenerator[str]:
    if port is None:
        port = USUAL_PORT if _is_free(USUAL_PORT) else 0
        if port == 0:
            print(f"port {USUAL_PORT} is taken; the embedded server takes another", file=sys.stderr)
    async with local_server(store, options=ServerOptions(port=port)) as server:
        os.environ["NATS_URL"] = server.url
        with project.shown(server.url) as other:
            if other is not None:
                print(f"another jetflow dev runs here: commands without --server go to {other.url}", file=sys.stderr)
            yield server.url


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}: it must be from 0 to 65535")
    if port and not _is_free(port):
        raise UsageError(f"port {port} is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
