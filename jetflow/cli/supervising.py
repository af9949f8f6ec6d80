"""The worker of `jetflow dev`: `jetflow worker`, which starts again what dies, started again itself when files change.

It is a process in a session of its own, so that Ctrl-C reaches it only through here, and its stdin is a pipe from here,
whose end tells it to stop: it does not outlive this process. There is one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Final

from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType] - it mentions trio

from jetflow.processes.guard import how_ended

PATIENCE: Final = 2.0
"""Seconds that running steps may go on after a change, and that the worker then has to end."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("jetflow.cli")


async def run_supervised(arguments: Sequence[str], watched: Iterable[Path] = ()) -> int:
    """Run ``jetflow ARGUMENTS...`` until SIGTERM or SIGINT; return the exit status.

    With directories that are ``watched``, again whenever a .py file in them changes. The second signal ends the
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
        self._ended = asyncio.get_running_loop().create_task(self._wait(process))
        if self.told.is_set():
            self._send(signal.SIGTERM)

    async def restart(self) -> None:
        """End the process, and with impatience, and start one of the new code unless told to end."""
        process, self._process = self._process, None
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
        await asyncio.wait({self._ended})

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of a process, and end with it unless the next change may mend it."""
        status = await process.wait()
        if process is not self._process or self.told.is_set():
            return
        if self._reloads:
            _log.warning("the worker %s: it starts again at the next change", how_ended(status))
        else:
            self.status = status if status >= 0 else 128 - status
            self.told.set()
