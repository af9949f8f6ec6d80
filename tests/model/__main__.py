"""Explores every small configuration: ``python -m tests.model [part of a name]``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from tests.model import (
    attempts,
    conditions,
    expiring,
    hedging,
    holding,
    keeping,
    limits,
    loosening,
    schedules,
    sharing,
    waiting,
    windows,
)
from tests.model.configurations import CONFIGURATIONS
from tests.model.explorer import Report, explore, say
from tests.model.reruns import RERUNS


def line(report: Report) -> str:
    """Return one line of the table."""
    return (
        f"{report.states:>9,} {report.transitions:>10,} {report.finals:>7,} {report.violations:>10,}"
        f" {report.seconds:>7.1f} s  {report.name}"
    )


def searches() -> dict[str, Callable[[], Report]]:
    """Return every search by the name of its configuration."""
    protocol = {one.name: partial(explore, one) for one in (*CONFIGURATIONS, *RERUNS)}
    waits = {f"{waiting.NAME} {n}": partial(waiting.explore, start=start) for n, start in enumerate(waiting.STARTS)}
    decided = {
        f"{conditions.NAME} {n}": partial(conditions.explore, start=one) for n, one in enumerate(conditions.STARTS)
    }
    small = {
        one.NAME: one.explore
        for one in (attempts, expiring, hedging, holding, keeping, loosening, sharing, schedules, windows)
    }
    gates = {f"limits: {case.name}": partial(limits.explore, case=case) for case in (*limits.CASES, *limits.STEPS)}
    return {**small, **waits, **decided, **gates, **protocol}


def main(wanted: str = "") -> int:
    """Explore the configurations whose names contain ``wanted``; return the exit code."""
    say(f"{'states':>9} {'steps':>10} {'finals':>7} {'violations':>10} {'time':>9}  configuration")
    reports: list[Report] = []
    for name, search in searches().items():
        if wanted in name:
            report = search()
            reports.append(report)
            say(line(report))
            for step in report.trace:
                say(f"{'':>12}{step}")
    broken = sum(report.violations > 0 for report in reports)
    states, seconds = sum(report.states for report in reports), sum(report.seconds for report in reports)
    say(f"{len(reports)} configurations, {states:,} states, {broken} with violations, {seconds:.0f} s")
    return 1 if broken or not reports else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
