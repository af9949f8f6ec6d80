"""Runs one scenario with two workers, of which the first to reach an armed point dies there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import msgspec
import nats
from nats.aio.client import Client

import jetflow
from jetflow.broker.session import Session
from jetflow.broker.topology import delete_streams
from jetflow.errors import JetflowError, RunFailed, UnknownRun
from jetflow.server import NatsServer
from tests.chaos.checker import Streams, Verdict, check_joins, check_order, unsettled
from tests.crash.scenarios import SCENARIOS, Scenario, told

ROOT = Path(__file__).parents[2]
ACK_WAIT = 1.0
ENDS_WITHIN = 30.0
"""Seconds in which a run must end, and everything be acknowledged, with a worker killed on the way."""


class Result(msgspec.Struct):
    """What became of one run whose worker was killed."""

    scenario: str
    point: str
    when: str
    seconds: float
    wrong: list[str]


class Killing:
    """A server of its own, and a namespace for each run."""

    def __init__(self) -> None:
        self._server = NatsServer()
        self._directory = Path()
        self._next = 0

    async def __aenter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="jetflow-crash-"))
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def record(self, gate: asyncio.Semaphore) -> dict[str, set[str]]:
        """Return the points that each scenario passes through, and behind; as many run at once as the gate lets in."""

        async def passed_by(name: str) -> tuple[str, set[str]]:
            async with gate:
                return name, await self._points_of(name)

        return dict(await asyncio.gather(*map(passed_by, SCENARIOS)))

    async def _points_of(self, name: str) -> set[str]:
        chosen, marker = SCENARIOS[name], self._directory / f"reached-{name}"
        result = await self._run(name, "record", marker, "", "", guarded=bool(chosen.only_for))
        if result.wrong:
            raise AssertionError(f"scenario {name} is wrong without any kill: {result.wrong}")
        found = [file.name.removeprefix(f"{marker.name}.") for file in self._directory.glob(f"{marker.name}.*")]
        sides = Counter(one.partition(":")[0] for one in found)
        passed = {point for point, reached_sides in sides.items() if reached_sides == 2}
        return passed & (chosen.only_for or passed)

    async def kill(self, scenario: str, point: str, when: str, *, guarded: bool = False) -> Result:
        """Run a scenario whose worker dies once before or after a point; its guard sees that if it has one."""
        self._next += 1
        marker = self._directory / f"killed-{self._next}"
        return await self._run(scenario, f"{point}:{when}", marker, point, when, guarded=guarded)

    async def _run(self, scenario: str, armed: str, marker: Path, point: str, when: str, *, guarded: bool) -> Result:
        self._next += 1
        namespace, chosen = f"c{self._next}", SCENARIOS[scenario]
        started = monotonic()
        wrong: list[str] = []
        workers: list[subprocess.Popen[bytes]] = []
        async with jetflow.connect(self._server.url, namespace=namespace) as client:
            try:
                counts = [self._directory / f"counts-{namespace}-{number}" for number in range(2)]
                workers = [self._worker(namespace, armed, marker, file, chosen, guarded=guarded) for file in counts]
                run = await chosen.begin(client)
                try:
                    output = await self._end_of(run)
                    if output != chosen.output:
                        wrong.append(f"it came to {str(output)[:200]}, not {str(chosen.output)[:200]}")
                except JetflowError as error:
                    wrong.append(f"{type(error).__name__}: {error}")
                if chosen.keep is None:
                    wrong += await self._left_over(namespace)
                else:
                    wrong += await self._not_deleted(client._session)
                seconds = monotonic() - started
                until = monotonic() + (ENDS_WITHIN if chosen.only_for else 1.0)  # a guard may still be starting
                while point and not _has_happened(marker, workers) and monotonic() < until:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                died = [worker for worker in workers if worker.poll() == -9]
                ended = [worker for worker in workers if worker.poll() not in (None, -9)]
                if point and not os.path.exists(marker):  # noqa: PTH110  ASYNC240 takes Path's for a blocking call
                    wrong.append("the point was not reached")
                if len(died) != bool(point or chosen.only_for) or ended:
                    wrong.append(f"{len(died)} workers were killed, {len(ended)} ended by themselves")
                if wrong:
                    wrong.append(f"log: {self._log(namespace)[-1500:]}")
            finally:
                await self._end(workers)
                await delete_streams(client._session.connection, client._session.names)
        return Result(scenario, point, when, seconds, wrong)

    @staticmethod
    async def _end_of(run: jetflow.Run[Any]) -> Any:
        until = monotonic() + ENDS_WITHIN
        while True:
            try:
                return msgspec.to_builtins(await run.result(timeout=ENDS_WITHIN))
            except RunFailed as error:
                return told(error)
            except UnknownRun:  # a trigger from outside is not taken yet
                if monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    def _worker(
        self, namespace: str, armed: str, marker: Path, counts: Path, chosen: Scenario, *, guarded: bool
    ) -> subprocess.Popen[bytes]:
        options = {"slots": 10, "ack_wait": ACK_WAIT, "sweep_every": chosen.sweep_every}
        options |= {"grace": 2.0, "unknown_step_grace": 1.0, "guard": guarded or bool(chosen.only_for)}
        if chosen.keep is not None:
            options["keep"] = chosen.keep
        command = [
            *(sys.executable, "-m", "tests.chaos.worker", self._server.url),
            *("--namespace", namespace),
            *("--options", json.dumps(options)),
            *("--counts", str(counts)),
            *("--load", "tests.crash.scenarios"),
            *("--parent", str(os.getpid())),
        ]
        environment = os.environ | {
            "JETFLOW_CRASH_POINT": armed,
            "JETFLOW_CRASH_MARKER": str(marker),
            "NATS_URL": self._server.url,
            "CRASH_NAMESPACE": namespace,
        }
        with (self._directory / f"log-{namespace}").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, namespace: str) -> str:
        return (self._directory / f"log-{namespace}").read_text(errors="replace")

    @staticmethod
    async def _not_deleted(session: Session) -> list[str]:
        """Wait until nothing is stored of any run, and return what is still there then."""
        names, until = session.names, monotonic() + ENDS_WITHIN
        holds = {
            names.tasks_stream: names.all_tasks[0],
            names.records_stream: ">",
            names.counters_stream: names.all_counters,
        }
        while True:
            left = [
                f"{stream} is not empty" for stream, held in holds.items() if await session.store.count(stream, held)
            ]
            if not left or monotonic() > until:
                return left
            await asyncio.sleep(0.1)

    async def _left_over(self, namespace: str) -> list[str]:
        """Wait until nothing is left to do, and return what is wrong with the streams."""
        raw = await nats.connect(self._server.url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(raw.close)
            return await self._wrong_in(raw, namespace)

    @staticmethod
    async def _wrong_in(raw: Client, namespace: str) -> list[str]:
        until = monotonic() + ENDS_WITHIN
        left = await unsettled(raw, namespace)
        while left and monotonic() < until:
            await asyncio.sleep(0.1)
            left = await unsettled(raw, namespace)
        while standing := await _standing(raw, namespace):  # who leaves does so behind the outcome
            if monotonic() > until:
                left.append(f"{standing} runs stand at gates")
                break
            await asyncio.sleep(0.1)
        streams = Streams(namespace)
        await streams.read(raw)
        verdict = Verdict(stuck=left)
        check_joins(verdict, streams, set())
        check_order(verdict, streams, set())
        for run, task in streams.runs.items():
            if len(streams.ended.get(run, [])) != 1:
                verdict.stuck.append(f"run {run} of {task.workflow} has {len(streams.ended.get(run, []))} outcomes")
        return verdict.complaints()

    @staticmethod
    async def _end(workers: list[subprocess.Popen[Any]]) -> None:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


async def _standing(raw: Client, namespace: str) -> int:
    """Return how many runs stand at the gates of limits."""
    request = json.dumps({"subjects_filter": f"jf.{namespace}.entry.>", "offset": 2**31}).encode()
    answer = await raw.request(f"$JS.API.STREAM.INFO.JF_{namespace}_gates", request)
    return int(json.loads(answer.data).get("total", 0))


def _has_happened(marker: Path, workers: list[subprocess.Popen[bytes]]) -> bool:
    return marker.exists() and any(worker.poll() is not None for worker in workers)
