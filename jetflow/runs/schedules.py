"""Schedules as they are stored: what each says, and the timer of its next tick beside it, in one stream.

A change and its first timer are one atomic batch, which is refused if somebody has changed the schedule meanwhile. One
that is paused has no timer; one that is deleted has neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time
from typing import Final

import msgspec

from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.broker.times import written
from jetflow.engine.schedules import ArmTick, Found, ReadSchedule, Schedule, StartTick, Tick, begun, key_of
from jetflow.engine.tasks import NONE
from jetflow.engine.ticks import named
from jetflow.errors import BrokerTimeout, ScheduleExists, UnknownSchedule
from jetflow.runs import points
from jetflow.runs.cancelling import purge
from jetflow.runs.targets import resolve, root_task, start_root
from jetflow.wire.headers import Header
from jetflow.wire.records import encode, header_block
from jetflow.wire.subjects import last_token

PATIENCE: Final = 30.0
"""Seconds for which the broker may take nothing of a schedule."""

SCHEDULE: Final = "jetflow_schedule"
TICK: Final = "jetflow_tick"
"""Names in the metadata of a run under which its schedule and its tick stand."""

_log = logging.getLogger("jetflow.worker")

_decode_schedule = msgspec.json.Decoder(Schedule).decode
_decode_tick = msgspec.json.Decoder(Tick).decode


def decode_tick(body: bytes) -> Tick:
    """Return what the body of a schedule's timer says.

    Raises:
        msgspec.DecodeError: it says nothing.
    """
    return _decode_tick(body)


async def read_schedule(session: Session, name: str) -> tuple[Schedule, int] | None:
    """Return a schedule and the sequence of its message, from the leader; None if there is none."""
    names = session.names
    stored = await session.store.leader_last(names.timers_stream, names.schedule(name))
    schedule = None if stored is None else _readable(stored)
    return None if schedule is None or stored is None else (schedule, stored.sequence)


async def read_schedules(session: Session) -> dict[str, Schedule]:
    """Return all schedules by their names."""
    return {name: schedule for name, (schedule, _) in (await read_changed_schedules(session)).items()}


async def read_changed_schedules(session: Session) -> dict[str, tuple[Schedule, float]]:
    """Return all schedules by their names, each with when it was changed last, in seconds since the epoch."""
    names, found = session.names, dict[str, tuple[Schedule, float]]()
    async for page in session.store.pages(names.timers_stream, names.schedule("*")):
        for stored in page:
            if (schedule := _readable(stored)) is not None:
                found[last_token(stored.subject)] = schedule, stored.time
    return dict(sorted(found.items()))


def _readable(stored: Stored) -> Schedule | None:
    try:
        return _decode_schedule(stored.body)
    except msgspec.DecodeError:  # of a version that has more to say: its own workers understand it
        return None


# --- changing


async def create(session: Session, name: str, schedule: Schedule) -> None:
    """Store a new schedule, and arm its first tick.

    Raises:
        ScheduleExists: there is one of this name that is not the same.
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    if not await _put(session, name, schedule, None):
        raise ScheduleExists(name)


async def change(session: Session, name: str, changed: Callable[[Schedule], Schedule]) -> Schedule:
    """Replace a schedule by what a function makes of it, and arm its next tick; return what is stored then.

    Raises:
        UnknownSchedule: there is none of this name.
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    while True:
        found = await find(session, ReadSchedule(name))
        if found is None:
            raise UnknownSchedule(name)
        after = changed(found.schedule)
        if after == found.schedule:
            return after
        after = msgspec.structs.replace(after, epoch=found.schedule.epoch + 1)
        if await _put(session, name, after, found):
            return after


async def silence(session: Session, workflow: str, until: float | None) -> None:
    """Have the ticks of a workflow's schedules before a time start nothing; with None, have them start runs again.

    Raises:
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    for name, schedule in (await read_schedules(session)).items():
        if schedule.workflow == workflow and schedule.silent != until:
            with suppress(UnknownSchedule):  # it was deleted meanwhile
                await change(session, name, lambda there: msgspec.structs.replace(there, silent=until))


async def declare(session: Session, wanted: Mapping[str, Mapping[str, Schedule]]) -> None:
    """Store the schedules that the code of some workflows declares, in the place of what it has declared before.

    What is declared no more is removed. One that somebody has paused stays so. ``wanted`` are by workflow, then name.

    Raises:
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    there = await read_schedules(session)
    for name, schedule in there.items():
        if schedule.declared and name not in wanted.get(schedule.workflow, {name: schedule}):
            _log.info("schedule %r of %r is declared no more, and is removed", name, schedule.workflow)
            await delete(session, name)
    for workflow, schedules in wanted.items():
        for name, schedule in schedules.items():
            other = there.get(name)
            if other is not None and not (other.declared and other.workflow == workflow):
                _log.error("schedule %r of %r is not stored: there is another one of that name", name, workflow)
            else:
                await _declare(session, name, schedule)


async def _declare(session: Session, name: str, schedule: Schedule) -> None:
    while True:
        found = await find(session, ReadSchedule(name))
        if found is None:
            if await _put(session, name, schedule, None):
                return
            continue
        there = found.schedule
        declared = msgspec.structs.replace(schedule, paused=there.paused, silent=there.silent, epoch=there.epoch)
        if declared == there:
            return
        if await _put(session, name, msgspec.structs.replace(declared, epoch=there.epoch + 1), found):
            return


async def delete(session: Session, name: str) -> bool:
    """Remove a schedule with its timer. Returns False if there is none.

    The timer goes first: one that is armed meanwhile fires for nothing, and that of a new schedule of the name stays.
    """
    names = session.names
    await purge(session, names.timers_stream, [names.timer_of_tick(name)])
    return await purge(session, names.timers_stream, [names.schedule(name)]) > 0


async def _put(session: Session, name: str, schedule: Schedule, before: Found | None) -> bool:
    """Store a schedule and its next tick together, if what was before is still there. Returns whether it is stored.

    Raises:
        BrokerTimeout: the server does not take it.
    """
    names, spec = session.names, session.names.schedule(name)
    body, seen, tick = encode(schedule), 0 if before is None else before.sequence, begun(schedule, before, time())
    headers = {Header.EXPECTED_LAST: str(seen), Header.EXPECTED_LAST_OF: spec}
    if tick is None:  # the same message stops the timer, if there is one
        headers |= {Header.SCHEDULE_NEXT: "purge", Header.SCHEDULER: names.timer_of_tick(name)}
        items = [Item(spec, header_block(headers), body)]
    else:
        timer = Item(names.timer_of_tick(name), header_block(_timer(session, name, schedule, tick)), encode(tick))
        items = [Item(spec, header_block(headers), body), timer]
    deadline = time() + PATIENCE
    while True:
        points.before("put_schedule")
        stored = await session.store_together(items)
        points.after("put_schedule")
        if stored:
            return True
        there = await session.store.leader_last(names.timers_stream, spec)
        if there is not None and there.sequence > seen and there.body == body:
            return True  # the answer was lost
        if (0 if there is None else there.sequence) != seen:
            return False
        if time() > deadline:
            raise BrokerTimeout(f"the server did not take the schedule {name!r} in time")
        await asyncio.sleep(0.25)


def _timer(session: Session, name: str, schedule: Schedule, tick: Tick) -> dict[str, str]:
    due = schedule.due(name, tick.tick)
    return {Header.SCHEDULE: f"@at {written(due)}", Header.SCHEDULE_TARGET: session.names.due_tick(name)}


# --- what handling a tick asks for


async def find(session: Session, effect: ReadSchedule) -> Found | None:
    """See `ReadSchedule`."""
    names, store = session.names, session.store
    found = await read_schedule(session, effect.name)
    if found is None:
        return None
    newest: Tick | None = None
    for subject in (names.timer_of_tick(effect.name), names.due_tick(effect.name)):
        stored = await store.leader_last(names.timers_stream, subject)
        if stored is not None:
            tick = decode_tick(stored.body)
            newest = tick if newest is None or tick.tick > newest.tick else newest
    return Found(found[0], found[1], newest)


async def start_tick(session: Session, effect: StartTick) -> str | None:
    """See `StartTick`.

    Raises:
        JetflowError: no run can be started of the schedule's workflow, or with its input.
    """
    schedule, names, store = effect.schedule, session.names, session.store
    target = await resolve(session, schedule.workflow, timeout=PATIENCE)
    body = target.input.encode(target.input.decode(bytes(schedule.input)))
    task = root_task(
        target,
        body,
        key=key_of(effect.name, effect.tick),
        metadata=encode(schedule.metadata | {SCHEDULE: effect.name, TICK: named(effect.tick)}),
        trace=None,
        level=schedule.level,
    )
    last = effect.unless_open
    if last is not None and last != task.run and await _goes_on(session, last):
        begun = await store.leader_last(names.tasks_stream, names.task_of(task))
        if begun is None:
            return last
    await start_root(session, task, timeout=PATIENCE)
    return task.run


async def _goes_on(session: Session, run: str) -> bool:
    """Tell whether a root run has a task and no outcome."""
    names, store = session.names, session.store
    if await store.leader_last(names.records_stream, names.run(run, NONE, NONE, run)) is not None:
        return False
    return await store.leader_last(names.tasks_stream, names.task("*", "*", run, NONE, run)) is not None


async def arm_tick(session: Session, effect: ArmTick) -> None:
    """See `ArmTick`. One that is refused is nobody's loss: whoever changed the schedule has armed its next tick."""
    names, name = session.names, effect.name
    headers = _timer(session, name, effect.schedule, effect.tick) | {
        Header.EXPECTED_LAST: str(effect.sequence),
        Header.EXPECTED_LAST_OF: names.schedule(name),
    }
    await session.publisher.store(
        names.timer_of_tick(name), encode(effect.tick), header_block(headers), timeout=PATIENCE
    )
