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

    def extend(self, seconds: float) -> bool:
        """Let the time be so much longer. Returns False if there is none that ends, or it is over."""
        if self.timeout is None or self.timeout.expired():
            return False
        if self._left is not None:
            self._left += seconds
        elif (end := self.timeout.when()) is not None:
            self.timeout.reschedule(end + seconds)
        else:
            return False
        return True
