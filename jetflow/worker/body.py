"""The running function of a step, as its worker sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from jetflow.children import ChildGroup
from jetflow.engine.tasks import Failure, Task
from jetflow.worker.threads import Call


class Body:
    """One run of a step's function. This one has no context: it neither spawns nor waits.

    ``cancelled`` says that its run is; ``is_void`` that whatever it comes to cannot count any more. ``call`` is its
    call in a thread, ``timeout`` what ends it when its time is over, ``extended`` the seconds that this was put off.
    ``reason`` is why the step has cancelled its run by itself, if it has. ``has_lost`` says that a second task of its
    run has ended it (see `jetflow.engine.hedging`).
    """

    cancelled: bool = False
    is_void: bool = False
    has_lost: bool = False
    call: Call | None = None
    timeout: asyncio.Timeout | None = None
    extended: float = 0.0
    reason: Failure | None = None

    def __init__(self, task: Task, running: asyncio.Task[None] | None, *, is_interruptible: bool) -> None:
        self.task = task
        self._is_interruptible = is_interruptible
        self._running = running

    @property
    def parked(self) -> bool:
        """Whether the step is being unwound."""
        return False

    @property
    def holds_slot(self) -> bool:
        """Whether the slot that the step was started on is still its own."""
        return True

    def spawned(self) -> list[ChildGroup]:
        """What the step has spawned."""
        return []

    @property
    def has_spawned(self) -> bool:
        """Whether it has spawned anything."""
        return bool(self.spawned())

    def cancel(self) -> None:
        """Tell the step that its run is cancelled: one in a thread by a flag, any other by CancelledError."""
        if not self.cancelled:
            self.cancelled = self.is_void = True
            if self._is_interruptible and self._running is not None:
                self._running.cancel()

    def lose(self) -> None:
        """Tell the step that its twin, or what it is the twin of, has ended its run."""
        if not (self.cancelled or self.has_lost):
            self.has_lost = self.is_void = True
            if self._is_interruptible and self._running is not None:
                self._running.cancel()

    def unwind(self) -> None:
        """End a step that has cancelled its run by itself. The task that says so ends by an error of its own."""
        if self._is_interruptible and self._running is not None and asyncio.current_task() is not self._running:
            self._running.cancel()

    def comes_to_the_loop(self) -> bool:
        """Let a step go on here that has begun in a thread; not if its run was cancelled meanwhile."""
        self._is_interruptible = True
        return not self.cancelled

    def runs_in(self, running: asyncio.Task[Any]) -> bool:
        """Tell whether it is this step that a task of the event loop runs."""
        return self._running is running

    def park(self) -> None:
        """Unwind the step where it waits."""

    def bound(self, timeout: asyncio.Timeout) -> None:
        """Take note of a timeout that has to stand still while the step waits."""
        self.timeout = timeout

    async def close(self) -> None:
        """Stop listening for children."""
