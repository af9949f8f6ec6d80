"""Runs with a limit over 1,000 keys, and of one hot key, against runs of the same step without one."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from benchmarks import flows, newer_flows
from benchmarks.lab import Sample, jetflow_bench, patience
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.chain import ended_runs
from benchmarks.workloads.workload import Workload

WARM_UP: Final = 100
KEYS_PER_S: Final = 1500
"""Runs a second over many keys that are asked for."""

HOT_PER_S: Final = 1000
"""Runs a second of one key that are asked for."""


class _All(msgspec.Struct):
    none: Sample
    keys: Sample
    hot: Sample


async def run(options: Options) -> Report:
    """Measure."""
    rounds = [await _one(options, f"round {number + 1} of {options.rounds}") for number in range(options.rounds)]
    return _report(options, rounds)


async def _one(options: Options, label: str) -> _All:
    async with jetflow_bench("limits", options) as (bench, client), asyncio.timeout(10 * patience(options.n)):
        for workflow in (flows.one_step, newer_flows.limited_by_key, newer_flows.limited_hot):
            await ended_runs(bench, client, workflow, WARM_UP)
        async with bench.timed(f"{label}, no limit") as none:
            await ended_runs(bench, client, flows.one_step, options.n)
        async with bench.timed(f"{label}, {newer_flows.LIMIT_KEYS} keys") as keys:
            await ended_runs(bench, client, newer_flows.limited_by_key, options.n)
        async with bench.timed(f"{label}, one key") as hot:
            await ended_runs(bench, client, newer_flows.limited_hot, options.n)
    return _All(none.sample, keys.sample, hot.sample)


def _report(options: Options, rounds: list[_All]) -> Report:
    none, keys, hot = (
        options.n / middle([getattr(one, kind).seconds for one in rounds]) for kind in ("none", "keys", "hot")
    )
    return Report(
        workload="limits",
        title=f"limits: {options.n:,} runs, {newer_flows.LIMIT_MAX} of a key at once",
        n=options.n,
        options=options,
        jetflow_per_s=keys,
        rows=[
            Row("runs a second without a limit", None, none, ",.0f"),
            Row(f"  over {newer_flows.LIMIT_KEYS:,} keys", None, keys, ",.0f"),
            Row("  of one hot key", None, hot, ",.0f"),
        ],
        goals=[
            Goal(f"limits: many keys >= {KEYS_PER_S:,} runs a second, and are {keys:,.0f}", keys >= KEYS_PER_S),
            Goal(f"limits: one key >= {HOT_PER_S:,} runs a second, and is {hot:,.0f}", hot >= HOT_PER_S),
        ],
        figures={"none_per_s": none, "keys_per_s": keys, "hot_per_s": hot},
    )


WORKLOAD: Final = Workload(
    name="limits",
    summary="runs with a limit, over many keys and of one hot key",
    n_is="runs of each kind",
    n=10_000,
    run=run,
    rounds=1,
)
