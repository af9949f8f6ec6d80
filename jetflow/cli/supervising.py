"""A worker process that is started again when it dies, and on request when a .py file changes.

The worker is a process in a session of its own, so that Ctrl-C reaches it only through here, and its stdin is a pipe
from here, whose end tells it to stop: it does not outlive this process. There is one worker process at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType] - it mentions trio

PATIENCE: Final = 2.0
"""Seconds that running steps may go on after a change, and that the worker then has to end."""

FIRST_PAUSE: Final = 0.5
"""Seconds before a worker that died starts again, doubled each time that it dies soon."""

LONGEST_PAUSE: Final = 30.0
"""Seconds up to which they are doubled; a worker that has lived for longer did not die soon."""

MISUSED: Final = 2
"""The exit status of a worker that could make no sense of its command line: another time it would not, either."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("jetflow.cli")


async def run_supervised(arguments: Sequence[str], watched: Iterable[Path] = ()) -> int:
    """Run ``jetflow ARGUMENTS...`` until SIGTERM or SIGINT, again whenever it dies; return the exit status.

    With directories that are ``watched``, again whenever a .py file in them changes, too. The second signal ends the
    worker's grace time, the third one kills it.
    """
    worker = _WorkerProcess(arguments, reloads=bool(watched))
    with _handled(worker):
        try:
            await worker.start()
            if not watched:
                await worker.told.wait()
                return worker.status
            async for batch in awatch(*watched, watch_filter=PythonFilter(), stop_event=worker.told):
                names = sorted({Path(file).name for _, file in batch})
                _log.info("%s changed: the worker starts again", ", ".join(names[:5]))
                await worker.restart()
        finally:
            await worker.stop()
    return worker.status


@contextlib.contextmanager
def _handled(worker: _WorkerProcess) -> Generator[None]:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, worker.on_signal)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class _WorkerProcess:
    """The worker process of now. ``told`` is set when there shall be none any more, with the exit ``status``."""

    def __init__(self, arguments: Sequence[str], *, reloads: bool) -> None:
        self.told = asyncio.Event()
        self.status = 0
        self._arguments = arguments
        self._reloads = reloads
        self._process: asyncio.subprocess.Process | None = None
        self._ended = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        self._pause = FIRST_PAUSE
        self._signals = 0

    def on_signal(self) -> None:
        self.told.set()
        self._signals += 1
        self._send(signal.SIGTERM if self._signals < 3 else signal.SIGKILL)

    async def start(self) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jetflow.cli", *self._arguments, "--tied"),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._ended = asyncio.get_running_loop().create_task(self._wait(process, monotonic()))
        if self.told.is_set():
            self._send(signal.SIGTERM)

    async def restart(self) -> None:
        """End the process, and with impatience, and start one of the new code unless told to end."""
        process, self._process = self._process, None
        if process is not None and process.returncode is not None:
            self._ended.cancel()  # the pause before it would start again
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if process is not None and process.returncode is None:
                process.send_signal(number)
                await asyncio.wait({self._ended}, timeout=PATIENCE)
        await asyncio.wait({self._ended})
        if not self.told.is_set():
            await self.start()

    async def stop(self) -> None:
        """End the process for good, however long its grace time is."""
        if not self.told.is_set():
            self.on_signal()
        while not self._ended.done():  # the end of one may be the start of another
            await asyncio.wait({self._ended})

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _wait(self, process: asyncio.subprocess.Process, began: float) -> None:
        """Wait for the end of a process, and start another one if it was not asked to end."""
        status = await process.wait()
        if process is not self._process or self.told.is_set():
            return
        if status > 0 and self._reloads:
            _log.warning("the worker ended with status %d: it starts again at the next change", status)
        elif status == MISUSED:
            self.status = status
            self.told.set()
        else:
            if monotonic() - began > LONGEST_PAUSE:
                self._pause = FIRST_PAUSE
            _log.error("the worker %s: it starts again in %g s", _how(status), self._pause)
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.told.wait(), pause)
            if process is self._process and not self.told.is_set():
                await self.start()


def _how(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
