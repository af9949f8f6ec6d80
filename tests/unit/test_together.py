"""Questions that are asked in the same pass of the event loop share a reading that begins behind all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jetflow.broker.together import Together


class Book:
    """What is read, and how often."""

    def __init__(self) -> None:
        self.readings: list[list[str]] = []
        self.began = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def read(self, questions: Sequence[str]) -> dict[str, int]:
        self.readings.append(list(questions))
        self.began.set()
        await self.held.wait()
        if "wrong" in questions:
            raise ValueError("wrong")
        return {one: len(self.readings) for one in questions}


async def test_those_that_ask_together_share_a_reading_of_so_many_at_most() -> None:
    book = Book()
    together = Together(book.read, 2)
    answers = await asyncio.gather(*(together.ask(one) for one in ("a", "b", "a", "c")))
    assert book.readings == [["a", "b"], ["c"]]
    assert answers[0] == answers[2]


async def test_nobody_is_answered_by_a_reading_that_had_begun() -> None:
    book = Book()
    book.held.clear()
    together = Together(book.read, 2)
    first = together.ask("a")
    await book.began.wait()
    second = together.ask("a")
    book.held.set()
    await asyncio.gather(first, second)
    assert book.readings == [["a"], ["a"]]


async def test_a_reading_that_fails_fails_all_who_share_it_and_no_other() -> None:
    together = Together(Book().read, 2)
    asked = [together.ask(one) for one in ("wrong", "a", "b")]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(one, ValueError) for one in found] == [True, True, False]
    with pytest.raises(ValueError, match="wrong"):
        await together.ask("wrong")


async def test_one_that_waits_no_more_takes_nothing_from_the_others() -> None:
    together = Together(Book().read, 2)
    asked = [together.ask(one) for one in ("a", "b")]
    asked[0].cancel()
    assert await asked[1] == 1
