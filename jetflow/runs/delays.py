"""Root runs that begin later: each is a timer of the broker that becomes a message to the workers (`worker.starting`).

Until then nothing else is stored of it: it can be listed, put to another time, and forgotten, and its key is bound to
it. A timer that is put to another time, or put off because it is asked for again, is replaced only by who has seen what
it replaces; so one that fires meanwhile is not armed again.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.broker.times import seconds_of, written
from jetflow.engine.identity import cut_hash
from jetflow.engine.tasks import NONE, Task
from jetflow.errors import KeyConflict, PayloadTooLarge, PermissionDenied, RecentlyDeleted, RunBegun, UnknownRun
from jetflow.runs import points
from jetflow.runs.cancelling import purge
from jetflow.runs.marks import was_deleted
from jetflow.runs.targets import ask_for_root, asking_headers, check_metadata
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from jetflow.wire.subjects import last_token

LARGEST_PART: Final = 2
"""The input of a run that begins later has at most a message's size, over this: no run is there to keep values for."""

TRAVELS: Final = (
    Header.RUN,
    Header.KEY,
    Header.METADATA,
    Header.TRACE,
    Header.DIGEST,
    Header.FIRST,
    Header.LEVEL,
)
"""Headers of a timer that what it becomes has, too."""

FIRING: Final = 10.0
"""Seconds that a timer may need at most to become a run, where it is waited for, and workers are there."""


class DelayedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A root run that has not begun: its ``id``, and when it is ``at``, in seconds since the epoch.

    ``debounced`` says that it is put off while it is asked for again.
    """

    id: str
    workflow: str
    at: float
    key: str | None = None
    debounced: bool = False


async def delay_root(session: Session, task: Task, at: float, *, timeout: float | None) -> bool:
    """Have a root run begin ``at`` a time, in seconds since the epoch. Returns False if it existed.

    Raises:
        KeyConflict: it existed with another input.
        RecentlyDeleted: it existed, and was deleted.
        PayloadTooLarge: the input is larger than one message may be.
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    names, store = session.names, session.store
    _check_size(session, task)
    if task.key is not None and await was_deleted(session, task.run):
        raise RecentlyDeleted(task.workflow, task.key, task.run)
    timer = names.timer_of_run(task.workflow, task.run)
    there: Stored | None = None
    while there is None:
        if task.key is not None:  # it may have begun already
            there = await store.leader_last(names.tasks_stream, names.task_of(task))
        if there is None:
            headers = _armed(session, task, at) | {Header.EXPECTED_LAST: "0"}
            if await _arm(session, timer, task.input, headers, timeout=timeout):
                return True
            there = await store.leader_last(names.timers_stream, timer)
    digest = there.headers.get(Header.DIGEST, "")
    if digest and digest != task.digest:
        raise KeyConflict(task.workflow, task.key or "", task.run, digest, task.digest)
    return task.key is None  # one without a key is nobody else's: the answer was lost, and it was sent again


async def trigger_later(session: Session, task: Task, at: float, *, timeout: float | None) -> bool | None:
    """Have a root run begin ``at`` a time, or have a worker see to it where this user may not.

    Returns False if the run existed, and None where only a worker can tell.

    Raises:
        The same as `delay_root`, and `ask_for_root`.
    """
    if not session.only_asks:
        try:
            return await delay_root(session, task, at, timeout=timeout)
        except PermissionDenied:
            session.only_asks = True
    await ask_for_root(session, msgspec.structs.replace(task, not_before=at), timeout=timeout)
    return None


async def debounce_root(
    session: Session, task: Task, key: str, *, seconds: float, at_most: float, timeout: float | None
) -> tuple[str, float]:
    """Have a root run begin when nobody has asked for it for ``seconds``, and ``at_most`` so long after the first.

    Returns the id of the run that will begin, and when. It has the newest input.

    Raises:
        PayloadTooLarge: the input is larger than one message may be.
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    names = session.names
    _check_size(session, task)
    timer = names.timer_of_debounce(task.workflow, cut_hash(key.encode("utf-8", "surrogatepass")).hex())
    while True:
        stored = await session.store.leader_last(names.timers_stream, timer)
        now = time()
        first = now if stored is None else float(stored.headers.get(Header.FIRST, now))
        run = task.run if stored is None else last_token(stored.headers[Header.SCHEDULE_TARGET])
        at = max(now, min(now + seconds, first + at_most))
        put_off = msgspec.structs.replace(task, run=run, root=run)
        headers = _armed(session, put_off, at) | {
            Header.FIRST: f"{first:.3f}",
            Header.EXPECTED_LAST: "0" if stored is None else str(stored.sequence),
        }
        if await _arm(session, timer, task.input, headers, timeout=timeout):
            return run, at


async def reschedule(session: Session, run: str, at: float, *, timeout: float | None) -> None:
    """Put a run that has not begun to another time, in seconds since the epoch.

    Raises:
        UnknownRun: there is no such run.
        RunBegun: it has begun.
    """
    names = session.names
    while True:
        stored = await _timer_of(session, run)
        if stored is None:
            if await has_begun(session, run):
                raise RunBegun(run)
            raise UnknownRun(run)
        if seconds_of(stored.headers[Header.SCHEDULE].removeprefix("@at ")) == seconds_of(written(at)):
            return
        headers = {name: stored.headers[name] for name in TRAVELS if name in stored.headers} | {
            Header.SCHEDULE: f"@at {written(at)}",
            Header.SCHEDULE_TARGET: names.due_run(stored.subject.split(".")[4], run),
            Header.EXPECTED_LAST: str(stored.sequence),
        }
        if await _arm(session, stored.subject, stored.body, headers, timeout=timeout):
            return


async def forget(session: Session, run: str) -> bool:
    """Forget a run that has not begun. Returns False if there is none: it has begun, or never was.

    One whose timer fires at this very moment is waited for, until it has begun.
    """
    stored = await _timer_of(session, run)
    if stored is not None and await purge(session, session.names.timers_stream, [stored.subject]):
        return not await _is_due(session, run)
    async with asyncio.timeout(FIRING):
        while await _is_due(session, run) and not await has_begun(session, run):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    return False


async def read_delayed(session: Session, workflow: str | None) -> list[DelayedRun]:
    """Return the runs that have not begun, the next one first."""
    names, store = session.names, session.store
    found: list[DelayedRun] = []
    for subject in (names.timer_of_run(workflow or "*", "*"), names.timer_of_debounce(workflow or "*", "*")):
        async for page in store.pages(names.timers_stream, subject):
            found += [_delayed(stored) for stored in page]
    return sorted(found, key=lambda run: (run.at, run.id))


async def find_delayed(session: Session, run: str) -> tuple[DelayedRun, Stored] | None:
    """Return a run that has not begun, with what is stored of it; None if there is none, or it begins just now."""
    stored = await _timer_of(session, run)
    return None if stored is None else (_delayed(stored), stored)


async def is_delayed(session: Session, run: str) -> bool:
    """Tell whether a run has not begun, or begins at this moment."""
    return await _timer_of(session, run) is not None or await _is_due(session, run)


async def has_begun(session: Session, run: str) -> bool:
    """Tell whether a task of a root run is stored."""
    names = session.names
    first = names.task("*", "*", run, NONE, run)
    return await session.store.leader_last(names.tasks_stream, first) is not None


async def _is_due(session: Session, run: str) -> bool:
    names = session.names
    return await session.store.leader_last(names.timers_stream, names.due_run("*", run)) is not None


async def _timer_of(session: Session, run: str) -> Stored | None:
    """Return the timer of a run. That of one that is put off does not name it."""
    names, store = session.names, session.store
    stored = await store.leader_last(names.timers_stream, names.timer_of_run("*", run))
    if stored is not None:
        return stored
    async for page in store.pages(names.timers_stream, names.timer_of_debounce("*", "*")):
        for one in page:
            if last_token(one.headers.get(Header.SCHEDULE_TARGET, ".")) == run:
                return one
    return None


def _delayed(stored: Stored) -> DelayedRun:
    _, _, _, kind, workflow, _ = stored.subject.split(".")
    return DelayedRun(
        id=last_token(stored.headers[Header.SCHEDULE_TARGET]),
        workflow=workflow,
        at=seconds_of(stored.headers[Header.SCHEDULE].removeprefix("@at ")),
        key=stored.headers.get(Header.KEY),
        debounced=kind == "debounce",
    )


def _check_size(session: Session, task: Task) -> None:
    check_metadata(task)
    largest = session.connection.max_payload // LARGEST_PART
    if len(task.input) > largest:
        raise PayloadTooLarge(f"the input of a run of {task.workflow!r} that begins later", len(task.input), largest)


def _armed(session: Session, task: Task, at: float) -> dict[str, str]:
    return asking_headers(task) | {
        Header.DIGEST: task.digest,
        Header.SCHEDULE: f"@at {written(at)}",
        Header.SCHEDULE_TARGET: session.names.due_run(task.workflow, task.run),
    }


async def _arm(session: Session, timer: str, body: bytes, headers: dict[str, str], *, timeout: float | None) -> bool:
    """Store a timer, if what it replaces is still there. Returns whether it is stored."""
    points.before("delay")
    receipt = await session.publisher.store(timer, body, header_block(headers), timeout=timeout)
    points.after("delay")
    return receipt.stored
