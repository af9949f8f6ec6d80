"""Deliveries that reach nobody are no attempts, a body that ends its worker ends, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.attempts import BUGS, explore, hunt


def test_a_task_is_poisoned_by_the_bodies_that_it_has_lost() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
