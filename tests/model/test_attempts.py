"""Deliveries that reach nobody are no attempts, a body that ends its worker ends, and planted bugs are noticed."""

from __future__ import annotations

import pytest

from tests.model.attempts import ATTEMPTS, BUGS, violations


@pytest.mark.parametrize("attempts", ATTEMPTS)
def test_a_task_is_poisoned_by_the_bodies_that_it_has_lost(attempts: int) -> None:
    assert next(violations(attempts), None) is None


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert any(next(violations(attempts, BUGS[bug]), None) for attempts in ATTEMPTS)
