"""Worker processes, a server to work with, and a look at how far a tree of runs is.

``python processes.py URL`` is one worker. It ends when it is told to (SIGTERM), and when the program that started it
is gone: then its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop
from indexing import WORKFLOWS
from nats.aio.client import Client as Nats

import jetflow
from jetflow import Worker, WorkerOptions

NAMESPACE = "examples"
T = TypeVar("T")

EXIT_INTERRUPTED = 130
GRACE = 2.0  # seconds that a worker may take to stop

# --- one worker, in a process of its own ------------------------------------------------------------------------


async def work(url: str, options: WorkerOptions) -> None:
    worker = Worker(WORKFLOWS, server=url, namespace=NAMESPACE, options=options)
    await worker.start()
    print("ready", flush=True)
    await worker.run()


def stop_when_orphaned() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


class WorkerProcess:
    """A worker that can be started, killed as by a crash, and stopped as by a deploy."""

    def __init__(self, url: str, *, slots: int, ack_wait: float) -> None:
        self._command = [sys.executable, __file__, url, f"--slots={slots}", f"--ack-wait={ack_wait}"]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it pulls tasks."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the program, which then stops its workers
        )
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"a worker ended with exit code {await self._process.wait()} before it was ready")

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def workers(url: str, *, count: int, slots: int, ack_wait: float = 5.0) -> AsyncGenerator[list[WorkerProcess]]:
    processes = [WorkerProcess(url, slots=slots, ack_wait=ack_wait) for _ in range(count)]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        yield processes
    finally:
        await asyncio.gather(*(process.stop() for process in processes))


# --- the server ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def server_url() -> AsyncGenerator[str]:
    """The server that NATS_URL names, or else one of our own."""
    if url := os.environ.get("NATS_URL"):
        yield url
    else:
        async with jetflow.local_server() as server:
            yield server.url


# --- how far the tree is ---------------------------------------------------------------------------------------


class Descendants:
    """Counts the descendants of a root run, by the subjects of their messages: one request each, however many."""

    def __init__(self, nats: Nats, root: str) -> None:
        self._nats = nats
        self.root = root

    async def ended(self) -> int:
        """Count the descendants that have an outcome."""
        every = await self._count("records", f"jf.{NAMESPACE}.run.{self.root}.>")
        return every - await self._count("records", f"jf.{NAMESPACE}.run.{self.root}.*.*.{self.root}")

    async def spawned(self) -> int:
        """Count the descendants; all are workflows of one step."""
        every = await self._count("tasks", f"jf.{NAMESPACE}.task.*.*.{self.root}.>")
        return every - await self._count("tasks", f"jf.{NAMESPACE}.task.*.*.{self.root}.*.{self.root}.*")

    async def open(self) -> int:
        return await self.spawned() - await self.ended()

    async def _count(self, stream: str, subject: str) -> int:
        no_list = 2**31  # an offset behind every subject: the answer is the total alone
        question = json.dumps({"subjects_filter": subject, "offset": no_list}).encode()
        answer = await self._nats.request(f"$JS.API.STREAM.INFO.JF_{NAMESPACE}_{stream}", question, timeout=10)
        return json.loads(answer.data).get("total", 0)


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, T]) -> AsyncGenerator[asyncio.Task[T]]:
    """Run a coroutine beside the block, which ends it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class Progress:
    """One line that is written over and over on a terminal, and a line a second anywhere else."""

    def __init__(self, total: int, what: str = "child runs have ended") -> None:
        self._total = total
        self._what = what
        self._steps = 0
        self._began = time.monotonic()
        self._every = 0.1 if sys.stdout.isatty() else 1.0
        self._next = 0.0

    def step(self) -> None:
        """Show that one more is done."""
        self._steps += 1
        self.show(self._steps)

    def show(self, ended: int, remark: str = "") -> None:
        now = time.monotonic()
        if now < self._next and not remark:
            return
        self._next = now + self._every
        line = f"{now - self._began:5.1f} s  {ended:,} of {self._total:,} {self._what}{remark}"
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="\n" if remark else "", flush=True)
        else:
            print(line, flush=True)

    def end(self) -> None:
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one worker of the indexing workflows")
    parser.add_argument("url")
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--ack-wait", type=float, default=5.0)
    given = parser.parse_args()
    threading.Thread(target=stop_when_orphaned, daemon=True).start()
    uvloop.run(work(given.url, WorkerOptions(slots=given.slots, ack_wait=given.ack_wait, grace=GRACE)))
