"""The rule of rate limits: who begins, who is given a time, what is remembered of a window."""

from __future__ import annotations

import random

import pytest

from jetflow.engine.rates import GRAINS, NEAR, Ask, RateSettings, Taken, Window, free_at, share, taken_too

TWO = RateSettings(max=2, per=10.0)
SPAN = TWO.span


def asks(number: int, *, units: int = 1, booked: bool = False) -> list[Ask]:
    return [Ask((units,), booked)] * number


def test_as_many_begin_as_may_and_the_others_are_given_times_behind_each_other() -> None:
    turns, (window,) = share(asks(5), [Window()], [TWO], now=100.0)
    assert [turn.begins for turn in turns] == [True, True, False, False, False]
    assert [turn.at for turn in turns] == [100.0, 100.0, 100.0 + SPAN, 100.0 + SPAN, 100.0 + 2 * SPAN]
    assert window.begun == ((100.0, 2),)
    assert window.booked == ((100.0 + SPAN, 2), (100.0 + 2 * SPAN, 1))  # what came before does not matter any more


def test_who_comes_back_begins_if_no_more_have_begun_than_may() -> None:
    late = Window(booked=((100.0 + SPAN, 2),), begun=((101.0, 2),))
    (turn,), (after,) = share(asks(1, booked=True), [late], [TWO], now=100.0 + SPAN)
    assert (turn.begins, turn.at) == (False, 101.0 + SPAN)  # those before it were late by a second
    assert after == late  # it is held for so long, and given no other time
    (turn,), (after,) = share(asks(1, booked=True), [late], [TWO], now=101.0 + SPAN)
    assert turn.begins
    assert after.begun == ((101.0, 2), (101.0 + SPAN, 1))


def test_many_that_come_back_too_late_are_given_times_again() -> None:
    turns, (after,) = share(asks(6, booked=True), [Window()], [TWO], now=500.0)
    assert [turn.begins for turn in turns] == [True, True, False, False, False, False]
    assert [turn.at - 500.0 > NEAR for turn in turns[2:]] == [True] * 4
    assert len({turn.at for turn in turns[2:]}) == 2
    assert sum(units for _, units in after.booked) >= 2


def test_who_begins_takes_the_time_at_which_that_is_stored() -> None:
    _, (window,) = share(asks(1), [Window()], [TWO], now=100.0, lead=0.5)
    assert window.begun == ((100.5, 1),)


def test_several_rates_give_one_time() -> None:
    slow = RateSettings(max=1, per=100.0)
    turns, (fast, slower) = share([Ask((1, 1))] * 2, [Window(), Window()], [TWO, slow], now=0.0)
    assert [turn.at for turn in turns] == [0.0, slow.span]
    assert fast.booked[-1] == slower.booked[-1] == (slow.span, 1)


def test_units_wait_for_as_many() -> None:
    ten = RateSettings(max=10, per=10.0)
    assert free_at([(0.0, 6)], 4, ten, 1.0) == 1.0
    assert free_at([(0.0, 6)], 5, ten, 1.0) == ten.span
    assert free_at([(0.0, 6), (3.0, 4)], 5, ten, 4.0) == ten.span
    assert free_at([(0.0, 6), (3.0, 4)], 7, ten, 4.0) == 3.0 + ten.span


def test_a_window_of_many_is_kept_in_few_times_that_count_no_less() -> None:
    many, taken = RateSettings(max=100_000, per=10.0), list[Taken]()
    for n in range(1000):
        taken = taken_too(taken, n / 100, 1, many)
    assert len(taken) <= GRAINS + 1
    assert sum(units for _, units in taken) == 1000
    assert all(at >= 0 for at, _ in taken)
    assert taken[-1][0] >= 9.99


@pytest.mark.parametrize("seed", range(20))
def test_never_more_begin_than_may_and_none_waits_for_ever(seed: int) -> None:
    chance = random.Random(seed)
    most, per = chance.randint(1, 8), chance.choice((0.5, 2.0, 30.0))
    rate = RateSettings(max=most, per=per)
    coming = sorted((chance.random() * 5 * per, chance.randint(1, most), False) for _ in range(60))
    window, begun, now = Window(), list[Taken](), 0.0
    while coming:
        at, units, booked = coming.pop(0)
        now = max(now, at + chance.random() * 0.1)  # it comes a little late
        (turn,), (window,) = share([Ask((units,), booked)], [window], [rate], now)
        if turn.begins:
            begun.append((now, units))
        else:
            coming = sorted([*coming, (turn.at, units, True)])
    assert len(begun) == 60
    for start, _ in begun:
        assert sum(units for at, units in begun if start <= at < start + per) <= most
