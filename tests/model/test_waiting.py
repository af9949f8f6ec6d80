"""A step that waits for events takes each once, in order, and ends; and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.waiting import BUGS, explore, hunt


def test_a_step_takes_events_in_order_and_ends() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
