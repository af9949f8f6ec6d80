"""Each outcome finds the waits of its child, however many others there are."""

from __future__ import annotations

from jetflow.worker.waits import Wait, Waits


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
    waits.remove(one)
    assert waits.standing == [other]


async def test_a_wait_that_has_ended_leaves_nothing_behind() -> None:
    waits = Waits()
    some, all_of_them = Wait({b"1", b"2"}, 1), Wait({b"1", b"2"}, 2)
    waits.add(some)
    waits.add(all_of_them)
    waits.take(b"1", b"{}")
    waits.remove(some)
    assert waits.open == {b"2"}
    waits.remove(all_of_them)
    assert not waits.open


async def test_an_outcome_that_nobody_waits_for_is_not_kept() -> None:
    waits = Waits()
    waits.take(b"1", b"{}")
    assert not waits.ended
