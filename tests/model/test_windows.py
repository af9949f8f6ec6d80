"""Never more children of a stream are open than its window has, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.windows import BUGS, explore, hunt


def test_a_stream_keeps_to_its_window() -> None:
    report = explore()
    assert not report.violations, report.first
    assert report.finals


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert hunt(BUGS[bug]) is not None
