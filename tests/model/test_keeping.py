"""The first task of a cancelled tree is not lost, a deleted one leaves nothing, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.keeping import BUGS, explore, hunt


def test_the_first_task_of_a_cancelled_tree_is_kept() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
