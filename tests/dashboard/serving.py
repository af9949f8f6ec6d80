"""Serving an ASGI application over real HTTP, for one test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
import uvicorn

ACTION = {"X-Jetflow": "1", "Content-Type": "application/json"}
"""Headers of an action."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(app: Any, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve an application on a free port of this machine, and yield a client of it."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # so that whoever comes before the server has started waits for it
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, **{"lifespan": "off", **options})
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=base, timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task
