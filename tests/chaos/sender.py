"""Publishes events, sends signals and has schedules, while faults happen; and notes what the servers have taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

import jetflow
from jetflow.broker.topology import found
from jetflow.errors import BrokerError
from tests.chaos.moments import ORDER, SIGNAL, STOP, TIDE, ordered, ticked
from tests.chaos.plan import Leaf, is_refused, signals

SCHEDULES = 3
EVERY = 2
"""Seconds between two ticks of a schedule."""

PATIENCE = 300.0
"""Seconds after which sending one thing is given up."""


class Sender:
    """What comes from outside beside triggers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.orders: set[int] = set()
        self.ticks: set[tuple[str, int]] = set()
        self._heard = False

    async def schedule(self, client: jetflow.Client, seconds: float) -> None:
        """Have schedules that end by themselves; note which ticks there have to be."""
        await self._sure(lambda: client.session.registry.ensure(ticked.declaration))
        for number in range(SCHEDULES):
            name, begin = f"chaos-{number}", (int(time()) // EVERY + 2) * EVERY
            end = begin + int(seconds) // EVERY * EVERY
            plan: Any = {"every": EVERY, "catch_up": "all", "start": _moment(begin), "end": _moment(end)}
            await self._sure(lambda: client.schedules.create(name, ticked, Leaf(number), **plan))  # noqa: B023
            self.ticks |= {(name, tick) for tick in range(begin, end + 1, EVERY)}

    async def run(self, client: jetflow.Client, stopping: asyncio.Event) -> None:
        """Publish events until told to stop: each starts a run, and some wake all who wait for such."""
        while not stopping.is_set():
            await asyncio.sleep(0.3 + self._rng.random())
            if await self._is_heard(client):
                seed = self._rng.randrange(2**40)
                await self._sure(lambda: client.publish(ORDER, {"seed": seed}, id=f"order {seed}"))  # noqa: B023
                self.orders.add(seed)
                if self._rng.random() < 0.2:
                    await self._sure(lambda: client.publish(TIDE, id=f"tide {seed}"))  # noqa: B023

    async def _is_heard(self, client: jetflow.Client) -> bool:
        """Tell whether the workflow that events start is declared: those before that start nothing."""
        if not self._heard:
            stream, connection = f"JF_{client.session.names.namespace}_events", client.session.connection
            try:
                self._heard = await found(connection, f"CONSUMER.INFO.{stream}.on={ordered.name}") is not None
            except BrokerError:
                return False
        return self._heard

    async def signal(self, run: jetflow.Run[Any], seed: int, is_over: Callable[[], bool]) -> None:
        """Send a run the signals that it waits for, in order."""
        for number in range(signals(seed)):
            await asyncio.sleep(self._rng.random() * 2.0)
            if not await self._sure(lambda: run.signal(SIGNAL, number, id=f"{run.id} {number}"), is_over):  # noqa: B023
                return

    async def decide(self, run: jetflow.Run[Any], seed: int, is_over: Callable[[], bool]) -> None:
        """Send a run the one signal that decides its step."""
        await asyncio.sleep(self._rng.random() * 4.0)
        name = STOP if is_refused(seed) else SIGNAL
        await self._sure(lambda: run.signal(name, None, id=f"{run.id} {name}"), is_over)

    @staticmethod
    async def _sure(send: Callable[[], Awaitable[Any]], is_over: Callable[[], bool] = lambda: False) -> bool:
        """Send something until the servers have taken it; tell whether they have."""
        until = monotonic() + PATIENCE
        while not is_over():
            try:
                await send()
            except BrokerError:
                if monotonic() > until:
                    raise
                await asyncio.sleep(0.3)
            else:
                return True
        return False


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
