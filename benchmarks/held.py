"""Those bars of the dashboard that are no figures: what the tests hold it to, run as the tests that they are."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec

from benchmarks.report import Goal

PATIENCE: Final = 900.0
"""Seconds that all of them may take."""

BROWSER: Final = "tests.dashboard.browser."
DASHBOARD: Final = "tests.dashboard."


class Bar(msgspec.Struct, frozen=True):
    """One bar: its number, what it says, and the tests that hold it, by the beginning of ``module::name``."""

    number: int
    text: str
    tests: tuple[str, ...]


BARS: Final = (
    Bar(
        3,
        "totals never exceed the truth, and equal it at the end, under chaos",
        ("tests.chaos.test_chaos::test_nothing_is_lost_in_a_short_run",),
    ),
    Bar(4, "reload, back and a pasted link restore filter, sort, row and tab", (f"{BROWSER}test_pages_address::",)),
    Bar(5, "by keyboard alone: find what failed, read it, go up, cancel", (f"{BROWSER}test_pages_keyboard::",)),
    Bar(6, "axe finds nothing serious, on any page, in either theme", (f"{BROWSER}test_pages_accessible::",)),
    Bar(
        7,
        "who may only look sees every page, and the broker refuses every write",
        (
            f"{DASHBOARD}test_trouble::test_a_viewer_of_the_broker",
            f"{BROWSER}test_pages_acting::test_who_may_only_look",
        ),
    ),
    Bar(8, "Starlette, FastAPI, Litestar and Django, below a prefix", (f"{DASHBOARD}test_mounting::",)),
    Bar(
        9,
        "an output of 64 MiB: the page is usable, the download whole",
        (f"{BROWSER}test_pages_acting::test_a_very_large_output", f"{DASHBOARD}test_reading::test_a_large_value"),
    ),
    Bar(
        10,
        "bulk: a filter survives reload, and what comes after the count is not touched",
        (
            f"{DASHBOARD}test_acting::test_many_runs_are_counted",
            f"{BROWSER}test_pages_acting::test_many_are_cancelled",
            f"{BROWSER}test_pages_acting::test_a_filter_of_bulk",
        ),
    ),
)


async def held() -> list[Goal]:
    """Run the tests; return a bar each, with how many have passed."""
    files = sorted({_file(test) for bar in BARS for test in bar.tests})
    with tempfile.TemporaryDirectory(prefix="jetflow-bench-") as folder:
        report = Path(folder, "tests.xml")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE):
            await process.wait()
        told = _told(report)
    return [_goal(bar, told) for bar in BARS]


def _file(test: str) -> str:
    return test.partition("::")[0].replace(".", "/") + ".py"


def _told(report: Path) -> dict[str, bool]:
    """Return whether each test has passed; one that was skipped has not."""
    cases = ElementTree.parse(report).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": not list(case.iter())[1:] for case in cases}


def _goal(bar: Bar, told: dict[str, bool]) -> Goal:
    missing = [test for test in bar.tests if not any(name.startswith(test) for name in told)]
    passed = [well for name, well in told.items() if name.startswith(bar.tests)]
    text = f"dashboard: bar {bar.number} {bar.text}: {sum(passed)} of {len(passed)} tests pass"
    return Goal(text if not missing else f"{text}; there is no {missing[0]}", not missing and all(passed))
