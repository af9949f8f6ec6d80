"""The job of 02, with a worker process killed by SIGKILL in the middle of it, again and again, and started anew.

Nothing that is printed is assumed: every step body leaves a line in a file when it begins, so what ran twice is
counted; every outcome is heard as it is stored and read again at the end, so what was recorded twice is counted.
Runs on the server that NATS_URL names, or else on a nats-server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import nats
from indexing import Report, Tree, index_alone, index_tree, is_identical, packages, standard_library
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from processes import (
    EXIT_INTERRUPTED,
    NAMESPACE,
    Descendants,
    Progress,
    WorkerProcess,
    in_background,
    server_url,
    workers,
)

import jetflow

WORKERS = 2
SLOTS = 8
PAUSE = 0.05  # seconds in each file's body, so that many are under way whenever a worker is killed
ACK_WAIT = 2.0  # seconds of silence after which a dead worker's tasks go to another


async def main(tree: Tree, kills: int) -> int:
    directories = packages(tree)
    total = len(directories) + sum(len(directory.files) for directory in directories)
    print(f"{tree.root}: {total:,} child runs to come; {WORKERS} worker processes; kills: {kills}", flush=True)
    with tempfile.TemporaryDirectory(prefix="jetflow-bodies-") as log:
        async with (
            server_url() as url,
            workers(url, count=WORKERS, slots=SLOTS, ack_wait=ACK_WAIT) as processes,
            await nats.connect(url) as connection,
            jetflow.connect(connection, namespace=NAMESPACE) as client,
        ):
            outcomes = Outcomes(connection)
            await outcomes.listen()
            began = time.monotonic()
            run = await client.trigger(index_tree, tree, metadata={"log": log, "pause": PAUSE})
            killer = Killer(processes, Descendants(connection, run.id), total, kills)
            async with in_background(run.result()) as result:
                await killer.work_until(result)
                found, took = await result, time.monotonic() - began
            await outcomes.read(run.id)
        bodies = Bodies(Path(log))
    print(f"{found.files:,} files in {found.packages} directories in {took:.1f} s")
    print(f"kills: {len(killer.open_at_kill)}, with {killer.shown()} of {total:,} children open")
    print(f"{bodies.distinct:,} step bodies, of which {bodies.repeated:,} ran twice or more")
    print(f"{outcomes.runs:,} outcomes of runs, {outcomes.heard:,} of them heard as they were stored")
    print(f"{outcomes.recorded_twice} outcomes recorded twice", flush=True)
    identical = is_identical(found, index_alone(tree))
    wrong = {
        "the report is another one": not identical,
        "an outcome was recorded twice": outcomes.recorded_twice > 0,
        "there is not one outcome for each run": outcomes.runs != total + 1,
        "there is not a body for each step of each run": bodies.distinct != total + 2,
        "the work was done before the kills": len(killer.open_at_kill) < kills or min(killer.open_at_kill) * 3 < total,
    }
    for what, happened in wrong.items():
        if happened:
            print(f"FAILED: {what}")
    if any(wrong.values()):
        return 1
    print("verified: identical to the single-process result, though workers were killed")
    return 0


class Killer:
    """Kills workers in turn, each time when some more of the first half of the work is done."""

    def __init__(self, processes: list[WorkerProcess], tree: Descendants, total: int, kills: int) -> None:
        self._processes = processes
        self._tree = tree
        self._total = total
        self._due = [total * number // (2 * kills + 2) for number in range(1, kills + 1)]
        self._progress = Progress(total)
        self.open_at_kill: list[int] = []

    async def work_until(self, result: asyncio.Task[Report]) -> None:
        while not result.done():
            ended = await self._tree.ended()
            self._progress.show(ended)
            if len(self.open_at_kill) < len(self._due) and ended >= self._due[len(self.open_at_kill)]:
                await self._kill_one(ended)
            await asyncio.wait({result}, timeout=0.02)
        self._progress.end()

    async def _kill_one(self, ended: int) -> None:
        victim = self._processes[len(self.open_at_kill) % len(self._processes)]
        await victim.kill()
        self.open_at_kill.append(await self._tree.open())
        self._progress.show(ended, f"; killed a worker with {self.open_at_kill[-1]:,} children open")
        await victim.start()

    def shown(self) -> str:
        return ", ".join(f"{count:,}" for count in self.open_at_kill)


class Outcomes:
    """Where each outcome was stored: as the stream showed it at that moment, and as read when all is over."""

    def __init__(self, connection: Nats) -> None:
        self._connection = connection
        self._live: defaultdict[str, set[int]] = defaultdict(set)
        self._places: defaultdict[str, set[int]] = defaultdict(set)
        self.runs = 0
        self.heard = 0

    async def listen(self) -> None:
        config = ConsumerConfig(headers_only=True, deliver_policy=DeliverPolicy.NEW)
        await self._connection.jetstream().subscribe(
            f"jf.{NAMESPACE}.run.>",
            stream=f"JF_{NAMESPACE}_records",
            cb=self._hear,
            ordered_consumer=True,
            config=config,
        )

    async def _hear(self, message: Msg) -> None:
        self._live[message.subject].add(message.metadata.sequence.stream)

    async def read(self, root: str) -> None:
        """Read every outcome of the tree from the stream; then those that were heard and are not there any more."""
        self.runs = await self._read_stored(f"jf.{NAMESPACE}.run.{root}.>")
        await self._read_stored(f"jf.{NAMESPACE}.step.{root}.>")
        for subject, places in self._live.items():
            if subject.startswith(f"jf.{NAMESPACE}.run.{root}."):
                self.heard += 1
                self._places[subject] |= places

    async def _read_stored(self, subjects: str) -> int:
        stream = f"JF_{NAMESPACE}_records"
        config = ConsumerConfig(headers_only=True)
        stored = await self._connection.jetstream().subscribe(
            subjects, stream=stream, ordered_consumer=True, config=config
        )
        read = 0
        pending = 1
        while pending:
            message = await stored.next_msg(timeout=10)
            self._places[message.subject].add(message.metadata.sequence.stream)
            pending = message.metadata.num_pending
            read += 1
        await stored.unsubscribe()
        return read

    @property
    def recorded_twice(self) -> int:
        """Count the outcomes that were ever stored in more than one place of the stream."""
        return sum(len(places) > 1 for places in self._places.values())


class Bodies:
    """The step bodies that began, from the lines that they left."""

    def __init__(self, log: Path) -> None:
        lines = [line.split() for file in log.iterdir() for line in file.read_text().splitlines()]
        begun = Counter((run, step) for run, step, _attempt in lines)
        self.distinct = len(begun)
        self.repeated = sum(times > 1 for times in begun.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="index the standard library while workers are killed")
    parser.add_argument("--limit", type=int, help="take so many files, spread over the tree (default: all)")
    parser.add_argument("--kills", type=int, default=3, help="how often a worker is killed (default: 3)")
    given = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(standard_library(given.limit), given.kills)))
    except KeyboardInterrupt:
        print("\ninterrupted: the workers and the server are stopped")
        sys.exit(EXIT_INTERRUPTED)
