"""Every history of runs that wait for their turn at a rate limit: workers that die, are slow, or come late.

The rules that workers follow are the engine's own (`jetflow.engine.admission`, `rates`, `transitions`), driven one
effect at a time; taking a turn is taken apart into reading a window, storing it by compare-and-set, and seeing whether
that has come too late. Time passes between any two of them, and a timer fires at any time after its own. Checked is
what is promised: in no stretch of time do more runs begin than may, and none waits for nothing. What is not modelled is
time that passes between that last look at the clock and the task of the first step: by so much a run may be late.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.admission import admit
from jetflow.engine.effects import Arm, Disarm, Ended, ReadEnded, Start, StoreJoin, TakeTurn
from jetflow.engine.graph import ADMIT, Graph, Node
from jetflow.engine.joins import JoinRecord
from jetflow.engine.rates import NEAR, Ask, Rate, RateSettings, Turn, Window, share
from jetflow.engine.tasks import NONE, Task
from jetflow.engine.transitions import redelivered
from tests.model.explorer import Report, Seen, say, walk

GRAPH: Final = Graph("w", (Node("go"),), gated=True)
WORKERS: Final = 2
RATES: Final = (Rate("api"),)

Procedure = Generator[Any, Any, Any]


class Exact(RateSettings, frozen=True, kw_only=True):
    """A rate limit without time to spare: here, none passes where it is for."""

    @property
    def spare(self) -> float:
        """See `RateSettings.spare`."""
        return 0.0


class Message(NamedTuple):
    """What is delivered: a turn of a run's admission."""

    run: int
    turn: int = 0


class Handling(NamedTuple):
    """A worker, with what its effects have given it so far, and the time until which it waits."""

    message: Message
    again: bool = False
    results: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()
    until: float = 0.0


class World(NamedTuple):
    """What stands where. Timers are (run, turn, due), joins (run, turn, booked, until); ``begun`` are (run, time)."""

    messages: frozenset[Message]
    clock: float = 0.0
    acked: frozenset[Message] = frozenset()
    delivered: frozenset[Message] = frozenset()
    handlings: tuple[Handling, ...] = ()
    window: Window = Window()
    version: int = 0
    joins: frozenset[tuple[int, int, float, float]] = frozenset()
    timers: frozenset[tuple[int, int, float]] = frozenset()
    begun: tuple[tuple[int, float], ...] = ()
    crashes: int = 0
    zombies: int = 0


@dataclass(frozen=True)
class Case:
    """How many runs there are, how many may begin in ``per`` seconds, and how time passes: by ``tick``, to ``end``.

    Where a tick is no longer than what runs are held for, they wait for their turn in memory; else they are parked.
    """

    name: str
    runs: int = 2
    most: int = 1
    per: float = 2.0
    tick: float = 2.0
    end: float = 4.0
    crashes: int = 0
    zombies: int = 0


CASES: Final = (
    Case("two runs"),
    Case("two runs, a longer time", per=4.0),
    Case("two runs, and a worker dies", crashes=1, end=2.0),
    Case("two runs, and a message comes twice", zombies=1, end=2.0),
    Case("two runs, held in memory", per=1.0, tick=1.0, end=2.0),
    Case("three runs, two at once", runs=3, most=2, end=2.0),
)

LARGE: Final = (
    Case("two runs, a worker dies, for longer", crashes=1),
    Case("two runs, for longer", per=4.0, end=8.0),
    Case("three runs", runs=3),
    Case("three runs, and a worker dies", runs=3, crashes=1, end=2.0),
    Case("two runs, a death and a message that comes twice", crashes=1, zombies=1),
)
"""Explored by `python -m tests.model.rates`, in some minutes."""


@dataclass(frozen=True)
class Rules:
    """How rate limits are kept. The right way is `RIGHT`; each other is a planted bug."""

    compares: bool = True
    looks_at_clock: bool = True
    asks_again: bool = True
    counts_begun: bool = True
    stores_first: bool = True
    acks_first: bool = False
    arms: bool = True
    too_many: int = 0
    forgets_after: float = 0.0


RIGHT: Final = Rules()
BUGS: Final = {
    "a window is stored over what another has stored": Rules(compares=False),
    "who was long in storing begins all the same": Rules(looks_at_clock=False),
    "who comes back begins without asking": Rules(asks_again=False),
    "times that were given count, and not when runs began": Rules(counts_begun=False),
    "a run begins before that is stored": Rules(stores_first=False),
    "a message is acknowledged before its run is parked": Rules(acks_first=True),
    "no timer is armed": Rules(arms=False),
    "one run more begins than may": Rules(too_many=1),
    "what was taken is forgotten early": Rules(forgets_after=2.0),
}


def explore(rules: Rules = RIGHT, case: Case = CASES[0], *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of a case."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, case, rules))
        return Seen(after, _wrong(world, case, is_final=not after), not after)

    start = World(frozenset(map(Message, range(case.runs))), crashes=case.crashes, zombies=case.zombies)
    return walk(case.name, [start], look, stop_at_first=stop_at_first)


def hunt(bug: Rules) -> Report | None:
    """Return the search that caught a way to keep rate limits that is wrong."""
    for case in CASES:
        report = explore(bug, case, stop_at_first=True)
        if report.violations:
            return report
    return None


def _wrong(world: World, case: Case, *, is_final: bool) -> str:
    times = sorted(time for _, time in world.begun)
    for first, next_one in zip(times, times[case.most :], strict=False):
        if next_one - first < case.per:
            return f"too many: runs have begun at {times}: {world}"
    if not is_final:
        return ""
    begun = {run for run, _ in world.begun}
    waiting = {run for run, _, due in world.timers if due > world.clock}
    waiting |= {handling.message.run for handling in world.handlings}
    stuck = set(range(case.runs)) - begun - waiting
    return f"stuck: nothing wakes runs {stuck}: {world}" if stuck else ""


# --- what happens ------------------------------------------------------------------------------------------------


def _next(world: World, case: Case, rules: Rules) -> Iterator[World]:
    if len(world.handlings) < WORKERS:
        for message in world.messages - world.acked:
            held = any(one.message == message for one in world.handlings)
            if held and not world.zombies:
                continue
            taken = world._replace(zombies=world.zombies - held, delivered=world.delivered | {message})
            yield _with(taken, Handling(message, message in world.delivered))
    for handling in dict.fromkeys(world.handlings):
        at = world.handlings.index(handling)
        rest = world._replace(handlings=(*world.handlings[:at], *world.handlings[at + 1 :]))
        if world.crashes:
            yield rest._replace(crashes=world.crashes - 1)
        if handling.until <= world.clock:
            yield _go_on(rest, handling, case, rules)
    for timer in world.timers:
        run, turn, due = timer
        if due <= world.clock:
            woken = world.messages | {Message(run, turn + 1)}
            yield world._replace(timers=world.timers - {timer}, messages=woken)
    if world.clock < case.end:
        yield world._replace(clock=world.clock + case.tick)


def _with(world: World, handling: Handling) -> World:
    return world._replace(handlings=tuple(sorted((*world.handlings, handling), key=repr)))


def _go_on(world: World, handling: Handling, case: Case, rules: Rules) -> World:
    """Let a worker perform its next effect, or the next part of it; what it knows itself costs no step."""
    handling = handling._replace(until=0.0)
    while True:
        effect, _ = _driven(_of(handling), handling.results, handling.message)
        if effect is None:
            return world._replace(acked=world.acked | {handling.message})
        if not isinstance(effect, TakeTurn):
            if rules.acks_first and isinstance(effect, StoreJoin):
                world = world._replace(acked=world.acked | {handling.message})
            world, result = _perform(world, effect, rules)
            return _with(world, handling._replace(results=(*handling.results, result)))
        part, turn = _driven(_take(effect, case, rules), handling.parts, handling.message)
        if part is None:
            handling = handling._replace(results=(*handling.results, turn), parts=())
            continue
        world, result = _part(world, part, handling, rules)
        handling = handling._replace(parts=(*handling.parts, result))
        if part[0] == "wait":
            return _with(world, handling._replace(until=part[1]))
        if part[0] != "clock":
            return _with(world, handling)


def _driven(procedure: Procedure, results: tuple[Any, ...], message: Message) -> tuple[Any, Any]:
    """Return what a procedure asks for next, when it was given some results; and what it returns, if it has ended."""
    try:
        effect = procedure.send(None)
        for result in results:
            effect = procedure.send(_read(result, message))
    except StopIteration as stop:
        return None, stop.value
    return effect, None


# --- what workers do ---------------------------------------------------------------------------------------------


def _task(message: Message) -> Task:
    run = str(message.run)
    return Task(
        workflow="w",
        step=ADMIT,
        root=run,
        parent=NONE,
        run=run,
        turn=message.turn,
        parent_step=NONE,
        version="",
        depth=0,
        digest="",
        input=b"",
    )


def _of(handling: Handling) -> Procedure:
    task = _task(handling.message)
    if handling.again and (yield from redelivered(task, GRAPH)):
        return
    booked: float | None = None
    if handling.message.turn:
        booked = yield ("booked", handling.message.run)
    yield from admit(task, GRAPH, (), "", 0.0, rates=RATES, booked=booked)


def _take(effect: TakeTurn, case: Case, rules: Rules) -> Procedure:
    rate = Exact(max=case.most + rules.too_many, per=case.per - min(rules.forgets_after, case.per / 2))
    booked, at = effect.booked is not None, effect.booked or 0.0
    if booked and not rules.asks_again:
        return Turn(begins=True)
    while True:
        now: float = yield ("clock",)
        if at - now > NEAR:
            return Turn(at=at)
        if at > now:
            yield ("wait", at)
        version, window = yield ("read",)
        now = yield ("clock",)
        seen = window if rules.counts_begun else msgspec.structs.replace(window, begun=())
        (turn,), (after,) = share([Ask((1,), booked)], [seen], [rate], now)
        if turn.begins and not rules.stores_first:
            yield ("begin",)
        if after != window:
            if not (yield ("write", version, after)):
                continue
            later: float = yield ("clock",)
            if turn.begins and later > now and rules.looks_at_clock:
                turn = Turn(at=later)
        if turn.begins:
            return turn
        at, booked = turn.at, True


# --- what the broker does ----------------------------------------------------------------------------------------


def _read(result: Any, message: Message) -> Any:
    """Return a result as the procedure is given it."""
    if isinstance(result, tuple) and result and result[0] == "ended":
        return Ended(join=None if result[1] is None else _record(message, *result[1]))
    if isinstance(result, tuple) and result and result[0] == "record":
        return _record(message, *result[1])
    return result


def _record(message: Message, booked: float, until: float) -> JoinRecord:
    return JoinRecord(kind="parked", turn=message.turn, task="", needed=0, booked=booked, until=until)


def _part(world: World, part: tuple[Any, ...], handling: Handling, rules: Rules) -> tuple[World, Any]:
    match part:
        case ("clock",):
            return world, world.clock
        case ("read",):
            return world, (world.version, world.window)
        case ("write", version, window):
            if rules.compares and version != world.version:
                return world, False
            return world._replace(version=world.version + 1, window=window), True
        case ("begin",):
            return _begun(world, handling.message.run), None
        case _:
            return world, None


def _begun(world: World, run: int) -> World:
    if any(one == run for one, _ in world.begun):
        return world
    return world._replace(begun=tuple(sorted((*world.begun, (run, world.clock)))))


def _perform(world: World, effect: Any, rules: Rules) -> tuple[World, Any]:
    result: Any = None
    match effect:
        case ("booked", run):
            result = max((turn, booked) for one, turn, booked, _ in world.joins if one == run)[1]
        case Start(task, step, turn):
            if step == ADMIT:
                world = world._replace(messages=world.messages | {Message(int(task.run), turn)})
            else:
                world = _begun(world, int(task.run))
        case StoreJoin(task, record):
            key = int(task.run), task.turn
            there = next((one[2:] for one in world.joins if one[:2] == key), None)
            if there is None:
                there = float(record.booked or 0), float(record.until or 0)
                world = world._replace(joins=world.joins | {(*key, *there)})
            result = ("record", there)
        case Arm(task, record):
            due = float(record.until or 0)
            result = due <= world.clock
            if not result and rules.arms:
                world = world._replace(timers=world.timers | {(int(task.run), task.turn, due)})
        case ReadEnded(task):
            key = int(task.run), task.turn
            result = ("ended", next((one[2:] for one in world.joins if one[:2] == key), None))
        case Disarm():
            pass
        case _:
            raise AssertionError(effect)
    return world, result


def main(cases: Callable[[], tuple[Case, ...]] = lambda: (*CASES, *LARGE)) -> None:
    """Explore all cases, and hunt all bugs."""
    for case in cases():
        report = explore(case=case)
        say(f"{report.name}: {report.states} states, {report.violations} violations {report.first}")
    for name, bug in BUGS.items():
        found = hunt(bug)
        say(f"{name}: {'NOT caught' if found is None else f'caught by {found.name!r}'}")


if __name__ == "__main__":
    main()
