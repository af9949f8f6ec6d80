"""Whether anybody runs a workflow: asked for only when something has waited, never before.

Every worker answers for its workflows on ``jf.<ns>.who.<workflow>``; where no worker is connected the server itself
says so at once. A worker in another language may not answer, but has pull requests waiting at its consumers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

from jetflow.broker.connection import Connection
from jetflow.errors import BrokerError, BrokerRefused, BrokerTimeout, JetStreamUnavailable
from jetflow.wire.subjects import Subjects

WAITED: Final = 5.0
"""Seconds that something must have waited before anybody asks why."""

ANSWER_WITHIN: Final = 1.0
"""Seconds in which a worker answers."""

ASKED_AT_ONCE: Final = 16
"""Steps whose consumers are asked about at once."""


class Attendance:
    """Knows which workflows have tasks that wait and no worker. An answer is good for five seconds."""

    def __init__(self, connection: Connection, names: Subjects) -> None:
        self._connection = connection
        self._names = names
        self._asked: dict[tuple[str, ...], tuple[float, asyncio.Task[bool]]] = {}

    async def is_missed(self, workflow: str, steps: Sequence[str]) -> bool:
        """Tell whether tasks of a workflow's steps wait, or are lost, and no worker runs it.

        Whatever cannot be found out counts as a no.
        """
        key = (workflow, *steps)
        at, asked = self._asked.get(key, (0.0, None))
        if asked is None or monotonic() - at > WAITED:
            self._asked = {known: one for known, one in self._asked.items() if monotonic() - one[0] <= WAITED}
            asked = asyncio.get_running_loop().create_task(self._ask(workflow, steps))
            self._asked[key] = monotonic(), asked
        return await asyncio.shield(asked)

    async def stop(self) -> None:
        """Ask no more."""
        open_ones = [task for _, task in self._asked.values() if not task.done()]
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _ask(self, workflow: str, steps: Sequence[str]) -> bool:
        gate = asyncio.Semaphore(ASKED_AT_ONCE)

        async def waits(step: str) -> bool | None:
            async with gate:
                return await self._waits(workflow, step)

        try:
            found = await asyncio.gather(*map(waits, steps))
            return None not in found and any(found) and not await self._answers(workflow)
        except BrokerError:
            return False

    async def _waits(self, workflow: str, step: str) -> bool | None:
        """Tell whether tasks of a step wait; None if somebody pulls them."""
        try:
            consumer = self._names.consumer(workflow, step)
            info = await self._connection.api(f"CONSUMER.INFO.{self._names.tasks_stream}.{consumer}")
        except BrokerRefused as error:
            if error.code == 404:
                return True  # nobody has ever run it
            raise
        if info.get("num_waiting"):
            return None
        return bool(info.get("num_pending") or info.get("num_ack_pending"))

    async def _answers(self, workflow: str) -> bool:
        try:
            await self._connection.request(self._names.who(workflow), timeout=ANSWER_WITHIN)
        except (BrokerTimeout, JetStreamUnavailable):
            return False
        return True
