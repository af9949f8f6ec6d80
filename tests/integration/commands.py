"""The `jetflow` command as a process, for tests: its lines as they come, its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, TypeAlias

import pytest

BOUND = 30.0
"""Seconds that a line of output, or the end of a command, may take."""

CONNECTING = (
    *("worker", "trigger", "show", "cancel", "rerun", "doctor", "dev", "watch", "list", "errors", "queues", "workers"),
    *("top", "publish", "signal", "logs", "schedules", "limits", "delayed", "reschedule"),
    *("workflows", "graph", "pause", "resume", "drain", "setup", "dashboard"),
)
"""Commands that take a namespace."""

FLOWS = """
import asyncio
import time

import msgspec

from jetflow import Context, Retry, Workflow, workflow


class Order(msgspec.Struct):
    items: list[int]


@workflow("square")
async def square(n: int) -> int:
    return n * n


@workflow("broken", retry=Retry(attempts=2, initial=0.01))
async def broken(n: int) -> int:
    raise ValueError(f"no [bold]{n}[/bold]")


total_squares = Workflow("total-squares")


@total_squares.step
async def spread(order: Order, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(square, order.items)))


@total_squares.step(after=[spread])
async def report(order: Order, ctx: Context) -> dict[str, int]:
    return {"total": ctx.output(spread)}


@workflow("stuck")
async def stuck(name: str) -> None:
    print(f"stuck {name}", flush=True)
    await asyncio.Event().wait()


@workflow("stuck-thread")
def stuck_thread(name: str) -> None:
    print(f"stuck {name}", flush=True)
    time.sleep(600)


nothing = object()
"""


class Ended(NamedTuple):
    status: int
    output: str
    errors: str


class Command:
    """A command that runs. Its output is kept, and can be waited for line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output: list[str] = []
        self.errors: list[str] = []
        self._changed = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        self._readers = [
            loop.create_task(self._read(process.stdout, self.output)),
            loop.create_task(self._read(process.stderr, self.errors)),
        ]

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            async with self._changed:
                lines.append(line.decode())
                self._changed.notify_all()

    async def line(self, text: str, *, times: int = 1) -> str:
        """Wait until ``text`` stands in that many lines of output, and return the last one."""

        def found() -> list[str]:
            return [line for line in self.output + self.errors if text in line]

        try:
            async with asyncio.timeout(BOUND), self._changed:
                await self._changed.wait_for(lambda: len(found()) >= times)
        except TimeoutError:
            pytest.fail(f"no {text!r} in {self.output} and {self.errors}")
        return found()[times - 1]

    async def matching(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until a line of output matches, and return how."""
        async with asyncio.timeout(BOUND), self._changed:
            while True:
                for line in self.output + self.errors:
                    if found := pattern.search(line.rstrip("\n")):
                        return found
                await self._changed.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def ended(self) -> Ended:
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*self._readers)
            status = await self.process.wait()
        return Ended(status, "".join(self.output), "".join(self.errors))

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._readers)


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Command]]


async def run(start: Start, *arguments: str, **options: Any) -> Ended:
    async with start(*arguments, **options) as command:
        return await command.ended()


@contextlib.asynccontextmanager
async def working(start: Start, *arguments: str) -> AsyncGenerator[Command]:
    """A worker that has begun to pull, and ends as it should."""
    async with start("worker", *(arguments or ("flows",)), "--grace", "0") as worker:
        await worker.line(" runs ")
        yield worker
        worker.interrupt()
        assert (await worker.ended()).status == 0


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    return text.rstrip()
