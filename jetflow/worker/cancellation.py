"""Which runs are cancelled, as far as a worker has to know: it hears of each mark, and catches up after a gap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time

from jetflow.broker.connection import Listening, Message
from jetflow.broker.session import Session
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError
from jetflow.runs.cancelling import REMEMBERED
from jetflow.wire.subjects import last_token

_log = logging.getLogger("jetflow.worker")


class Cancellations:
    """Knows the cancelled runs. `start` and `stop` it; ``on_cancelled`` is called for each mark that is new."""

    def __init__(self, session: Session, on_cancelled: Callable[[], None]) -> None:
        self._session = session
        self._on_cancelled = on_cancelled
        self._runs: dict[str, float] = {}
        self._subscription: Listening | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        self._reads: set[asyncio.Task[None]] = set()
        self._read_to = 0

    async def start(self) -> None:
        """Begin to listen, and read the marks of the last hour."""
        if self._subscription is not None:
            return
        names = self._session.names
        self._subscription = await self._session.connection.subscribe(names.live_cancelled, self._on_live)
        self._forget_reconnect = self._session.connection.on_reconnect(self._catch_up)
        await self._read()

    async def stop(self) -> None:
        """Stop listening."""
        self._forget_reconnect()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)

    def covers(self, task: Task) -> bool:
        """Tell whether a task's run is cancelled, by itself, with its parent, or with its whole tree."""
        return bool(self._runs) and any(self._knows(run) for run in (task.root, task.run, task.parent))

    def knows(self, root: str, run: str) -> bool:
        """Tell whether a mark covers all that a run has spawned."""
        return self._knows(root) or self._knows(run)

    def add(self, run: str, *, age: float = 0.0) -> None:
        """Note a run as cancelled, ``age`` seconds ago."""
        now = monotonic()
        for known in [known for known, at in self._runs.items() if now - at > REMEMBERED]:
            del self._runs[known]
        self._runs[run] = now - age

    def _knows(self, run: str) -> bool:
        at = self._runs.get(run)
        return at is not None and monotonic() - at < REMEMBERED

    def _on_live(self, message: Message) -> None:
        self.add(last_token(message.subject))
        self._on_cancelled()

    def _catch_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self._read())
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self) -> None:
        names, store = self._session.names, self._session.store
        try:
            async for page in store.pages(
                names.records_stream, names.all_cancelled, after=self._read_to, since=REMEMBERED
            ):
                for stored in page:
                    self.add(last_token(stored.subject), age=time() - stored.time)
                    self._read_to = stored.sequence
        except BrokerError as error:
            _log.warning("the marks of cancelled runs could not be read: %s", error)
            return
        self._on_cancelled()
