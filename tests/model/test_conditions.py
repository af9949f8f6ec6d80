"""A step with conditions comes to one end, that of what came first; and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.conditions import BUGS, STARTS, explore, hunt


@pytest.mark.parametrize("start", [0, 1, 4, 5])  # all of them: make model
def test_a_step_comes_to_the_end_of_what_came_first(start: int) -> None:
    report = explore(start=STARTS[start])
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
