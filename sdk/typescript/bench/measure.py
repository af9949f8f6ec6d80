"""Children a second of one child worker, in TypeScript and in Python, in turn: ``measure.py [--n N] [--slots S] [--rounds R]``.

All children are queued before the worker starts, so that what is measured is from the first outcome to the last. The
server and an idle Python parent run beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path
from statistics import median

import jetflow
from jetflow import Client, Context, Worker, WorkerOptions, Workflow, workflow
from jetflow.broker.session import Session

HERE = Path(__file__).resolve().parents[1]
CHILD = "bench-child"

parent: Workflow[int, None] = Workflow("bench-parent")


@parent.step
async def scatter(n: int, ctx: Context) -> None:
    await ctx.spawn_workflows(CHILD, range(n))


@workflow(CHILD)
async def child(n: int) -> int:
    return n * 2


def start(kind: str, url: str, slots: int) -> subprocess.Popen[bytes]:
    """Start a child worker, and wait until it is ready."""
    typescript = ["node", str(HERE / "dist" / "bench" / "child.js"), url, "--slots", str(slots), "--workflow", CHILD]
    command = typescript if kind == "TypeScript" else [sys.executable, __file__, "--worker", url, "--slots", str(slots)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"ready"
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child worker."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=40)


async def measured(kind: str, n: int, slots: int) -> float:
    """Return children a second."""
    async with jetflow.local_server() as server:
        stop(start(kind, server.url, slots))  # it has declared its workflow
        async with Worker([parent], server=server.url), jetflow.connect(server.url) as client:
            run = await client.trigger(parent, n)
            session = session_of(client)
            while await session.store.count(session.names.tasks_stream, f"jf.default.task.{CHILD}.>") < n:
                await asyncio.sleep(0.1)
            process = start(kind, server.url, slots)
            await run.result()
            stop(process)
            outcomes = f"jf.default.run.{run.id}.{run.id}.scatter.*"
            first = await session.store.first(session.names.records_stream, outcomes)
            last = await session.store.leader_last(session.names.records_stream, outcomes)
            assert first is not None
            assert last is not None
            return n / (last.time - first.time)


def session_of(client: Client) -> Session:
    """Return what a client reads the streams with."""
    return client._session


async def serve(url: str, slots: int) -> None:
    """Be a child worker in Python, until standard input ends."""
    async with Worker([child], server=url, options=WorkerOptions(slots=slots)):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker")
    given = parser.parse_args()
    if given.worker:
        import uvloop

        uvloop.run(serve(given.worker, given.slots))
        return
    found: dict[str, list[float]] = {"Python": [], "TypeScript": []}
    for _ in range(given.rounds):
        for kind, rates in found.items():
            rates.append(asyncio.run(measured(kind, given.n, given.slots)))
    for kind, rates in found.items():
        print(f"{kind:10} {median(rates):8,.0f} children/s  ({', '.join(f'{rate:,.0f}' for rate in rates)})")
    print(f"TypeScript has {median(found['TypeScript']) / median(found['Python']):.2f} of Python's")


if __name__ == "__main__":
    main()
