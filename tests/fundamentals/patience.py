"""How long the tutorial's tests wait, and how they wait for what the broker knows and no event tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE: Final = 20.0
"""Seconds after which a test gives up. It is a bound for slow machines, and never what a test takes."""

_LOOK_AGAIN: Final = 0.01


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = PATIENCE) -> None:
    """Wait until ``condition`` holds.

    Raises:
        TimeoutError: it does not within ``seconds``.
    """
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(_LOOK_AGAIN)
