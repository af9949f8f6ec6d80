"""What a namespace's streams hold, and waiting for it to change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jetflow import Client

GRACE = 1.0
"""Seconds that a step may go on when its worker ends: a test that fails leaves steps behind that never end."""

PATIENCE = 20.0
"""Seconds that anything here may take."""


async def until(condition: Callable[[], Awaitable[Any]], *, patience: float = PATIENCE) -> Any:
    """Ask again until the answer is true, and return it. For what the broker tells to nobody."""
    async with asyncio.timeout(patience):
        while not (answer := await condition()):  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)
    return answer


class Stored:
    """What a namespace's streams hold."""

    def __init__(self, client: Client) -> None:
        self.session = client._session
        self.names = client._session.names

    async def subjects(self, stream: str, filter: str = ">") -> list[str]:
        pages = self.session.store.leader_subjects(stream, filter)
        return [subject async for page in pages for subject in page]

    async def of_tree(self, root: str) -> list[str]:
        """All subjects that name a root run, in all streams."""
        names = self.names
        streams = (names.tasks_stream, names.records_stream, names.counters_stream, names.values_stream)
        return [subject for stream in streams for subject in await self.subjects(stream) if root in subject]

    async def all_acknowledged(self) -> bool:
        """Whether no worker holds a task."""
        return sum(consumer["num_ack_pending"] for consumer in await self._consumers()) == 0

    async def is_idle(self) -> bool:
        """Whether no task is queued or held."""
        return sum(consumer["num_pending"] + consumer["num_ack_pending"] for consumer in await self._consumers()) == 0

    async def _consumers(self) -> list[dict[str, Any]]:
        found = await self.session.connection.api(f"CONSUMER.LIST.{self.names.tasks_stream}")
        return found["consumers"] or []
