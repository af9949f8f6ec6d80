"""Waking parked steps, many at once, whoever wakes them: their tasks are read together, and so are their ends.

A task never changes, so any replica that has it will do. Its next turn is made of it as it came, and stored without a
procedure, a coroutine or a reading of its headers; what has an unusual form, or a timer beside it, goes by the engine's
rule. A step is not woken whose run has ended under the parent that its task names; it may have ended under another
one, in a tree that was cancelled, and a turn that is woken there is dropped, as one is that a replica that lags lets
through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from jetflow.broker.batched import subject_of
from jetflow.broker.connection import Message
from jetflow.broker.item import Item
from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.broker.store import stored_in
from jetflow.engine.effects import Procedure
from jetflow.engine.tasks import StepAddress, Task
from jetflow.engine.transitions import disarm, wake, wake_early
from jetflow.errors import MalformedRecord
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.runs.tasks import task_of
from jetflow.wire.next_turns import NextTurn, next_turn

AT_ONCE: Final = 1000
"""Steps that are woken at once."""


class Parked(NamedTuple):
    """A parked turn of a step: the subject of its task, how many attempts it has had, and whether it has a timer."""

    task: str
    tried: int = 0
    timed: bool = False


class _Turn(NamedTuple):
    """A turn to publish: what was parked, what comes behind it, and the task as it came."""

    parked: Parked
    turn: NextTurn
    message: Message


class _Publishing:
    """Counts what is on its way, without a coroutine for each; ``done`` is set when all is stored."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 1
        self.taken: list[int] = []
        self._error: BaseException | None = None

    def stored(self, number: int, receipt: Receipt) -> None:
        """Note what has become of one turn. One that a stored message has refused is in ``taken``."""
        if not (receipt.stored or receipt.sequence or receipt.error):
            self.taken.append(number)
        self.ended(None, receipt.error)

    def ended(self, _: Any, error: BaseException | None) -> None:
        """Note that one more has ended."""
        self.left -= 1
        self._error = self._error or error
        if self.left == 0 and not self.done.done():
            if self._error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(self._error)


class Wakes:
    """Publishes the next turns of parked steps, each write-once."""

    def __init__(self, session: Session, performer: Performer) -> None:
        self._session = session
        self._performer = performer

    async def all(self, parked: Sequence[Parked]) -> None:
        """Wake some steps, at most `AT_ONCE`.

        Raises:
            BrokerError: some may not have been woken.
        """
        names, store = self._session.names, self._session.store
        turns, others = await self._read(parked)
        ends = {one.turn.outcome for one in turns} | {names.run_of(task) for _, task in others}
        over = {subject_of(one) async for page in store.many_raw(names.records_stream, list(ends)) for one in page}
        if over:  # but what runs when its run has failed goes on
            others += _tasks(one for one in turns if one.turn.outcome in over)
            turns = [one for one in turns if one.turn.outcome not in over]
        going: list[Procedure] = []
        for one, task in others:
            if names.run_of(task) not in over or await self._is_sequel(task):
                going.append(_waking(one, task))
            elif one.timed:  # whoever woke it may have died before this was done
                going.append(disarm(task))
        await self._publish(turns, going)

    async def _read(self, parked: Sequence[Parked]) -> tuple[list[_Turn], list[tuple[Parked, Task]]]:
        """Return the next turns of those tasks that are stored; of those that are not of the usual form, the tasks."""
        store, stream = self._session.store, self._session.names.tasks_stream
        wanted = {one.task: one for one in parked}
        turns: list[_Turn] = []
        others: list[tuple[Parked, Task]] = []
        async for page in store.many_raw(stream, list(wanted)):
            for message in page:
                one = wanted.pop(subject_of(message), None)
                if one is None:
                    continue
                turn = None if one.timed else next_turn(one.task, message.raw_headers or b"", one.tried)
                if turn is not None:
                    turns.append(_Turn(one, turn, message))
                elif (task := task_of(stored_in(message))) is not None:
                    others.append((one, task))
        for subject, one in wanted.items():  # what a replica does not have yet; or what is gone, with its run
            stored = await store.leader_last(stream, subject)
            if stored is not None and (task := task_of(stored)) is not None:
                others.append((one, task))
        return turns, others

    async def _is_sequel(self, task: Task) -> bool:
        """Tell whether it is of a step that runs when its run has ended."""
        try:
            graph = await self._session.registry.graph(task.workflow, task.version)
        except MalformedRecord:
            return True  # the turn that is woken ends its run by this name
        return graph is not None and task.step in graph.sequels

    async def _publish(self, turns: Sequence[_Turn], others: Iterable[Procedure]) -> None:
        """Have all of them published, without a coroutine each."""
        publishing, publish = _Publishing(), self._session.tasks.publish
        points.before("start_turn")
        for number, (_, turn, message) in enumerate(turns):
            publishing.left += 1
            publish(Item(turn.subject, turn.headers, message.data), partial(publishing.stored, number))
        for procedure in others:
            publishing.left += 1
            self._performer.drive(procedure, publishing.ended)
        publishing.ended(None, None)
        await publishing.done
        points.after("start_turn")
        woken = self._performer.looks.woken
        for _, turn, _ in turns:
            woken(StepAddress(turn.root, turn.run, turn.step), turn.turn - 1)
        if publishing.taken:  # by a turn that is stored; or, on several replicas, by one that was lost with its leader
            taken = _tasks(turns[number] for number in publishing.taken)
            await asyncio.gather(*(self._performer.run(_waking(one, task)) for one, task in taken))


def _tasks(turns: Iterable[_Turn]) -> list[tuple[Parked, Task]]:
    """Return the tasks of some turns, by the engine's terms."""
    read = ((turn.parked, task_of(stored_in(turn.message))) for turn in turns)
    return [(one, task) for one, task in read if task is not None]


def _waking(one: Parked, task: Task) -> Procedure:
    return wake_early(task, one.tried) if one.timed else wake(task, one.tried)
