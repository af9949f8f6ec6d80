"""Looks at queues that are paused: the runs of what has waited there for too long are cancelled, by the rule."""

from __future__ import annotations

import logging
from time import time
from typing import Any

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.expiring import ArmLook, CancelRuns, ExpiryEffect, Queue, ReadHeld, ReadWaiting, look
from jetflow.runs import points
from jetflow.runs.expiring import arm_look, cancel_waiting, decode_expiry, read_held, read_waiting
from jetflow.runs.performer import Performer
from jetflow.worker.answers import Impossible

_log = logging.getLogger("jetflow.worker")


class Expiring:
    """Handles the looks at paused queues for one worker."""

    def __init__(self, session: Session, performer: Performer) -> None:
        self._session = session
        self._performer = performer

    async def handle(self, queue: Queue, body: bytes) -> None:
        """Cancel the runs of what has waited for too long, and arm the next look.

        Raises:
            Impossible: the message says nothing.
            BrokerError: the broker takes nothing.
        """
        try:
            fired = decode_expiry(body)
        except msgspec.DecodeError as error:
            raise Impossible(f"it is no look at a queue: {error}") from error
        procedure, result = look(queue, fired, time()), None
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration:
                return
            result = await self._perform(effect)

    async def _perform(self, effect: ExpiryEffect) -> Any:
        point = _POINTS[type(effect)]
        points.before(point)
        match effect:
            case ReadHeld():
                result: Any = await read_held(self._session, effect)
            case ReadWaiting():
                result = await read_waiting(self._session, effect)
            case CancelRuns():
                result = None
                ended = await cancel_waiting(self._session, self._performer.run, effect)
                if ended:
                    _log.warning("%d runs are cancelled: %s", ended, effect.reason.message)
            case ArmLook():
                result = await arm_look(self._session, effect)
        points.after(point)
        return result


_POINTS = {ReadHeld: "read_held", ReadWaiting: "read_waiting", CancelRuns: "cancel_waiting", ArmLook: "arm_look"}
