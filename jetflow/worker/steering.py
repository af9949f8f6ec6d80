"""What a running step asks for itself: more time, the end of its run, and to go on without its slot.

All of it is about one attempt in this worker, and nothing of it is stored but that a run is cancelled. A step in a
thread asks from there: the event loop is told, and does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from jetflow.broker.session import Session
from jetflow.engine.tasks import Failure
from jetflow.errors import InvalidInput
from jetflow.runs import points
from jetflow.runs.cancelling import Run, cancel_itself
from jetflow.worker.body import Body
from jetflow.worker.waiting import Waiting


class Steering:
    """See `jetflow.host.Steering`. ``may_have_children`` says that a run has to be looked below for what is to end."""

    def __init__(
        self,
        session: Session,
        drive: Run,
        body: Body,
        waiting: Waiting,
        loop: asyncio.AbstractEventLoop,
        *,
        is_sequel: bool,
        in_batch: bool,
        may_have_children: bool,
    ) -> None:
        self._session = session
        self._drive = drive
        self._body = body
        self._waiting = waiting
        self._loop = loop
        self._is_sequel = is_sequel
        self._in_batch = in_batch
        self._may_have_children = may_have_children

    def extend_timeout(self, seconds: float) -> None:
        """See `Context.extend_timeout`."""
        self._on_the_loop(lambda: self._extend(seconds))

    def _extend(self, seconds: float) -> None:
        body = self._body
        if not body.is_void and self._waiting.clock.extend(seconds):
            body.extended += seconds

    def release_slot(self) -> None:
        """See `Context.release_slot`."""
        if self._in_batch:
            raise InvalidInput(
                f"ctx.release_slot() in step {self._body.task.step!r}: its call has one slot for all of its batch"
            )
        self._on_the_loop(self._waiting.release)

    async def cancel(self) -> NoReturn:
        """See `Context.cancel`. A run that can have no children is ended by the step's end alone."""
        body, task = self._body, self._body.task
        if self._is_sequel:
            raise InvalidInput(
                f"ctx.cancel() in step {task.step!r}: its run has ended, which is why this step runs: return, or raise"
            )
        if self._in_batch:
            raise InvalidInput(
                f"ctx.cancel() in step {task.step!r}: one call handles many runs: return an exception for the one that "
                "is to end"
            )
        reason = Failure("Cancelled", "the run has cancelled itself", task.step)
        if not body.cancelled:  # from now on it is not told what it has caused
            body.cancelled = body.is_void = True
            body.reason = reason
            if self._may_have_children:
                try:
                    points.before("cancel_itself")
                    await cancel_itself(self._session, self._drive, task, reason)
                    points.after("cancel_itself")
                except BaseException:
                    body.cancelled = body.is_void = False
                    body.reason = None
                    raise
        body.unwind()
        raise asyncio.CancelledError

    def _on_the_loop(self, act: Callable[[], None]) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            act()
        else:
            self._loop.call_soon_threadsafe(act)
