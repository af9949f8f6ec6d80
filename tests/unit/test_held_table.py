"""The table of what a worker holds, as its guard reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jetflow.processes.table import NOWHERE, Held, HeldTable

REPLY = "$JS.ACK.stream.consumer.1.{}.1.1764314000123456789.0"
LONGEST = 247


@pytest.fixture
def table() -> Iterator[HeldTable]:
    """An empty one."""
    new = HeldTable.new()
    yield new
    new.close()


def test_what_is_taken_is_seen_until_it_is_freed(table: HeldTable) -> None:
    first, second = (table.take(REPLY.format(number)) for number in (1, 2))
    table.numbers[second] = 1.5
    assert list(table.held()) == [Held(REPLY.format(1), 0.0), Held(REPLY.format(2), 1.5)]
    table.free(second)
    assert [one.reply for one in table.held()] == [REPLY.format(1)]
    table.free(first)
    assert list(table.held()) == []


def test_a_place_that_is_taken_again_has_not_begun(table: HeldTable) -> None:
    place = table.take(REPLY.format(1))
    table.numbers[place] = 1.5
    table.free(place)
    assert table.take("$JS.ACK.short") == place
    assert list(table.held()) == [Held("$JS.ACK.short", 0.0)]


def test_what_is_too_long_finds_no_place_and_may_begin_all_the_same(table: HeldTable) -> None:
    assert table.take("x" * LONGEST) != NOWHERE
    assert table.take("x" * (LONGEST + 1)) == NOWHERE
    table.numbers[NOWHERE] = 1.5
    assert [one.started for one in table.held()] == [0.0]


def test_a_subject_that_was_being_written_is_none(table: HeldTable) -> None:
    """The worker may be killed in the middle of it: its size is there, and what follows is zero still."""
    place = table.take(REPLY.format(1))
    table.numbers[place + 3] = 0.0
    assert list(table.held()) == []
