"""The ticks of schedules: what their timers have become is handled by the engine's rule, and a net is under them."""

from __future__ import annotations

import logging
from time import time
from typing import Any

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.schedules import ArmTick, ReadSchedule, Schedule, StartTick, Tick, fire
from jetflow.errors import BrokerError, JetflowError
from jetflow.runs import points
from jetflow.runs.schedules import arm_tick, decode_tick, find, read_schedules, start_tick
from jetflow.worker.answers import Impossible
from jetflow.worker.counts import Counts

_log = logging.getLogger("jetflow.worker")


class Ticking:
    """Handles the ticks of schedules for one worker."""

    def __init__(self, session: Session, counts: Counts) -> None:
        self._session = session
        self._counts = counts
        self._idle = set[tuple[str, int]]()
        self._told = set[str]()

    async def handle(self, name: str, body: bytes) -> None:
        """Start the runs that a tick leads to, and arm the next one.

        Raises:
            Impossible: the message says nothing.
            BrokerError: the broker takes nothing.
        """
        try:
            tick = decode_tick(body)
        except msgspec.DecodeError as error:
            raise Impossible(f"it is no tick: {error}") from error
        procedure, result = fire(name, tick, time()), None
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration:
                return
            result = await self._perform(effect)

    async def _perform(self, effect: ReadSchedule | StartTick | ArmTick) -> Any:
        point = {ReadSchedule: "read_schedule", StartTick: "start_tick", ArmTick: "arm_tick"}[type(effect)]
        points.before(point)
        match effect:
            case ReadSchedule():
                result: Any = await find(self._session, effect)
            case StartTick():
                result = await self._start(effect)
            case ArmTick():
                result = await arm_tick(self._session, effect)
        points.after(point)
        return result

    async def _start(self, effect: StartTick) -> str | None:
        """Start the run of a tick. One that cannot be started must not end the chain: it is told of, once a reason."""
        try:
            return await start_tick(self._session, effect)
        except BrokerError:
            raise
        except JetflowError as error:
            reason = f"schedule {effect.name!r} starts no run of {effect.schedule.workflow!r}: {error}"
            if reason not in self._told:
                self._told.add(reason)
                _log.error("%s", reason)
            return None

    async def look(self) -> int:
        """Arm those again that have no timer and no message of one, twice in a row; return how many.

        By the rules there are none: this is a net. The ticks that were missed meanwhile are lost.

        Raises:
            BrokerError: the broker could not be asked, or takes nothing.
        """
        idle, armed = set[tuple[str, int]](), 0
        for name, schedule in (await read_schedules(self._session)).items():
            if schedule.paused or schedule.timing.first(time()) is None:
                continue
            found = await find(self._session, ReadSchedule(name))
            if found is None or found.newest is not None or found.schedule.paused:
                continue
            if (name, found.sequence) in self._idle:
                await self._arm(name, found.schedule, found.sequence)
                armed += 1
            else:
                idle.add((name, found.sequence))
        self._idle = idle
        return armed

    async def _arm(self, name: str, schedule: Schedule, sequence: int) -> None:
        following = schedule.timing.first(time())
        if following is not None:
            _log.warning("schedule %r had no timer: its next tick is armed", name)
            await arm_tick(self._session, ArmTick(name, schedule, sequence, Tick(following, schedule.epoch)))
            self._counts.swept += 1
