"""A quick subset of ``make crash-points``, and that no effect is without a point."""

from __future__ import annotations

import asyncio
import re
from typing import get_args

import pytest

from jetflow.engine import effects
from jetflow.runs import points
from tests.crash.killing import Killing

QUICK = [
    ("boundary", "store_run"),
    ("boundary", "count_seal"),
    ("gates", "count_gate"),
    ("parked", "start_turn"),
    ("nested", "spawn_batch"),
]


def test_every_effect_is_a_point() -> None:
    plain = {effect.__name__ for effect in get_args(effects.Effect)} - {"Count", "Start"}
    assert {re.sub("(?<!^)(?=[A-Z])", "_", name).lower() for name in plain} <= set(points.POINTS)


@pytest.mark.chaos
async def test_a_worker_killed_at_a_point_leaves_nothing_undone() -> None:
    gate = asyncio.Semaphore(4)
    async with Killing() as killing:

        async def wrong(scenario: str, point: str, when: str) -> list[str]:
            async with gate:
                return (await killing.kill(scenario, point, when)).wrong

        found = await asyncio.gather(*(wrong(*case, when) for case in QUICK for when in ("before", "after")))
    assert [wrong for wrong in found if wrong] == []
