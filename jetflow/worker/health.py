"""What a cluster's probes and Prometheus ask of a worker over HTTP, on a port of its own: only where one is given.

It is answered on the worker's event loop, so a loop that stands still does not answer: that is what ``/livez`` is for.
Three fixed answers to GET need no web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

from jetflow import hooks
from jetflow.telemetry import prometheus
from jetflow.worker.options import WorkerOptions

PATIENCE: Final = 5.0
"""Seconds in which a request must have come."""

LARGEST_REQUEST: Final = 16 * 1024

INDEX: Final = "JETFLOW_PROCESS_INDEX"
"""The environment variable that numbers the processes of `jetflow worker`, from 0: each listens on its own port."""

_PLAIN: Final = "text/plain; charset=utf-8"
_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_log = logging.getLogger("jetflow.worker")


class Health:
    """Answers ``/livez``, ``/readyz`` and ``/metrics``. `start` and `stop` it; both are safe to call twice.

    ``is_connected`` and ``has_ended`` tell of the worker's connection.
    """

    def __init__(self, options: WorkerOptions, is_connected: Callable[[], bool], has_ended: Callable[[], bool]) -> None:
        self._host = options.health_host
        self._port = options.health_port
        self._is_connected = is_connected
        self._has_ended = has_ended
        self._server: asyncio.Server | None = None
        self._phase = "it has not begun to pull tasks"
        self._answering: set[asyncio.Task[None]] = set()
        self._end_measures: Callable[[], None] = lambda: None

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and the port that it listens on; None where it does not."""
        if self._server is None:
            return None
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Begin to listen, if a port is given.

        Raises:
            OSError: the port is taken, or may not be used.
        """
        if self._port is None or self._server is not None:
            return
        self._measure()
        port = self._port + int(os.environ.get(INDEX, "0")) if self._port else 0
        try:
            self._server = await asyncio.start_server(self._on_connected, self._host, port, limit=LARGEST_REQUEST)
        except OSError as error:
            raise OSError(error.errno, f"health_port: {self._host}:{port} cannot be listened on: {error}") from error
        _log.info("/livez, /readyz and /metrics are answered at http://%s:%d", *self.address or ("", 0))

    def _measure(self) -> None:
        """Have measures kept from now on, if they can be and are not: also where who began that has stopped."""
        if find_spec("prometheus_client") is not None and _prometheus_meter() is None:
            self._end_measures = prometheus()

    def ready(self) -> None:
        """Be told that the worker pulls tasks."""
        self._phase = ""

    def leave(self) -> None:
        """Be told that the worker takes no tasks any more."""
        self._phase = "it stops"

    async def stop(self) -> None:
        """Answer no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)
            await server.wait_closed()
            self._end_measures()

    def _on_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._response(request))
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or did not speak HTTP
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _response(self, request: bytes) -> bytes:
        method, target, *_ = [*request.partition(b"\r\n")[0].decode("latin-1").split(" "), "", ""]
        status, kind, body = self._said(target.partition("?")[0]) if method in ("GET", "HEAD") else _refused()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else body)

    def _said(self, path: str) -> tuple[int, str, bytes]:
        if path == "/livez":
            return _ok_unless("the server has ended its connection for good" if self._has_ended() else "")
        if path == "/readyz":
            return _ok_unless(self._phase or ("" if self._is_connected() else "it has no connection to NATS"))
        if path == "/metrics":
            self._measure()
            meter = _prometheus_meter()
            if meter is not None:
                return (200, *meter.exposition())
            return 404, _PLAIN, b"no metrics: pip install 'jetflow-nats[prometheus]'\n"
        return 404, _PLAIN, b"there is /livez, /readyz and /metrics\n"


def _prometheus_meter() -> Any:
    return next((meter for meter in hooks.meters if hasattr(meter, "exposition")), None)


def _ok_unless(trouble: str) -> tuple[int, str, bytes]:
    return (503, _PLAIN, f"{trouble}\n".encode()) if trouble else (200, _PLAIN, b"ok\n")


def _refused() -> tuple[int, str, bytes]:
    return 405, _PLAIN, b"GET is what there is\n"
