"""Pulling what is no task of a step: messages to the workers at large, each handled by whichever worker takes it.

They need no slot. A message is kept alive while it is handled, and is soon somebody else's if this worker dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from jetflow.broker.puller import Delivery, Puller
from jetflow.broker.session import Session
from jetflow.broker.topology import Consumer
from jetflow.errors import BrokerError
from jetflow.worker.deliveries import Deliveries

BATCHES: Final = 4
"""Batches that are handled at once, of messages that are handled together; behind them more gather."""

HANDLED_BYTES: Final = 32 * 1024 * 1024
"""Bytes of messages from which on no more are asked for until some are handled."""

_log = logging.getLogger("jetflow.worker")


class Errands:
    """Pulls from one consumer, ``window`` messages at a time. `start` and `stop` it; both are safe to call twice.

    With ``handle_all``, messages that come together are handled together, ``at_once`` at most: without a task each.
    """

    def __init__(
        self,
        session: Session,
        deliveries: Deliveries,
        stream: str,
        consumer: str,
        ensure: Callable[[], Awaitable[Consumer]],
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        window: int,
        handle_all: Callable[[list[Delivery]], Awaitable[None]] | None = None,
        at_once: int = 1,
    ) -> None:
        self._deliveries = deliveries
        self._make = ensure
        self._handle = handle
        self._window = window
        self._handle_all = handle_all
        self._at_once = at_once
        self._gathered: list[Delivery] = []
        self._begins_soon = False
        self._batches = 0
        self._handling: set[asyncio.Task[None]] = set()
        self._messages = self._bytes = 0  # under way
        self.puller: Puller = Puller(
            session.connection, stream, consumer, self._accept, lambda: self._in_background(self._make_again())
        )

    async def start(self) -> None:
        """Make the consumer, and begin to pull from it."""
        await self._ensure()
        await self.puller.start()
        self.puller.want(self._window)

    async def stop(self) -> None:
        """Stop pulling. What is being handled goes on: see `drained`."""
        await self.puller.stop()

    @property
    def busy(self) -> bool:
        """Whether anything is being handled."""
        return bool(self._handling or self._gathered)

    async def drained(self) -> None:
        """Wait until what was pulled is handled."""
        while self.busy:
            self._begin()
            await asyncio.gather(*self._handling, return_exceptions=True)

    async def abandon(self) -> None:
        """Leave what is still being handled to another worker."""
        gathered, self._gathered = self._gathered, []
        for delivery in gathered:
            self._let_go(delivery)
        for task in self._handling:
            task.cancel()
        await self.drained()

    async def _ensure(self) -> None:
        self._deliveries.keep_within((await self._make()).ack_wait)

    def _accept(self, delivery: Delivery) -> None:
        self._messages += 1
        self._bytes += len(delivery.body)
        self._deliveries.hold(delivery)
        if self._handle_all is None:
            self._in_background(self._run(delivery))
            self._ask()
            return
        self._gathered.append(delivery)
        if not self._begins_soon:
            self._begins_soon = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Handle what has come, unless enough is being handled: then it is handled with what comes meanwhile."""
        self._begins_soon = False
        while self._gathered and self._batches < BATCHES:
            self._batches += 1
            some, self._gathered = self._gathered[: self._at_once], self._gathered[self._at_once :]
            self._in_background(self._run_all(some))
        self._ask()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _make_again(self) -> None:
        try:
            await self._ensure()
        except BrokerError as error:  # the puller goes on asking, and asks for this again
            _log.warning("a consumer could not be made again: %s", error)

    async def _run(self, delivery: Delivery) -> None:
        try:
            await self._handle(delivery)
        finally:
            self._let_go(delivery)
        self._ask()

    async def _run_all(self, deliveries: list[Delivery]) -> None:
        assert self._handle_all is not None, "they are gathered for it"
        try:
            await self._handle_all(deliveries)
        finally:
            self._batches -= 1
            for delivery in deliveries:
                self._let_go(delivery)
        self._begin()

    def _let_go(self, delivery: Delivery) -> None:
        self._deliveries.let_go(delivery)
        self._messages -= 1
        self._bytes -= len(delivery.body)

    def _ask(self) -> None:
        self.puller.want(max(0, self._window - self._messages) if self._bytes < HANDLED_BYTES else 0)
