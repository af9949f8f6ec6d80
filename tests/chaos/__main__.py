"""``python -m tests.chaos --seconds S --seed N [--cluster 3] [--fleet mixed]``: faults, then the question what is left.

Real worker processes, of a mixed fleet also in Go and TypeScript, and a real nats-server, or a cluster of three on
loopback, take a load of nested trees while faults are drawn by seed. Then everything is healed, and an independent
checker compares what is stored with what was acknowledged and with the model. One JSON object goes to standard output;
the exit code is 0 if nothing is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

import jetflow
from tests.chaos.account import SECRET, user
from tests.chaos.checker import Streams, Verdict, check, unsettled
from tests.chaos.decisions import check_decisions
from tests.chaos.diary import begun
from tests.chaos.driver import Driver
from tests.chaos.faults import Faults
from tests.chaos.happenings import check_moments
from tests.chaos.looker import Looker
from tests.chaos.processes import FLEETS, WorkerProcess, missing
from tests.chaos.progress import say
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Servers

NAMESPACE = "chaos"
SWEEP_EVERY = 30.0
QUIET_WITHIN = 240.0
"""Seconds after healing in which everything must have ended."""

WRONG = ("lost", "doubled", "early", "stuck", "wrong", "worker_crashes")
"""The counts of a report that have to be zero."""

EXIT_WRONG = 1
EXIT_INTERRUPTED = 130


class Chaos:
    """One run, in a directory of its own."""

    def __init__(self, given: argparse.Namespace, directory: Path) -> None:
        self.given = given
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.servers = Servers(given.cluster, directory, given.workers)
        self.workers: list[WorkerProcess] = []
        self.proxies: list[Proxy] = []
        rng = random.Random(given.seed)
        self.driver = Driver(
            self.servers,
            NAMESPACE,
            random.Random(rng.random()),
            at_once=given.roots,
            depth=given.depth,
        )
        self._fault_rng = random.Random(rng.random())
        self.looker = Looker(self.servers, NAMESPACE, self.driver, random.Random(rng.random()))
        self.found_wrong = False

    async def run(self) -> dict[str, Any]:
        given = self.given
        await self.servers.start()
        async with jetflow.connect(
            [server.url for server in self.servers.servers], namespace=NAMESPACE, replicas=given.cluster, timeout=30
        ):
            pass  # the streams are there before the first fault
        await self._start_workers()
        self.faults = Faults(self.servers, self.workers, self.driver, NAMESPACE, self._fault_rng, given.only)
        driving = asyncio.create_task(self.driver.run(given.seconds))
        progress = asyncio.create_task(self._progress())
        looking = asyncio.create_task(self.looker.run())
        started = monotonic()
        try:
            await self._either(driving, self.faults.run(given.seconds))
            say(f"{monotonic() - started:6.1f} s  faults are over: healing")
            self.driver.stopping.set()
            await self.servers.ensure_up()
            await self.faults.lift_limits()
            healed = monotonic()
            await self._quiet(driving)
            say(f"{monotonic() - started:6.1f} s  quiet {monotonic() - healed:.1f} s after healing: checking")
        finally:
            for task in (progress, driving, looking):
                task.cancel()
            _, _, looked = await asyncio.gather(progress, driving, looking, return_exceptions=True)
        client = await self.servers.connect()
        try:
            died_in = begun(diary for worker in self.workers for diary in worker.deadly_diaries)
            servers = self.servers
            verdict = await check(client, NAMESPACE, self.driver.log, servers.restarted, died_in, servers.held_up)
            streams = Streams(NAMESPACE)
            await streams.read(client)
            check_moments(verdict, streams, self.driver.log.values(), self.driver.sender)
            check_decisions(verdict, streams, {run for run, told in self.driver.log.items() if told.cancelled})
            verdict.wrong += await self.looker.complaints(streams)
            if self.given.cluster == 1:  # where no replica can lag
                verdict.wrong += verdict.needlessly
            if not isinstance(looked, asyncio.CancelledError):
                verdict.wrong.append(f"nobody looked on to the end: {looked!r}")
        finally:
            await client.close()
        await asyncio.gather(*(worker.close(grace=15.0) for worker in self.workers))
        report = self._report(verdict, monotonic() - started)
        self.found_wrong = any(report[name] for name in WRONG)
        return report

    async def _start_workers(self) -> None:
        languages = FLEETS[self.given.fleet]
        for number in range(self.given.workers):
            kind = (number + number // 3) % 3  # so that each language has workers of all kinds
            proxy = Proxy(self.servers.ports, user(number), SECRET)
            self.proxies.append(proxy)
            await proxy.start()
            options = {
                "slots": (20, 5, 40)[kind],
                "ack_wait": (2.0, 2.0, 8.0)[kind],
                "grace": 2.0,
                "sweep_every": SWEEP_EVERY,
                "park_after": (0.3, 3.0, 60.0)[kind],
                "max_waiting": (1000, 10, 100)[kind],
                "replicas": self.given.cluster,
                "guard": kind != 2,
            }
            language = languages[number % len(languages)]
            log = self.logs / f"worker-{number}.log"
            worker = WorkerProcess(number, language, proxy, self.directory, NAMESPACE, options, log)
            self.workers.append(worker)
            worker.start()

    @staticmethod
    async def _either(driving: asyncio.Task[None], faults: Any) -> None:
        """Wait for the faults; an error of the driver ends the run at once."""
        waiting = asyncio.create_task(faults)
        try:
            await asyncio.wait({driving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if driving.done():
                driving.result()
            await waiting
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _quiet(self, driving: asyncio.Task[None]) -> None:
        """Wait until every root was followed to its end and no consumer has anything left, within bounds."""
        until = monotonic() + QUIET_WITHIN
        await asyncio.wait({driving}, timeout=QUIET_WITHIN)
        if driving.done():
            driving.result()
        left: list[str] = ["not asked yet"]
        client = await self.servers.connect()
        try:
            calm = 0
            while calm < 3:
                with contextlib.suppress(Exception):
                    left = await unsettled(client, NAMESPACE)
                    calm = 0 if left else calm + 1
                if monotonic() > until + 30:
                    say(f"not quiet: {left}")
                    return
                await asyncio.sleep(0.5)
        finally:
            await client.close()

    async def _progress(self) -> None:
        started = monotonic()
        while True:
            await asyncio.sleep(5)
            drawn = sum(self.faults.drawn.values())
            say(
                f"{monotonic() - started:6.1f} s  {len(self.driver.log)} triggers acknowledged, "
                f"{len(self.driver.open)} open; {drawn} faults, {sum(w.kills for w in self.workers)} worker kills, "
                f"{self.servers.restarts} server restarts; {self._counts()['executed']} bodies executed"
            )

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for worker in self.workers:
            for file in worker.counts_files:
                with contextlib.suppress(ValueError, FileNotFoundError):
                    counts.update(json.loads(file.read_bytes()))
        return counts

    def _outcomes(self, verdict: Verdict) -> dict[str, int]:
        """Count the outcomes that the workers of each language have stored."""
        languages = {pid: worker.language for worker in self.workers for pid in worker.pids}
        told = Counter(languages.get(pid) for pid in verdict.stored_by.elements())
        return {language: told[language] for language in FLEETS[self.given.fleet]}

    def _log_lines(self, pattern: str) -> Counter[str]:
        """Return the log lines of the workers that match, without their times."""
        found: Counter[str] = Counter()
        for file in self.logs.glob("*.log"):
            for line in file.read_text(errors="replace").splitlines():
                if match := re.search(pattern, line):
                    found[match[0]] += 1
        return found

    def _report(self, verdict: Verdict, seconds: float) -> dict[str, Any]:
        counts = self._counts()
        swept = max(counts["swept"], sum(self._log_lines("the sweeper moved on").values()))
        alarms = self._log_lines(r"Task exception was never retrieved|Exception in callback|^\w*(Error|Exception): .*")
        # Only what a worker was not permitted to do may have ended a run in another way.
        told = self.driver.unexpected.items()
        self.driver.problems += [text for run, text in told if run not in verdict.not_permitted]
        for complaint in verdict.complaints() + self.driver.problems[:20]:
            say(complaint)
        for line, times in alarms.most_common(15):
            say(f"logged {times} times: {line[:200]}")
        return {
            "seconds": round(seconds, 1),
            "seed": self.given.seed,
            "cluster": self.given.cluster,
            "workers": len(self.workers),
            "outcomes": self._outcomes(verdict),
            "faults": dict(sorted(self.faults.drawn.items())),
            "fault_kinds": len(self.faults.drawn),
            "denied": dict(sorted(self.faults.denied.items())),
            "worker_kills": sum(worker.kills + worker.poisoned for worker in self.workers),
            "worker_crashes": sum(worker.crashes for worker in self.workers),
            "server_restarts": self.servers.restarts,
            "triggers": self.driver.triggers,
            "acknowledged": len(self.driver.log),
            "conflicts_refused": self.driver.refused,
            "cancels": self.driver.cancels,
            "runs": verdict.runs,
            "children": verdict.children,
            "cancelled_runs": verdict.cancelled,
            "poisoned_runs": verdict.poisoned,
            "runs_of_one_attempt": verdict.frail + verdict.frail_lost,
            "of_these_died_with_workers": verdict.frail_lost,
            "failed_as_not_permitted": len(verdict.not_permitted),
            "joins_sealed": verdict.joins,
            "joins_parked": verdict.parked,
            "waits_for_times": verdict.timed,
            "runs_with_limits": verdict.limited,
            "of_these_of_a_key_at_once": verdict.most_at_once,
            "runs_with_rate_limits": verdict.paced,
            "waits_for_events": verdict.expecting,
            "decisions": dict(sorted(verdict.decisions.items())),
            "reruns": verdict.reruns,
            "of_these_run_again": verdict.run_again,
            "of_these_adopted": verdict.adopted,
            "run_again_needlessly": len(verdict.needlessly),
            "begun_later": sum(told.not_before > 0 for told in self.driver.log.values()),
            "events": len(self.driver.sender.orders),
            "ticks": len(self.driver.sender.ticks),
            "looks_at_totals": self.looker.looks,
            "of_these_across_restarts": verdict.across_restarts,
            "bodies_executed": counts["executed"],
            "redelivered": counts["redelivered"],
            "retried": counts["retried"],
            "swept": swept,
            "lost": len(verdict.lost),
            "doubled": len(verdict.doubled),
            "early": len(verdict.early),
            "stuck": len(verdict.stuck),
            "wrong": len(verdict.wrong) + len(self.driver.problems),
        }

    async def close(self) -> None:
        for worker in self.workers:
            worker.destroy()
        await asyncio.gather(*(proxy.close() for proxy in self.proxies), return_exceptions=True)
        await self.servers.close()


@contextlib.asynccontextmanager
async def chaos(given: argparse.Namespace) -> AsyncGenerator[Chaos]:
    directory = Path(tempfile.mkdtemp(prefix="jetflow-chaos-"))
    run = Chaos(given, directory)
    try:
        yield run
    finally:
        await run.close()
        if given.keep or run.found_wrong:
            say(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


async def main(given: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with chaos(given) as run:
            report = await run.run()
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    sys.stdout.write(f"{json.dumps(report)}\n")
    sys.stdout.flush()
    return EXIT_WRONG if run.found_wrong else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are drawn")
    parser.add_argument("--seed", type=int, default=1, help="decides the load and the faults")
    parser.add_argument("--cluster", type=int, default=1, choices=(1, 3), help="how many servers")
    parser.add_argument("--fleet", default="python", choices=FLEETS, help="mixed: workers in Go and TypeScript as well")
    parser.add_argument("--workers", type=int, help="worker processes (default: 3, or 6 of a mixed fleet)")
    parser.add_argument("--roots", type=int, default=12, help="root runs under way at once")
    parser.add_argument("--depth", type=int, default=2, help="levels of trees below a root, at most")
    parser.add_argument("--only", nargs="*", default=(), metavar="FAULT", help="only these kinds of fault")
    parser.add_argument("--keep", action="store_true", help="keep logs and data also where nothing is wrong")
    given = parser.parse_args()
    if unbuilt := missing(given.fleet):
        parser.error(f"the workers in {' and '.join(unbuilt)} are not built: `make chaos-fleet` does that")
    given.workers = given.workers or max(3, 2 * len(FLEETS[given.fleet]))
    return given


if __name__ == "__main__":
    sys.exit(uvloop.run(main(arguments())))
