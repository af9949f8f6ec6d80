"""Keeping held tasks alive, from a thread of its own with a connection of its own.

A step that blocks the event loop, or computes for a minute, must not lose its task to a redelivery. So in-progress
acks leave from here, whatever the event loop does. The thread also notices that the loop does not answer, and logs
which step blocks it, and for how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow.broker.connection import Connection
from jetflow.errors import BrokerError
from jetflow.processes.guard import IN_PROGRESS, ROUNDS
from jetflow.worker.deliveries import Deliveries

BLOCKED_AFTER: Final = 1.0
"""Seconds without an answer of the event loop after which it counts as blocked."""

_log = logging.getLogger("jetflow.worker")


class Heartbeat:
    """Sends an in-progress ack for every held task in each third of the ``ack_wait`` that the broker goes by.

    Where a guard does so, this does it for what the guard does not see, and for all while that is away. Where the
    worker uses a connection that was handed to it, this one is made with the same options. Until it is there, the
    worker's own sends the acks.

    `start` and `stop` it; both are safe to call twice.
    """

    def __init__(self, main: Connection, deliveries: Deliveries, name_of: Callable[[asyncio.Task[Any]], str]) -> None:
        self._name_of = name_of
        self._main = main
        self._access = msgspec.structs.replace(main.access, client=None)  # a connection of its own, like that one
        self._deliveries = deliveries
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._end_beat: Callable[[], object] = lambda: None
        self._answered = 0.0
        self._asked = 0.0
        self._blocked_by: str | None = None

    async def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="jetflow-heartbeat", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """Stop the thread, and wait for it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._end_beat()
            await asyncio.to_thread(thread.join)

    # --- in the thread

    def _run(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        beat = loop.create_task(self._beat())
        self._end_beat = lambda: loop.call_soon_threadsafe(beat.cancel)
        if self._stopping.is_set():  # before it could be ended so
            beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat

    async def _beat(self) -> None:
        connecting: asyncio.Task[Connection | None] | None = None
        beaten: set[str] = set()
        last_round = 0.0
        self._answered = self._asked = monotonic()
        try:
            while True:
                now = monotonic()
                self._watch_loop(now)
                pause = self._deliveries.ack_wait / ROUNDS
                if now - last_round >= pause:
                    last_round = now
                    guarded = self._deliveries.is_guarded(2 * pause)
                    beaten = set(self._deliveries.held(now - pause, guarded=guarded)) - beaten
                    if beaten and (connecting is None or _has_failed(connecting)):
                        connecting = asyncio.get_running_loop().create_task(self._connect())
                    self._send(connecting, list(beaten))
                await asyncio.sleep(min(last_round + pause - now, 0.25))
        finally:
            if connecting is not None:
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    connection = await connecting
                    if connection is not None:
                        await connection.close()

    def _send(self, connecting: asyncio.Task[Connection | None] | None, due: list[str]) -> None:
        """Keep alive what is due, on the worker's own connection until there is one for this."""
        connection = connecting.result() if connecting is not None and connecting.done() else None
        if connection is not None:
            _keep_alive(connection, due)
        elif due and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_keep_alive, self._main, due)

    async def _connect(self) -> Connection | None:
        try:
            return await Connection.open(self._access, name="jetflow heartbeat", patient=True)
        except BrokerError as error:
            _log.warning("held tasks are kept alive by the event loop alone: %s", error)
            return None

    # --- the event loop of the steps

    def _watch_loop(self, now: float) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if self._answered >= self._asked:
            self._asked = now
            loop.call_soon_threadsafe(self._answer)
        elif now - self._asked >= BLOCKED_AFTER and self._blocked_by is None:
            running = asyncio.current_task(loop)
            self._blocked_by = "an unknown callback" if running is None else self._name_of(running)
            _log.warning(
                "%s has blocked the event loop for %.1f s: make it a plain def step, which runs in a thread",
                self._blocked_by,
                now - self._asked,
            )

    def _answer(self) -> None:
        """Run on the event loop of the steps."""
        now = monotonic()
        if self._blocked_by is not None:
            _log.warning("%s blocked the event loop for %.1f s in all", self._blocked_by, now - self._asked)
            self._blocked_by = None
        self._answered = now


def _has_failed(connecting: asyncio.Task[Connection | None]) -> bool:
    if not connecting.done():
        return False
    connection = connecting.result()
    return connection is None or connection.is_closed  # for good, by the server


def _keep_alive(connection: Connection, replies: list[str]) -> None:
    for reply in replies:
        connection.send(reply, IN_PROGRESS)
