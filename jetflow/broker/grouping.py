"""Group commit: what is ready to be published at the same moment leaves as one atomic batch.

While a batch is on its way, more gathers behind it; so a lone message waits for nothing, and under load a batch is as
large as the disk is slow. Used where the server flushes to the disk before it acknowledges.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from jetflow.broker.atomic import LARGEST, AtomicBatches, Item

UNDER_WAY: Final = 2
"""Batches of one stream that may wait for their acknowledgement."""


class Pending(NamedTuple):
    """One message: ``stored`` is called when a batch has stored it, ``alone`` when it has to be published by itself."""

    item: Item
    stored: Callable[[], None]
    alone: Callable[[], None]


class GroupCommit:
    """Groups the messages of one stream."""

    def __init__(self, batches: AtomicBatches) -> None:
        self._batches = batches
        self._waiting: deque[Pending] = deque()
        self._under_way = 0
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    def add(self, pending: Pending) -> None:
        """Publish a message with all that is ready with it."""
        self._waiting.append(pending)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and self._under_way < UNDER_WAY:
            group = [self._waiting.popleft() for _ in range(min(LARGEST, len(self._waiting)))]
            if len(group) == 1:
                group[0].alone()
                continue
            self._under_way += 1
            stored = self._batches.publish([pending.item for pending in group])
            stored.add_done_callback(lambda done, group=group: self._on_done(group, done.result()))

    def _on_done(self, group: list[Pending], stored: bool) -> None:
        self._under_way -= 1
        for pending in group:
            if stored:
                pending.stored()
            else:
                pending.alone()
        self._send()
