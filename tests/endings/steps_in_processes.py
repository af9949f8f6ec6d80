"""Workflows whose steps run in processes: what the tests of these run, and a worker process of its own with them.

``python -m tests.endings.steps_in_processes URL NAMESPACE asyncio|uvloop``
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from jetflow import (
    ChildrenFailed,
    Context,
    JoinPolicy,
    KeyConflict,
    NonRetryable,
    Retry,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.errors import RetryAfter

ONCE = Retry(attempts=1)
AT_ONCE = Retry(attempts=3, initial=0)


class Pair(msgspec.Struct):
    left: int
    right: int = 1


class Facts(msgspec.Struct):
    run: str
    attempt: int
    key: str
    metadata: dict[str, Any]
    before: Pair
    cancelled: bool
    pid: int


class Noted(msgspec.Struct):
    """A file in which a step says that it has begun, one line each time: its process, and what it has started."""

    file: str
    seconds: float = 0.0


said: Workflow[int, int] = Workflow("p-said", input=int, output=int)


@said.step(runs_in="process")
def say(upto: int, ctx: Context) -> int:
    for number in range(upto):
        ctx.block_on(ctx.stream({"n": number}))
        ctx.progress(number / upto, f"at {number}")
        ctx.log("said", n=number)
    logging.getLogger("of.a.step").warning("logged in %s", "a process")
    return upto


class Unlucky(Exception):
    pass


def note(file: str, *numbers: int) -> None:
    with Path(file).open("a") as out:
        out.write(" ".join(map(str, numbers)) + "\n")


# --- values

doubled: Workflow[Pair, Facts] = Workflow("p-doubled", input=Pair, output=Facts)


@doubled.step(runs_in="process")
def double(pair: Pair) -> Pair:
    return Pair(2 * pair.left, 2 * pair.right)


@doubled.step(after=double, runs_in="process")
def facts(pair: Pair, ctx: Context) -> Facts:
    return Facts(
        run=ctx.run_id,
        attempt=ctx.attempt,
        key=ctx.idempotency_key,
        metadata=dict(ctx.metadata),
        before=ctx.output(double),
        cancelled=ctx.cancelled,
        pid=os.getpid(),
    )


@workflow("sleeping-in-process", runs_in="process")
def sleeping_in_process(seconds: float, ctx: Context) -> float:
    began = ctx.block_on(ctx.once("began", time.time))
    ctx.block_on(ctx.sleep(seconds))
    return time.time() - began


@workflow("p-echo", retry=ONCE, runs_in="process")
def echo(value: Any) -> Any:
    return value


@workflow("p-pid", retry=ONCE, runs_in="process")
def pid(_: int) -> int:
    return os.getpid()


@workflow("p-unwritable", retry=ONCE, runs_in="process")
def unwritable() -> Any:
    return {1 + 2j}


# --- errors


@workflow("p-fails", retry=Retry(attempts=3, initial=0, on=(Unlucky,)), runs_in="process")
def fails(how: str, ctx: Context) -> int:
    log = logging.getLogger("tests.steps")
    log.info("attempt of %s", how, extra={"how": how})
    log.debug("nobody asked for this")
    if how == "other":
        raise ValueError(how)
    if ctx.attempt < 3:
        raise Unlucky(how)
    return ctx.attempt


@workflow("p-final", retry=AT_ONCE, runs_in="process")
def final(how: str, ctx: Context) -> int:
    if how == "never":
        raise NonRetryable(how)
    if how == "exits":
        sys.exit(3)
    if ctx.attempt == 1:
        raise RetryAfter(0.3)
    return ctx.attempt


# --- deaths


@workflow("p-dies", retry=ONCE, runs_in="process")
def dies(number: int) -> None:
    os.kill(os.getpid(), number) if number else os._exit(3)


@workflow("p-out-of-memory", retry=ONCE, runs_in="process")
def out_of_memory(counts: str) -> None:
    """Do as the kernel does."""
    Path(counts).write_text("oom 4\noom_kill 2\n")
    os.kill(os.getpid(), signal.SIGKILL)


@workflow("p-unlucky", retry=Retry(attempts=1000, initial=0), runs_in="process")
def unlucky(deaths: int, ctx: Context) -> int:
    """Be killed ``deaths`` times."""
    if ctx.attempt <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@workflow("p-all-unlucky", retry=ONCE)
async def all_unlucky(deaths: list[int], ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(unlucky, deaths)))


@workflow("p-slow", retry=ONCE, runs_in="process")
def slow(noted: Noted) -> int:
    note(noted.file, os.getpid())
    time.sleep(noted.seconds)
    return os.getpid()


@workflow("p-gated", retry=ONCE, runs_in="process")
def gated(noted: Noted) -> int:
    note(noted.file, os.getpid())
    while not Path(f"{noted.file}-gate").exists():
        time.sleep(0.01)
    return os.getpid()


def computed_for_ever(noted: Noted) -> None:
    helper = subprocess.Popen(["sleep", "1000"])
    note(noted.file, os.getpid(), helper.pid)
    if noted.seconds:
        re.match(r"(a+)+$", "a" * 60 + "b")  # one call in C, which holds the interpreter's lock for years
    while True:
        pass


@workflow("p-endless", retry=ONCE, runs_in="process")
def endless(noted: Noted) -> None:
    computed_for_ever(noted)


@workflow("p-timed", retry=ONCE, timeout=0.3, runs_in="process")
def timed(noted: Noted) -> None:
    computed_for_ever(noted)


@workflow("p-handed-over", retry=ONCE, runs_in="process")
def handed_over(noted: Noted) -> int:
    """Go on for ever the first time."""
    begun = Path(noted.file).exists()
    note(noted.file, os.getpid())
    while not begun:
        pass
    return len(Path(noted.file).read_text().splitlines())


# --- children


@workflow("p-leaf", retry=ONCE, runs_in="process")
def leaf(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number * number


asks: Workflow[int, dict[str, Any]] = Workflow("p-asks", input=int)


@asks.step(retry=ONCE, runs_in="process")
def ask(count: int, ctx: Context) -> dict[str, Any]:
    """Ask all that a context can be asked."""
    made: list[int] = []

    def charge(amount: int) -> list[int]:
        made.append(amount)
        return [amount, os.getpid()]

    charged = [ctx.block_on(ctx.once("charge", charge, 7)) for _ in range(2)]
    children = ctx.block_on(ctx.spawn_workflows(leaf, range(count), key=str))
    one = ctx.block_on(ctx.spawn_workflow("p-leaf", 100))
    try:
        ctx.block_on(ctx.spawn_workflow(leaf, 5, key="1"))
        conflict = ""
    except KeyConflict as error:
        conflict = f"{error.key} {error.workflow}"
    try:
        ctx.block_on(ctx.join([ctx.block_on(ctx.spawn_workflow(leaf, -1))]))
        failed = ""
    except ChildrenFailed as error:
        [child] = error.exceptions
        failed = str(child)
    decided = ctx.block_on(ctx.join(children, policy=JoinPolicy.collect()))
    return {
        "charged": charged,
        "made": made,
        "joined": ctx.block_on(ctx.join(children)),
        "one": ctx.block_on(one.result()),
        "conflict": conflict,
        "failed": failed,
        "decided": sorted(decided.outputs),
        "as they end": sorted(ctx.block_on(_as_they_end(ctx, children))),
        "on a loop of its own": asyncio.run(_gathered(ctx, count)),
        "in a thread": _in_a_thread(ctx),
        "pid": os.getpid(),
    }


@asks.step(after=ask, retry=ONCE, runs_in="process")
def read(_: int, ctx: Context) -> dict[str, Any]:
    children = ctx.block_on(_all(ctx.children(ask, leaf)))
    return {**ctx.output(ask), "children": sorted(one.output for one in children if one.status == "succeeded")}


async def _all(results: Any) -> list[Any]:
    return await results


async def _as_they_end(ctx: Context, children: Any) -> list[int]:
    return [await child.result() async for child in ctx.as_completed(children)]


async def _gathered(ctx: Context, count: int) -> list[int]:
    children = await asyncio.gather(*(ctx.spawn_workflow(leaf, number, key=str(number)) for number in range(count)))
    return await ctx.join(children)


def _in_a_thread(ctx: Context) -> int:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(ctx.block_on(ctx.once("thread", lambda: 5))))
    thread.start()
    thread.join()
    return results[0]


@workflow("p-deep", retry=ONCE, runs_in="process")
def deep(levels: int, ctx: Context) -> int:
    if levels == 0:
        return 0
    return 1 + ctx.block_on(ctx.block_on(ctx.spawn_workflow(deep, levels - 1)).result())


@workflow("p-parent", retry=ONCE, runs_in="process")
def parent(noted: Noted, ctx: Context) -> int:
    note(noted.file, os.getpid())
    child = ctx.block_on(ctx.spawn_workflow(slow, Noted(f"{noted.file}-child", noted.seconds)))
    return ctx.block_on(child.result())


@workflow("p-outlived", retry=ONCE, runs_in="process")
def outlived(_: int, ctx: Context) -> str:
    """Use the context of a step that has ended."""
    global _kept
    before, _kept = _kept, ctx
    try:
        return "" if before is None else str(before.block_on(before.once("late", lambda: 1)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


_kept: Context | None = None


# --- the process itself


@workflow("p-sockets", retry=ONCE, runs_in="process")
def sockets() -> list[str]:
    return sorted(sockets_here())


@workflow("p-interrupted", retry=ONCE, runs_in="process")
def interrupted() -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return subprocess.run(["sh", "-c", "kill -INT $$; echo lives"], check=False).returncode


@workflow("p-forks", retry=ONCE, runs_in="process")
def forks(_: int, ctx: Context) -> str:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            ctx.block_on(ctx.once("x", lambda: 1))
        except BaseException as error:
            os.write(writing, type(error).__name__.encode())
        return "this is the child, and nobody may hear of it"
    os.waitpid(child, 0)
    return os.read(reading, 100).decode()


def sockets_here() -> set[str]:
    """Return the sockets that this process holds, by their numbers in the kernel."""
    links = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    return {link for link in links if link.startswith("socket:")}


@workflow("tick-off", retry=AT_ONCE)
async def tick_off(pair: Pair) -> int:
    return pair.left


@workflow("stream-apart", runs_in="process", retry=AT_ONCE)
def stream_apart(count: int, ctx: Context) -> list[int]:
    """Has a source that fails in the first attempt, behind a page."""

    def read(after: int | None) -> Any:
        for number in range(0 if after is None else after + 1, count):
            if ctx.attempt == 1 and number == count - 10:
                raise OSError("the source fails")
            yield Pair(number)

    streamed = ctx.block_on(ctx.spawn_stream(tick_off, read, window=50, position=lambda pair: pair.left))
    return [streamed.spawned, streamed.failed]


@workflow("reduce-apart", runs_in="process")
def reduce_apart(count: int, ctx: Context) -> int:
    inputs = (Pair(number) for number in range(count))
    return ctx.block_on(ctx.reduce(tick_off, inputs, lambda total, one: total + one, 0, window=50))


@workflow("p-told", retry=ONCE)
async def told(number: int, ctx: Context) -> Any:
    return ctx.metadata.get("part")


@workflow("p-tells", runs_in="process", retry=ONCE)
def tells(count: int, ctx: Context) -> list[Any]:
    one = ctx.block_on(ctx.spawn_workflow(told, -1, metadata={"part": "one"}))
    same = ctx.block_on(ctx.spawn_workflows(told, [-2], metadata={"part": "same"}))
    each = ctx.block_on(ctx.spawn_workflows(told, range(count), metadata=lambda number: {"part": number}))
    return ctx.block_on(ctx.join([one, *same, *each]))


@workflow("p-gives-up", runs_in="process", retry=ONCE)
def gives_up(noted: Noted, ctx: Context) -> None:
    ctx.block_on(ctx.cancel())
    note(noted.file, os.getpid())


@workflow("p-extends", runs_in="process", timeout=1.0, retry=ONCE)
def extends(seconds: float, ctx: Context) -> float:
    ctx.extend_timeout(seconds)
    time.sleep(seconds)
    return seconds


@workflow("p-lets-others", runs_in="process", timeout=20.0, retry=ONCE)
def lets_others(noted: Noted, ctx: Context) -> int:
    """Waits for one that needs its place."""
    ctx.release_slot()
    while not Path(noted.file).exists():
        time.sleep(0.01)
    return 1


FLOWS = [one for one in list(globals().values()) if isinstance(one, Workflow)]

if __name__ == "__main__":
    import uvloop

    URL, NAMESPACE, LOOP = sys.argv[1:]
    (uvloop.run if LOOP == "uvloop" else asyncio.run)(
        Worker(FLOWS, server=URL, namespace=NAMESPACE, options=WorkerOptions(ack_wait=1.0)).run()
    )
