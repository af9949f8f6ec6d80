"""`jetflow health`: whether the workers of this machine, or a page that is served, answer; for containers."""

from __future__ import annotations

import http.client
import socket
import sys
from typing import Annotated, Final
from urllib.parse import urlsplit

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.options import FLAG, UsageError
from jetflow.cli.place import Place
from jetflow.errors import ServerUnreachable

ANSWERED_WITHIN: Final = 5.0
"""Seconds that a page may take."""


def health(
    *,
    alive: Annotated[
        bool,
        FLAG,
        Parameter(help="Also take a worker that cannot reach NATS for healthy: another start mends nothing."),
    ] = False,
    url: Annotated[str | None, Parameter(help="Ask for this page over HTTP, instead of workers.")] = None,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Ask the workers of this machine whether they are there, and end with status 0 if one is that takes tasks.

    They answer over NATS, so that one whose event loop stands still is not healthy. With --url it is a server of pages:
    any answer below 500 is one.

    ```
    jetflow health
    jetflow health --url http://127.0.0.1:4280/
    ```
    """
    if url is not None:
        return _told(*_page(url))
    try:
        return _told(*loop.run(_workers(place)))
    except ServerUnreachable as error:
        if not alive:
            raise
        return _told(True, str(error))


async def _workers(place: Place) -> tuple[bool, str]:
    here = socket.gethostname()
    async with place.look() as client:
        found = [worker for worker in await client.workers() if worker.host == here]
    takes = [worker.name for worker in found if not worker.leaving]
    if takes:
        return True, f"{', '.join(takes)} takes tasks"
    return False, f"no worker answers on {here}" if not found else f"all workers on {here} are leaving"


def _page(url: str) -> tuple[bool, str]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"--url is {url}: it must be an http:// URL")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWERED_WITHIN)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"{url} does not answer: {error}"
    finally:
        connection.close()
    return status < 500, f"{url} answers {status}"


def _told(is_healthy: bool, said: str) -> int:
    print(said, file=None if is_healthy else sys.stderr)
    return 0 if is_healthy else 1
