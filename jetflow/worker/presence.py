"""Being there for those who ask: a worker answers whoever wants to know whether anybody runs a workflow, or a task."""

from __future__ import annotations

from collections.abc import Callable, Container

from jetflow.broker.connection import Listening, Message
from jetflow.broker.session import Session
from jetflow.wire.subjects import last_token


class Presence:
    """Answers for the workflows of one worker. `start` and `stop` it; both are safe to call twice."""

    def __init__(self, session: Session, workflows: Container[str], worker: str, runs: Callable[[str], bool]) -> None:
        self._session = session
        self._runs = runs
        self._workflows = workflows
        self._answer = worker.encode()
        self._subscription: Listening | None = None

    async def start(self) -> None:
        """Begin to answer."""
        if self._subscription is None:
            self._subscription = await self._session.connection.subscribe(self._session.names.who("*"), self._on_asked)

    async def stop(self) -> None:
        """Answer no more: the worker takes no new tasks."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)

    def _on_asked(self, message: Message) -> None:
        if not message.reply or last_token(message.subject) not in self._workflows:
            return
        task, _, asker = message.data.partition(b" ")
        if not task or (asker != self._answer and self._runs(task.decode())):
            self._session.connection.send(message.reply, self._answer)
