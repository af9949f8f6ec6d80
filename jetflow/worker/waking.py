"""What timers of the broker have become: any worker handles it, by what its subject says that it is.

``due.wake`` names a turn that was parked: its task is read from the stream, and the next turn is published, write-once.
A step that something else has woken meanwhile, or whose run has ended, is not run for it. ``due.run`` is a root run
whose time has come, ``due.tick`` a tick of a schedule, ``due.expire`` a look at a queue that is paused. What
another version of jetflow may know is left to its workers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.session import Session
from jetflow.engine.expiring import Queue
from jetflow.engine.graph import IMPLIED
from jetflow.engine.identity import is_name, is_run_id
from jetflow.engine.levels import parts_of
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.wire.headers import Header
from jetflow.worker.answers import ACK, LATER, Answers
from jetflow.worker.counts import Counts
from jetflow.worker.expiring import Expiring
from jetflow.worker.starting import Starting
from jetflow.worker.ticking import Ticking
from jetflow.worker.wakes import AT_ONCE, Parked, Wakes

DUE_WINDOW: Final = 4 * AT_ONCE
"""Messages of timers that one worker holds at once."""

_ATTEMPT: Final = Header.ATTEMPT.encode()

_log = logging.getLogger("jetflow.worker")


class Due:
    """Handles the messages that timers have become."""

    def __init__(
        self, session: Session, performer: Performer, counts: Counts, starting: Starting, ticking: Ticking
    ) -> None:
        self._session = session
        self._wakes = Wakes(session, performer)
        self._answers = Answers(counts, "a message")
        self._starting = starting
        self._ticking = ticking
        self._expiring = Expiring(session, performer)
        self._unknown = set[str]()

    async def handle_all(self, deliveries: list[Delivery]) -> None:
        """Do what some messages are for, and acknowledge each. Those that wake steps are handled together."""
        names, steps, others = self._session.names, list[tuple[Delivery, Parked]](), list[Delivery]()
        for delivery in deliveries:
            task, tried = names.task_of_due(delivery.subject), "0"
            if _ATTEMPT in (delivery.message.raw_headers or b""):
                tried = delivery.headers.get(Header.ATTEMPT, "0")
            if task is not None and tried.isdecimal():
                steps.append((delivery, Parked(task, int(tried))))
            else:
                others.append(delivery)
        if others:
            await asyncio.gather(*map(self.handle, others), self._wake(steps))
        else:
            await self._wake(steps)

    async def _wake(self, steps: list[tuple[Delivery, Parked]]) -> None:
        if not steps:
            return
        points.before("due")
        try:
            await self._wakes.all([parked for _, parked in steps])
            answers = [ACK] * len(steps)
        except Exception as error:  # whatever it is, these steps sleep until their messages are handled
            answers = [self._answers.to(delivery, error) for delivery, _ in steps]
        points.after("due")
        points.before("due_ack")
        for (delivery, _), answer in zip(steps, answers, strict=True):
            self._session.connection.send(delivery.reply, answer)
        points.after("due_ack")

    async def handle(self, delivery: Delivery) -> None:
        """Do what one message is for that wakes no step, and acknowledge it."""
        points.before("due")
        try:
            answer = await self._handle(delivery)
        except Exception as error:  # whatever it is, runs may begin when this message is handled
            answer = self._answers.to(delivery, error)
        points.after("due")
        points.before("due_ack")
        self._session.connection.send(delivery.reply, answer)
        points.after("due_ack")

    async def _handle(self, delivery: Delivery) -> bytes:
        match self._session.names.parse_due(delivery.subject):
            case ["wake", *_]:
                return self._answers.reject(delivery, "it names no turn of a task")
            case ["run" | "tick" | "expire" as kind, *names]:
                if await self._act(kind, names, delivery):
                    return ACK
                return self._answers.reject(delivery, "it names no run, no schedule, and no queue")
            case [kind, *_] if is_name(kind):
                return self._leave(kind)
            case _:
                return self._answers.reject(delivery, "it is no timer that workers know")

    def _leave(self, kind: str) -> bytes:
        """Leave to others what this version does not know: a newer worker may be there, or come."""
        if kind not in self._unknown:
            self._unknown.add(kind)
            _log.warning("timers of kind %r are left to workers of another version: this one does not know them", kind)
        return LATER

    async def _act(self, kind: str, names: list[str], delivery: Delivery) -> bool:
        """Do what a message of a kind that is known is for. Returns False if it names nothing."""
        match kind, names:
            case "run", [workflow, run] if is_name(workflow) and is_run_id(run):  # as a trigger from outside
                await self._starting.start(workflow, delivery.body, delivery.headers or {}, run)
            case "tick", [name] if is_name(name):
                await self._ticking.handle(name, delivery.body)
            case "expire", [workflow, queue] if is_name(workflow) and _is_queue(queue):
                await self._expiring.handle(Queue(workflow, queue), delivery.body)
            case _:
                return False
        return True


def _is_queue(name: str) -> bool:
    step, level = parts_of(name)
    return (is_name(step) or step in IMPLIED) and (level is None or is_name(level))
