"""Every history of a child that gets a twin, over the engine's own procedures for how a run ends and is found ended.

A parent is sealed over two children. One ends as any does. The other's step works, fails, or hangs until it is told to
stop; its task is delivered again when its worker dies, and to a second worker while the first lives. While its body
runs a twin may be made, which works, fails, or dies at any moment, each time that it is delivered. Whoever runs a body
of a run that has ended is told so, some time. Checked is what is promised: the run has one outcome, and fails only by
attempts of its own; the parent goes on when both have ended, not before, and always then; nobody is left running; and
a twin is begun so often and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from jetflow.engine.effects import Count, Ended, Look, ReadEnded, StoreMark, StoreRun
from jetflow.engine.graph import Graph, Node
from jetflow.engine.hedging import MOST_DELIVERIES, twin_of
from jetflow.engine.joins import SEAL
from jetflow.engine.tasks import Outcome, Status, Task
from jetflow.engine.transitions import conclude, redelivered
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a straggler and its twin"

ATTEMPTS: Final = 2
CHILDREN: Final = 2
GRAPH: Final = Graph.checked("child", [Node("s")])
TASK: Final = Task(
    workflow="child",
    step="s",
    root="r",
    parent="r",
    run="a",
    turn=0,
    parent_step="p",
    version="",
    depth=1,
    digest="",
    input=b"",
)

NONE, READY, HELD, DONE = range(4)
"""Where a task stands: not there, to be delivered, delivered, acknowledged."""

Rule = Literal["works", "hangs", "conclude", "redelivered"]


class Running(NamedTuple):
    """One delivery: its body, or a procedure with the results that it has had so far."""

    twin: bool
    rule: Rule
    status: Status = "succeeded"
    results: tuple[Any, ...] = ()


class World(NamedTuple):
    """What stands where. ``made`` attempts are counted of the original, and ``lost`` bodies of it really were."""

    stored: Status | None = None
    outcomes: int = 0
    counter: int = SEAL - CHILDREN
    beside: int = 0
    moved: bool = False
    wrong: str = ""
    original: int = READY
    again: bool = False
    made: int = 0
    lost: int = 0
    twin: int = NONE
    twin_deliveries: int = 0
    twin_bodies: int = 0
    running: tuple[Running, ...] = ()
    crashes: int = 1
    zombies: int = 1


@dataclass(frozen=True)
class Way:
    """How a twin is treated. The right way is `RIGHT`; each other is a planted bug."""

    tells: bool = True
    tells_once_stored: bool = True
    loser_repeats: bool = True
    original_stays: bool = True
    twin_fails_the_run: bool = False
    twin_is_an_attempt: bool = False
    twin_is_bounded: bool = True
    write_once: bool = True
    trusts_the_counter: bool = False


RIGHT: Final = Way()
BUGS: Final = {
    "nobody tells the loser to stop": Way(tells=False),
    "the loser is told when the winner's body has ended, and acknowledged": Way(
        tells_once_stored=False, loser_repeats=False
    ),
    "the loser is acknowledged without a count": Way(loser_repeats=False),
    "the original is acknowledged when it gets a twin": Way(original_stays=False),
    "a twin that fails ends the run": Way(twin_fails_the_run=True),
    "a twin that is lost is an attempt of its original": Way(twin_is_an_attempt=True),
    "a twin is begun as often as it is delivered": Way(twin_is_bounded=False),
    "the second to end stores its outcome, too": Way(write_once=False),
    "the join trusts its counter, which both have counted": Way(trusts_the_counter=True),
}


def explore(way: Way = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the child and of its twin."""

    def look(world: World) -> Seen[World]:
        after = [] if world.wrong else list(_next(world, way))
        return Seen(after, world.wrong or _wrong(world, is_final=not after), not after)

    return walk(NAME, [World()], look, stop_at_first=stop_at_first)


def hunt(bug: Way) -> Report | None:
    """Return the search that caught a way that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(world: World, *, is_final: bool) -> str:
    if world.outcomes > 1:
        return f"twice: the run has two outcomes: {world}"
    if world.twin_bodies > MOST_DELIVERIES:
        return f"endless: the twin was begun {world.twin_bodies} times: {world}"
    return _stuck(world) if is_final else ""


def _stuck(world: World) -> str:
    hangs = any(one.rule == "hangs" for one in world.running)
    if world.stored is None and not hangs:
        return f"stuck: nobody runs what has not ended: {world}"
    if world.stored is not None and world.running:
        return f"stuck: a body runs on behind its run: {world}"
    if world.stored is not None and not world.moved:
        return f"stuck: both have ended, and the parent waits: {world}"
    return ""


def _next(world: World, way: Way) -> Iterator[World]:
    yield from _beside(world, way)
    yield from _deliveries(world, way)
    for number, one in enumerate(world.running):
        if one not in world.running[:number]:
            rest = world._replace(running=world.running[:number] + world.running[number + 1 :])
            yield from _ends(rest, one, way) if one.rule in ("works", "hangs") else _goes_on(rest, one, way)
            if world.crashes or one.twin:  # a twin may die each time: what bounds it is how often it is delivered
                yield _dies(rest._replace(crashes=world.crashes - (not one.twin)), one, way)


def _beside(world: World, way: Way) -> Iterator[World]:
    """The other child ends."""
    if world.beside == 0:
        yield world._replace(beside=1)
    elif world.beside == 1:
        after = world._replace(beside=2, counter=world.counter + 1)
        yield _looked(after, way) if after.counter >= SEAL else after


def _deliveries(world: World, way: Way) -> Iterator[World]:
    if world.original == READY or (world.original == HELD and world.zombies):
        zombies = world.zombies - (world.original == HELD)
        taken = world._replace(original=HELD, zombies=zombies)
        if world.again or world.original == HELD:
            yield _with(taken, Running(twin=False, rule="redelivered"))
        else:
            yield from _begin(taken)
    runs = any(not one.twin and one.rule in ("works", "hangs") for one in world.running)
    if world.twin == NONE and runs and world.stored is None:
        made = world._replace(twin=READY)
        if not way.original_stays:
            made = made._replace(original=DONE, running=())
        yield made
    if world.twin == READY:
        given = world._replace(twin=HELD, twin_deliveries=min(world.twin_deliveries + 1, MOST_DELIVERIES + 2))
        too_often = way.twin_is_bounded and given.twin_deliveries > MOST_DELIVERIES
        if too_often or world.stored is not None:
            yield given._replace(twin=DONE)
        else:
            yield _with(given._replace(twin_bodies=world.twin_bodies + 1), Running(twin=True, rule="works"))


def _begin(world: World) -> Iterator[World]:
    """Begin a body of the original; or give it up, if it was begun too often."""
    if world.made >= ATTEMPTS:
        yield _with(world, Running(twin=False, rule="conclude", status="failed"))
    else:
        yield _with(world, Running(twin=False, rule="works"))
        yield _with(world, Running(twin=False, rule="hangs"))


def _ends(world: World, one: Running, way: Way) -> Iterator[World]:
    """A body ends, or is told to stop."""
    twin_has_ended = any(other.twin and other.rule == "conclude" for other in world.running)
    if way.tells and (world.stored is not None or (not way.tells_once_stored and twin_has_ended)):
        yield from _told(world, one, way)
    if one.rule == "hangs":
        return
    yield _with(world, one._replace(rule="conclude"))
    if one.twin:
        failed = _with(world, one._replace(rule="conclude", status="failed"))
        yield failed if way.twin_fails_the_run else world._replace(twin=DONE)
    elif world.made + 1 >= ATTEMPTS:
        yield _with(
            world._replace(made=world.made + 1, lost=world.lost + 1), one._replace(rule="conclude", status="failed")
        )
    else:
        yield world._replace(original=READY, made=world.made + 1, lost=world.lost + 1)


def _told(world: World, one: Running, way: Way) -> Iterator[World]:
    if one.twin:
        yield world._replace(twin=DONE)
    elif way.loser_repeats:
        yield _with(world, one._replace(rule="redelivered"))
    else:
        yield world._replace(original=DONE)


def _dies(world: World, one: Running, way: Way) -> World:
    """Lose a worker with what it runs: the broker delivers the task again."""
    if one.twin:
        counted = way.twin_is_an_attempt and one.rule == "works"
        return world._replace(twin=READY if world.twin == HELD else world.twin, made=world.made + counted)
    lost = one.rule in ("works", "hangs")
    others = any(not other.twin for other in world.running)
    original = READY if world.original == HELD and not others else world.original
    return world._replace(original=original, again=True, made=world.made + lost, lost=world.lost + lost)


def _goes_on(world: World, one: Running, way: Way) -> Iterator[World]:
    """Perform the next effect of a procedure of the engine, or end the delivery behind its last."""
    task = twin_of(TASK) if one.twin else TASK
    if one.rule == "conclude":
        procedure: Any = conclude(task, Outcome(status=one.status, step="s"), GRAPH)
    else:
        procedure = redelivered(task, GRAPH)
    try:
        effect = next(procedure)
        for result in one.results:
            effect = procedure.send(_read(effect, result))
    except StopIteration as stop:
        if one.rule == "redelivered" and not stop.value:
            yield from _begin(world)
        else:
            yield world._replace(twin=DONE) if one.twin else world._replace(original=DONE)
        return
    after, result = _perform(world, effect, way)
    yield _with(after, one._replace(results=(*one.results, result)))


def _perform(world: World, effect: Any, way: Way) -> tuple[World, Any]:
    if isinstance(effect, StoreMark):
        return world, None
    if isinstance(effect, StoreRun):
        return _store(world, effect, way)
    if isinstance(effect, Count):
        return world._replace(counter=world.counter + effect.by), world.counter + effect.by
    if isinstance(effect, Look):
        return _looked(world, way), None
    assert isinstance(effect, ReadEnded), effect
    return world, world.stored


def _store(world: World, effect: StoreRun, way: Way) -> tuple[World, Any]:
    status = effect.outcome.status
    if world.stored is not None and way.write_once:
        return world, world.stored
    after = world._replace(stored=status, outcomes=world.outcomes + 1)
    if status == "failed" and (effect.task.twin or world.lost < ATTEMPTS):
        after = after._replace(wrong=f"wrong: the run fails after {world.lost} of {ATTEMPTS} attempts: {world}")
    return after, status


def _read(effect: Any, result: Any) -> Any:
    """Return a result as the engine takes it."""
    if isinstance(effect, StoreRun):
        return Outcome(status=result)
    if isinstance(effect, ReadEnded):
        return Ended(run=None if result is None else Outcome(status=result))
    return result


def _looked(world: World, way: Way) -> World:
    """Look at the join, whose outcomes decide: both have to be stored."""
    complete = world.stored is not None and world.beside > 0
    if not (complete or way.trusts_the_counter):
        return world
    wrong = "" if complete else f"early: the parent goes on before both have ended: {world}"
    return world._replace(moved=True, wrong=wrong)


def _with(world: World, one: Running) -> World:
    return world._replace(running=tuple(sorted((*world.running, one), key=repr)))
