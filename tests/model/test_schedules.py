"""The chain of a schedule holds what is promised, and the model would notice if it did not."""

from __future__ import annotations

import pytest

from tests.model import schedules


def test_the_chain_holds() -> None:
    report = schedules.explore()
    assert report.violations == 0, report.first


@pytest.mark.parametrize("name", schedules.BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert schedules.hunt(schedules.BUGS[name]) is not None
