"""Every history of a schedule's chain of timers: ticks that come, changes, workers that die and come back late.

The rule that workers follow is the engine's own (`jetflow.engine.schedules.fire`, `begun`), driven one effect at a
time. A timer that is armed may fire at any time from its tick on. Messages are delivered again when their worker dies,
and also beside a worker that was only slow. Somebody changes the schedule, pauses it and lets it go on, in two steps:
reading what is there, and storing a change that is refused if it has changed. Checked is what is promised: no tick
before its time, a run for each tick, and a chain that never breaks. That a tick has one run only is the broker's: a run
is write-once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.schedules import (
    ArmTick,
    Found,
    ReadSchedule,
    Schedule,
    ScheduleProcedure,
    StartTick,
    Tick,
    begun,
    fire,
)
from jetflow.engine.ticks import Timing
from tests.model.explorer import Report, Seen, walk

NAME: Final = "the chain of a schedule"

WORKERS: Final = 2

LAST: Final = 2
"""The last tick whose time comes: ticks are at 1, 2, 3, ..."""


class Stored(NamedTuple):
    """What is stored of the schedule, and what was read of it: with the newest tick that is armed or has fired."""

    paused: bool = False
    epoch: int = 1
    sequence: int = 1
    newest: Tick | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule(workflow="w", timing=EVERY, catch_up="all", paused=self.paused, epoch=self.epoch)

    @property
    def found(self) -> Found:
        return Found(self.schedule, self.sequence, self.newest)


EVERY: Final = Timing(every=1)


class Handling(NamedTuple):
    """A worker that handles a message: which one, at what time it has begun, and what its effects have given it."""

    message: int
    now: int
    results: tuple[object, ...] = ()


class Chain(NamedTuple):
    """What stands where. ``messages`` are due, by number; ``changer`` is who changes the schedule, and has read it."""

    now: int = 0
    stored: Stored = Stored()
    timer: Tick | None = Tick(1, 1)
    messages: tuple[tuple[int, Tick], ...] = ()
    handled: int = 0
    workers: tuple[Handling, ...] = ()
    runs: frozenset[float] = frozenset()
    missed: frozenset[int] = frozenset()
    changer: tuple[str, Stored] | None = None
    changes: tuple[str, ...] = ()
    crashes: int = 1
    zombies: int = 1


@dataclass(frozen=True)
class Rules:
    """How schedules are handled. The right way is `RIGHT`; each other is a planted bug."""

    rule: Callable[[str, Tick, float], ScheduleProcedure] = fire
    is_fenced: bool = True
    changes_together: bool = True
    acks_first: bool = False
    stops_timers: bool = True
    keeps_ticks: bool = True


def _starts_after_arming(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    procedure, result, late = fire(name, fired, now), None, list[StartTick]()
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            break
        if isinstance(effect, StartTick):
            late.append(effect)
            result = None
        else:
            result = yield effect
    yield from (one for one in late)  # a list has no send()


def _forgets_the_epoch(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    procedure, result = fire(name, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        result = yield effect
        if isinstance(effect, ReadSchedule) and isinstance(result, Found):
            result = Found(msgspec.structs.replace(result.schedule, epoch=fired.epoch), result.sequence, None)


def _runs_though_paused(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    procedure, result = fire(name, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        result = yield effect
        if isinstance(effect, ReadSchedule) and isinstance(result, Found):
            schedule = msgspec.structs.replace(result.schedule, paused=False, epoch=fired.epoch)
            result = Found(schedule, result.sequence, None)


def _starts_the_next(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    yield from fire(name, fired, now + 1)


def _starts_one_of_all(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    procedure, result, started = fire(name, fired, now), None, False
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        if isinstance(effect, StartTick) and started:
            result = None
            continue
        started = started or isinstance(effect, StartTick)
        result = yield effect


def _arms_nothing_late(name: str, fired: Tick, now: float) -> ScheduleProcedure:
    procedure, result = fire(name, fired, now), None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        if isinstance(effect, ArmTick) and now > fired.tick:
            return
        result = yield effect


CHANGES: Final = (("touch",), ("pause", "resume"))
"""What somebody does to the schedule meanwhile, one after the other."""

RIGHT: Final = Rules()
BUGS: Final = {
    "a message is acknowledged before the next tick is armed": Rules(acks_first=True),
    "runs are started after the next tick is armed": Rules(rule=_starts_after_arming),
    "a timer is armed over a change": Rules(is_fenced=False, rule=_forgets_the_epoch),
    "a change is stored before its timer, by two messages": Rules(changes_together=False),
    "a schedule that is paused starts runs": Rules(rule=_runs_though_paused, stops_timers=False),
    "a tick is started before its time": Rules(rule=_starts_the_next),
    "only one of the ticks that have come is started": Rules(rule=_starts_one_of_all),
    "a chain that is late is not armed again": Rules(rule=_arms_nothing_late),
    "a change loses the tick that has come": Rules(keeps_ticks=False),
}


def explore(rules: Rules = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the chain."""

    def look(chain: Chain) -> Seen[Chain]:
        after = list(_next(chain, rules))
        return Seen(after, _wrong(chain, is_final=not after), not after)

    return walk(NAME, [Chain(changes=changes) for changes in CHANGES], look, stop_at_first=stop_at_first)


def hunt(bug: Rules) -> Report | None:
    """Return the search that caught a way to handle schedules that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(chain: Chain, *, is_final: bool) -> str:
    if any(run > chain.now for run in chain.runs):
        return f"early: a tick is started before its time: {chain}"
    if not is_final or chain.stored.paused:
        return ""
    if chain.timer is None:
        return f"stuck: no tick is armed: {chain}"
    if chain.timer.epoch != chain.stored.epoch:
        return f"stuck: the tick that is armed counts no more: {chain}"
    lost = set(range(1, LAST + 1)) - chain.runs - chain.missed
    return f"lost: ticks {sorted(lost)} have no run: {chain}" if lost else ""


def _next(chain: Chain, rules: Rules) -> Iterator[Chain]:
    if chain.now < LAST:
        yield _later(chain)
    if chain.timer is not None and chain.timer.tick <= chain.now:
        number = chain.handled + 1
        messages = (*chain.messages, (number, chain.timer))
        yield chain._replace(timer=None, messages=messages, handled=number)
    for number, _ in chain.messages if len(chain.workers) < WORKERS else ():
        held = any(worker.message == number for worker in chain.workers)
        if held and not chain.zombies:
            continue
        workers = tuple(sorted((*chain.workers, Handling(number, chain.now)), key=repr))
        yield chain._replace(workers=workers, zombies=chain.zombies - held)
    for worker in chain.workers:
        rest = _without(chain.workers, worker)
        if chain.crashes:
            yield chain._replace(workers=rest, crashes=chain.crashes - 1)
        yield from _go_on(chain, worker, rest, rules)
    yield from _change(chain, rules)


def _later(chain: Chain) -> Chain:
    """Let a second pass. A tick whose time comes while the schedule is paused is nobody's."""
    now = chain.now + 1
    return chain._replace(now=now, missed=chain.missed | {now} if chain.stored.paused else chain.missed)


def _go_on(chain: Chain, worker: Handling, rest: tuple[Handling, ...], rules: Rules) -> Iterator[Chain]:
    tick = next((tick for number, tick in chain.messages if number == worker.message), None)
    tick = _remembered(worker) or tick
    if tick is None:  # another one has acknowledged it, and this one had not looked: it does what it was given
        yield chain._replace(workers=rest)
        return
    procedure = rules.rule("s", tick, worker.now)
    try:
        effect = procedure.send(None)
        for result in worker.results[1:]:
            effect = procedure.send(result.found if isinstance(result, Stored) else result)
    except StopIteration:
        yield _acked(chain._replace(workers=rest), worker.message)
        return
    before, result = _perform(chain, effect, rules)
    if rules.acks_first and isinstance(effect, ReadSchedule):
        before = _acked(before, worker.message)
    results = (*(worker.results or (tick,)), result)
    workers = tuple(sorted((*rest, worker._replace(results=results)), key=repr))
    yield before._replace(workers=workers)


def _remembered(worker: Handling) -> Tick | None:
    first = worker.results[0] if worker.results else None
    return first if isinstance(first, Tick) else None


def _perform(chain: Chain, effect: object, rules: Rules) -> tuple[Chain, Any]:
    match effect:
        case ReadSchedule():
            return chain, _found(chain)
        case StartTick():
            return chain._replace(runs=chain.runs | {effect.tick}), f"run {effect.tick}"
        case ArmTick() if not rules.is_fenced or effect.sequence == chain.stored.sequence:
            return chain._replace(timer=msgspec.structs.replace(effect.tick, last=None)), None
        case _:
            return chain, None


def _found(chain: Chain) -> Stored:
    ticks = [tick for _, tick in chain.messages[-1:]] + ([chain.timer] if chain.timer else [])
    return chain.stored._replace(newest=max(ticks, key=lambda tick: tick.tick, default=None))


def _acked(chain: Chain, message: int) -> Chain:
    return chain._replace(messages=tuple(one for one in chain.messages if one[0] != message))


def _change(chain: Chain, rules: Rules) -> Iterator[Chain]:
    if chain.changer is None:
        if chain.changes:
            kind, *others = chain.changes
            yield chain._replace(changer=(kind, _found(chain)), changes=tuple(others))
        return
    kind, found = chain.changer
    if kind == "armed late":
        yield chain._replace(changer=None, timer=found.newest)
        if chain.crashes:
            yield chain._replace(changer=None, crashes=chain.crashes - 1)
        return
    if found.sequence != chain.stored.sequence:  # refused: it reads again
        yield chain._replace(changer=(kind, _found(chain)))
        return
    paused = {"touch": chain.stored.paused, "pause": True, "resume": False}[kind]
    stored = Stored(paused, chain.stored.epoch + 1, chain.stored.sequence + 1)
    tick = begun(stored.schedule, found.found if rules.keeps_ticks else None, chain.now)
    changed = chain._replace(stored=stored, changer=None)
    if paused and not chain.stored.paused:  # ticks that have come and were not begun stay so
        changed = changed._replace(missed=chain.missed | set(range(1, chain.now + 1)))
    if not rules.changes_together and tick is not None:
        yield changed._replace(changer=("armed late", stored._replace(newest=tick)))
    elif tick is None and not rules.stops_timers:
        yield changed
    else:
        yield changed._replace(timer=tick)


def _without(workers: tuple[Handling, ...], gone: Handling) -> tuple[Handling, ...]:
    at = workers.index(gone)
    return (*workers[:at], *workers[at + 1 :])
