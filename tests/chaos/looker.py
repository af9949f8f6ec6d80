"""Looks at totals while faults happen, and compares what it has seen with what is stored in the end.

What is stored of a run only grows, unless it is cancelled. So nothing that was seen at any time may be more than what
there is at the end, and what is seen at the end has to be just that. One thing is taken back: a mark whose worker is
lost, or not permitted to go on, before it stores the end, while another worker ends the run otherwise. Under way runs
are counted by marks, so that such a one may have been seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import aclosing

import msgspec

import jetflow
from jetflow.client import Connecting
from jetflow.errors import BrokerError, UnknownRun
from jetflow.runs.trace import Totals
from tests.chaos.checker import Streams
from tests.chaos.driver import Driver
from tests.chaos.servers import Servers

EVERY = 0.05
"""Seconds between two looks, at least."""

WATCHED = 4
"""Runs that are watched at once."""

COMPARED = 300
"""Runs whose totals are compared in the end, at most."""

ENDED = ("succeeded", "failed", "timed_out", "cancelled")


class Looker:
    """Looks at open roots, by a count and by watching them."""

    def __init__(self, servers: Servers, namespace: str, driver: Driver, rng: random.Random) -> None:
        self._servers = servers
        self._namespace = namespace
        self._driver = driver
        self._rng = rng
        self._most: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._watched: dict[str, asyncio.Task[None]] = {}
        self.looks = 0

    async def run(self) -> None:
        """Look until cancelled."""
        async with self._connected() as client:
            try:
                while True:
                    await asyncio.sleep(EVERY)
                    if self._driver.open:
                        run = self._rng.choice(sorted(self._driver.open))
                        self._watched = {one: task for one, task in self._watched.items() if not task.done()}
                        if len(self._watched) < WATCHED and run not in self._watched:
                            self._watched[run] = asyncio.create_task(self._watch(client, run))
                        with contextlib.suppress(BrokerError, UnknownRun):
                            self._see(run, (await client.totals(run)).totals)
            finally:
                for task in self._watched.values():
                    task.cancel()
                await asyncio.gather(*self._watched.values(), return_exceptions=True)

    def _connected(self) -> Connecting:
        urls = [server.url for server in self._servers.servers]
        return jetflow.connect(urls, namespace=self._namespace, timeout=30, ensure=False)

    async def _watch(self, client: jetflow.Client, run: str) -> None:
        with contextlib.suppress(BrokerError, UnknownRun):
            async with aclosing(client.watch(run)) as looks:
                async for seen in looks:
                    self._see(run, seen.totals)

    def _see(self, run: str, totals: Totals) -> None:
        self.looks += 1
        for name, count in msgspec.to_builtins(totals).items():
            self._most[run][name] = max(self._most[run][name], count)

    async def complaints(self, streams: Streams) -> list[str]:
        """Return what was seen that there never was, and what is seen now that differs from what is stored."""
        cancelled = {run for run, told in self._driver.log.items() if told.cancelled}
        truth = _truth(streams)
        wrong = list(self._exceeding(streams, truth, cancelled))
        parents = [run for run in truth if run in streams.runs and streams.runs[run].root not in cancelled]
        async with self._connected() as client:
            for run in self._rng.sample(parents, min(len(parents), COMPARED)):
                seen = msgspec.to_builtins((await client.totals(run)).totals)
                stored = dict.fromkeys(seen, 0) | truth[run]
                if seen != stored:
                    wrong.append(f"the totals of run {run} are {seen}, and {stored} is stored")
        return wrong

    def _exceeding(self, streams: Streams, truth: dict[str, Counter[str]], cancelled: set[str]) -> Iterable[str]:
        undone = _undone(streams)
        for run, most in self._most.items():
            known = ENDED if run in cancelled else (*ENDED, "spawned")
            for name in known:
                there = truth[run][name] + undone[run][name]
                if most[name] > there:
                    yield f"{most[name]} {name} were seen of run {run}, and there are {there}"


def _truth(streams: Streams) -> defaultdict[str, Counter[str]]:
    """Return how many children each run has by what is stored: all of them, and by how they ended."""
    truth: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run, task in streams.runs.items():
        if task.parent != "-":
            truth[task.parent]["spawned"] += 1
            truth[task.parent]["open"] += run not in streams.ended
    for run, endings in streams.ended.items():
        if endings[0].parent != "-":
            truth[endings[0].parent]["spawned"] += run not in streams.runs and bool(endings[0].outcome.get("adopted"))
            truth[endings[0].parent][endings[0].outcome["status"]] += 1
    return truth


def _undone(streams: Streams) -> defaultdict[str, Counter[str]]:
    """Return how many children of each run have a mark of a status, and have ended otherwise."""
    undone: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for parent, run, status in streams.marks:
        if all(end.outcome["status"] != status for end in streams.ended.get(run, [])):
            undone[parent][status] += 1
    return undone
