"""A worker process whose steps fork: ``python -m tests.endings.forking_worker URL NAMESPACE asyncio|uvloop``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import uvloop

from jetflow import Context, Retry, Worker, workflow

PATIENCE = 20.0
ONCE = Retry(attempts=1)


def squared(number: int) -> int:
    return number * number


def wait_for_ever() -> None:
    signal.pause()


def said_in_a_child(function: Callable[[], object]) -> str:
    """Return the error that a function raises in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as said:
        return said.read()


@workflow("pooled", retry=ONCE)
def pooled(count: int) -> int:
    with multiprocessing.get_context("fork").Pool(2) as pool:  # whose end terminates the children
        return sum(pool.map(squared, range(count)))


@workflow("bounded", retry=ONCE)
def bounded() -> int | None:
    child = multiprocessing.get_context("fork").Process(target=wait_for_ever)
    child.start()
    child.terminate()
    child.join(PATIENCE)
    return child.exitcode


@workflow("executed", retry=ONCE)
def executed(count: int) -> int:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return sum(pool.map(squared, range(count)))


@workflow("called", retry=ONCE)
async def called() -> str:
    child = await asyncio.create_subprocess_exec("sh", "-c", "echo done", stdout=subprocess.PIPE)
    told, _ = await child.communicate()
    return told.decode().strip()


@workflow("comes-back", retry=ONCE)
def comes_back() -> int:
    """Return in the child, too, and from the middle of a coroutine of the worker."""
    child = os.fork()
    return 0 if child == 0 else os.waitpid(child, 0)[1]


@workflow("comes-back-async", retry=ONCE)
async def comes_back_async() -> int:
    child = os.fork()
    if child == 0:
        raise ValueError("this is the child, and nobody may hear of it")
    return os.waitpid(child, 0)[1]  # noqa: ASYNC222 - it ends at once


@workflow("spawns-in-child", retry=ONCE)
def spawns_in_child(_: int, ctx: Context) -> str:
    return said_in_a_child(lambda: ctx.block_on(ctx.spawn_workflow(called)))


FLOWS = [pooled, bounded, executed, called, comes_back, comes_back_async, spawns_in_child]

if __name__ == "__main__":
    URL, NAMESPACE, LOOP = sys.argv[1:]
    (uvloop.run if LOOP == "uvloop" else asyncio.run)(Worker(FLOWS, server=URL, namespace=NAMESPACE).run())
