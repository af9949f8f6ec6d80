"""One run among those that a batch handles: its context spawns, says and remembers, and waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from jetflow.children import ChildGroup
from jetflow.engine.awaiting import Group, Taken
from jetflow.engine.hedging import Hedge
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.sleeping import Sleep
from jetflow.engine.tasks import Outcome
from jetflow.engine.windows import AskedStream
from jetflow.errors import WaitInBatch
from jetflow.worker.execution import Execution
from jetflow.worker.streams import ChildStream
from jetflow.worker.waits import Decision
from jetflow.workflow import Workflow


class Member(Execution):
    """See `Execution`. What would wait, and so hold up or unwind the call for all the others, is refused by name."""

    def bound(self, timeout: asyncio.Timeout) -> None:
        """See `Body.bound`: it is the batch that lets it stand still."""
        super().bound(timeout)
        self.timeout: asyncio.Timeout | None = timeout

    def wait_for(self, ids: Sequence[bytes]) -> Awaitable[list[Outcome]]:
        """See `Context.join`."""
        raise self._no_wait()

    async def decide(self, ids: Sequence[bytes], policy: JoinPolicy) -> Decision:
        """See `Context.join`."""
        raise self._no_wait()

    def hedged(self, groups: Sequence[ChildGroup], hedge: Hedge) -> AbstractAsyncContextManager[None]:
        """See `Context.join`."""
        raise self._no_wait()

    async def sleep(self, sleep: Sleep) -> None:
        """See `Context.sleep`."""
        raise self._no_wait()

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """See `Context.wait_for`."""
        raise self._no_wait()

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> ChildStream:
        """See `Context.spawn_stream`."""
        raise self._no_wait()

    async def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """See `Context.as_completed`."""
        raise self._no_wait()
        yield b""  # which makes it a generator, as is asked for

    def _no_wait(self) -> WaitInBatch:
        return WaitInBatch(self.task.step)
