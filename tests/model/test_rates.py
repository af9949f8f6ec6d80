"""Rate limits hold what is promised, and the model would notice if they did not."""

from __future__ import annotations

import pytest

from tests.model import rates


@pytest.mark.parametrize("case", rates.CASES, ids=lambda case: case.name)
def test_rates_hold(case: rates.Case) -> None:
    report = rates.explore(case=case)
    assert report.violations == 0, report.first


@pytest.mark.parametrize("name", rates.BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert rates.hunt(rates.BUGS[name]) is not None
