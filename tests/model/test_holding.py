"""A key stands for one run that goes on, whoever dies; and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.holding import BUGS, explore, hunt


def test_a_key_stands_for_one_run() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
