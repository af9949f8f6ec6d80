"""Every history of a step that is skipped, cancelled or run by what comes first.

It is skipped at one event, cancelled at a time, and run at another event if a function says so, which another version
of the code answers otherwise. A turn reads what was decided; else what is recorded of its conditions, which it resolves
and records if nothing is; looks at one event after the other, and once more if it could decide; and records what it has
come to by the engine's rule, or parks. A parked turn stores its record, arms its timer, stores its waits, looks again,
and is acknowledged. Events come at any time, or before the step's turn. A worker dies at any place, or a turn is
delivered again while the first delivery of it goes on; once a new version of the code takes over.

Checked is what is promised: the step comes to an end as soon as something decides, to one, and to that of what came
first, whenever somebody looked; its body never begins before that is recorded; and what is recorded never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, Final, NamedTuple

from jetflow.engine.awaiting import Awaited
from jetflow.engine.conditions import Armed, Decided, Term, Undecided, weigh
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a step with conditions"

EVENTS: Final = (Awaited(topic="skip"), Awaited(topic="run"))
TIMER: Final = "cancel"
EARLY: Final = "early"
"""An event to skip by, from before the steps before had ended."""

HAPPENS: Final = ("skip", "run", TIMER)
"""Each comes once, at any time, or never."""

READ, RESOLVE, FIRST, SECOND, DECIDE, ACT, JOIN, ARM, STAND, LOOK_AGAIN, WAKE, ACK = range(12)
"""What a worker does next with a turn."""


class Body(NamedTuple):
    """A worker with one turn. ``holds`` is what the function has said, ``seen`` are the events that it has found.

    ``is_late`` says that the time was over when it began to look, ``looks`` how often it has looked.
    """

    turn: int
    at: int = READ
    holds: int = -1
    seen: tuple[bool, bool] = (False, False)
    is_late: bool = False
    looks: int = 0
    verdict: str = ""


class World(NamedTuple):
    """What stands where. ``history`` is what has happened; a place in it is a time.

    ``holds`` is what is recorded of the function, -1 if nothing is, and ``code`` what it says now. ``decided`` is the
    verdict that is recorded, ``end`` the step's; ``ran`` says that its body has begun, ``wrong`` what went wrong.
    """

    history: tuple[str, ...] = ()
    code: int = 1
    holds: int = -1
    decided: str = ""
    end: str = ""
    ran: bool = False
    turns: frozenset[int] = frozenset({0})
    acked: frozenset[int] = frozenset()
    parked: frozenset[int] = frozenset()
    timers: frozenset[int] = frozenset()
    waits: frozenset[tuple[int, str]] = frozenset()
    bodies: tuple[Body, ...] = ()
    unhandled: frozenset[str] = frozenset()
    wrong: str = ""
    crashes: int = 0
    again: int = 0
    deploys: int = 0


STARTS: Final = (
    World(crashes=1),
    World(again=1),
    World(deploys=1, crashes=1),
    World(deploys=1, again=1),
    World(code=0, crashes=1),
    World(history=(EARLY,), crashes=1),
)


@dataclass(frozen=True)
class Deciding:
    """How a step is decided. The right way is `RIGHT`; each other is a planted bug, to be seen from one of `STARTS`."""

    start: int = 0

    write_once: bool = True
    heeds_record: bool = True
    records_first: bool = True
    resolves_once: bool = True
    heeds_resolved: bool = True
    looks_twice: bool = True
    stands_first: bool = True
    looks_again: bool = True
    arms: bool = True
    arms_again: bool = True
    waits_for_all: bool = True
    from_its_turn: bool = True
    by_time: bool = True
    knows_never: bool = True


RIGHT: Final = Deciding()
BUGS: Final = {
    "what is decided is not write-once": Deciding(write_once=False, looks_twice=False, start=1),
    "a worker goes by its own decision": Deciding(heeds_record=False, looks_twice=False, start=1),
    "the body begins before that is recorded": Deciding(records_first=False, looks_twice=False),
    "what the function says is recorded anew in each turn": Deciding(resolves_once=False, start=2),
    "a worker goes by what the function has told it": Deciding(heeds_resolved=False, start=3),
    "events are looked at once, one after the other": Deciding(looks_twice=False),
    "it looks again before its waits stand": Deciding(stands_first=False),
    "nobody looks once its waits stand": Deciding(looks_again=False),
    "no timer is armed": Deciding(arms=False),
    "a parked turn that is delivered again arms nothing": Deciding(arms_again=False),
    "it waits only for what would run it": Deciding(waits_for_all=False),
    "events from before its turn count": Deciding(from_its_turn=False, start=5),
    "skipping goes first, though it came later": Deciding(by_time=False),
    "a step that can never run waits for ever": Deciding(knows_never=False, start=4),
}


def explore(deciding: Deciding = RIGHT, start: World = STARTS[0], *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the step."""

    def look(world: World) -> Seen[World]:
        done = list(_by_workers(world, deciding))
        after = [*_from_outside(world), *done]
        return Seen(after, _wrong(world, is_quiet=not done), not after)

    return walk(f"{NAME} {STARTS.index(start)}", [start], look, stop_at_first=stop_at_first)


def hunt(bug: Deciding) -> Report | None:
    """Return the search that caught a way to decide that is wrong."""
    report = explore(bug, STARTS[bug.start], stop_at_first=True)
    return report if report.violations else None


def _time(world: World, what: str) -> float:
    return float(world.history.index(what)) if what in world.history else inf


def _right(world: World) -> str:
    """Return the end that the step has to come to, by what has happened; empty while it has none."""
    if world.holds == 0:
        return "skip"
    first = min(("skip", TIMER, "run"), key=lambda verdict: _time(world, verdict))
    return first if first in world.history else ""


def _wrong(world: World, *, is_quiet: bool) -> str:
    right = _right(world)
    if world.wrong:
        return f"{world.wrong}: {world}"
    if world.ran and world.decided != "run":
        return f"twice: the body has begun, and {world.decided or 'nothing'} is decided: {world}"
    if world.decided and world.decided != right:
        return f"wrong: {world.decided} is decided, and {right or 'nothing'} came first: {world}"
    if world.end and world.end != world.decided:
        return f"wrong: it ends by {world.end}, and {world.decided or 'nothing'} is decided: {world}"
    if is_quiet and right and not world.end:
        return f"stuck: {right} has come, and the step does not end: {world}"
    return ""


def _from_outside(world: World) -> Iterator[World]:
    if world.end:
        return
    for what in HAPPENS:
        if what not in world.history:
            given = frozenset[str]() if what == TIMER else frozenset({what})
            yield world._replace(history=(*world.history, what), unhandled=world.unhandled | given)
    if world.deploys:
        yield world._replace(code=1 - world.code, deploys=0)
    for number in range(len(world.bodies)) if world.crashes else ():
        yield world._replace(bodies=world.bodies[:number] + world.bodies[number + 1 :], crashes=world.crashes - 1)


def _by_workers(world: World, deciding: Deciding) -> Iterator[World]:
    for turn in world.timers if TIMER in world.history else ():
        yield world._replace(timers=world.timers - {turn}, turns=world.turns | {turn + 1})
    for topic in world.unhandled:  # whoever is given an event wakes all that wait for it
        woken = {turn for turn, wanted in world.waits if wanted == topic}
        yield world._replace(
            unhandled=world.unhandled - {topic},
            turns=world.turns | {turn + 1 for turn in woken},
            waits=frozenset(wait for wait in world.waits if wait[0] not in woken),
        )
    running = {body.turn for body in world.bodies}
    for turn in world.turns - world.acked:
        if (turn in running and not world.again) or len(world.bodies) > 1:
            continue
        at = READ if turn not in world.parked else ARM if deciding.arms_again else ACK
        begun = Body(turn, ACK if world.end else at)
        yield world._replace(bodies=_sorted(*world.bodies, begun), again=world.again - (turn in running))
    for number, body in enumerate(world.bodies):
        others = world.bodies[:number] + world.bodies[number + 1 :]
        yield _gone_on(world._replace(bodies=others), body, deciding)


def _sorted(*bodies: Body) -> tuple[Body, ...]:
    return tuple(sorted(bodies))


def _is_there(world: World, number: int, deciding: Deciding) -> bool:
    return EVENTS[number].topic in world.history or (number == 0 and _is_early(world, deciding))


def _is_early(world: World, deciding: Deciding) -> bool:
    return EARLY in world.history and not deciding.from_its_turn


def _weighed(world: World, body: Body, deciding: Deciding) -> Decided | Undecided:
    return _decide(world.history, body.holds, body.seen, body.is_late, deciding)


@cache
def _decide(
    history: tuple[str, ...], holds: int, both: tuple[bool, bool], is_late: bool, deciding: Deciding
) -> Decided | Undecided:
    """Decide by the engine's rule. The time has the place in the history at which it came."""
    world, body = World(history=history), Body(0, holds=holds, seen=both, is_late=is_late)
    seen = [event for event, is_seen in zip(EVENTS, body.seen, strict=True) if is_seen]
    came = {event.whole: _time(world, event.topic) for event in seen}
    if body.seen[0] and _is_early(world, deciding):
        came[EVENTS[0].whole] = -1.0
    late = _time(world, TIMER)  # which is known before it comes
    fact = Term(holds=bool(body.holds))
    if not body.holds and not deciding.knows_never:
        fact = Term(event=Awaited(topic="nothing"))
    skip, run = (Term(event=event) for event in EVENTS)
    armed = Armed(at=-1.0, skip=((skip,),), cancel=((Term(until=late),),), run=((run,), (fact,)))
    if body.seen[0] and not deciding.by_time:
        return Decided(verdict="skip")
    return weigh(armed, late if body.is_late else -1.0, came)


def _gone_on(world: World, body: Body, deciding: Deciding) -> World:
    def go_on(at: int, there: World = world, **changed: Any) -> World:
        return there._replace(bodies=_sorted(*there.bodies, body._replace(at=at, **changed)))

    if body.at in (READ, RESOLVE):
        return _resolving(world, body, deciding, go_on)
    if body.at in (FIRST, SECOND):
        return _looking(world, body, deciding, go_on)
    if body.at in (DECIDE, ACT):
        return _decided(world, body, deciding, go_on)
    if body.at == ACK:
        return world._replace(acked=world.acked | {body.turn})
    return _parking(world, body, deciding, go_on)


def _resolving(world: World, body: Body, deciding: Deciding, go_on: Callable[..., World]) -> World:
    if body.at == READ:
        if world.decided:
            return go_on(ACT, verdict=world.decided)
        known = world.holds if world.holds >= 0 and deciding.resolves_once else world.code
        return go_on(FIRST if known == world.holds else RESOLVE, holds=known)
    recorded = world.holds if world.holds >= 0 and deciding.resolves_once else body.holds
    wrong = "changed: what is recorded of the conditions is another thing now" if recorded < world.holds else ""
    there = world._replace(holds=recorded, wrong=wrong)
    return go_on(FIRST, there, holds=recorded if deciding.heeds_resolved else body.holds)


def _looking(world: World, body: Body, deciding: Deciding, go_on: Callable[..., World]) -> World:
    if body.at == FIRST:  # the clock, then one event
        is_late = body.is_late if body.looks else TIMER in world.history
        return go_on(SECOND, seen=(_is_there(world, 0, deciding), body.seen[1]), is_late=is_late)
    looked = body._replace(seen=(body.seen[0], _is_there(world, 1, deciding)))
    found = _weighed(world, looked, deciding)
    if isinstance(found, Undecided):
        return go_on(JOIN, seen=(False, False), is_late=False, looks=0)
    if deciding.looks_twice and not body.looks:
        return go_on(FIRST, seen=looked.seen, looks=1)
    return go_on(DECIDE, seen=(False, False), is_late=False, looks=0, verdict=found.verdict)


def _decided(world: World, body: Body, deciding: Deciding, go_on: Callable[..., World]) -> World:
    if body.at == ACT:
        end = world.end or body.verdict
        return go_on(ACK, world._replace(end=end, ran=world.ran or body.verdict == "run"))
    if not deciding.records_first and body.verdict == "run" and not world.ran:
        return go_on(DECIDE, world._replace(ran=True))
    stands = world.decided if world.decided and deciding.write_once else body.verdict
    wrong = "changed: what was decided is another thing now" if world.decided not in ("", stands) else ""
    there = world._replace(decided=stands, wrong=wrong)
    return go_on(ACT, there, verdict=stands if deciding.heeds_record else body.verdict)


def _parking(world: World, body: Body, deciding: Deciding, go_on: Callable[..., World]) -> World:
    turn = body.turn
    if body.at == JOIN:
        return go_on(ARM, world._replace(parked=world.parked | {turn}))
    if body.at == ARM:
        armed = world._replace(timers=world.timers | {turn}) if deciding.arms else world
        return go_on(STAND if deciding.stands_first else LOOK_AGAIN, armed)
    if body.at == STAND:
        wanted = ("skip", "run") if deciding.waits_for_all else ("run",)
        after = LOOK_AGAIN if deciding.looks_again and deciding.stands_first else ACK
        return go_on(after, world._replace(waits=world.waits | {(turn, topic) for topic in wanted}))
    if body.at == LOOK_AGAIN:
        found = "skip" in world.history or "run" in world.history
        return go_on(WAKE if found else ACK if deciding.stands_first else STAND)
    return go_on(ACK, world._replace(turns=world.turns | {turn + 1}))
