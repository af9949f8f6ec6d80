"""Each outcome finds the waits of its child, however many others there are."""

from __future__ import annotations

from jetflow.worker.waits import KEPT_BYTES, Wait, Waits


async def test_an_outcome_wakes_the_waits_for_its_child_and_no_others() -> None:
    waits = Waits()
    both, first, second = Wait({b"1", b"2"}, 2), Wait({b"1"}, 1), Wait({b"2"}, 1)
    for wait in (both, first, second):
        waits.add(wait)
    waits.take(b"1", b"{}")
    assert [wait.moved.done() for wait in (both, first, second)] == [False, True, False]
    waits.take(b"2", b"{}")
    assert both.moved.done()
    assert second.moved.done()


async def test_a_step_stands_while_none_of_its_waits_can_go_on() -> None:
    waits = Waits()
    one, other = Wait({b"1"}, 1), Wait({b"2"}, 1)
    waits.add(one)
    waits.add(other)
    assert waits.standing == [one, other]
    waits.take(b"1", b"{}")
    assert waits.standing == []
    waits.end(one)
    assert waits.standing == [other]


async def test_a_wait_that_has_ended_leaves_nothing_behind() -> None:
    waits = Waits()
    some, all_of_them = Wait({b"1", b"2"}, 1), Wait({b"1", b"2"}, 2)
    waits.add(some)
    waits.add(all_of_them)
    waits.take(b"1", b"{}")
    waits.end(some)
    assert waits.open == {b"2"}
    waits.end(all_of_them)
    assert not waits.open


async def test_an_outcome_that_nobody_waits_for_is_not_kept() -> None:
    waits = Waits()
    waits.take(b"1", b"{}")
    assert not waits.ended


async def test_who_takes_children_as_they_end_misses_none_between_two_waits() -> None:
    waits = Waits()
    each, other = Wait.for_each({b"1", b"2", b"3"}, [b"1"]), Wait({b"2"}, 1)
    waits.watch(each)
    waits.add(other)
    assert list(each.arrived) == [b"1"]
    waits.take(b"2", b"{}")
    assert not each.moved.done()
    waits.renew(each)
    waits.take(b"3", b"{}")
    assert each.moved.done()
    waits.end(each)
    assert list(each.arrived) == [b"1", b"2", b"3"]
    waits.unwatch(each)
    waits.end(other)
    assert not waits.open
    assert waits.standing == []


async def test_large_records_are_kept_where_all_are_needed_at_once() -> None:
    """And as far as they fit where they are taken one by one, until they are given out."""
    waits, large = Waits(), bytes(KEPT_BYTES // 2 + 1)
    each, both = Wait.for_each({b"1", b"2", b"3", b"4"}, []), Wait({b"2"}, 1)
    waits.watch(each)
    waits.add(both)
    for child in (b"1", b"2", b"3"):
        waits.take(child, large)
    assert waits.ended == {b"1": large, b"2": large, b"3": b""}
    waits.let_go([b"1", b"2", b"3"])
    assert waits.ended == {b"1": b"", b"2": b"", b"3": b""}
    waits.take(b"4", large)
    assert waits.ended[b"4"] == large
