"""Slots: the right to run one step body.

A step that waits gives its slot back and takes one again, in order, when it goes on. Those that go on come before
tasks that have not started, so that what was begun is finished first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A number of slots. ``on_free`` is called when one is free and nobody who was waiting wants it.

    ``mean_duration``, in seconds, is that of the last bodies that ran on them; until there were some, it is a guess.
    """

    def __init__(self, count: int, *, mean_duration: float = 0.0) -> None:
        self.count = count
        self.mean_duration: float = mean_duration
        self.used: int = 0
        self.on_free: Callable[[], None] = lambda: None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self.count - self.used

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self.used >= self.count:
            return False
        self.used += 1
        return True

    async def take_again(self) -> None:
        """Take a slot, in order, when one is free."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a slot to the next in order, or to whoever `on_free` finds."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.used -= 1
        self.on_free()
