"""Schedules and sleepers while workers and their server are killed: ``python -m tests.endings.tick_many``.

Some schedules of one second run for a while, beside steps that sleep; workers, each a process, are killed at random,
and so is the server. In the end each tick has to have one run, no run may have begun before its tick, and no sleeper
have woken before its time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

import jetflow
from jetflow import Context, Worker, WorkerOptions, workflow
from jetflow.runs.schedules import read_schedules
from jetflow.server import NatsServer
from jetflow.wire.records import decode_outcome, parse_task

WORKERS = 3
SETTLE = 60.0
"""Seconds in which all that was started must end."""


@workflow("ticked")
async def ticked(number: int) -> int:
    return number


@workflow("slept")
async def slept(seconds: float, ctx: Context) -> float:
    """Return by how much it was woken too early; below 0 if it was not."""
    began = await ctx.once("began", time)
    await ctx.sleep(seconds)
    return began + seconds - time()


async def work(url: str) -> None:
    await Worker([ticked, slept], server=url, options=WorkerOptions(park_after=0, sweep_every=5)).run()


async def start(url: str) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.endings.tick_many", "--work", url)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)


async def kill_for(seconds: float, server: NatsServer, chance: random.Random) -> tuple[int, int]:
    """Kill workers, and the server twice; return how often."""
    workers = [await start(server.url) for _ in range(WORKERS)]
    end, killed, servers = time() + seconds, 0, 0
    while time() < end:
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        if servers < 2 and time() > end - seconds * (2 - servers) / 3:
            servers += 1
            await server.kill()
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            await server.start()
            continue
        victim = workers.pop(chance.randrange(len(workers)))
        victim.kill()
        await victim.wait()
        killed += 1
        workers.append(await start(server.url))
    for one in workers:
        one.kill()
        await one.wait()
    return killed, servers


async def main(given: argparse.Namespace) -> int:
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="jetflow-ticks-") as directory:
        async with NatsServer(Path(directory)) as server, jetflow.connect(server.url) as client:
            names = [f"s{number}" for number in range(given.schedules)]
            await client.session.registry.ensure(ticked.declaration)
            began = time()
            for number, name in enumerate(names):
                await client.schedules.create(name, ticked, number, every=1, catch_up="all")
            sleepers = [await client.trigger(slept, chance.uniform(1, given.seconds)) for _ in range(given.sleepers)]
            killed, servers = await kill_for(given.seconds, server, chance)
            worker = await start(server.url)
            ended = time()
            await asyncio.sleep(5)  # what is due by then is handled
            for name in await read_schedules(client.session):
                await client.schedules.pause(name)
            early_wakes = [max(0.0, await run.result(SETTLE)) for run in sleepers]
            report = await compare(client, names, began, ended)
            worker.terminate()
            await worker.wait()
    woken = sum(late > 0 for late in early_wakes)
    sys.stdout.write(
        f"{len(names)} schedules for {given.seconds:g} s, {killed} worker kills, {servers} server kills\n"
        f"ticks {report['ticks']}, missed {report['missed']}, doubled {report['doubled']}, early {report['early']}\n"
        f"sleepers {len(sleepers)}, woken early {woken}\n"
    )
    return int(bool(report["missed"] or report["doubled"] or report["early"] or woken))


async def compare(client: jetflow.Client, names: list[str], began: float, ended: float) -> dict[str, int]:
    """Compare the runs that are stored with the ticks that there were."""
    store, subjects = client.session.store, client.session.names
    tasks: Counter[tuple[str, int]] = Counter()
    runs: dict[str, int] = {}
    async for page in store.pages(subjects.tasks_stream, subjects.tasks_of_step("ticked", "run")):
        for stored in page:
            name, _, tick = (parse_task(stored.subject, stored.headers, stored.body).key or "").partition("@")
            at = int(datetime.fromisoformat(tick).timestamp())
            tasks[name, at] += 1
            runs[stored.subject.split(".")[7]] = at
    early = 0
    async for page in store.pages(subjects.records_stream, subjects.roots_ended):
        for stored in page:
            outcome = decode_outcome(stored.body)
            early += outcome.workflow == "ticked" and outcome.started < runs[stored.subject.split(".")[-1]]
    wanted = {(name, tick) for name in names for tick in range(int(began) + 2, int(ended) + 1)}
    doubled: Any = sum(count - 1 for count in tasks.values())
    return {"ticks": len(wanted), "missed": len(wanted - tasks.keys()), "doubled": doubled, "early": early}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.endings.tick_many")
    parser.add_argument("--work", help="be a worker of the server at this URL")
    parser.add_argument("--schedules", type=int, default=20)
    parser.add_argument("--sleepers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.work:
        asyncio.run(work(asked.work))
    else:
        sys.exit(asyncio.run(main(asked)))
