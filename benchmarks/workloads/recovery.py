"""A worker is killed in the middle of a fan-out while another one lives: the time from the kill to the join's end.

The rounds kill in turn the worker that runs the parent and one that only runs children. The lost tasks are delivered
again after ``ack_wait``, so the join cannot end before. The floor column is the same fan-out, undisturbed, from the
same moment on.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
import nats

from benchmarks import flows
from benchmarks.bare.wire import ask
from benchmarks.lab import Bench, Sample, jetflow_bench, patience
from benchmarks.measuring import in_turn, middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.fanout import check
from benchmarks.workloads.spawn import noted
from benchmarks.workloads.workload import Workload
from jetflow import WorkerOptions

KILL_AT: Final = 1 / 3
"""Part of the children that are done when the worker is killed."""

_LOOK_AGAIN: Final = 0.01


class _Rest(msgspec.Struct):
    """What happened from a third of the children on."""

    seconds: float
    killed_parent: bool | None
    sample: Sample


async def run(options: Options) -> Report:
    """Measure."""
    workers = max(2, options.workers)

    async def rest(label: str, *, kill: str | None) -> _Rest:
        async with (
            jetflow_bench("recovery", options, workers=workers) as (bench, client),
            asyncio.timeout(patience(options.n)),
        ):
            with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as scratch:
                file = Path(scratch, "pid")
                async with bench.timed(label, options.n) as timing:
                    run = await client.trigger(flows.survive, flows.Noted(options.n, str(file)))
                    await _done(bench, int(options.n * KILL_AT))
                    parent = int(await noted(file))
                    began = perf_counter()
                    if kill is not None:
                        victim = next(w for w in bench.workers if (w.pid == parent) == (kill == "parent"))
                        victim.kill()
                    total = await run.result()
                    seconds = perf_counter() - began
        check(total, options.n)
        return _Rest(seconds, None if kill is None else kill == "parent", timing.sample)

    turn = 0

    async def undisturbed(label: str) -> _Rest:
        return await rest(label, kill=None)

    async def disturbed(label: str) -> _Rest:
        nonlocal turn
        turn += 1
        kill = "parent" if turn % 2 else "other"
        return await rest(f"{label}, kill the {kill}'s worker", kill=kill)

    pair = await in_turn(options.rounds, undisturbed, disturbed)
    ack_wait = WorkerOptions().ack_wait
    calm = middle([rest.seconds for rest in pair.floor])
    lost_parent = [rest.seconds for rest in pair.jetflow if rest.killed_parent]
    lost_other = [rest.seconds for rest in pair.jetflow if not rest.killed_parent]
    recovery = middle([rest.seconds for rest in pair.jetflow])
    meters = pair.jetflow[-1].sample
    return Report(
        workload="recovery",
        title=f"recovery: SIGKILL to one of {workers} workers, a third into {options.n:,} children",
        n=options.n,
        options=msgspec.structs.replace(options, workers=workers),
        floor_per_s=(1 - KILL_AT) * options.n / calm,
        jetflow_per_s=(1 - KILL_AT) * options.n / recovery,
        ratio=recovery / ack_wait,
        worker_rss_mb=meters.worker_rss_mb,
        server_rss_mb=meters.server_rss_mb,
        rows=[
            Row("to the end, undisturbed, s", calm, None, ".2f"),
            Row("to the end, parent's worker killed, s", None, middle(lost_parent) or None, ".2f"),
            Row("to the end, other worker killed, s", None, middle(lost_other) or None, ".2f"),
            Row("ack_wait, s", None, ack_wait, ".2f"),
        ],
        goals=[Goal(f"recovery: within ack_wait + 1 s, and took {recovery:.2f} s", recovery <= ack_wait + 1)],
        figures={
            "recovery_s": recovery,
            "undisturbed_s": calm,
            "parent_killed_s": lost_parent,
            "other_killed_s": lost_other,
            "ack_wait_s": ack_wait,
        },
    )


async def _done(bench: Bench, count: int) -> None:
    """Wait until so many outcomes are stored."""
    reader = await nats.connect(bench.server.url)
    try:
        # a look is a request: there is no event to wait for
        while (await ask(reader, f"STREAM.INFO.{bench.records_stream}"))["state"]["messages"] < count:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)
    finally:
        await reader.close()


WORKLOAD: Final = Workload(
    name="recovery",
    summary="SIGKILL a worker in the middle of a fan-out; time to the end of the join",
    n_is="children",
    n=10_000,
    run=run,
    rounds=2,
    workers=2,
)
