"""How many inputs of a bulk spawn are taken at a time: bounded in number and in bytes, and never waiting for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from itertools import islice
from typing import Any, Final

BATCH_BYTES: Final = 2 * 1024 * 1024
"""Bytes of inputs from which on a batch of a bulk spawn is sent, and about what is planned in one pass."""

FIRST: Final = 10
"""Children that are planned before it is known how large their inputs are."""

AT_ONCE: Final = 100
"""Children that a bulk spawn plans in one pass of the event loop: others have their turn, and the socket is served."""


class Pace:
    """How many children are planned in one pass: fewer, if their inputs are large."""

    __slots__ = ("at_once",)

    def __init__(self) -> None:
        self.at_once: int = FIRST

    def set(self, size: int, count: int) -> None:
        """Choose for the next pass, from the bytes that ``count`` inputs took in this one."""
        self.at_once = max(1, min(AT_ONCE, BATCH_BYTES * count // max(1, size)))


async def paced(inputs: Iterable[Any] | AsyncIterable[Any], pace: Pace) -> AsyncIterator[list[Any]]:
    """Yield the inputs, as many at a time as the pace says; fewer, if no more are ready."""
    if isinstance(inputs, AsyncIterable):
        async for values in _as_they_come(inputs, pace):
            yield values
    else:
        iterator = iter(inputs)
        while values := list(islice(iterator, pace.at_once)):
            yield values


async def _as_they_come(inputs: AsyncIterable[Any], pace: Pace) -> AsyncIterator[list[Any]]:
    """Yield what has come: an input that takes its time does not hold up those that are there."""
    there: list[Any] = []
    moved, room = asyncio.Event(), asyncio.Event()

    async def take() -> None:
        async for value in inputs:
            there.append(value)
            moved.set()
            if len(there) >= pace.at_once:
                room.clear()
                await room.wait()

    taking = asyncio.get_running_loop().create_task(take())
    taking.add_done_callback(lambda _: moved.set())
    try:
        while there or not taking.done():
            await moved.wait()
            moved.clear()
            values, there[:] = there[:], []
            room.set()
            if values:
                yield values
        taking.result()
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
