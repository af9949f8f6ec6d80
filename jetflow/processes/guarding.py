"""A worker's side of its guard: starts it, starts it again when it dies, and says goodbye to it.

All of it happens in a thread, so that a guard is replaced also while a step blocks the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow import forks
from jetflow.broker.access import Access
from jetflow.processes.guard import FAREWELL, Watched
from jetflow.processes.table import HeldTable

STATUS: Final = "JETFLOW_STATUS_FD"
"""The environment variable in which a supervisor names the descriptor on which it tells how the worker has ended."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0
"""Seconds before a guard that died is started again: doubled each time, up to the longest."""

ENDS_WITHIN: Final = 5.0
"""Seconds that a guard has to end when its worker has stopped."""

_CODE: Final = "import sys; sys.path.append(sys.argv[1]); from jetflow.processes.guard import main; main()"
_PACKAGES: Final = str(Path(__file__).parents[2])

_log = logging.getLogger("jetflow.worker")


def can_be_guarded(access: Access) -> bool:
    """Tell whether another process can reach the broker in the same way, and memory can be shared with it."""
    return os.name == "posix" and _told(access) is not None


class Guarding:
    """Has one guard watch this process. `start` and `stop` it once."""

    def __init__(self, access: Access, namespace: str, worker: str, steps: list[tuple[str, str]]) -> None:
        self.table: HeldTable = HeldTable.new()
        self._life, self._held_open = os.pipe()
        self._told = _told(access)
        self._namespace = namespace
        self._worker = worker
        self._steps = steps
        self._status = int(os.environ.pop(STATUS, "-1"))  # not for what a step may start
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._is_told = threading.Event()
        self._thread = threading.Thread(target=self._keep_guarded, name="jetflow-guarding", daemon=True)
        forks.in_child(self, Guarding._leave)

    async def start(self) -> None:
        """Start the guard, and whatever guard follows it. Once it knows whom it watches, no death escapes it."""
        self._thread.start()
        await asyncio.to_thread(self._is_told.wait, ENDS_WITHIN)

    async def stop(self) -> None:
        """Have the guard end, which gives nothing back, if it was started."""
        if self._thread.ident is not None:
            await self._end()
        os.close(self._held_open)
        os.close(self._life)
        self.table.close()

    async def _end(self) -> None:
        self._stopping.set()
        with suppress(BrokenPipeError):
            os.write(self._held_open, FAREWELL)
        await asyncio.to_thread(self._thread.join, ENDS_WITHIN)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._thread.join)

    def _leave(self) -> None:
        """In a forked child: the worker's end of the pipe is not the child's to hold open."""
        forks.close_here(self._held_open)

    # --- in the thread

    def _keep_guarded(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = monotonic()
            try:
                status = self._guarded()
            except OSError as error:
                _log.error("a guard cannot be started: %s", error)
                status = -1
            if self._stopping.is_set():
                return
            pause = FIRST_PAUSE if monotonic() - began > LONGEST_PAUSE else pause
            _log.warning("the guard of this worker ended (%d): another one is started in %g s", status, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _guarded(self) -> int:
        """Start a guard, and return how it has ended."""
        watched = Watched(
            worker=self._worker,
            pid=os.getpid(),
            namespace=self._namespace,
            steps=self._steps,
            table=self.table.file,
            life=self._life,
            status=self._status,
            **(self._told or {}),
        )
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, _PACKAGES],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[one for one in (self.table.file, self._life, self._status) if one >= 0],
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(msgspec.msgpack.encode(watched))
        self._is_told.set()
        return process.wait()


def _told(access: Access) -> dict[str, Any] | None:
    """Return an access as another process can be told of it; None if it cannot."""
    told: dict[str, Any] = {
        "servers": access.servers,
        "auth": {name: _plain(said) for name, said in msgspec.structs.asdict(access.auth).items()},
        "copied": dict(access.copied),
        "api": access.api,
        "inbox": access.inbox,
    }
    try:
        msgspec.msgpack.encode(told)
    except TypeError:  # a client that was handed over signs by a function of its own
        return None
    return told


def _plain(said: Any) -> Any:
    return str(said) if isinstance(said, Path) else said
