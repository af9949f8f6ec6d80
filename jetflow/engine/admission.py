"""Admission: what comes before the first steps of a run whose workflow has limits.

It is a step of its own, `_admit`, that needs no slot and runs no function of a step. Each of its turns begins from the
top: a place that the run has is found to be its own, the first one that it has not is waited for, parked. When it has
all of them, its first steps begin. Places are taken in the order of their limits' names, by all runs of all workflows:
so no two can wait for each other.

A step that has limits of its own takes its places in its own task, before its body, in each turn until it has them all:
it holds a slot for that moment, and none while it waits.

Its turn at rate limits is taken last, and right before it begins: in any stretch of time no more runs begin than may,
and not no more are given a time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Literal

from jetflow.engine.effects import Effect, Ended, Procedure, ReadEnded, StoreJoin, TakeTurn
from jetflow.engine.gates import begin_admitted, come_to, leave
from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, written_places
from jetflow.engine.rates import EARLY, Rate, Turn
from jetflow.engine.tasks import CANCELLED, Failure, Outcome, Status, Task
from jetflow.engine.transitions import await_wakers, conclude


def admit(
    task: Task,
    graph: Graph,
    places: Sequence[Place],
    subject: str,
    now: float,
    until: float | None = None,
    *,
    rates: tuple[Rate, ...] = (),
    booked: float | None = None,
) -> Procedure:
    """Take the places that a run needs, or park it before the first that is not free, ``until`` a time at most.

    Then its turn at rate limits is taken, or it is parked until then; it may have been given a time before, ``booked``.

    ``subject`` is that of the task. Whether there is a place is asked first, and then whether the time is over: a timer
    may fire for a run that was let through just before.
    """
    held = written_places(places) or None
    for place in places:
        found = yield from come_to(task, place)
        if found is None:
            yield from _end_gone(task, now)
            return
        if found.refused:
            yield from conclude(task, _ended(task, "cancelled", full(place), now), graph)
            return
        if not found.admitted and until is not None and now >= until:
            yield from conclude(task, _ended(task, "timed_out", late(place), now), graph)
            return
        if not found.admitted:
            record = JoinRecord(
                kind="parked",
                turn=task.turn,
                task=subject,
                needed=0,
                gate=place.written,
                admits=held if place is places[-1] and not rates else None,
                until=until,
                started=now,
                ended=now,
            )
            stored: JoinRecord = yield StoreJoin(task, record)
            yield from await_wakers(task, stored, graph)
            return
    if not rates or (yield from _may_begin(task, graph, subject, now, until, rates, booked)):
        yield from begin_admitted(task, graph, held)


def _may_begin(
    task: Task,
    graph: Graph,
    subject: str,
    now: float,
    until: float | None,
    rates: tuple[Rate, ...],
    booked: float | None,
) -> Generator[Effect, Any, bool]:
    """Tell whether it is a run's turn. If it is not, the run is parked, or has ended."""
    if booked is not None and until is not None and now >= until:
        yield from conclude(task, _ended(task, "timed_out", too_late(rates), now), graph)
        return False
    turn: Turn = yield TakeTurn(rates, booked)
    if turn.never:
        yield from conclude(task, _ended(task, "failed", too_many(rates, turn.never), now), graph)
    elif not turn.begins:
        wakes = turn.at - EARLY
        record = JoinRecord(
            kind="parked",
            turn=task.turn,
            task=subject,
            needed=0,
            booked=turn.at,
            until=wakes if until is None else min(wakes, until),
            started=now,
            ended=now,
        )
        stored: JoinRecord = yield StoreJoin(task, record)
        yield from await_wakers(task, stored, graph)
    return turn.begins


def come_through(
    task: Task, places: Sequence[Place], subject: str, now: float, until: float | None = None, *, tried: int = 0
) -> Generator[Effect, Any, JoinRecord | Failure | Literal["has all", "has gone"]]:
    """Take the places that a step needs; tell whether it has them all, or has gone.

    Else, the record that parks it before the first that is not free, ``until`` a time at most; or why it has failed,
    when that is over.
    """
    for place in places:
        found = yield from come_to(task, place, task.step)
        if found is None:
            return "has gone"
        if found.admitted:
            continue
        if until is not None and now >= until:
            return late(place, "step")
        return JoinRecord(
            kind="parked",
            turn=task.turn,
            task=subject,
            needed=0,
            gate=place.written,
            until=until,
            tried=tried,
            ended=now,
        )
    return "has all"


def has_places(record: JoinRecord | None) -> bool:
    """Tell whether a step that was parked had its places before: it keeps them, also where there are fewer by now."""
    return record is not None and record.gate is None and record.admits is not None


def _end_gone(task: Task, now: float) -> Procedure:
    """End a run that has gone from all gates.

    It has ended, and whoever ended it may not have known all its places; or it was cancelled from above, and nobody but
    this turn may know of it.
    """
    ended: Ended = yield ReadEnded(task)
    if ended.run is None:
        yield from conclude(task, _ended(task, "cancelled", CANCELLED, now))
    else:
        yield from leave(task)


def full(place: Place) -> Failure:
    """Return why a run is refused that may not wait for a place."""
    return Failure("LimitReached", f"limit {place.limit!r} has no place for another run of this key")


def late(place: Place, who: str = "run") -> Failure:
    """Return why a run or a step has ended that may wait no longer for a place."""
    return Failure(
        "RunTimeout", f"the time that the {who} had passed while it waited for a place of limit {place.limit!r}"
    )


def too_late(rates: Sequence[Rate]) -> Failure:
    """Return why a run has ended that may wait no longer for its turn."""
    names = ", ".join(repr(rate.limit) for rate in rates)
    return Failure("RunTimeout", f"the time that the run had passed while it waited for its turn at rate limit {names}")


def too_many(rates: Sequence[Rate], limit: str) -> Failure:
    """Return why a run can never begin: it needs more units than there are at once."""
    units = next(rate.units for rate in rates if rate.limit == limit)
    return Failure("RateUnitsFailed", f"the run needs {units:,} units of rate limit {limit!r}, which never has as many")


def _ended(task: Task, status: Status, why: Failure, now: float) -> Outcome:
    return Outcome(
        status=status, error=why, workflow=task.workflow, step=task.step, key=task.key, started=now, ended=now
    )
