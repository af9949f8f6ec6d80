"""A straggler and its twin end their run once, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.hedging import BUGS, explore, hunt


def test_a_run_with_a_twin_ends_once() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
