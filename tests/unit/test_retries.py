"""How often a step is tried, and how long it waits between."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow import Retry

policies = st.builds(
    Retry,
    attempts=st.integers(1, 10_000),
    initial=st.floats(0, 1e6),
    multiplier=st.floats(1, 1e3),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
chances = st.floats(0, 1)


def test_delays_grow_to_the_largest() -> None:
    retry = Retry(attempts=6, initial=1, multiplier=3, max_delay=10, jitter=0)
    assert [retry.delay(attempt, 0.5) for attempt in range(1, 7)] == [1, 3, 9, 10, 10, None]


def test_three_attempts_by_default() -> None:
    assert [Retry().delay(attempt, 0) for attempt in (1, 2, 3)] == [0.5, 1.0, None]


def test_jitter_shortens() -> None:
    retry = Retry(initial=10, jitter=0.2)
    assert retry.delay(1, 0) == 10
    assert retry.delay(1, 1) == 8


@given(policies, st.integers(1, 20_000), chances)
def test_a_delay_is_within_its_bounds(retry: Retry, attempt: int, chance: float) -> None:
    delay = retry.delay(attempt, chance)
    if attempt >= retry.attempts:
        assert delay is None
    else:
        assert delay is not None
        assert 0 <= delay <= retry.max_delay
        assert delay >= min(retry.initial, retry.max_delay) * (1 - retry.jitter) * (1 - 1e-9)


@given(policies, st.integers(1, 5_000), chances)
def test_delays_never_shrink(retry: Retry, attempt: int, chance: float) -> None:
    delay, following = retry.delay(attempt, chance), retry.delay(attempt + 1, chance)
    if delay is not None and following is not None:
        assert delay <= following


@pytest.mark.parametrize("on", [ValueError, [ValueError], (1,), ("ValueError",)], ids=str)
def test_what_is_no_tuple_of_types_of_errors_is_refused(on: Any) -> None:
    with pytest.raises(TypeError, match="tuple of types of errors"):
        Retry(on=on)


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"initial": -1}, {"max_delay": -0.1}, {"multiplier": 0.5}, {"jitter": 1.5}, {"jitter": -0.1}],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Retry(**options)  # pyright: ignore[reportArgumentType]
