"""Waking parked steps at a time: by a timer of the broker, or, where it is near, from this process's memory.

A timer is a scheduled message of the broker (``docs/wire.md``, section Timers). It is kept through restarts, fires
within a quarter of a second after its time, and never before it. What is held in memory keeps its task meanwhile: if
the process dies, the redelivery of the task arms the timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import time
from typing import Final, TypeAlias

from jetflow.broker.item import Item
from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.broker.times import written
from jetflow.engine.effects import Arm, Disarm
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block

HELD_BELOW: Final = 1.0
"""Seconds up to which a step that is parked for a time alone may be held in memory."""

HELD_AT_MOST: Final = 10_000
"""Steps held at once; more get a timer of the broker."""

Armed: TypeAlias = Callable[[bool, BrokerError | None], None]
"""Is told whether the time has come already, or what went wrong."""

_log = logging.getLogger("jetflow.worker")


class Timers:
    """Arms the timers of parked steps.

    ``may_hold`` tells whether a task may be held for a while, and ``on_holding`` is called with +1 and -1 as the number
    of held ones changes.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: dict[int, tuple[asyncio.TimerHandle, Arm, Armed]] = {}
        self._last = 0
        self.may_hold: Callable[[Task], bool] = lambda _: False
        self.on_holding: Callable[[int], None] = lambda _: None

    def arm(self, effect: Arm, armed: Armed) -> None:
        """Have the next turn of a parked step published at the time that its record names."""
        record = effect.record
        assert record.until is not None, "only a step that waits for a time is armed"
        left = record.until - time()
        if left <= 0:
            armed(True, None)
        elif left < HELD_BELOW and self._may_hold(effect):
            self._hold(left, effect, armed)
        else:
            self._publish(effect, armed)

    def _may_hold(self, effect: Arm) -> bool:
        """Tell whether a step waits for a time alone, and may be held here. At a gate it has to look, once armed."""
        record = effect.record
        if record.counted or record.gate is not None:
            return False
        return len(self._held) < HELD_AT_MOST and self.may_hold(effect.task)

    def release(self) -> None:
        """Give what is held to the broker: this process stops."""
        held, self._held = self._held, {}
        for handle, effect, armed in held.values():
            handle.cancel()
            self.on_holding(-1)
            self._publish(effect, armed)

    async def disarm(self, effect: Disarm) -> None:
        """Remove the timer of a turn that was woken before."""
        await self.remove(self._session.names.timer_of(effect.task))

    async def remove(self, timers: str) -> None:
        """Remove timers that are not needed any more. One that stays fires for nothing."""
        stream = self._session.names.timers_stream
        try:
            await self._session.connection.api(f"STREAM.PURGE.{stream}", {"filter": timers})
        except BrokerError as error:
            _log.info("%s stays, and will fire for nothing: %s", timers, error)

    def _hold(self, seconds: float, effect: Arm, armed: Armed) -> None:
        self._last += 1
        handle = asyncio.get_running_loop().call_later(seconds, self._let_go, self._last)
        self._held[self._last] = handle, effect, armed
        self.on_holding(1)

    def _let_go(self, number: int) -> None:
        _, effect, armed = self._held.pop(number)
        self.on_holding(-1)
        self.arm(effect, armed)  # the clock may have been set back meanwhile

    def _publish(self, effect: Arm, armed: Armed) -> None:
        names, task, record = self._session.names, effect.task, effect.record
        headers = {Header.SCHEDULE: f"@at {written(record.until or 0.0)}", Header.SCHEDULE_TARGET: names.due_of(task)}
        if record.tried:
            headers[Header.ATTEMPT] = str(record.tried)
        item = Item(names.timer_of(task), header_block(headers), b"")
        self._session.timers.publish(item, partial(_published, armed))


def _published(armed: Armed, receipt: Receipt) -> None:
    armed(False, receipt.error)
