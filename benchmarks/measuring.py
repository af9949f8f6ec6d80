"""Taking figures: both sides in turn in the same run, medians, percentiles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Pair(msgspec.Struct, Generic[T]):
    """What the rounds of both sides gave."""

    floor: list[T]
    jetflow: list[T]


async def in_turn(rounds: int, floor: Callable[[str], Awaitable[T]], jetflow: Callable[[str], Awaitable[T]]) -> Pair[T]:
    """Run both sides in turn. Each is given a label that tells where the bench stands."""
    pair = Pair[T]([], [])
    for number in range(1, rounds + 1):
        pair.floor.append(await floor(f"round {number} of {rounds}, floor"))
        pair.jetflow.append(await jetflow(f"round {number} of {rounds}, jetflow"))
    return pair


def middle(values: Sequence[float]) -> float:
    """Return the median; of nothing, 0."""
    return median(values) if values else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Latencies(msgspec.Struct):
    """Percentiles, in milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """Return the percentiles of some times in seconds."""
        return cls(*(percentile(seconds, percent) * 1000 for percent in (50, 95, 99)))
