"""Being told by its name to take no more tasks: ``docs/wire.md``, Asking workers.

What runs goes on to its end, what waits is parked, what has not started is handed back. The worker stays, idle, until
somebody ends it; one that is to take tasks again is started again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jetflow.broker.connection import Listening
from jetflow.broker.parser import Message
from jetflow.broker.session import Session
from jetflow.errors import BrokerError
from jetflow.wire.filters import Filters

_log = logging.getLogger("jetflow.worker")


class Draining:
    """Listens for one worker. `start` and `stop` it; both are safe to call twice."""

    def __init__(self, session: Session, name: str, drain: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._name = name
        self._drain = drain
        self._subscription: Listening | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        if self._subscription is None:
            subject = Filters(self._session.names).drain()
            self._subscription = await self._session.connection.subscribe(subject, self._on_told)

    async def stop(self) -> None:
        """Listen no more, and wait until what was begun is done."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_told(self, message: Message) -> None:
        if message.data.decode(errors="replace") != self._name:
            return
        if message.reply:
            self._session.connection.send(message.reply, self._name.encode())
        if self._task is None:
            _log.info("worker %s is told to take no more tasks", self._name)
            self._task = asyncio.get_running_loop().create_task(self._begin(), name="jetflow draining")

    async def _begin(self) -> None:
        try:
            await self._drain()
        except BrokerError as error:  # it takes no more tasks; what could not be handed back is delivered again
            _log.warning("worker %s has not handed back all that it had: %s", self._name, error)
