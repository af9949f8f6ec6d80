"""Limits hold what is promised, and the model would notice if they did not."""

from __future__ import annotations

import pytest

from tests.model import limits

SLOW_BUGS = frozenset({"who is sent away is woken last", "a run that was replaced ends without those below it"})
"""Those whose case has half a million states: `make mutants` hunts them."""


@pytest.mark.parametrize("case", [*limits.CASES, *limits.STEPS], ids=lambda case: case.name)
def test_limits_hold(case: limits.Case) -> None:
    report = limits.explore(case=case)
    assert report.violations == 0, report.first


@pytest.mark.parametrize("name", [name for name in limits.BUGS if name not in SLOW_BUGS])
def test_a_planted_bug_is_caught(name: str) -> None:
    assert limits.hunt(limits.BUGS[name]) is not None
