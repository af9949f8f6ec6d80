"""What a step asks for itself that runs in a process: its worker does it, and the process is told of nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from jetflow.processes.pool_messages import Spoken


class PoolSteering:
    """The steering of a step in a process: see `jetflow.host.Steering`."""

    def __init__(self, call: int, ask: Callable[..., Awaitable[Any]], send: Callable[[Spoken], None]) -> None:
        self._call = call
        self._ask = ask
        self._send = send

    def extend_timeout(self, seconds: float) -> None:
        """See `Context.extend_timeout`."""
        self._send(Spoken(self._call, "extend_timeout", [seconds]))

    async def cancel(self) -> NoReturn:
        """See `Context.cancel`: the process is killed meanwhile."""
        await self._ask("cancel")
        raise asyncio.CancelledError

    def release_slot(self) -> None:
        """See `Context.release_slot`."""
        self._send(Spoken(self._call, "release_slot", []))
