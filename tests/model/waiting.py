"""Every history of a step that waits for two events of one topic in a row, of which the first wait may time out.

The body runs from its top in each turn: it reads what was recorded of a wait, else looks for the earliest stored event
behind the one taken before, records it write-once, or is parked. A parked turn stores its record, arms its timer,
stores a wait, looks once more, and then is acknowledged. Events come at any time; whoever is given one reads the waits,
and publishes the next turn of each. A worker dies at any place (`DYING`), or a task is delivered again while the first
one goes on (`DOUBLED`): both in one history are some millions of states more, and show nothing else. Checked is what is
promised: the step ends, each event is taken once, in order, and the earliest first; what is recorded never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.model.explorer import Report, Seen, walk

NAME: Final = "a step that waits for events"

EVENTS: Final = 2
TIMED_OUT: Final = -1
NOT_YET: Final = -1

READ, LOOK, TAKE, JOIN, ARM, STAND, LOOK_AGAIN, WAKE, ACK, FINISH = range(10)
"""What a worker does next with a turn."""

LIST, PUBLISH, REMOVE, DONE = range(4)
"""What whoever is given an event does next."""


class Body(NamedTuple):
    """A worker with one turn: ``known`` is what it knows to be recorded, ``hand`` what it is about to record."""

    turn: int
    at: int = READ
    known: tuple[int, ...] = ()
    hand: int = 0


class Given(NamedTuple):
    """A worker with one event, and the turns whose waits it has read."""

    event: int
    at: int = LIST
    turns: tuple[int, ...] = ()


class World(NamedTuple):
    """What stands where. ``parked`` is, by turn, what was known when it was parked.

    ``late`` is how many events were stored when the first wait's time was over. ``handled`` events are acknowledged.
    ``records`` are of the two waits; 0 is none. ``changed`` says that one of them has.
    """

    events: int = 0
    late: int = NOT_YET
    turns: frozenset[int] = frozenset({0})
    acked: frozenset[int] = frozenset()
    parked: tuple[tuple[int, tuple[int, ...]], ...] = ()
    timers: frozenset[int] = frozenset()
    waits: frozenset[int] = frozenset()
    records: tuple[int, int] = (0, 0)
    bodies: tuple[Body, ...] = ()
    given: Given | None = None
    handled: frozenset[int] = frozenset()
    ended: tuple[int, ...] = ()
    changed: bool = False
    crashes: int = 0
    again: int = 0


DYING: Final = World(crashes=1)
DOUBLED: Final = World(again=1)
STARTS: Final = (DYING, DOUBLED)


@dataclass(frozen=True)
class Waiting:
    """How a step waits. The right way is `RIGHT`; each other is a planted bug."""

    looks_again: bool = True
    stands_first: bool = True
    publishes_first: bool = True
    acks_last: bool = True
    takes_earliest: bool = True
    goes_on_behind: bool = True
    late_keeps_place: bool = True
    arms_again: bool = True
    write_once: bool = True
    looks_before_late: bool = True


RIGHT: Final = Waiting()
BUGS: Final = {
    "nobody looks once the wait stands": Waiting(looks_again=False),
    "it looks before the wait stands": Waiting(stands_first=False),
    "a wait is removed before the turn is stored": Waiting(publishes_first=False),
    "an event is acknowledged before its waits are read": Waiting(acks_last=False),
    "the newest event is taken": Waiting(takes_earliest=False),
    "the second wait looks from the beginning": Waiting(goes_on_behind=False),
    "a wait that timed out skips what has come": Waiting(late_keeps_place=False),
    "a parked turn that is delivered again arms nothing": Waiting(arms_again=False),
    "what is taken is not write-once": Waiting(write_once=False),
    "a late timer counts before an event that is stored": Waiting(looks_before_late=False),
}


def explore(waiting: Waiting = RIGHT, start: World = DYING, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the step."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, waiting))
        return Seen(after, _wrong(world, is_final=not after), not after)

    name = NAME if start.crashes else f"{NAME}, a turn of which runs twice"
    return walk(name, [start], look, stop_at_first=stop_at_first)


def hunt(bug: Waiting) -> Report | None:
    """Return the search that caught a way to wait that is wrong."""
    reports = (explore(bug, start, stop_at_first=True) for start in STARTS)
    return next((report for report in reports if report.violations), None)


def _wrong(world: World, *, is_final: bool) -> str:
    if world.changed:
        return f"changed: what was recorded of a wait is another thing now: {world}"
    first, second = world.ended or (TIMED_OUT, 1)
    if (first, second) not in ((1, 2), (TIMED_OUT, 1)):
        return f"out of order: {first} and {second} were taken: {world}"
    if world.ended and first == TIMED_OUT and world.late > 0:
        return f"given up: the first wait timed out, though an event had come in time: {world}"
    if is_final and not world.ended:
        return f"stuck: the step never ends: {world}"
    return ""


def _next(world: World, waiting: Waiting) -> Iterator[World]:
    if world.ended:  # what still runs finds that, and changes nothing
        return
    if world.events < EVENTS:
        yield world._replace(events=world.events + 1)
    if world.late == NOT_YET:
        yield world._replace(late=world.events)
    for turn in world.timers if world.late != NOT_YET else ():
        yield world._replace(timers=world.timers - {turn}, turns=world.turns | {turn + 1})
    yield from _started(world, waiting)
    for number, body in enumerate(world.bodies):
        others = world.bodies[:number] + world.bodies[number + 1 :]
        if world.crashes:
            yield world._replace(bodies=others, crashes=world.crashes - 1)
        yield from _of_body(world._replace(bodies=others), body, waiting)
    yield from _of_event(world, waiting)


def _started(world: World, waiting: Waiting) -> Iterator[World]:
    """Give an unacknowledged turn to a worker; or, once, to another one while the first goes on."""
    running = {body.turn for body in world.bodies}
    for turn in world.turns - world.acked:
        if world.ended or (turn in running and not world.again) or len(world.bodies) > 1:
            continue
        known = dict(world.parked).get(turn)
        body = Body(turn) if known is None else Body(turn, ARM if waiting.arms_again else ACK, known)
        again = world.again - (turn in running)
        yield world._replace(bodies=_sorted(*world.bodies, body), again=again)


def _sorted(*bodies: Body) -> tuple[Body, ...]:
    return tuple(sorted(bodies))


def _place(known: tuple[int, ...], world: World, waiting: Waiting) -> int:
    """Return behind which event the next wait looks."""
    if not waiting.goes_on_behind:
        return 0
    if known and known[0] == TIMED_OUT and not waiting.late_keeps_place:
        return world.events
    return max((one for one in known if one > 0), default=0)


def _found(known: tuple[int, ...], world: World, waiting: Waiting) -> int:
    place = _place(known, world, waiting)
    if world.events <= place:
        return 0
    return place + 1 if waiting.takes_earliest else world.events


def _of_body(world: World, body: Body, waiting: Waiting) -> Iterator[World]:
    turn, at, known, _ = body

    def go_on(there: World, at: int, known: tuple[int, ...] = known, hand: int = 0) -> World:
        return there._replace(bodies=_sorted(*there.bodies, Body(turn, at, known, hand)))

    number = len(known)
    if at == READ:
        recorded = world.records[number]
        if recorded:
            known = (*known, recorded)
            yield go_on(world, READ if len(known) < 2 else FINISH, known)
        else:
            yield go_on(world, LOOK)
    elif at == LOOK:
        found, is_late = _found(known, world, waiting), number == 0 and world.late != NOT_YET
        if is_late and not (found and waiting.looks_before_late):
            yield go_on(world, TAKE, hand=TIMED_OUT)
        else:
            yield go_on(world, TAKE if found else JOIN, hand=found)
    elif at == TAKE:
        yield _taken(world, body, waiting)
    elif at == FINISH:
        yield go_on(world._replace(ended=world.ended or known), ACK)
    elif at == ACK:
        yield world._replace(acked=world.acked | {turn})
    else:
        yield _parking(world, body, waiting, go_on)


def _parking(world: World, body: Body, waiting: Waiting, go_on: Callable[[World, int], World]) -> World:
    turn, at, known, _ = body
    if at == JOIN:
        parked = dict(world.parked) | ({} if turn in dict(world.parked) else {turn: known})
        return go_on(world._replace(parked=tuple(sorted(parked.items()))), ARM)
    if at == ARM:
        armed = world if known else world._replace(timers=world.timers | {turn})
        return go_on(armed, STAND if waiting.stands_first else LOOK_AGAIN)
    if at == STAND:
        after = (LOOK_AGAIN if waiting.looks_again else ACK) if waiting.stands_first else ACK
        return go_on(world._replace(waits=world.waits | {turn}), after)
    if at == LOOK_AGAIN:
        found = _found(known, world, waiting)
        return go_on(world, WAKE if found else (ACK if waiting.stands_first else STAND))
    return go_on(world._replace(turns=world.turns | {turn + 1}), ACK)


def _taken(world: World, body: Body, waiting: Waiting) -> World:
    number = len(body.known)
    recorded = world.records[number]
    stands = recorded if recorded and waiting.write_once else body.hand
    records = list(world.records)
    records[number] = stands
    changed = world.changed or (recorded not in (0, stands))
    known = (*body.known, stands)
    at = READ if len(known) < 2 else FINISH
    there = world._replace(records=(records[0], records[1]), changed=changed)
    return there._replace(bodies=_sorted(*there.bodies, Body(body.turn, at, known)))


def _of_event(world: World, waiting: Waiting) -> Iterator[World]:
    given = world.given
    if given is None:
        for event in range(1, world.events + 1):
            if event not in world.handled:
                handled = world.handled if waiting.acks_last else world.handled | {event}
                yield world._replace(given=Given(event), handled=handled)
        return
    if world.crashes:
        yield world._replace(given=None, crashes=world.crashes - 1)
    event, at, turns = given
    if at == LIST:
        step = PUBLISH if waiting.publishes_first else REMOVE
        yield world._replace(given=Given(event, step if world.waits else DONE, tuple(sorted(world.waits))))
    elif at == PUBLISH:
        published = world._replace(turns=world.turns | {turns[0] + 1})
        left = turns if waiting.publishes_first else turns[1:]
        after = REMOVE if left else DONE
        yield published._replace(given=Given(event, after, left))
    elif at == REMOVE:
        removed = world._replace(waits=world.waits - {turns[0]})
        left = turns[1:] if waiting.publishes_first else turns
        yield removed._replace(given=Given(event, PUBLISH if left else DONE, left))
    else:
        yield world._replace(given=None, handled=world.handled | {event})
