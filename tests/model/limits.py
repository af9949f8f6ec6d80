"""Every history of runs that stand at the gates of limits: entering, beginning, ending, cancelled waiters, a new `max`.

The rules that workers follow are the engine's own (`jetflow.engine.admission`, `gates`, `transitions`), driven one
effect at a time; a look is taken apart into its single reads, so that others act between them, and goes by entries that
an earlier look has remembered. A worker dies between any two effects, and its message is delivered again; or it is
delivered again while the first one only was slow. Somebody cancels a run, at any moment, and dies in the middle, and
does it again. Somebody changes how many may run. A run whose child waits at another gate is replaced by a newer one,
and whoever has it leave dies in the middle. Checked is what is promised: never more are admitted and not ended than may
be, every run ends, and no place stays taken. Runs may as well stand there by a step that has limits of its own: it
begins in the very delivery that finds its places, and leaves when it has ended, or its run is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.admission import admit, come_through
from jetflow.engine.effects import (
    ClearBelow,
    Count,
    Ended,
    EndRuns,
    Enter,
    LookAtGate,
    ReadEnded,
    ReadOver,
    ReadPlaces,
    RemoveEntry,
    Start,
    StoreGone,
    StoreJoin,
    StoreMark,
    StoreRun,
    WakeParked,
)
from jetflow.engine.gates import let_through, send_away
from jetflow.engine.graph import ADMIT, Graph, Node
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, Standing, WhenFull, places_of, stander, standing, written_places
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.engine.transitions import (
    conclude,
    conclude_cancelled,
    conclude_from_outside,
    finish,
    redelivered,
    repeat_end,
    seal,
)
from tests.model.explorer import Report, Seen, say, walk

GRAPH: Final = Graph("w", (Node("go"),), gated=True)
LIMITED: Final = "limited"
"""The step of runs that stand at gates by it."""

BY_STEPS: Final = Graph("w", (Node(LIMITED),), limited=(LIMITED,))
WORKERS: Final = 2
AHEAD: Final = 1
"""Entries of a gate where many stand that a look reads behind those that may be admitted."""

DONE: Final = Outcome(status="succeeded")
CANCELLED: Final = Outcome(status="cancelled")

Procedure = Generator[Any, Any, Any]


class Message(NamedTuple):
    """What is delivered: a turn of a run's admission, its step, or the request to look at all gates of a limit."""

    kind: str
    run: int = 0
    turn: int = 0


class Handling(NamedTuple):
    """A worker, or who cancels a run, with what its effects have given it so far.

    One that ``knows`` has heard that what it was given is cancelled.
    """

    message: Message
    again: bool = False
    knows: bool = False
    results: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()


class World(NamedTuple):
    """What stands where. Entries are (gate, sequence, run); ``remembered`` is what looks at a gate know, by gate."""

    most: tuple[int, ...]
    highest: tuple[int, ...]
    messages: frozenset[Message]
    acked: frozenset[Message] = frozenset()
    delivered: frozenset[Message] = frozenset()
    handlings: tuple[Handling, ...] = ()
    places: frozenset[tuple[int, str]] = frozenset()
    entries: tuple[tuple[int, int, int], ...] = ()
    stored: int = 0
    gone: frozenset[int] = frozenset()
    joins: frozenset[tuple[int, int, str, str | None]] = frozenset()
    ended: frozenset[int] = frozenset()
    remembered: tuple[tuple[int, int, int], ...] = ()
    cancels: tuple[int, ...] = ()
    marked: frozenset[int] = frozenset()
    begun: frozenset[int] = frozenset()
    changes: tuple[int, ...] = ()
    crashes: int = 1
    zombies: int = 1


@dataclass(frozen=True)
class Case:
    """The gates that each run needs, how many may pass each at once, and what happens meanwhile.

    Gate 0 is kept by ``when_full``; at others runs wait.

    The ``last`` run goes on until all others have ended. If there are runs ``below`` run 0, it has begun, and waits for
    them; they are ``parked`` already, or come later. Those of ``steps`` stand there by a step; ``asleep`` are
    those of them that have begun, and of which no message is there. Where ``few`` stand at a gate, a look reads all at
    once; else it goes by what is remembered.
    """

    name: str
    needs: tuple[tuple[int, ...], ...]
    most: tuple[int, ...] = (1,)
    when_full: WhenFull = "queue"
    cancels: tuple[int, ...] = ()
    changes: tuple[int, ...] = ()
    crashes: int = 0
    zombies: int = 0
    last: int | None = None
    below: tuple[int, ...] = ()
    parked: bool = False
    steps: tuple[int, ...] = ()
    asleep: tuple[int, ...] = ()
    few: bool = False


ONE: Final = ((0,), (0,))
"""Two runs that need the same place."""

REPLACED: Final = ((0,), (1,), (0,))
"""A run, its child, which waits at another gate, and a newer run that needs the place of the first."""

CASES: Final = (
    Case("two runs and a place", ONE),
    Case("a waiter is cancelled", ONE, cancels=(1,)),
    Case("what is full refuses", ONE, when_full="reject"),
    Case("the newest runs", ONE, when_full="cancel_running"),
    Case("two runs, and a worker dies", ONE, crashes=1),
    Case("two runs, and a message comes twice", ONE, zombies=1),
    Case("a run is cancelled, and a worker or who cancels dies", ((0,),), cancels=(0,), crashes=1),
    Case("two runs need two limits", ((0, 1), (0, 1)), most=(1, 1)),
    Case("there are more places, and the first run goes on", ONE, changes=(2,), last=0),
    Case("there are fewer places", ONE, most=(2,), changes=(1,)),
    Case("three runs and a place", (*ONE, (0,))),
    Case("two runs at a gate of few, and a worker dies", ONE, crashes=1, few=True),
    Case("two runs at a gate of few, and a message comes twice", ONE, zombies=1, few=True),
    Case("a waiter at a gate of few is cancelled", ONE, cancels=(1,), few=True),
    Case("three runs at a gate of few", (*ONE, (0,)), few=True),
)

STEPS: Final = (
    Case("two steps and a place", ONE, steps=(0, 1)),
    Case("a step and a run, and a place", ONE, steps=(1,)),
    Case("two steps, and a worker dies", ONE, steps=(0, 1), crashes=1),
    Case("two steps, and a message comes twice", ONE, steps=(0, 1), zombies=1),
    Case("the run of a step that waits is cancelled", ONE, steps=(0, 1), cancels=(1,)),
    Case(
        "the run of a step is cancelled, and a worker or who cancels dies", ((0,),), cancels=(0,), crashes=1, steps=(0,)
    ),
    Case("two steps need two limits", ((0, 1), (0, 1)), most=(1, 1), steps=(0, 1)),
    Case("there are more places for steps", ONE, changes=(2,), steps=(0, 1)),
)

LATE_STEP: Final = Case("a step's message comes twice, and a worker dies", ((0,),), zombies=1, crashes=1, steps=(0,))

ASLEEP: Final = Case("the run of a step that sleeps is cancelled", ONE, cancels=(0,), steps=(0, 1), asleep=(0,))

STEP_CANCELLED: Final = Case(
    "the run of a step that has the place, or waits, is cancelled, and who does dies",
    ONE,
    cancels=(0,),
    crashes=1,
    steps=(0, 1),
)

BOTH: Final = Case("a run needs what two others have", ((0,), (1,), (0, 1)), most=(1, 1))

BESIDE: Final = Case("a run beside two others is cancelled", (*ONE, (0,)), cancels=(1,))

PARKED: Final = Case(
    "who is replaced has a child that waits, and a worker dies",
    REPLACED,
    most=(1, 0),
    when_full="cancel_running",
    crashes=1,
    below=(1,),
    parked=True,
)

DYING: Final = Case(
    "who is replaced has a child that comes to wait, and a worker dies",
    REPLACED,
    most=(1, 0),
    when_full="cancel_running",
    crashes=1,
    below=(1,),
)

LARGE: Final = (
    BOTH,
    PARKED,
    DYING,
    Case("three runs, and a worker dies", (*ONE, (0,)), crashes=1),
    Case("a waiter is cancelled, and a worker or who cancels dies", ONE, cancels=(1,), crashes=1),
    Case("a waiter is cancelled, and a message comes twice", ONE, cancels=(1,), zombies=1),
    Case("two runs, a death and a message that comes twice", ONE, crashes=1, zombies=1),
    BESIDE,
    Case("there are more places, and a worker dies", ONE, changes=(2,), crashes=1),
    Case("two runs need two limits, and a worker dies", ((0, 1), (0, 1)), most=(1, 1), crashes=1),
    Case("there are fewer places, then more", ONE, most=(2,), changes=(1, 2)),
    Case("what is full refuses, and a worker dies", ONE, when_full="reject", crashes=1),
    Case("the newest waits", (*ONE, (0,)), when_full="keep_newest"),
    Case("the oldest waits", (*ONE, (0,)), when_full="keep_oldest"),
    Case("the newest runs, and a worker dies", ONE, when_full="cancel_running", crashes=1),
)
"""Explored by `python -m tests.model.limits`, in some minutes."""


@dataclass(frozen=True)
class Rules:
    """How limits are kept. The right way is `RIGHT`; each other is a planted bug."""

    keeps: Callable[[Procedure], Procedure] = lambda procedure: procedure
    checks_gone: bool = True
    acks_first: bool = False
    ends_last: bool = False
    verifies: bool = True
    verifies_ahead: bool = True
    asks_after_change: bool = True
    records_first: bool = True
    one_too_many: bool = False
    in_order: bool = True
    reads_record: bool = True
    zombie_repeats: bool = True
    ends_steps: bool = True
    shown_by: Case | None = None


def _without(*kinds: type[Any]) -> Callable[[Procedure], Procedure]:
    """Return what leaves out effects of some kinds."""

    def keeps(procedure: Procedure) -> Procedure:
        result: Any = None
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration as stop:
                return stop.value
            if isinstance(effect, kinds):
                result = None
            else:
                result = yield effect

    return keeps


def _looks_no_more(procedure: Procedure) -> Procedure:
    """Leave out the looks of those that leave."""
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        result = None if isinstance(effect, LookAtGate) and not effect.run else (yield effect)


def _looks_once(procedure: Procedure) -> Procedure:
    """Leave out the look behind the join record."""
    result: Any = None
    parked = False
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, LookAtGate) and effect.run and parked:
            result = Standing(admitted=False)
            continue
        parked = parked or isinstance(effect, StoreJoin)
        result = yield effect


def _admits_early(procedure: Procedure) -> Procedure:
    """Park a run before any gate as if it were the last one."""
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, StoreJoin):
            record = msgspec.structs.replace(effect.record, admits="l0.k l1.k")
            effect = msgspec.structs.replace(effect, record=record)
        result = yield effect


def _goes_last(procedure: Procedure) -> Procedure:
    """Store that a run has gone behind the removal of its entries, not before it."""
    result: Any = None
    late: StoreGone | None = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, StoreGone):
            late, result = effect, None
            continue
        if late is not None and isinstance(effect, LookAtGate):
            yield late
            late = None
        result = yield effect


def _leaves_first(procedure: Procedure) -> Procedure:
    """Leave before the outcome is stored."""
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, StoreRun):
            places = yield ReadPlaces(effect.task)
            yield StoreGone(effect.task)
            for place in places:
                yield RemoveEntry(effect.task, place)
                yield LookAtGate(place)
        result = yield effect


def _goes_unwoken(procedure: Procedure) -> Procedure:
    """Wake who is sent away behind the removal of its entries, not before it."""
    result: Any = None
    late: WakeParked | None = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            if late is not None:
                yield late
            return stop.value
        if isinstance(effect, WakeParked):
            late, result = effect, None
            continue
        result = yield effect


def _takes_for_ended(kind: type[Any], given: Any) -> Callable[[Procedure], Procedure]:
    """Return what takes a run for one that has ended when an effect has given this."""

    def keeps(procedure: Procedure) -> Procedure:
        result: Any = None
        is_so = False
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration as stop:
                return stop.value
            if isinstance(effect, ReadEnded) and is_so:
                result = Ended(run=DONE)
                continue
            result = yield effect
            is_so = is_so or (isinstance(effect, kind) and result is given)

    return keeps


def _leaves_step_first(procedure: Procedure) -> Procedure:
    """Have a step leave before its outcome is stored."""
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, StoreRun) and effect.task.step == LIMITED:
            places = yield ReadPlaces(effect.task, LIMITED)
            yield StoreGone(effect.task, LIMITED)
            for place in places:
                yield RemoveEntry(effect.task, place, LIMITED)
                yield LookAtGate(place)
        result = yield effect


RIGHT: Final = Rules()
BUGS: Final = {
    "who leaves does not look": Rules(keeps=_looks_no_more),
    "a parked run does not look once more": Rules(keeps=_looks_once),
    "a run enters that has gone": Rules(checks_gone=False),
    "that a run has gone is not stored": Rules(keeps=_without(StoreGone)),
    "that a run has gone is stored behind the removal": Rules(keeps=_goes_last),
    "an entry is not removed": Rules(keeps=_without(RemoveEntry)),
    "a run leaves before its outcome is stored": Rules(keeps=_leaves_first),
    "a message is acknowledged before its run is parked": Rules(acks_first=True),
    "one run more begins than may": Rules(one_too_many=True),
    "what is remembered of a gate is not verified": Rules(verifies=False),
    "what is read ahead at a gate is not verified": Rules(verifies_ahead=False, shown_by=BESIDE),
    "nobody looks when there are more places": Rules(asks_after_change=False),
    "a run enters before its places are recorded": Rules(records_first=False),
    "who cancels does not read the places": Rules(reads_record=False),
    "limits are entered in any order": Rules(in_order=False),
    "a run is let through that comes to another gate": Rules(keeps=_admits_early, shown_by=BOTH),
    "a redelivery does not leave again": Rules(zombie_repeats=False),
    "who is sent away is woken last": Rules(keeps=_goes_unwoken, shown_by=PARKED),
    "a run that was replaced ends without those below it": Rules(keeps=_without(ClearBelow), shown_by=DYING),
    "a run that may not enter has no outcome": Rules(keeps=_takes_for_ended(Enter, False), shown_by=DYING),
    "a step that leaves does not look": Rules(keeps=_looks_no_more, shown_by=STEPS[0]),
    "a parked step does not look once more": Rules(keeps=_looks_once, shown_by=STEPS[0]),
    "a step begins that finds no place": Rules(one_too_many=True, shown_by=STEPS[0]),
    "a step leaves before its outcome is stored": Rules(keeps=_leaves_step_first, shown_by=STEPS[0]),
    "that a step has gone is not stored": Rules(keeps=_without(StoreGone), shown_by=LATE_STEP),
    "a step's entry is not removed": Rules(keeps=_without(RemoveEntry), shown_by=STEPS[0]),
    "a step enters before its places are recorded": Rules(records_first=False, shown_by=STEPS[5]),
    "who cancels the run of a step leaves its place": Rules(ends_steps=False, shown_by=ASLEEP),
    "a cancelled run finds itself parked, and goes": Rules(keeps=_takes_for_ended(ReadOver, True), shown_by=DYING),
}


def explore(rules: Rules = RIGHT, case: Case = CASES[0], *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of a case."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, case, rules))
        return Seen(after, _wrong(world, case, is_final=not after), not after)

    start = World(
        most=case.most,
        highest=case.most,
        messages=frozenset(Message("admit", run) for run in range(len(case.needs))),
        cancels=case.cancels,
        changes=case.changes,
        crashes=case.crashes,
        zombies=case.zombies,
    )
    if case.below:
        start = start._replace(
            messages=start.messages - {Message("admit")} | {Message("step")},
            entries=tuple((gate, 1, 0) for gate in case.needs[0]),
            stored=1,
        )
    for run in case.asleep:
        start = start._replace(
            messages=start.messages - {Message("admit", run)},
            places=start.places | {(run, written_places(_places(run, case)))},
            entries=(*start.entries, *((gate, 1, run) for gate in case.needs[run])),
            stored=1,
            begun=start.begun | {run},
        )
    for run in case.below if case.parked else ():
        (gate,) = case.needs[run]
        there, written = start.stored + 1, written_places(_places(run, case))
        start = start._replace(
            acked=start.acked | {Message("admit", run)},
            places=start.places | {(run, written)},
            entries=(*start.entries, (gate, there, run)),
            stored=there,
            joins=start.joins | {(run, 0, written, written)},
        )
    return walk(case.name, [start], look, stop_at_first=stop_at_first)


def hunt(bug: Rules) -> Report | None:
    """Return the search that caught a way to keep limits that is wrong."""
    for case in CASES if bug.shown_by is None else (bug.shown_by,):
        report = explore(bug, case, stop_at_first=True)
        if report.violations:
            return report
    return None


def _wrong(world: World, case: Case, *, is_final: bool) -> str:
    begun = {message.run for message in world.messages if message.kind == "step"} | world.begun
    begun -= world.ended
    for gate, most in enumerate(world.highest):
        active = [run for run in begun if gate in case.needs[run]]
        if len(active) > most:
            return f"too many: runs {active} have a place of {most}: {world}"
    if not is_final:
        return ""
    if waiting := set(range(len(case.needs))) - world.ended:
        return f"stuck: runs {waiting} have not ended: {world}"
    return f"taken: places stay taken: {world}" if world.entries else ""


# --- what happens ------------------------------------------------------------------------------------------------


def _next(world: World, case: Case, rules: Rules) -> Iterator[World]:
    if len(world.handlings) < WORKERS:
        yield from _delivered(world, case)
    for handling in dict.fromkeys(world.handlings):
        rest = _less(world.handlings, handling)
        if world.crashes:
            left = world._replace(handlings=rest, crashes=world.crashes - 1)
            if handling.message.kind == "cancel":  # whoever cancels does it until it is done
                left = left._replace(cancels=(*left.cancels, handling.message.run))
            yield left
        yield _go_on(world._replace(handlings=rest), handling, case, rules)
    for run in world.cancels:
        if len(world.handlings) < WORKERS:
            cancels = tuple(one for one in world.cancels if one != run)
            yield _with(world._replace(cancels=cancels), Handling(Message("cancel", run)))
    if world.changes:
        yield _changed(world, rules)


def _delivered(world: World, case: Case) -> Iterator[World]:
    others = set(range(len(case.needs))) - {case.last}
    for message in world.messages - world.acked:
        if message.kind == "step" and message.run == case.last and not world.ended.issuperset(others):
            continue
        covered = 0 in world.marked and message.run in (0, *case.below)
        covered = covered or (message.run in case.steps and message.run in world.marked)
        if message.kind == "step" and not message.run and not (covered or world.ended.issuperset(case.below)):
            continue  # it waits for its children
        held = any(one.message == message for one in world.handlings)
        if held and not world.zombies:
            continue
        again = message in world.delivered
        taken = world._replace(zombies=world.zombies - held, delivered=world.delivered | {message})
        if not (covered and message.kind == "step"):  # one that runs is told to stop
            yield _with(taken, Handling(message, again))
        if covered:
            yield _with(taken, Handling(message, again, knows=True))


def _changed(world: World, rules: Rules) -> World:
    most = (world.changes[0],)
    asks = {Message("gates", turn=len(world.changes))} if rules.asks_after_change else set[Message]()
    return world._replace(
        most=most,
        highest=tuple(map(max, most, world.highest)),
        changes=world.changes[1:],
        messages=world.messages | asks,
    )


def _with(world: World, handling: Handling) -> World:
    return world._replace(handlings=tuple(sorted((*world.handlings, handling), key=repr)))


def _less(handlings: tuple[Handling, ...], gone: Handling) -> tuple[Handling, ...]:
    at = handlings.index(gone)
    return (*handlings[:at], *handlings[at + 1 :])


def _go_on(world: World, handling: Handling, case: Case, rules: Rules) -> World:
    """Let a worker perform its next effect, or the next part of it; what it knows itself costs no step."""
    while True:
        effect = _next_effect(rules.keeps(_of(handling, case, rules)), handling.results, handling)
        if effect is None:
            return world._replace(acked=world.acked | {handling.message})
        parts = _parts(effect, case, rules)
        part = effect if parts is None else _next_effect(parts, handling.parts, handling)
        if part is not None:
            world, result = _perform(world, part, rules)
            if rules.acks_first and isinstance(part, Enter):
                world = world._replace(acked=world.acked | {handling.message})
            if parts is None:
                return _with(world, handling._replace(results=(*handling.results, result)))
            handling = handling._replace(parts=(*handling.parts, result))
        parts = _parts(effect, case, rules)
        assert parts is not None, "an effect of parts"
        if (ended := _ended(parts, handling)) is not None:
            handling = handling._replace(results=(*handling.results, ended[0]), parts=())
        if not (isinstance(part, tuple) and part[0] in _OWN):
            return _with(world, handling)


_OWN: Final = ("remembered", "remember")


def _next_effect(procedure: Procedure, results: tuple[Any, ...], handling: Handling) -> Any:
    """Return what a procedure asks for next, when it was given some results; None if it has ended."""
    try:
        effect = procedure.send(None)
        for result in results:
            effect = procedure.send(_read(result, handling))
    except StopIteration:
        return None
    return effect


def _ended(procedure: Procedure, handling: Handling) -> tuple[Any] | None:
    """Return what a procedure returns, in a tuple, if it has ended with the parts that were done."""
    try:
        procedure.send(None)
        for result in handling.parts:
            procedure.send(_read(result, handling))
    except StopIteration as stop:
        return (stop.value,)
    return None


# --- what workers do ---------------------------------------------------------------------------------------------


def _place(gate: int) -> Place:
    return Place(f"l{gate}", "k")


def _gate(place: Place) -> int:
    return int(place.limit[1:])


def _task(message: Message, case: Case) -> Task:
    is_step = message.kind == "step"
    run = str(message.run)
    return Task(
        workflow="w",
        step="go" if is_step else LIMITED if message.run in case.steps else ADMIT,
        root="0" if message.run in case.below else run,
        parent="0" if message.run in case.below else NONE,
        run=run,
        turn=message.turn,
        parent_step=NONE,
        version="",
        depth=0,
        digest="",
        input=b"",
        places=written_places(_places(message.run, case)) if is_step else None,
    )


def _places(run: int, case: Case) -> tuple[Place, ...]:
    return tuple(map(_place, case.needs[run]))


def _of(handling: Handling, case: Case, rules: Rules) -> Procedure:
    message = handling.message
    task = _task(message, case)
    graph = BY_STEPS if message.run in case.steps else None
    if handling.knows:
        return _drops(task, graph)
    if message.kind == "gates":
        return _looks_at_all(case)
    if message.kind == "cancel":
        return conclude(task, CANCELLED) if graph is None else _cancels(task, message.run, rules)
    if graph is not None:
        return _passes(task, message, handling, case, rules)
    if message.kind == "step":
        return _runs(task, handling, rules)
    return _admits(task, message, handling, case, rules)


def _looks_at_all(case: Case) -> Procedure:
    yield LookAtGate(_place(0))


def _drops(task: Task, graph: Graph | None) -> Procedure:
    ended = yield ReadEnded(task)
    if ended.run is None:
        yield from conclude_cancelled(task, CANCELLED, None, graph)
    else:
        yield from repeat_end(task, graph, ended.run)


def _cancels(task: Task, run: int, rules: Rules) -> Procedure:
    """Cancel the run of a step."""
    yield ("mark", run)
    yield from conclude_from_outside(task, CANCELLED, BY_STEPS if rules.ends_steps else None)


def _passes(task: Task, message: Message, handling: Handling, case: Case, rules: Rules) -> Procedure:
    """Run a step with limits of its own, if it has its places."""
    if handling.again and (yield from redelivered(task, BY_STEPS)):
        return
    places = _places(message.run, case)
    if rules.records_first or (yield Enter(task, places[0], LIMITED)):
        yield ("record", message.run, written_places(places))
    found = yield from come_through(task, places, f"w.{message.run}.{message.turn}", 0.0)
    if isinstance(found, JoinRecord):
        yield from seal(task, found)
    elif found == "has all":
        yield ("begin", message.run)
        yield from finish(task, BY_STEPS, DONE)
    elif not (yield from redelivered(task, BY_STEPS)):
        yield from _drops(task, BY_STEPS)


def _runs(task: Task, handling: Handling, rules: Rules) -> Procedure:
    if handling.again:
        if not rules.zombie_repeats:
            ended = yield ReadEnded(task)
            if ended.run is not None:
                return
        elif (yield from redelivered(task, GRAPH)):
            return
    yield from conclude(task, DONE, GRAPH)


def _admits(task: Task, message: Message, handling: Handling, case: Case, rules: Rules) -> Procedure:
    if handling.again and (yield from redelivered(task, GRAPH)):
        return
    places = _places(message.run, case)
    if not rules.in_order and message.run:
        places = places[::-1]
    if rules.records_first or (yield Enter(task, places[0])):
        yield ("record", message.run, written_places(places))
    yield from admit(task, GRAPH, places, f"w.{message.run}.{message.turn}", 0.0)


def _parts(effect: Any, case: Case, rules: Rules) -> Procedure | None:
    """Return what an effect consists of, if others may act in its middle."""
    if isinstance(effect, LookAtGate):
        return _look(effect, case, rules)
    if isinstance(effect, ClearBelow):
        return _clear(case, rules)
    return _end_all(effect, case, rules) if isinstance(effect, EndRuns) else None


def _end_all(effect: EndRuns, case: Case, rules: Rules) -> Procedure:
    for run in effect.runs:
        if not (yield ("has ended", int(run))):
            if run == "0" and case.below:
                yield ("mark", 0)
                yield from _clear(case, rules)
            yield from _flat(conclude(_task(Message("cancel", int(run)), case), CANCELLED), case, rules)


def _clear(case: Case, rules: Rules) -> Procedure:
    for run in (yield ("below", case.below)):
        task = _task(Message("admit", run), case)
        away = send_away(msgspec.structs.replace(task, places=written_places(_places(run, case))))
        yield from _flat(rules.keeps(away), case, rules)


def _flat(procedure: Procedure, case: Case, rules: Rules) -> Procedure:
    result: Any = None
    while True:
        try:
            effect = procedure.send(result)
        except StopIteration:
            return
        parts = _parts(effect, case, rules)
        result = (yield effect) if parts is None else (yield from parts)


def _look(effect: LookAtGate, case: Case, rules: Rules) -> Procedure:
    gate = _gate(effect.place)
    most: int = yield ("max", gate)
    known: tuple[tuple[int, int], ...] = yield ("remembered", gate)
    when_full = "queue" if gate else case.when_full
    wanted = most + rules.one_too_many if when_full == "queue" else len(case.needs)
    if case.few:
        at_once: tuple[tuple[int, int], ...] = yield ("all", gate)
        still = list(at_once)
    else:
        still = yield from _first(gate, list(known), most, wanted, rules)
    yield ("remember", gate, tuple(still))
    admitted = [run for _, run in still[: most + rules.one_too_many]]
    for run in admitted:
        parked: tuple[int, str | None] | None = yield ("parked", run, effect.place.written)
        if parked is not None:
            task = _task(Message("admit", run, parked[0]), case)
            yield from let_through(task, _record(task, effect.place.written, parked[1]), GRAPH)
    order = [stander(str(run), LIMITED if run in case.steps else None) for _, run in still]
    return standing(effect.run, order, most + rules.one_too_many, when_full)


def _first(
    gate: int, known: list[tuple[int, int]], most: int, wanted: int, rules: Rules
) -> Generator[Any, Any, list[tuple[int, int]]]:
    """Read who stands first at a gate where many do, by what is remembered of it; and one ahead."""
    is_all = len(known) < wanted and (yield from _read_on(gate, known, wanted + AHEAD))
    if is_all and len(known) <= most:
        return known
    there: list[tuple[int, int]] = []
    after, rest = known[-1][0] if known else 0, known
    while len(there) < wanted and rest:
        count = wanted - len(there)
        for sequence, run in rest[:count]:
            if not rules.verifies or (yield ("stands", gate, sequence)):
                there.append((sequence, run))
        rest = rest[count:]
        if not rules.verifies_ahead:
            break
    if len(there) + (0 if rules.verifies_ahead else len(rest)) < wanted and not is_all:
        yield from _read_on(gate, there, wanted, after)
    return there + rest


def _read_on(
    gate: int, known: list[tuple[int, int]], wanted: int, after: int | None = None
) -> Generator[Any, Any, bool]:
    """Read who stands behind those that are known, so many in all; tell whether nobody else does."""
    if after is None:
        after = known[-1][0] if known else 0
    while len(known) < wanted:
        found: tuple[int, int] | None = yield ("next", gate, after)
        if found is None:
            return True
        known.append(found)
        after = found[0]
    return False


# --- what the broker does ----------------------------------------------------------------------------------------


def _read(result: Any, handling: Handling) -> Any:
    """Return a result as the procedure is given it."""
    if isinstance(result, tuple) and result and result[0] == "ended":
        _, run, parked = result
        record = None if parked is None else _record(handling.message, *parked)
        return Ended(run=DONE if run else None, join=record)
    if isinstance(result, tuple) and result and result[0] == "record":
        return _record(handling.message, *result[1:])
    if isinstance(result, tuple) and result and result[0] == "places":
        return places_of(result[1])
    if isinstance(result, tuple) and result and result[0] == "outcome":
        return DONE
    return result


def _record(task: Message | Task, gate: str, admits: str | None) -> JoinRecord:
    return JoinRecord(kind="parked", turn=task.turn, task="", needed=0, gate=gate, admits=admits)


def _perform(world: World, effect: Any, rules: Rules) -> tuple[World, Any]:
    if isinstance(effect, StoreJoin):
        return _joined(world, effect.task, effect.record)
    if isinstance(effect, Start):
        message = Message("admit" if effect.step in (ADMIT, LIMITED) else "step", int(effect.task.run), effect.turn)
        return world._replace(messages=world.messages | {message}), None
    if isinstance(effect, WakeParked):
        return _woken(world, int(effect.task.run)), None
    if isinstance(effect, Count):  # of the child that run 0 waits for
        return world, None
    if isinstance(effect, StoreRun | StoreMark | ReadEnded | ReadOver | ReadPlaces):
        return _of_records(world, effect, rules)
    return _at_gate(world, effect, rules)


def _of_records(world: World, effect: Any, rules: Rules) -> tuple[World, Any]:
    task, run, result = effect.task, int(effect.task.run), None
    match effect:
        case StoreRun():
            world, result = world._replace(ended=world.ended | {run}), ("outcome",)
        case ReadEnded():
            parked = next((one[2:] for one in world.joins if one[:2] == (run, task.turn)), None)
            result = ("ended", run in world.ended, parked if task.step in (ADMIT, LIMITED) else None)
        case ReadOver():
            result = run in world.ended or not world.marked.isdisjoint({run, int(task.root)})
        case ReadPlaces():
            recorded = dict(world.places).get(run, "") if rules.reads_record else ""
            result = ("places", task.places or recorded)
        case _:
            pass
    return world, result


def _joined(world: World, task: Task, record: JoinRecord) -> tuple[World, Any]:
    run = int(task.run)
    there = next((one for one in world.joins if one[:2] == (run, task.turn)), None)
    if there is not None:
        return world, ("record", *there[2:])
    parked = str(record.gate), record.admits
    return world._replace(joins=world.joins | {(run, task.turn, *parked)}), ("record", *parked)


def _at_gate(world: World, effect: Any, rules: Rules) -> tuple[World, Any]:
    match effect:
        case Enter(task, place):
            return _entered(world, int(task.run), _gate(place), rules)
        case StoreGone(task):
            return world._replace(gone=world.gone | {int(task.run)}), None
        case RemoveEntry(task, place):
            gate, run = _gate(place), int(task.run)
            entries = tuple(one for one in world.entries if (one[0], one[2]) != (gate, run))
            return world._replace(entries=entries), None
        case ("begin" | "mark" as kind, run):
            field = "begun" if kind == "begin" else "marked"
            return world._replace(**{field: getattr(world, field) | {run}}), None
        case ("record", run, places):
            return world._replace(places=world.places | {(run, places)}), None
        case _:
            return _looked(world, effect)


def _woken(world: World, run: int) -> World:
    turn = max((one[1] for one in world.joins if one[0] == run), default=None)
    return world if turn is None else world._replace(messages=world.messages | {Message("admit", run, turn + 1)})


def _entered(world: World, run: int, gate: int, rules: Rules) -> tuple[World, Any]:
    if rules.checks_gone and run in world.gone:
        return world, False
    if any((one[0], one[2]) == (gate, run) for one in world.entries):
        return world, True
    entry = (gate, world.stored + 1, run)
    return world._replace(entries=(*world.entries, entry), stored=world.stored + 1), True


def _looked(world: World, effect: Any) -> tuple[World, Any]:
    result: Any = None
    match effect:
        case ("max", gate):
            result = world.most[gate]
        case ("remembered", gate):
            result = tuple(one[1:] for one in world.remembered if one[0] == gate)
        case ("remember", gate, known):
            others = tuple(one for one in world.remembered if one[0] != gate)
            world = world._replace(remembered=tuple(sorted((*others, *((gate, *one) for one in known)))))
        case ("stands", gate, sequence):
            result = any(one[:2] == (gate, sequence) for one in world.entries)
        case ("all", gate):
            result = tuple(one[1:] for one in world.entries if one[0] == gate)
        case ("next", gate, after):
            result = next((one[1:] for one in world.entries if one[0] == gate and one[1] > after), None)
        case ("parked", run, gate):
            newest = max((one for one in world.joins if one[0] == run), default=None)
            result = (newest[1], newest[3]) if newest is not None and newest[2] == gate else None
        case ("below", runs):
            result = tuple(one[2] for one in world.entries if one[2] in runs)
        case ("has ended", run):
            result = run in world.ended
        case _:
            raise AssertionError(f"nobody knows {effect}")
    return world, result


if __name__ == "__main__":
    for one in (*CASES, *STEPS, LATE_STEP, ASLEEP, STEP_CANCELLED, *LARGE):
        found = explore(case=one)
        say(f"{one.name}: {found.states} states, {found.violations} violations, {found.seconds:.0f} s {found.first}")
