"""A join may be loosened at any time, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.loosening import BUGS, explore, hunt


def test_a_join_that_is_loosened_goes_on() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
