"""A body that counts who is inside, for the chapters on limits."""

from __future__ import annotations

import asyncio
from collections import Counter


class Meter:
    """Counts who is inside, at most and in which order. Nobody comes out while its ``gate`` is closed."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def pass_through(self, key: str, number: int = 0) -> None:
        self.inside[key] += 1
        self.most[key] = max(self.most[key], self.inside[key])
        self.order.append(number)
        try:
            await asyncio.sleep(0.01)
            await self.gate.wait()
        finally:
            self.inside[key] -= 1
