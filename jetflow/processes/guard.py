"""The guard: a small process that watches one worker process.

It has a connection of its own, and reads from shared memory what the worker holds. While the worker lives it keeps that
alive at the broker, so that no long call and no collection of garbage can lose a task. When the worker dies, whatever
the reason, it records for each held task that its body was lost, or had not begun, and has the broker deliver it to
another worker at once. The record comes first: who is given the task counts its attempts by that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow.broker.access import Access
from jetflow.broker.auth import Auth
from jetflow.broker.connection import Connection
from jetflow.errors import BrokerError
from jetflow.processes.releasing import Releasing
from jetflow.processes.table import HeldTable

ROUNDS: Final = 7
"""Rounds in each ``ack_wait``. A task is kept alive in every second one: with time to spare within a third."""

FAREWELL: Final = b"stopped"
"""What a worker says that stops: what it held is handed back."""

RELEASED_WITHIN: Final = 60.0
"""Seconds for which a guard tries to reach the broker when its worker has died."""

STATUS_WITHIN: Final = 0.25
"""Seconds in which the supervisor says how the worker has ended, if there is one."""

LOOK_EVERY: Final = 0.1
"""Seconds between two looks at a worker that has closed the pipe, and may live."""

IN_PROGRESS: Final = b"+WPI"

_log = logging.getLogger("jetflow.guard")


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker a guard watches, and how it reaches the broker.

    ``steps`` are those that it pulls, each with its workflow. ``table`` and ``life`` are descriptors: the memory, and
    the end of a pipe that the worker holds the other end of. On ``status`` its supervisor writes how it has ended; -1
    if there is none.
    """

    worker: str
    pid: int
    namespace: str
    steps: list[tuple[str, str]]
    table: int
    life: int
    status: int = -1
    servers: tuple[str, ...]
    auth: dict[str, Any]
    copied: dict[str, Any]
    api: str
    inbox: str

    def access(self) -> Access:
        """Return how the broker is reached."""
        return Access(servers=self.servers, auth=Auth(**self.auth), copied=self.copied, api=self.api, inbox=self.inbox)


class Guard:
    """Watches a worker until it has stopped or died. `watch` it once."""

    def __init__(self, watched: Watched, connection: Connection) -> None:
        self._watched = watched
        self._connection = connection
        self._table = HeldTable(watched.table)
        self._releasing = Releasing(connection, watched.namespace, watched.worker)

    async def watch(self) -> None:
        """Keep alive what the worker holds until it stops; release it if it dies."""
        await self._releasing.start()
        beating = asyncio.get_running_loop().create_task(self._beat())
        try:
            if await self._has_died():
                beating.cancel()
                await self._release()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await self._releasing.stop()

    async def _has_died(self) -> bool:
        """Wait for the end of the worker, and tell whether it was its death."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        os.set_blocking(self._watched.life, False)
        loop.add_reader(self._watched.life, ended.set)
        await ended.wait()
        loop.remove_reader(self._watched.life)
        if os.read(self._watched.life, len(FAREWELL)):
            return False
        while os.getppid() == self._watched.pid:  # noqa: ASYNC110 - it lives, and has closed all that it did not know
            await asyncio.sleep(LOOK_EVERY)
        return True

    # --- while it lives

    async def _beat(self) -> None:
        seen: set[str] = set()
        beaten: set[str] = set()
        while True:
            if self._connection.is_connected and not is_stopped(self._watched.pid):
                held = {one.reply for one in self._table.held()}
                beaten = (held & seen) - beaten
                seen = held
                for reply in beaten:
                    self._connection.send(reply, IN_PROGRESS)
                self._table.beat(monotonic())
            await asyncio.sleep((self._table.ack_wait or 1.0) / ROUNDS)

    # --- when it has died

    async def _release(self) -> None:
        held = list(self._table.held())
        reason = await self._reason()
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASED_WITHIN):
                released = await self._releasing.release(held, self._watched.steps, reason)
                _log.error("worker %s %s: %d tasks that it had are given back", self._watched.worker, reason, released)

    async def _reason(self) -> str:
        """Return how the worker has ended, as far as its supervisor says so."""
        status = self._watched.status
        if status < 0:
            return "died"
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(status, told.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(STATUS_WITHIN):
                await told.wait()
        loop.remove_reader(status)
        text = os.read(status, 16).decode() if told.is_set() else ""
        return how_ended(int(text)) if text else "died"


def how_ended(status: int) -> str:
    """Return how a process has ended, for people; ``status`` is as `subprocess` has it."""
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def is_stopped(pid: int) -> bool:
    """Tell whether a process is paused by a signal or a debugger: others may take over what it holds."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - each round
            return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False  # not Linux, or it has just died


async def _main(watched: Watched) -> None:
    async with await Connection.open(watched.access(), name="jetflow guard", patient=True) as connection:
        await Guard(watched, connection).watch()


def main() -> None:
    """Be the guard of the worker that stdin tells of."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its worker has
    logging.basicConfig(format="%(asctime)s %(levelname)-8s %(name)s: %(message)s", level=logging.WARNING)
    told = sys.stdin.buffer.read()
    if not told:
        return  # its worker has died before it could say anything
    watched = msgspec.msgpack.decode(told, type=Watched)
    try:
        asyncio.run(_main(watched))
    except BrokerError as error:
        _log.error("the guard of worker %s ends: %s", watched.worker, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
