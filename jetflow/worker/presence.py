"""Being there for those who ask: a worker answers whoever wants to know whether anybody runs a workflow, or a task."""

from __future__ import annotations

from collections.abc import Callable, Container

from jetflow.broker.connection import Listening, Message
from jetflow.broker.session import Session
from jetflow.wire.subjects import last_token


class Presence:
    """Answers for the workflows of one worker. `start` and `stop` it; both are safe to call twice."""

    def __init__(
        self, session: Session, workflows: Container[str], worker: str, runs: Callable[[str, str], bool]
    ) -> None:
        self._session = session
        self._runs = runs
        self._workflows = workflows
        self._answer = worker.encode()
        self._leaving = False
        self._subscription: Listening | None = None

    async def start(self) -> None:
        """Begin to answer."""
        if self._subscription is None:
            self._subscription = await self._session.connection.subscribe(self._session.names.who("*"), self._on_asked)

    def leave(self) -> None:
        """Answer for the tasks alone that still run: the worker takes no new ones."""
        self._leaving = True

    async def stop(self) -> None:
        """Answer no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.connection.unsubscribe(subscription)

    def _on_asked(self, message: Message) -> None:
        if not message.reply or last_token(message.subject) not in self._workflows:
            return
        asker, *tasks = message.data.decode().split("\n")
        name = self._session.holders.name
        if not asker and not self._leaving:
            self._session.connection.send(message.reply, self._answer)
        elif asker and asker != name:
            held = [task for task in tasks if self._runs(task, asker)]
            self._session.connection.send(message.reply, "\n".join((name, *held)).encode())
