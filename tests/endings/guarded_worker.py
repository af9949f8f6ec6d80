"""A worker process with a guard: ``python -m tests.endings.guarded_worker URL NAMESPACE ACK_WAIT``.

It tells on stdout which bodies begin, and that a guard is there.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from jetflow import Context, Retry, Worker, WorkerOptions, workflow
from tests.inside import services

SLOTS = 2


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def opened(gate: str) -> None:
    """Wait until a file is there."""
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - what is waited for sets no event, and is local
        await asyncio.sleep(0.02)


@workflow("holding", retry=Retry(attempts=3))
async def holding(gate: str, ctx: Context) -> int:
    """Return the number of the attempt that has found its gate open."""
    say(f"holding {ctx.attempt}")
    await opened(gate)
    return ctx.attempt


@workflow("holding-once", retry=Retry(attempts=1))
async def holding_once(gate: str) -> None:
    say("began once")
    await opened(gate)


@workflow("forking", retry=Retry(attempts=2))
async def forking(_: None, ctx: Context) -> int:
    """Leave a child that outlives the worker, which dies."""
    if ctx.attempt == 1:
        if (child := os.fork()) == 0:
            signal.pause()
        say(f"child {child}")
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@workflow("clutching", retry=Retry(attempts=2))
def clutching(seconds: int, ctx: Context) -> int:
    """Let nothing else of this process run: a call that keeps the interpreter's lock."""
    say(f"clutching {ctx.attempt}")
    ctypes.PyDLL(None).sleep(seconds)
    return ctx.attempt


FLOWS = [holding, holding_once, forking, clutching]


def options(ack_wait: float) -> WorkerOptions:
    return WorkerOptions(ack_wait=ack_wait, slots=SLOTS)


async def main(url: str, namespace: str, ack_wait: float) -> None:
    worker = Worker(FLOWS, server=url, namespace=namespace, options=options(ack_wait))
    watching: list[asyncio.Task[None]] = []
    await worker.run(started=lambda: watching.append(asyncio.get_running_loop().create_task(tell(worker))))
    watching[0].cancel()


async def tell(worker: Worker) -> None:
    """Say it each time that a guard has kept alive what is held."""
    guarding = services(worker).guarding
    assert guarding is not None
    beaten = 0.0
    while True:
        if guarding.table.beaten != beaten:
            beaten = guarding.table.beaten
            say("guarded")
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    URL, NAMESPACE, ACK_WAIT = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    asyncio.run(main(URL, NAMESPACE, float(ACK_WAIT)))
