"""Every history of a paused queue in which what waits for too long is cancelled.

The rule that workers follow is the engine's own (`jetflow.engine.expiring.look`), driven one effect at a time.
Tasks come one after the other; a timer that is armed may fire at any time from its own on; messages are delivered again
when their worker dies, and also beside one that was only slow. Somebody lets the queue go on, or pauses it anew with
another bound: what is said of the pause and its first timer are stored together. Checked is what is promised: none is
cancelled before its time, or by a bound of before, or behind the pause but by who had looked before its end; what has
waited for too long is cancelled, as long as the pause lasts; and what a worker was given is never cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.expiring import (
    ArmLook,
    CancelRuns,
    Expiry,
    ExpiryProcedure,
    Held,
    Pause,
    Queue,
    ReadHeld,
    ReadWaiting,
    Waiting,
    look,
    next_look,
)
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a paused queue with a bound"

WORKERS: Final = 2

LAST: Final = 4
"""The last moment. Tasks wait for two moments at most, or for three when the queue is paused anew."""

PAGE: Final = 1
"""Tasks of one page: so that a look has several."""

QUEUE: Final = Queue("w", "s")
FIRST: Final = Pause(2, 0)


class Handling(NamedTuple):
    """A worker that handles a message: which one, when it began, what its effects have given it."""

    message: int
    now: float
    fired: Expiry
    results: tuple[object, ...] = ()


class Line(NamedTuple):
    """What stands where. ``tasks`` are when they were stored, in their order; ``given`` how many workers have got."""

    now: int = 0
    pause: Pause | None = FIRST
    sequence: int = 1
    tasks: tuple[int, ...] = ()
    given: int = 0
    timer: tuple[float, Expiry] | None = (next_look(FIRST, 0, 0), Expiry(FIRST))
    messages: tuple[tuple[int, Expiry], ...] = ()
    handled: int = 0
    workers: tuple[Handling, ...] = ()
    cancelled: frozenset[int] = frozenset()
    wrong: str = ""
    coming: int = 2
    changes: tuple[str, ...] = ()
    crashes: int = 1
    zombies: int = 1


Rule = Callable[[Queue, Expiry, float], ExpiryProcedure]
Wrapped = Generator[Any, Any, None]


@dataclass(frozen=True)
class Rules:
    """How looks are handled. The right way is `RIGHT`; each other is a planted bug."""

    rule: Rule = look
    is_fenced: bool = True
    acks_first: bool = False
    together: bool = True
    skips_given: bool = True


def _any_pause(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    procedure, result = look(queue, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        result = yield effect
        if isinstance(effect, ReadHeld) and isinstance(result, Held):
            result = msgspec.structs.replace(result, pause=fired.pause)


def _early(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    yield from look(queue, fired, now + 1)


def _never_again(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    procedure, result = look(queue, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        if isinstance(effect, ArmLook):
            return
        result = yield effect


def _skips(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    procedure, result = look(queue, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        if isinstance(effect, ArmLook):
            effect = msgspec.structs.replace(effect, expiry=Expiry(fired.pause, effect.expiry.after + 1))
        result = yield effect


def _arms_first(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    procedure, result, late = look(queue, fired, now), None, list[CancelRuns]()
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            break
        if isinstance(effect, CancelRuns):
            late.append(effect)
            result = None
        else:
            result = yield effect
    yield from (one for one in late)


def _reads_once(queue: Queue, fired: Expiry, now: float) -> Wrapped:
    procedure, result, held = look(queue, fired, now), None, None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        if isinstance(effect, ReadHeld) and held is not None:
            result = held
            continue
        result = yield effect
        held = result if isinstance(effect, ReadHeld) else held


RIGHT: Final = Rules()
BUGS: Final = {
    "a message is acknowledged before the next look is armed": Rules(acks_first=True),
    "the next look is armed before runs are cancelled": Rules(rule=_arms_first),
    "a look counts for any pause": Rules(rule=_any_pause),
    "a look is armed over another pause": Rules(is_fenced=False),
    "what is said of a pause is stored before its timer, by two messages": Rules(together=False),
    "what was given to a worker is cancelled": Rules(skips_given=False),
    "a run is cancelled before its time": Rules(rule=_early),
    "no further look is armed": Rules(rule=_never_again),
    "a look leaves one out": Rules(rule=_skips),
    "a look does not see that its queue goes on": Rules(rule=_reads_once),
}

CHANGES: Final = ((), ("go on",), ("anew",), ("go on", "hold"))


def explore(rules: Rules = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the queue."""

    def seen(line: Line) -> Seen[Line]:
        after = [] if line.wrong else list(_next(line, rules))
        return Seen(after, line.wrong or _wrong(line, is_final=not after), not after)

    starts = [Line(changes=changes, coming=1 + (len(changes) < 2)) for changes in CHANGES]
    return walk(NAME, starts, seen, stop_at_first=stop_at_first)


def hunt(bug: Rules) -> Report | None:
    """Return the search that caught a way to handle looks that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(line: Line, *, is_final: bool) -> str:
    if not is_final or line.pause is None:
        return ""
    waits = [at for at in range(line.given, len(line.tasks)) if at not in line.cancelled]
    late = [at for at in waits if line.pause.over(line.tasks[at]) + 1 <= line.now]
    if late:
        return f"forgotten: what has waited for too long is not cancelled: {late} of {line}"
    if line.timer is None or line.timer[1].pause != line.pause:
        return f"stuck: nobody will look at it again: {line}"
    return ""


def _next(line: Line, rules: Rules) -> Iterator[Line]:
    if line.now < LAST:
        yield line._replace(now=line.now + 1)
    if line.coming and line.now < 2:
        yield line._replace(tasks=(*line.tasks, line.now), coming=line.coming - 1)
    if line.pause is None and line.given < len(line.tasks) and line.given not in line.cancelled:
        yield line._replace(given=line.given + 1)
    if line.timer is not None and line.timer[0] <= line.now:
        number = line.handled + 1
        yield line._replace(timer=None, messages=(*line.messages, (number, line.timer[1])), handled=number)
    for number, fired in line.messages if len(line.workers) < WORKERS else ():
        held = any(worker.message == number for worker in line.workers)
        if not held or line.zombies:
            workers = tuple(sorted((*line.workers, Handling(number, line.now, fired)), key=repr))
            yield line._replace(workers=workers, zombies=line.zombies - held)
    for worker in line.workers:
        at = line.workers.index(worker)
        rest = (*line.workers[:at], *line.workers[at + 1 :])
        if line.crashes:
            yield line._replace(workers=rest, crashes=line.crashes - 1)
        yield _go_on(line, worker, rest, rules)
    yield from _change(line, rules)


def _go_on(line: Line, worker: Handling, rest: tuple[Handling, ...], rules: Rules) -> Line:
    procedure = rules.rule(QUEUE, worker.fired, worker.now)
    try:
        effect = procedure.send(None)
        for result in worker.results:
            effect = procedure.send(list(result) if isinstance(result, tuple) else result)
    except StopIteration:
        return _acked(line._replace(workers=rest), worker.message)
    before, result = _perform(line, effect, worker, rules)
    if rules.acks_first and isinstance(effect, ReadHeld):
        before = _acked(before, worker.message)
    workers = tuple(sorted((*rest, worker._replace(results=(*worker.results, result))), key=repr))
    return before._replace(workers=workers)


def _perform(line: Line, effect: object, worker: Handling, rules: Rules) -> tuple[Line, Any]:
    match effect:
        case ReadHeld():
            given = line.given if rules.skips_given else 0
            return line, None if line.pause is None else Held(line.pause, line.sequence, given)
        case ReadWaiting():
            page = range(effect.after, min(len(line.tasks), effect.after + PAGE))
            return line, tuple(Waiting(str(at), line.tasks[at], at + 1) for at in page)
        case CancelRuns():
            return _cancel(line, [int(run) for run in effect.runs], worker), None
        case ArmLook() if not rules.is_fenced or (line.pause is not None and effect.sequence == line.sequence):
            return line._replace(timer=(effect.at, effect.expiry)), None
        case _:
            return line, None


def _cancel(line: Line, runs: list[int], worker: Handling) -> Line:
    bound = worker.fired.pause
    for at in runs:
        if bound.over(line.tasks[at]) > line.now:
            return line._replace(wrong=f"early: {at} is cancelled before its time: {line}")
    read = [result for result in worker.results if isinstance(result, Held)][-1]
    if line.sequence == read.sequence and any(at < line.given for at in runs):
        return line._replace(wrong=f"given: what a worker has got is cancelled: {line}")
    if bound != read.pause:
        return line._replace(wrong=f"another's: cancelled by what was not read: {line}")
    if len([result for result in worker.results if isinstance(result, Held)]) != len(
        [result for result in worker.results if isinstance(result, tuple)]
    ):
        return line._replace(wrong=f"unseen: it was not looked whether the queue goes on: {line}")
    return line._replace(cancelled=line.cancelled | set(runs))


def _acked(line: Line, message: int) -> Line:
    return line._replace(messages=tuple(one for one in line.messages if one[0] != message))


def _change(line: Line, rules: Rules) -> Iterator[Line]:
    if not line.changes:
        return
    kind, *others = line.changes
    rest = line._replace(changes=tuple(others), sequence=line.sequence + 1)
    if kind == "go on":
        yield rest._replace(pause=None, timer=None)
    elif kind == "armed late":
        assert line.pause is not None, "it is paused"
        yield line._replace(changes=tuple(others), timer=(line.now, Expiry(line.pause)))
        if line.crashes:
            yield line._replace(changes=tuple(others), crashes=line.crashes - 1)
    else:
        pause = Pause(3, line.pause.since) if line.pause is not None else Pause(2, line.now)
        if rules.together:
            yield rest._replace(pause=pause, timer=(line.now, Expiry(pause)))
        else:
            yield rest._replace(pause=pause, changes=("armed late", *others))
