"""How soon a parent goes on when its last child is done, from the moment at which the server stored its outcome.

The server stamps each message; the parent returns the time at which it went on. Both clocks are this machine's. The
floor is a bare request to another process and its answer.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import perf_counter
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client as NatsClient

from benchmarks import flows
from benchmarks.bare.wire import ECHO, ask
from benchmarks.lab import NAMESPACE, Sample, bare_bench, jetflow_bench, patience
from benchmarks.measuring import Latencies, in_turn
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row, latency_report
from benchmarks.workloads.workload import Workload
from jetflow import Client, Workflow
from jetflow.engine.tasks import StepAddress
from jetflow.wire.subjects import Subjects

WARM_UP: Final = 10


class _Times(msgspec.Struct):
    in_step: list[float]
    at_boundary: list[float]


async def run(options: Options) -> Report:
    """Measure."""
    meters: list[Sample] = []

    async def floor(label: str) -> _Times:
        async with bare_bench(options) as (bench, client), asyncio.timeout(patience(options.n)):
            times: list[float] = []
            async with bench.timed(label):
                for _ in range(options.n):
                    began = perf_counter()
                    await client.nats.request(ECHO, b'{"index":1}')
                    times.append(perf_counter() - began)
        return _Times(times, [])

    async def jetflow(label: str) -> _Times:
        async with jetflow_bench("resume", options) as (bench, client), asyncio.timeout(patience(options.n)):
            reader = await nats.connect(bench.server.url)
            try:
                for number in range(WARM_UP):
                    await _gap(client, reader, flows.resume, "run", number)
                    await _gap(client, reader, flows.resume_boundary, "leave", number)
                async with bench.timed(label) as timing:
                    numbers = range(WARM_UP, WARM_UP + options.n)
                    in_step = [await _gap(client, reader, flows.resume, "run", number) for number in numbers]
                    at_boundary = [
                        await _gap(client, reader, flows.resume_boundary, "leave", number) for number in numbers
                    ]
            finally:
                await reader.close()
        meters.append(timing.sample)
        return _Times(in_step, at_boundary)

    pair = await in_turn(options.rounds, floor, jetflow)
    report = latency_report(
        "resume",
        f"resume: last child's outcome stored, to the parent going on, {options.n:,} a round",
        options,
        [time for times in pair.floor for time in times.in_step],
        [time for times in pair.jetflow for time in times.in_step],
        meters[-1],
    )
    boundary = Latencies.of([time for times in pair.jetflow for time in times.at_boundary])
    report.rows += [
        Row("p50 at the step's boundary, ms", None, boundary.p50, ".3f"),
        Row("p99 at the step's boundary, ms", None, boundary.p99, ".3f"),
    ]
    report.figures |= {"boundary_p50_ms": boundary.p50, "boundary_p99_ms": boundary.p99}
    ratio = report.ratio or 0.0
    report.goals.append(Goal(f"resume: p50 <= 3 x a bare request, and is {ratio:.2f} x", ratio <= 3))
    return report


async def _gap(client: Client, reader: NatsClient, workflow: Workflow[int, int], step: str, number: int) -> float:
    """Return the seconds between the last child's outcome and its parent's going on."""
    run = await client.trigger(workflow, number)
    went_on = await run.result()
    children = names.runs_of_join(StepAddress(run.id, run.id, step))
    answer = await ask(reader, f"STREAM.MSG.GET.{names.records_stream}", {"last_by_subj": children})
    return (went_on - nanoseconds(answer["message"])) / 1e9


def nanoseconds(message: dict[str, Any]) -> int:
    """Return when the server stored a message, in nanoseconds since the epoch."""
    whole, _, fraction = str(message["time"]).rstrip("Z").partition(".")
    moment = datetime.fromisoformat(f"{whole}+00:00")
    return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0"))


names: Final = Subjects(NAMESPACE)

WORKLOAD: Final = Workload(
    name="resume",
    summary="last child's outcome stored, to the parent going on",
    n_is="joins a round",
    n=200,
    run=run,
)
