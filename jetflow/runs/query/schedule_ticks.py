"""What the last ticks of schedules have led to, and when they are due next.

The id of a tick's run follows from the schedule and the tick. So nothing is searched: the runs of all ticks that are
shown are read by their names, in two reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import islice
from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.identity import keyed_root_id
from jetflow.engine.schedules import Schedule, key_of
from jetflow.engine.tasks import NONE
from jetflow.runs.query.declared import Declared
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token

LOOKED_BACK: Final = 366 * 86400.0
"""Seconds before now in which last ticks are looked for."""


class TickRow(msgspec.Struct, frozen=True):
    """One tick that has come, in seconds since the epoch, and the run that it has started.

    ``status`` is that of its end, ``open`` while it goes on, and None where there is no run: it was left out, for
    the last one went on, or was missed; or it is not stored any more.
    """

    tick: float
    run: str
    status: str | None = None
    took: float | None = None


class Ticks(msgspec.Struct, frozen=True):
    """The last ticks of one schedule and the next ones, each in their order."""

    last: tuple[TickRow, ...] = ()
    upcoming: tuple[float, ...] = ()


async def read_ticks(
    session: Session, declared: Declared, schedules: Mapping[str, tuple[Schedule, float]], *, last: int, upcoming: int
) -> dict[str, Ticks]:
    """Return so many last and next ticks of schedules, each of which is given with when it was changed last."""
    now = time()
    come, following = await asyncio.to_thread(_ticks, schedules, now, last, upcoming)
    rows = {(name, tick): _run_of(name, schedules[name][0], tick) for name, ticks in come.items() for tick in ticks}
    ended, begun = await asyncio.gather(
        _ends(session, rows.values()),
        _begun(session, declared, {run: schedules[name][0].workflow for (name, _), run in rows.items()}),
    )
    return {
        name: Ticks(
            last=tuple(
                row
                for tick in come[name]
                if (row := _row(tick, rows[name, tick], ended, begun)).status is not None
                or (tick >= changed and not schedule.paused)
            ),
            upcoming=following[name],
        )
        for name, (schedule, changed) in schedules.items()
    }


def _ticks(
    schedules: Mapping[str, tuple[Schedule, float]], now: float, last: int, upcoming: int
) -> tuple[dict[str, list[float]], dict[str, tuple[float, ...]]]:
    come: dict[str, list[float]] = {}
    following: dict[str, tuple[float, ...]] = {}
    for name, (schedule, _) in schedules.items():
        timing = schedule.timing
        come[name] = timing.newest(last, now - LOOKED_BACK, now - schedule.jitter) if last else []
        following[name] = () if schedule.paused else tuple(islice(timing.after(now), upcoming))
    return come, following


def _run_of(name: str, schedule: Schedule, tick: float) -> str:
    return keyed_root_id(schedule.workflow, key_of(name, tick))


async def _ends(session: Session, runs: Iterable[str]) -> dict[str, tuple[str, float]]:
    """Return of those runs that have ended how, and when."""
    names = session.names
    subjects = [names.run(run, NONE, NONE, run) for run in runs]
    found = await collect(session.store.many(names.records_stream, subjects))
    return {last_token(one.subject): (decode_outcome(one.body).status, one.time) for one in found}


async def _begun(session: Session, declared: Declared, runs: Mapping[str, str]) -> dict[str, float]:
    """Return when those runs were begun that are stored, each given with its workflow."""
    names = session.names
    firsts = {workflow: await declared.firsts(workflow) for workflow in set(runs.values())}
    subjects = [
        names.task(workflow, step, run, NONE, run) for run, workflow in runs.items() for _, step in firsts[workflow]
    ]
    found = await collect(session.store.many(names.tasks_stream, subjects))
    return {one.subject.split(".")[7]: one.time for one in found}


def _row(tick: float, run: str, ended: Mapping[str, tuple[str, float]], begun: Mapping[str, float]) -> TickRow:
    since, end = begun.get(run), ended.get(run)
    if end is not None:
        return TickRow(tick, run, end[0], None if since is None else max(0.0, end[1] - since))
    return TickRow(tick, run, None if since is None else "open")
