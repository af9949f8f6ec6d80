"""The time that a step has for its own work: it stands still while the step waits."""

from __future__ import annotations

import asyncio


class StepClock:
    """Stops and starts the ``timeout`` of one step. Without one, nothing has to be."""

    def __init__(self) -> None:
        self.timeout: asyncio.Timeout | None = None
        self._left: float | None = None

    def stop(self) -> None:
        """Let no time pass from now on."""
        deadline = None if self.timeout is None else self.timeout.when()
        if self.timeout is not None and deadline is not None and not self.timeout.expired():
            self._left = deadline - asyncio.get_running_loop().time()
            self.timeout.reschedule(None)

    def go_on(self) -> None:
        """Let the time go on that was left."""
        if self.timeout is not None and self._left is not None:
            self.timeout.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None
