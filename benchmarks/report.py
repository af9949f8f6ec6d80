"""What a bench found: a table for people, one JSON object for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.lab import Sample
from benchmarks.measuring import Latencies, Pair, middle
from benchmarks.options import Options

_NAME: Final = 34
_COLUMN: Final = 12
_MANY: Final = {"child": "children", "run": "runs"}


class Row(msgspec.Struct):
    """One line of the table. None where a side has no such figure."""

    name: str
    floor: float | None
    jetflow: float | None
    form: str = ",.1f"


class Goal(msgspec.Struct):
    """What a figure should reach."""

    text: str
    met: bool


class Report(msgspec.Struct, kw_only=True):
    """One bench's findings. ``ratio`` is jetflow's figure over the floor's; ``figures`` go into the JSON by name."""

    workload: str
    title: str
    n: int
    options: Options
    floor_per_s: float | None = None
    jetflow_per_s: float | None = None
    ratio: float | None = None
    worker_rss_mb: float | None = None
    server_rss_mb: float | None = None
    rows: list[Row]
    goals: list[Goal]
    figures: dict[str, Any]

    def as_json(self, machine: dict[str, str]) -> bytes:
        """Return the report as one JSON object."""
        fields: dict[str, Any] = {
            "workload": self.workload,
            "n": self.n,
            "workers": self.options.workers,
            "rounds": self.options.rounds,
            "durable": self.options.durable,
            "floor_per_s": self.floor_per_s,
            "jetflow_per_s": self.jetflow_per_s,
            "ratio": self.ratio,
            "worker_rss_mb": self.worker_rss_mb,
            "server_rss_mb": self.server_rss_mb,
            **self.figures,
            "goals": {goal.text: goal.met for goal in self.goals},
            "machine": machine,
        }
        return msgspec.json.format(msgspec.json.encode(_rounded(fields)), indent=2) + b"\n"

    def as_text(self, machine: dict[str, str]) -> str:
        """Return the report as a table."""
        setting = [f"{self.options.workers} worker process{'es' if self.options.workers > 1 else ''}"]
        setting.append(f"{self.options.rounds} rounds")
        if self.options.durable:
            setting.append("durable")
        lines = [f"{self.title} ({', '.join(setting)})", *(f"  {name}: {text}" for name, text in machine.items()), ""]
        lines.append(f"{'':<{_NAME}}{'floor':>{_COLUMN}}{'jetflow':>{_COLUMN}}{'ratio':>{_COLUMN}}")
        for row in self.rows:
            ratio = row.jetflow / row.floor if row.floor and row.jetflow is not None else None
            cells = (_cell(row.floor, row.form), _cell(row.jetflow, row.form), _cell(ratio, ".2f"))
            lines.append(f"{row.name:<{_NAME}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells))
        lines += ["", *(f"{'met   ' if goal.met else 'MISSED'}  {goal.text}" for goal in self.goals)]
        return "\n".join(lines).rstrip() + "\n"


def rate_report(
    workload: str,
    title: str,
    unit: str,
    options: Options,
    pair: Pair[Sample],
    *,
    count: int | None = None,
    goal: float | None = None,
) -> Report:
    """Return the report of a workload that is measured by how much it gets done. ``count`` is how many units."""
    done = options.n if count is None else count
    floor_per_s, jetflow_per_s = (
        done / middle([sample.seconds for sample in side]) for side in (pair.floor, pair.jetflow)
    )
    ratio = jetflow_per_s / floor_per_s

    def row(name: str, figure: Callable[[Sample], float]) -> Row:
        return Row(name, middle([figure(sample) for sample in pair.floor]), middle(list(map(figure, pair.jetflow))))

    rows = [
        Row(f"{_MANY[unit]} a second", floor_per_s, jetflow_per_s, ",.0f"),
        Row(f"microseconds a {unit}", 1e6 / floor_per_s, 1e6 / jetflow_per_s),
        row(f"worker CPU, us a {unit}", lambda sample: sample.worker_cpu / done * 1e6),
        row(f"server CPU, us a {unit}", lambda sample: sample.server_cpu / done * 1e6),
        row("worker memory before, MB", lambda sample: sample.worker_rss_before_mb),
        row("worker memory after, MB", lambda sample: sample.worker_rss_mb),
        row("worker memory peak, MB", lambda sample: sample.worker_peak_mb),
        row("worker memory growth at peak, MB", growth),
        row("server memory, MB", lambda sample: sample.server_rss_mb),
    ]
    goals = (
        [] if goal is None else [Goal(f"{workload}: jetflow >= {goal:g} x floor, and is {ratio:.2f}", ratio >= goal)]
    )
    return Report(
        workload=workload,
        title=title,
        n=options.n,
        options=options,
        floor_per_s=floor_per_s,
        jetflow_per_s=jetflow_per_s,
        ratio=ratio,
        worker_rss_mb=middle([sample.worker_rss_mb for sample in pair.jetflow]),
        server_rss_mb=middle([sample.server_rss_mb for sample in pair.jetflow]),
        rows=rows,
        goals=goals,
        figures={
            "unit": unit,
            "cpu_us": middle([(sample.worker_cpu + sample.server_cpu) / done * 1e6 for sample in pair.jetflow]),
            "worker_growth_mb": middle([growth(sample) for sample in pair.jetflow]),
            "floor_worker_growth_mb": middle([growth(sample) for sample in pair.floor]),
            "floor_server_rss_mb": middle([sample.server_rss_mb for sample in pair.floor]),
            "samples": {"floor": pair.floor, "jetflow": pair.jetflow},
        },
    )


def latency_report(
    workload: str, title: str, options: Options, floor: Sequence[float], jetflow: Sequence[float], bench: Sample
) -> Report:
    """Return the report of a workload that is measured by how long one takes. Times are seconds."""
    bare, ours = Latencies.of(floor), Latencies.of(jetflow)
    return Report(
        workload=workload,
        title=title,
        n=options.n,
        options=options,
        floor_per_s=1000 / bare.p50,
        jetflow_per_s=1000 / ours.p50,
        ratio=ours.p50 / bare.p50,
        worker_rss_mb=bench.worker_rss_mb,
        server_rss_mb=bench.server_rss_mb,
        rows=[
            Row("p50, ms", bare.p50, ours.p50, ".3f"),
            Row("p95, ms", bare.p95, ours.p95, ".3f"),
            Row("p99, ms", bare.p99, ours.p99, ".3f"),
        ],
        goals=[],
        figures={
            "p50_ms": ours.p50,
            "p95_ms": ours.p95,
            "p99_ms": ours.p99,
            "floor_p50_ms": bare.p50,
            "floor_p95_ms": bare.p95,
            "floor_p99_ms": bare.p99,
        },
    )


def growth(sample: Sample) -> float:
    """Return by how much the workers' memory grew, at its peak, in MB."""
    return max(0.0, sample.worker_peak_mb - sample.worker_rss_before_mb)


def publish(report: Report, machine: dict[str, str]) -> None:
    """Print a report, and write its JSON where that was asked for."""
    say(report.as_text(machine))
    path: Path | None = report.options.json
    if path is not None:
        path.write_bytes(report.as_json(machine))


def say(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _rounded(value: Any) -> Any:
    """Return a JSON value with its numbers at five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _rounded(msgspec.to_builtins(value))
    return value
