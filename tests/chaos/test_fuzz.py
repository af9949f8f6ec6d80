"""A short run of the fuzzer: ``python -m tests.chaos.fuzz --count 100000`` is the long one."""

from __future__ import annotations

import pytest

from tests.chaos.fuzz import fuzz

COUNT = 3000
SEED = 7


@pytest.mark.chaos
async def test_a_worker_lives_through_malformed_messages_and_its_good_work_goes_on() -> None:
    report = await fuzz(COUNT, SEED)
    assert report["alive"]
    assert report["rejected"] > 0
    assert report["failures_recorded"] > 0
    assert (report["without_outcome"], report["left"], report["good_wrong"]) == (0, 0, 0)
    assert report["ok"], report
