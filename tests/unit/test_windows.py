"""The window of a stream: what has room, what counts how often, and what a page keeps of it."""

from __future__ import annotations

import msgspec
import pytest

from jetflow.engine.windows import FAILURES, PAGE, Page, StreamNames, Window
from jetflow.errors import MalformedRecord
from jetflow.wire.records import decode_page, encode


def ids(*numbers: int) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in numbers]


def test_children_that_are_open_take_places() -> None:
    window = Window(3, Page())
    window.spawn(ids(1, 2, 3))
    assert window.room == 0
    assert window.end(ids(2)[0], well=True) == 1
    assert window.end(ids(2)[0], well=True) == 0
    assert window.room == 1


def test_equal_ones_take_one_place_and_count_each() -> None:
    window = Window(3, Page())
    window.spawn(ids(1, 1, 1))
    assert window.room == 2
    assert window.end(ids(1)[0], well=False) == 3
    assert (window.spawned, window.failed, window.failures) == (3, 3, [ids(1)[0].hex()])


def test_a_page_is_gone_on_from_as_if_nothing_had_happened() -> None:
    window = Window(5, Page())
    window.spawn(ids(1, 2, 2, 3))
    window.end(ids(1)[0], well=False)
    window.state = msgspec.Raw(b"[7]")
    page = decode_page(encode(window.page()))
    again = Window(5, page)
    assert (again.open, again.spawned, again.failed, again.failures, bytes(again.state), again.last) == (
        window.open,
        window.spawned,
        window.failed,
        window.failures,
        b"[7]",
        ids(3)[0].hex(),
    )


def test_few_failures_are_named() -> None:
    window = Window(1000, Page())
    window.spawn(ids(*range(100)))
    for child in ids(*range(100)):
        window.end(child, well=False)
    assert (window.failed, len(window.failures)) == (100, FAILURES)


@pytest.mark.parametrize(("size", "due"), [(10, PAGE), (PAGE * 3, PAGE * 3)])
def test_a_page_is_due_behind_a_window_of_children_or_five_hundred(size: int, due: int) -> None:
    window = Window(size, Page())
    window.spawn(ids(*range(due - 1)))
    assert not window.is_page_due
    window.spawn(ids(due))
    assert window.is_page_due
    window.page()
    assert not window.is_page_due


def test_streams_of_a_body_are_told_apart() -> None:
    names = StreamNames()
    assert [names.name("w", None), names.name("w", None), names.name("v", None), names.name("w", "mine")] == [
        "_stream-w-1",
        "_stream-w-2",
        "_stream-v-1",
        "_stream-named-mine",
    ]


def test_a_page_that_is_none_says_so() -> None:
    with pytest.raises(MalformedRecord, match="page of a stream"):
        decode_page(b"[]")
