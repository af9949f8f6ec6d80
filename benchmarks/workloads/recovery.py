"""A worker process is killed in the middle of a fan-out, and started again by its supervisor: what that costs.

The rounds take in turn the same fan-out undisturbed, with the worker killed, and with the worker and its guard killed
together, as where a machine is gone: then nobody but the broker can tell, after ``ack_wait``. Each child sleeps, and
notes that its body has begun.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

import msgspec
import nats

import jetflow
from benchmarks import flows
from benchmarks.bare.wire import ask
from benchmarks.lab import NAMESPACE, patience, server
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.progress import show
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import check
from benchmarks.workloads.spawn import noted
from benchmarks.workloads.workload import Workload
from jetflow import WorkerOptions

KILL_AT: Final = 1 / 3
"""Part of the children that are done when the worker is killed."""

REPEATED: Final = 120
"""Bodies that may begin again, of 100 slots."""

_LOOK_AGAIN: Final = 0.005

Killed = Literal["nobody", "the worker", "worker and guard"]


class _Round(msgspec.Struct):
    """How long the fan-out took, and from the kill on; how many bodies began again; what is told of the loss."""

    seconds: float
    from_kill: float
    repeated: int
    told: str


async def run(options: Options) -> Report:
    """Measure."""
    rounds: dict[Killed, list[_Round]] = {"nobody": [], "the worker": [], "worker and guard": []}
    for number in range(1, options.rounds + 1):
        for killed, done in rounds.items():
            done.append(await _round(f"round {number} of {options.rounds}, kill {killed}", options, killed))
    ack_wait = WorkerOptions().ack_wait
    calm = middle([one.seconds for one in rounds["nobody"]])
    later = {killed: middle([one.seconds for one in done]) - calm for killed, done in rounds.items()}
    repeated = [one.repeated for one in rounds["the worker"]]
    again = middle(repeated)
    unnamed = sum(not one.told for one in rounds["the worker"])
    return Report(
        workload="recovery",
        title=f"recovery: SIGKILL to the worker process, a third into {options.n:,} children of {flows.PAUSED} s",
        n=options.n,
        options=options,
        rows=[
            Row("undisturbed, s", None, calm, ".2f"),
            *(
                Row(text, None, figure, form)
                for killed in ("the worker", "worker and guard")
                for text, figure, form in (
                    (f"{killed} killed, later by, s", later[killed], ".2f"),
                    ("  from the kill to the end, s", middle([one.from_kill for one in rounds[killed]]), ".2f"),
                    ("  bodies that began again", middle([one.repeated for one in rounds[killed]]), ".0f"),
                )
            ),
        ],
        goals=[
            Goal(f"recovery: <= 1 s later with a guard, and is {later['the worker']:.2f} s", later["the worker"] <= 1),
            Goal(
                f"recovery: < {REPEATED} bodies begin again, and are {again:.0f} (at most {max(repeated)})",
                again < REPEATED,
            ),
            Goal(f"recovery: the loss is named in every round, and is not in {unnamed}", not unnamed),
            Goal(
                f"recovery: <= ack_wait + 1 s later without, and is {later['worker and guard']:.2f} s",
                later["worker and guard"] <= ack_wait + 1,
            ),
        ],
        figures={
            "recovery_s": later["the worker"],
            "unguarded_s": later["worker and guard"],
            "undisturbed_s": calm,
            "repeated": repeated,
            "rounds_s": {killed: [round(one.seconds, 3) for one in done] for killed, done in rounds.items()},
        },
    )


async def _round(label: str, options: Options, killed: Killed) -> _Round:
    with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
        pid, bodies = Path(scratch, "pid"), Path(scratch, "bodies")
        async with (
            server(options) as running,
            _supervised(running.url, options, Path(scratch)),
            jetflow.connect(running.url, namespace=NAMESPACE) as client,
            show(label, running.url, f"JF_{NAMESPACE}_records", options.n),
            asyncio.timeout(patience(options.n)),
        ):
            await (await client.trigger(flows.pausing, flows.Counted(options.slots, str(pid), os.devnull))).result()
            began = perf_counter()
            run = await client.trigger(flows.pausing, flows.Counted(options.n, str(pid), str(bodies)))
            await _done(running.url, options.slots + int(options.n * KILL_AT))
            at = perf_counter()
            if killed != "nobody":
                _kill(int(await noted(pid)), with_guard=killed == "worker and guard")
            total = await run.result()
            ended = perf_counter()
            check(total, options.n)
            failures = (await client.describe(run.id, children=0)).steps[0].failures
            told = next((one.error.message for one in failures if one.error is not None), "")
            return _Round(ended - began, ended - at, _size(bodies) - options.n, told)


def _size(file: Path) -> int:
    return file.stat().st_size


@asynccontextmanager
async def _supervised(url: str, options: Options, scratch: Path) -> AsyncIterator[None]:
    """Run `jetflow worker`, as people do."""
    with (scratch / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jetflow.cli", "worker", "benchmarks.flows:pausing", "benchmarks.flows:paused"),
            *("--server", url, "--namespace", NAMESPACE, "--slots", str(options.slots), "--grace", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def _kill(worker: int, *, with_guard: bool) -> None:
    of_threads = Path(f"/proc/{worker}/task").glob("*/children")
    guards = [int(child) for children in of_threads for child in children.read_text().split()]
    for guard in guards if with_guard else ():
        os.kill(guard, signal.SIGSTOP)  # it is not to see the death that comes first
    os.kill(worker, signal.SIGKILL)
    for guard in guards if with_guard else ():
        os.kill(guard, signal.SIGKILL)


async def _done(url: str, count: int) -> None:
    """Wait until so many outcomes are stored."""
    reader = await nats.connect(url)
    try:
        # a look is a request: there is no event to wait for
        while (await ask(reader, f"STREAM.INFO.JF_{NAMESPACE}_records"))["state"]["messages"] < count:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)
    finally:
        await reader.close()


WORKLOAD: Final = Workload(
    name="recovery",
    summary="SIGKILL a worker in the middle of a fan-out of 50 ms children, with a guard and without",
    n_is="children",
    n=1000,
    run=run,
    rounds=5,
)
