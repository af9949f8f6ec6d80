"""Serving the dashboard from a command. Only this module needs the extra ``ui``; see `jetflow.cli.dashboard`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import Final

import uvicorn

from jetflow.cli.options import UsageError
from jetflow.cli.place import Place
from jetflow.dashboard import Access, Dashboard, TokenLogin
from jetflow.dashboard.guarding import LOOPBACK

PATIENCE: Final = 2
"""Seconds that answers under way have at the end."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a dashboard is served: where, to whom, and what they may do.

    A ``token`` of "" is made anew. Where the port is not a must, another is taken where it is not free.
    """

    host: str = "127.0.0.1"
    port: int = 0
    must: bool = True
    read_only: bool = False
    payloads: bool = True
    token: str | None = None
    insecure: bool = False
    hosts: Sequence[str] = ()


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def served(place: Place, serving: Serving) -> AsyncGenerator[str]:
    """Serve the dashboard, and yield where it is.

    Raises:
        UsageError: the address cannot be had, or is open to others and no token was asked for.
    """
    is_here = serving.host in LOOPBACK
    if not is_here and serving.token is None and not serving.insecure:
        raise UsageError(
            f"--host {serving.host} lets other machines in: give --token, or --insecure where something before it "
            "knows who comes"
        )
    token = secrets.token_urlsafe(24) if serving.token == "" else serving.token
    granted = Access(payloads=serving.payloads) if serving.read_only else Access.full(payloads=serving.payloads)
    hosts = None if serving.insecure else {*LOOPBACK, *serving.hosts, serving.host}
    dashboard = Dashboard(place.look, access=granted if token is None else TokenLogin(token, granted), hosts=hosts)
    listening = _bound(serving)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        dashboard,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    server = _Server(config)
    async with dashboard:
        task = asyncio.get_running_loop().create_task(server.serve(sockets=[listening]), name="jetflow dashboard")
        try:
            host = f"[{serving.host}]" if ":" in serving.host else serving.host
            url = f"http://{host}:{port}"
            yield url if serving.token != "" else f"{url} (token {token})"
        finally:
            await dashboard.hub.close()  # whoever listens would keep the server from ending
            server.should_exit = True
            await task


def _bound(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listening.bind((serving.host, serving.port))
        except OSError:
            if serving.must or not serving.port:
                raise
            listening.bind((serving.host, 0))
        listening.listen()  # whoever comes before the server has started waits for it
    except OSError as error:
        listening.close()
        raise UsageError(
            f"the dashboard cannot listen on {serving.host} port {serving.port} ({error.strerror or error}): "
            "give another --port, 0 for a free one"
        ) from None
    return listening
