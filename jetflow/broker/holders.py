"""Whether a live worker still runs a task that was delivered again: asked before it is begun beside that one.

Every worker of the workflow answers, on ``jf.<ns>.who.<workflow>``, with those of the tasks that it runs. Who has not
answered for a while is not there, so the first question takes as long as an answer may take; for some seconds after it
those are known who are there, and a question is over when they have answered. What is asked within a moment is one
question, however many tasks there are.
"""

from __future__ import annotations

import asyncio
from secrets import token_hex
from time import monotonic
from typing import Final

import msgspec

from jetflow.broker.connection import Connection, Listening, Message
from jetflow.wire.subjects import Subjects

ANSWER_WITHIN: Final = 0.5
"""Seconds in which a worker answers: a lost one's task waits for so long."""

GATHERED_FOR: Final = 0.01
"""Seconds in which tasks gather for one question."""

KNOWN_FOR: Final = 5.0
"""Seconds after a question for which it is known which workers are there."""

GUARD: Final = "guard "
"""How those are called who ask for all that a worker has been given, begun or not."""

MOST_BYTES: Final = 64 * 1024
"""Bytes of one question at most, or half of what the server takes."""


class _Question(msgspec.Struct, eq=False):
    """Tasks that are asked about together. ``awaited`` are the workers who are there; None if that is not known."""

    workflow: str
    tasks: dict[str, asyncio.Future[bool]]
    awaited: set[str] | None
    answered: set[str]
    timer: asyncio.TimerHandle | None = None


class Holders:
    """Asks who holds tasks. ``name`` is what this process is called in questions and answers: no other has it."""

    def __init__(self, connection: Connection, names: Subjects) -> None:
        self._connection = connection
        self._names = names
        self._gathering: dict[str, dict[str, asyncio.Future[bool]]] = {}
        self._open: dict[int, _Question] = {}
        self._asked = 0
        self._there: dict[str, set[str]] = {}
        self._known_at: dict[str, float] = {}
        self._answers = ""
        self._listening: asyncio.Task[Listening] | None = None
        self.name: str = token_hex(8)

    async def is_held(self, workflow: str, task: str) -> bool:
        """Tell whether another worker runs the task on a subject, or records its end, at this moment."""
        loop = asyncio.get_running_loop()
        if self._listening is None:
            self._answers = self._connection.new_inbox()
            self._connection.on_reconnect(self._ask_again)
            self._listening = loop.create_task(self._connection.subscribe(f"{self._answers}.*.*", self._on_answer))
        await asyncio.shield(self._listening)
        gathered = self._gathering.get(workflow)
        if gathered is None:
            gathered = self._gathering[workflow] = {}
            loop.call_later(GATHERED_FOR, self._ask_all, workflow)
        if task not in gathered:
            gathered[task] = loop.create_future()
        return await asyncio.shield(gathered[task])

    def stop(self) -> None:
        """Ask no more."""
        for question in self._open.values():
            if question.timer is not None:
                question.timer.cancel()
        waiting = [self._gathering.pop(workflow) for workflow in list(self._gathering)]
        waiting += [question.tasks for question in self._open.values()]
        self._open.clear()
        for tasks in waiting:
            for answer in tasks.values():
                answer.cancel()

    # --- asking

    def _ask_all(self, workflow: str) -> None:
        """Ask about all that has gathered, in as few questions as it fits into."""
        most = min(MOST_BYTES, self._connection.max_payload // 2)
        size, tasks = 0, dict[str, asyncio.Future[bool]]()
        for task, answer in self._gathering.pop(workflow, {}).items():
            if tasks and size + len(task) >= most:
                self._ask(workflow, tasks)
                size, tasks = 0, {}
            tasks[task] = answer
            size += len(task) + 1
        if tasks:
            self._ask(workflow, tasks)

    def _ask(self, workflow: str, tasks: dict[str, asyncio.Future[bool]]) -> None:
        is_known = monotonic() - self._known_at.get(workflow, -KNOWN_FOR) < KNOWN_FOR
        awaited = set(self._there.get(workflow, ())) if is_known else None
        self._asked += 1
        question = self._open[self._asked] = _Question(workflow, tasks, awaited, set())
        self._send(self._asked, question)
        if not self._connection.is_connected:
            return  # it is asked when the connection is back
        if awaited is not None and not awaited:
            self._end(self._asked)  # asked all the same: who comes or wakes meanwhile is known by its answer

    def _send(self, number: int, question: _Question) -> None:
        body = "\n".join((self.name, *question.tasks)).encode()
        reply = f"{self._answers}.{question.workflow}.{number}"
        self._connection.send(self._names.who(question.workflow), body, reply=reply)
        if question.timer is not None:
            question.timer.cancel()
        question.timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self._end, number)

    def _ask_again(self) -> None:
        """Ask all that is open once more, of whoever is there now: the connection was lost."""
        self._known_at.clear()
        for number, question in self._open.items():
            question.awaited = None
            self._send(number, question)

    # --- being answered

    def _on_answer(self, message: Message) -> None:
        *_, workflow, number = message.subject.split(".")
        there = self._there.setdefault(workflow, set())
        name, *held = message.data.decode().split("\n")
        if name:
            there.add(name)
        question = self._open.get(int(number))
        if question is None:
            return
        question.answered.add(name)
        for task in held:
            if task in question.tasks and not question.tasks[task].done():
                question.tasks[task].set_result(True)
        # Without a name it is the server's word that nobody is there.
        if not name or (question.awaited is not None and question.awaited <= question.answered):
            self._end(int(number))

    def _end(self, number: int) -> None:
        """Take for free what nobody has said to hold, and for gone who has not answered."""
        question = self._open[number]
        if not self._connection.is_connected and not self._connection.is_closed:
            return  # it is asked again when the connection is back
        del self._open[number]
        if question.timer is not None:
            question.timer.cancel()
        there = self._there.setdefault(question.workflow, set())
        if question.awaited is None:
            there &= question.answered
        else:
            there -= question.awaited - question.answered
        self._known_at[question.workflow] = monotonic()
        for answer in question.tasks.values():
            if not answer.done():
                answer.set_result(False)
