"""`jetflow dev`: a server and a worker in one command."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from jetflow.broker.addresses import shown
from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.loading import directory_of, load_workflows
from jetflow.cli.options import FLAG, AsJson, Place, UsageError, WorkerFlags
from jetflow.cli.reloading import run_reloading
from jetflow.cli.worker import leave_threads
from jetflow.server import ServerOptions, local_server
from jetflow.worker import Worker

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
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
    flags: WorkerFlags = WorkerFlags(),  # noqa: B008 - frozen
) -> int:
    """Run an embedded NATS server and a worker, until Ctrl-C.

    The server's URL is printed as NATS_URL=..., for other terminals. When NATS_URL is set (or --server given), that
    server is used, and none is started.

    ```
    jetflow dev flows.indexing --reload --store .jetflow
    ```
    """
    flags.start_logging()
    flags.options()
    given = place.server or os.environ.get("NATS_URL")
    if given and (store is not None or port is not None):
        urls = shown(given.split(","))
        raise UsageError(f"--store and --port are for an embedded server, and {urls} is to be used: unset NATS_URL")
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}: it must be from 0 to 65535")
    if not targets:
        load_workflows(targets)
    server = _embedded(store, port) if given is None or not given.strip() else _given(given)
    loop.run(_dev(server, targets, place, flags, _Manner(reload, as_json)))
    leave_threads()
    return 0


class _Manner:
    def __init__(self, reload: bool, as_json: bool) -> None:
        self.reload = reload
        self.as_json = as_json


async def _dev(
    server: contextlib.AbstractAsyncContextManager[str],
    targets: tuple[str, ...],
    place: Place,
    flags: WorkerFlags,
    manner: _Manner,
) -> None:
    async with server as url:
        if manner.as_json:
            print_json({"url": shown(url.split(","))})
        else:
            print(f"NATS_URL={shown(url.split(','))}", flush=True)
        os.environ["NATS_URL"] = url  # for the user's own clients in these modules
        if manner.reload:
            arguments = ["worker", *targets, "--namespace", place.namespace, *flags.arguments()]
            await run_reloading(arguments, {Path.cwd(), *map(directory_of, targets)})
        else:
            workflows = load_workflows(targets)
            await Worker(workflows, namespace=place.namespace, options=flags.options()).run()


@contextlib.asynccontextmanager
async def _given(url: str) -> AsyncGenerator[str]:
    yield url


@contextlib.asynccontextmanager
async def _embedded(store: Path | None, port: int | None) -> AsyncGenerator[str]:
    if port is None:
        port = USUAL_PORT if _is_free(USUAL_PORT) else 0
        if port == 0:
            print(f"port {USUAL_PORT} is taken; the embedded server takes another", file=sys.stderr)
    async with local_server(store, options=ServerOptions(port=port)) as server:
        yield server.url


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
