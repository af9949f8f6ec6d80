"""Worker processes: how the bench starts and ends them, and how they serve until they are told to stop.

A worker is a module that is run with a server's URL. It writes one line to its standard output when it is ready, and
ends when its standard input ends, so that none outlives the bench, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks import machine

READY: Final = "ready"
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 40.0


class WorkerProcess:
    """One running worker process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait_ready(self) -> None:
        """Wait until it says that it works.

        Raises:
            RuntimeError: it ended first, or said nothing.
        """
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_TIMEOUT)
        except TimeoutError:
            line = b""
        if line.decode().strip() != READY:
            raise RuntimeError(f"a worker process did not start:\n{self.log_tail()}")

    async def stop(self) -> None:
        """Tell it to stop, and wait for its end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def last_line(self) -> str:
        """Tell it to stop, and return the line that it prints before it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        return (await asyncio.wait_for(self._process.stdout.readline(), STOP_TIMEOUT)).decode().strip()

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it logged."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


@asynccontextmanager
async def worker_processes(module: str, url: str, *arguments: str, count: int) -> AsyncIterator[list[WorkerProcess]]:
    """Run ``count`` worker processes for the time of the block."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jetflow-bench-")))
        workers: list[WorkerProcess] = []
        for number in range(count):
            log = scratch / f"worker-{number}.log"
            worker = WorkerProcess(await _launch(module, url, arguments, log), log)
            stack.push_async_callback(worker.stop)
            workers.append(worker)
        for worker in workers:
            await worker.wait_ready()
        try:
            yield workers
        except Exception as error:
            for worker in workers:
                error.add_note(f"log of worker {worker.pid}:\n{worker.log_tail()}")
            raise


async def _launch(module: str, url: str, arguments: tuple[str, ...], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", module, url, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends its workers
        )


async def serve() -> None:
    """In a worker process: say that it is ready, and return when it is to stop."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    class Input(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            told.set()

    loop.add_signal_handler(signal.SIGTERM, told.set)
    transport, _ = await loop.connect_read_pipe(Input, sys.stdin)
    machine.collect_garbage()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    await told.wait()
    transport.close()
