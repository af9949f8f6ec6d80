"""A paused queue with a bound holds what is promised, and the model would notice if it did not."""

from __future__ import annotations

import pytest

from tests.model import expiring


def test_the_bound_of_a_pause_holds() -> None:
    report = expiring.explore()
    assert report.violations == 0, report.first
    assert report.states > 1000


@pytest.mark.parametrize("name", expiring.BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert expiring.hunt(expiring.BUGS[name]) is not None
