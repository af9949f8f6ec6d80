"""Tasks that a stopped worker leaves behind: their functions go on in threads, which nothing can stop.

Until a function has ended, or its process, nobody else may begin it: its task is kept alive from here, and delivered
again when it has ended. A daemon thread does so, which goes on behind the worker's end and ends with the process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Final

import msgspec

from jetflow.broker.access import Access
from jetflow.broker.connection import Connection
from jetflow.errors import BrokerError
from jetflow.processes.guard import IN_PROGRESS, ROUNDS
from jetflow.worker.deliveries import NAK
from jetflow.worker.threads import Call

LOOK_EVERY: Final = 0.05
"""Seconds between two looks whether a function has ended."""

_log = logging.getLogger("jetflow.worker")


class Leftovers:
    """Keeps tasks alive until their calls have ended. ``kept`` maps acknowledgement subjects to calls."""

    def __init__(self, access: Access, kept: dict[str, Call], ack_wait: float) -> None:
        self._access = msgspec.structs.replace(access, client=None)  # a connection of its own, like that one
        self._kept = kept
        self._pause = ack_wait / ROUNDS
        self._thread = threading.Thread(target=self._run, name="jetflow-leftovers", daemon=True)

    async def start(self, *, wait: float) -> None:
        """Begin, and wait at most so many seconds for the end."""
        self._thread.start()
        await asyncio.to_thread(self._thread.join, wait)

    # --- in the thread

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        try:
            async with await Connection.open(self._access, name="jetflow leftovers", patient=True) as connection:
                await self._keep_on(connection)
        except BrokerError as error:
            _log.error("tasks whose functions go on in threads are not kept alive: %s", error)

    async def _keep_on(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while self._kept:
            is_due = loop.time() >= due
            for reply, call in list(self._kept.items()):
                if call.has_ended:
                    connection.send(reply, NAK)
                    del self._kept[reply]
                elif is_due:
                    connection.send(reply, IN_PROGRESS)
            if is_due:
                due = loop.time() + self._pause
            await asyncio.sleep(LOOK_EVERY)
