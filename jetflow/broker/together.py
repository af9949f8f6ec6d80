"""Reading together what is asked for in the same pass of the event loop.

Whoever asks is answered by a reading that begins after it has asked, never by one that is under way: so it finds all
that it has stored before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """Answers questions by readings of ``size`` of them at most. ``read`` returns an answer to each, or raises."""

    def __init__(self, read: Callable[[Sequence[K]], Coroutine[Any, Any, Mapping[K, V]]], size: int) -> None:
        self._read = read
        self._size = size
        self._asked: dict[K, asyncio.Future[V]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def ask(self, question: K) -> asyncio.Future[V]:
        """Ask; the answer is for all who have asked the same: `asyncio.shield` it from the end of one of them."""
        waiting = self._asked.get(question)
        if waiting is None:
            loop = asyncio.get_running_loop()
            if not self._asked:
                loop.call_soon(self._begin)
            waiting = self._asked[question] = loop.create_future()
        return waiting

    def _begin(self) -> None:
        asked, self._asked = list(self._asked.items()), {}
        for at in range(0, len(asked), self._size):
            reading = asyncio.get_running_loop().create_task(self._answer(dict(asked[at : at + self._size])))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def _answer(self, asked: dict[K, asyncio.Future[V]]) -> None:
        try:
            found = await self._read(list(asked))
        except Exception as error:  # whoever asked is told, each of them
            for waiting in asked.values():
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for question, waiting in asked.items():
                if not waiting.done():
                    waiting.set_result(found[question])
