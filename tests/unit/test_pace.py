"""How many inputs a bulk spawn takes at a time."""

from __future__ import annotations

from jetflow.worker.pace import AT_ONCE, BATCH_BYTES, Pace, paced


def test_small_inputs_are_taken_by_number() -> None:
    pace = Pace()
    pace.set(size=500, count=10)
    assert pace.at_once == AT_ONCE


def test_large_inputs_are_taken_by_their_bytes() -> None:
    pace = Pace()
    pace.set(size=10 * BATCH_BYTES // 4, count=10)
    assert pace.at_once == 4


def test_one_input_is_always_taken() -> None:
    pace = Pace()
    pace.set(size=10 * BATCH_BYTES, count=1)
    assert pace.at_once == 1


async def test_no_more_inputs_are_taken_than_the_pace_says() -> None:
    taken = list[int]()

    def inputs() -> list[int]:
        return [taken.append(number) or number for number in range(1)]

    pace, sizes = Pace(), list[int]()
    async for values in paced((one for _ in range(20) for one in inputs()), pace):
        sizes.append(len(values))
        assert len(taken) == sum(sizes)
        pace.at_once = 3
    assert sizes == [10, 3, 3, 3, 1]
