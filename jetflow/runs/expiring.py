"""Queues that are paused, and in which nothing waits for longer than is said: what is stored of them, beside timers.

What a pause says and the timer of its first look are one atomic batch, which is refused if somebody has paused the
queue otherwise meanwhile. The pause itself is the broker's, of the queue's consumer; what is said of it counts only
with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.broker.times import written
from jetflow.broker.topology import found
from jetflow.engine.effects import Procedure
from jetflow.engine.expiring import (
    ArmLook,
    CancelRuns,
    Expiry,
    Held,
    Pause,
    Queue,
    ReadHeld,
    ReadWaiting,
    Waiting,
    next_look,
)
from jetflow.errors import BrokerTimeout, UnknownRun
from jetflow.runs.cancelling import cancel_run, purge
from jetflow.wire.headers import Header
from jetflow.wire.records import encode, header_block
from jetflow.wire.subjects import run_of_task

PATIENCE: Final = 30.0
"""Seconds for which the broker may take nothing of a pause."""

CANCELLED_AT_ONCE: Final = 16
"""Runs that are cancelled at once."""

PAGE: Final = 100
"""Tasks that are looked at in one go."""

_log = logging.getLogger("jetflow.worker")

_decode_pause = msgspec.json.Decoder(Pause).decode
_decode_expiry = msgspec.json.Decoder(Expiry).decode


def decode_expiry(body: bytes) -> Expiry:
    """Return what the body of a paused queue's timer says.

    Raises:
        msgspec.DecodeError: it says nothing.
    """
    return _decode_expiry(body)


# --- pausing


async def hold(session: Session, queue: Queue, ttl: float, until: float | None) -> None:
    """Have what waits in a paused queue for longer than ``ttl`` seconds cancelled; ``until`` is the end of the pause.

    Where that was said of the pause already, it goes on to count from when it began.

    Raises:
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    names, deadline = session.names, time() + PATIENCE
    subject = names.held_queue(queue.workflow, queue.name)
    while time() < deadline:
        there = await session.store.leader_last(names.timers_stream, subject)
        before, now = None if there is None else _readable(there.body), time()
        goes_on = before is not None and (before.until is None or before.until > now)
        pause = Pause(ttl, before.since if before is not None and goes_on else round(now, 3), until)
        seen = 0 if there is None else there.sequence
        expected = {Header.EXPECTED_LAST: str(seen), Header.EXPECTED_LAST_OF: subject}
        timer = _timer(session, queue, Expiry(pause), next_look(pause, now, now) if pause.since == now else now)
        if await session.store_together([Item(subject, header_block(expected), encode(pause)), timer]):
            return
        there = await session.store.leader_last(names.timers_stream, subject)
        if there is not None and _readable(there.body) == pause:
            return  # the answer was lost
        await asyncio.sleep(0.25)
    raise BrokerTimeout(f"the server did not take how long {queue.name!r} of {queue.workflow!r} may wait, in time")


async def let_go_on(session: Session, queue: Queue) -> None:
    """Have nothing more cancelled of what waits in a queue. Looks that are under way end."""
    names = session.names
    timers = [names.held_queue(queue.workflow, queue.name), names.timer_of_expiry(queue.workflow, queue.name)]
    for subject in timers:  # first what is said: a look that is armed meanwhile fires for nothing
        await purge(session, names.timers_stream, [subject])


async def read_pauses(session: Session) -> dict[tuple[str, str], Pause]:
    """Return what is said of queues that are paused, or were, by workflow and name."""
    names, pauses = session.names, dict[tuple[str, str], Pause]()
    async for page in session.store.pages(names.timers_stream, names.held_queue("*", "*")):
        for stored in page:
            workflow, queue = stored.subject.split(".")[-2:]
            if (pause := _readable(stored.body)) is not None:
                pauses[workflow, queue] = pause
    return pauses


def _readable(body: bytes) -> Pause | None:
    try:
        return _decode_pause(body)
    except msgspec.DecodeError:
        return None


def _timer(session: Session, queue: Queue, expiry: Expiry, at: float, fence: dict[str, str] | None = None) -> Item:
    names = session.names
    target = names.due_expiry(queue.workflow, queue.name)
    headers = {Header.SCHEDULE: f"@at {written(at)}", Header.SCHEDULE_TARGET: target} | (fence or {})
    return Item(names.timer_of_expiry(queue.workflow, queue.name), header_block(headers), encode(expiry))


# --- what a look asks for


async def read_held(session: Session, effect: ReadHeld) -> Held | None:
    """See `ReadHeld`."""
    names, queue = session.names, effect.queue
    stored = await session.store.leader_last(names.timers_stream, names.held_queue(queue.workflow, queue.name))
    pause = None if stored is None else _readable(stored.body)
    if stored is None or pause is None:
        return None
    consumer = names.consumer(queue.workflow, queue.name)
    there = await found(session.connection, f"CONSUMER.INFO.{names.tasks_stream}.{consumer}")
    if there is None or not there.get("paused"):
        return None
    return Held(pause, stored.sequence, int(there["delivered"]["stream_seq"]))


async def read_waiting(session: Session, effect: ReadWaiting) -> list[Waiting]:
    """See `ReadWaiting`."""
    names, after = session.names, effect.after
    subject = names.tasks_of_step(effect.queue.workflow, effect.queue.name)
    while True:
        page, left = await session.store.page(names.tasks_stream, subject, after=after, size=PAGE)
        waiting = [
            Waiting(run.hex(), stored.time, stored.sequence)
            for stored in page
            if Header.TRIGGERED not in stored.headers and (run := run_of_task(stored.subject)) is not None
        ]
        if waiting or not left:
            return waiting
        after = page[-1].sequence


async def cancel_waiting(session: Session, drive: Callable[[Procedure], Awaitable[Any]], effect: CancelRuns) -> int:
    """See `CancelRuns`. Returns how many it has ended."""
    room = asyncio.Semaphore(CANCELLED_AT_ONCE)

    async def cancel(run: str) -> bool:
        async with room:
            try:
                return await cancel_run(session, drive, run, reason=effect.reason)
            except UnknownRun:  # it was deleted meanwhile
                return False

    return sum(await asyncio.gather(*map(cancel, dict.fromkeys(effect.runs))))


async def arm_look(session: Session, effect: ArmLook) -> None:
    """See `ArmLook`. One that is refused is nobody's loss: whoever has changed the pause has armed its own."""
    fence = {
        Header.EXPECTED_LAST: str(effect.sequence),
        Header.EXPECTED_LAST_OF: session.names.held_queue(effect.queue.workflow, effect.queue.name),
    }
    timer = _timer(session, effect.queue, effect.expiry, effect.at, fence)
    await session.publisher.store(timer.subject, timer.body, timer.headers, timeout=PATIENCE)
