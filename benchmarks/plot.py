"""The figures of docs/performance.md: cost per child and memory against N, as SVG that is written by hand.

``python -m benchmarks plot --n 100000`` measures `boundary` at 100, 1,000, ... up to N children on both sides, writes
``docs/performance/cost.svg``, ``docs/performance/memory.svg``, and what they show as ``docs/performance/scale.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.lab import Sample
from benchmarks.measuring import middle
from benchmarks.options import Options
from benchmarks.report import Report, growth, publish, say
from benchmarks.workloads import boundary

NAME: Final = "plot"
SUMMARY: Final = "draws cost and memory against N into docs/performance/; n: largest N, 100,000"
LARGEST: Final = 100_000
SMALLEST: Final = 100
SHORT: Final = 1000
"""Children up to which a run is so short that it takes three times the rounds."""

ROUNDS: Final = 3
FLAT: Final = 1.2
"""How much more a child may cost at 100,000 than at 1,000."""

DIRECTORY: Final = Path(__file__).parent.parent / "docs" / "performance"


class Point(msgspec.Struct):
    """The medians at one N. Costs are microseconds a child, memory is MB."""

    n: int
    floor_cost: float
    jetflow_cost: float
    floor_growth: float
    jetflow_growth: float
    floor_server: float
    jetflow_server: float


async def run(options: Options, machine: dict[str, str]) -> None:
    """Measure, draw, and print what was found."""
    points: list[Point] = []
    n = SMALLEST
    while n <= options.n:
        rounds = options.rounds * (3 if n <= SHORT else 1)
        report = await boundary.run(msgspec.structs.replace(options, n=n, rounds=rounds, json=None))
        publish(report, machine)
        points.append(_point(report))
        n *= 10
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "workers": options.workers, "rounds": options.rounds, "points": points}
    scale = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    for name, content in {"scale.json": scale, **draw(points)}.items():
        (DIRECTORY / name).write_bytes(content)
        say(f"wrote {DIRECTORY / name}")
    costs = {point.n: point.jetflow_cost for point in points}
    if {1000, 100_000} <= costs.keys():
        flat = costs[100_000] / costs[1000]
        verdict = "met   " if flat <= FLAT else "MISSED"
        say(f"{verdict}  cost of a child at 100,000 <= {FLAT} x its cost at 1,000, and is {flat:.2f} x")
    if options.json is not None:
        options.json.write_bytes(scale)


def draw(points: Sequence[Point]) -> dict[str, bytes]:
    """Return the figures, by file name."""
    sizes = [point.n for point in points]
    return {
        "cost.svg": chart(
            "Cost of a child against the number of children",
            "microseconds a child",
            sizes,
            {
                "jetflow": [point.jetflow_cost for point in points],
                "bare nats-py": [point.floor_cost for point in points],
            },
        ),
        "memory.svg": chart(
            "Memory against the number of children",
            "MB",
            sizes,
            {
                "jetflow worker, growth": [point.jetflow_growth for point in points],
                "bare worker, growth": [point.floor_growth for point in points],
                "server with jetflow": [point.jetflow_server for point in points],
                "server with the bare program": [point.floor_server for point in points],
            },
        ),
    }


def _point(report: Report) -> Point:
    samples: dict[str, list[Sample]] = report.figures["samples"]

    def of(side: str) -> tuple[float, float, float]:
        taken = samples[side]
        return (
            middle([sample.seconds for sample in taken]) / report.n * 1e6,
            middle([growth(sample) for sample in taken]),
            middle([sample.server_rss_mb for sample in taken]),
        )

    (floor_cost, floor_growth, floor_server), (cost, grown, server) = of("floor"), of("jetflow")
    return Point(report.n, floor_cost, cost, floor_growth, grown, floor_server, server)


# --- drawing

_WIDTH: Final = 720
_HEIGHT: Final = 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 250, 50, 50
_COLOURS: Final = ("#1f6feb", "#8b949e", "#bf5700", "#2da44e")
_STYLE: Final = "font: 13px system-ui, sans-serif; fill: #57606a"


def chart(title: str, unit: str, sizes: Sequence[int], series: dict[str, list[float]]) -> bytes:
    """Return a line chart as SVG: sizes on a logarithmic axis, values on one that begins at 0."""
    top = _ceiling(max(max(values) for values in series.values()))
    lowest, span = math.log10(sizes[0]), max(math.log10(sizes[-1] / sizes[0]), 1e-9)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(size: int) -> float:
        return _LEFT + (math.log10(size) - lowest) / span * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - value / top * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" style="{_STYLE}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 24, title, size=15, colour="#1f2328"),
        _text(_LEFT, 42, unit),
    ]
    for step in range(5):
        value = top * step / 4
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{right}" stroke="#d0d7de"/>')
        parts.append(_text(_LEFT - 8, y(value) + 4, f"{value:,.4g}", anchor="end"))
    parts += [_text(x(size), bottom + 20, f"{size:,}", anchor="middle") for size in sizes]
    parts.append(_text((_LEFT + right) / 2, bottom + 40, "children", anchor="middle"))
    places = _label_places([y(values[-1]) for values in series.values()])
    for (name, values), colour, place in zip(series.items(), _COLOURS, places, strict=False):
        path = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(sizes, values, strict=True))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>'
            for size, value in zip(sizes, values, strict=True)
        ]
        parts.append(_text(right + 10, place + 4, f"{name}: {values[-1]:,.3g}", colour=colour))
    parts.append("</svg>\n")
    return "\n".join(parts).encode()


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = "#57606a") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} style="font-size: {size}px; fill: {colour}">{escape(text)}</text>'


def _label_places(ends: Sequence[float], apart: float = 18) -> list[float]:
    """Return where labels stand that belong beside the lines' ends, none on top of another."""
    places = list(ends)
    for above, below in pairwise(sorted(range(len(ends)), key=lambda at: ends[at])):
        places[below] = max(places[below], places[above] + apart)
    overhang = max(0.0, max(places) - (_HEIGHT - _BOTTOM))
    return [place - overhang for place in places]


def _ceiling(value: float) -> float:
    """Return the next round number that four lines divide well."""
    power = 10 ** math.floor(math.log10(value or 1))
    return next(step * power for step in (1, 2, 4, 6, 8, 10, 20) if step * power >= value)
