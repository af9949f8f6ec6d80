"""Every history of a join whose policy is loosened while its step waits, over the engine's own rules.

A worker parks a step: it stores the record and counts it, and dies anywhere between. Children end: each stores its
outcome, counts, and looks if the counter says so and the ledger of its worker does not spare it. One child never ends.
Two who loosen read the newest record, store a looser one behind it if nothing was stored meanwhile, count, and look;
each may die anywhere, and then asks again. A step that goes on reads what was loosened, decides, and may fail, be tried
again, and wait once more. Checked is what is promised: a step goes on only when the policy that it has is met, never
asks for more than before, decides in each attempt as before, and goes on if what has ended is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jetflow.engine.joins import SEAL, JoinRecord, Loosened
from jetflow.engine.loosening import COUNTED, is_of_retry, loosened, policy_of, same, tighter, why_not
from jetflow.engine.policies import JoinPolicy
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a join that is loosened while it waits"

CHILDREN: Final = 3
IDS: Final = tuple(bytes([number + 1]) * 16 for number in range(CHILDREN))
ENDING: Final = (0, 1)
"""The children that end."""

ASKED: Final = JoinPolicy.all_succeed()
LOOSER: Final = (JoinPolicy.of_quorum(2), JoinPolicy.of_quorum(1))
"""What the two who loosen ask for. The first is enough for the children that end."""

NOTHING: Final[Any] = None
"""The output in a record: what JSON would be there cannot be hashed."""

RUNNING, STORED, PARKED = range(3)
STORE, COUNT, LOOK, OVER = range(4)


class World(NamedTuple):
    """What stands where. ``records`` are those of the step, oldest first; ``woken`` is the turn that was published.

    ``worth`` is what the ledger says. ``decided`` is by how many successes the join was decided: 0 if it was not, -1 if
    a later attempt has found it open.
    """

    records: tuple[JoinRecord, ...] = ()
    counter: int = 0
    body: int = RUNNING
    turn: int = 0
    woken: int = 0
    ended: frozenset[int] = frozenset()
    counted: frozenset[int] = frozenset()
    worth: int = 0
    asking: tuple[tuple[int, JoinRecord | None], ...] = ((STORE, None),) * len(LOOSER)
    decided: int = 0
    retries: int = 1
    sleeps: int = 1
    crashes: int = 1


@dataclass(frozen=True)
class Way:
    """How a join is loosened. The right way is `RIGHT`; each other is a planted bug."""

    compares: bool = True
    counts: bool = True
    looks: bool = True
    counts_first: bool = False
    refuses: bool = True
    tells: bool = True
    carries: bool = True
    passes_over_retries: bool = True
    repeats: bool = True


RIGHT: Final = Way()
BUGS: Final = {
    "a looser record is stored over whatever is there": Way(compares=False),
    "a looser record is not counted": Way(counts=False),
    "a looser record is not looked at": Way(looks=False),
    "a looser record is counted before it is stored": Way(counts_first=True),
    "a policy is tightened": Way(refuses=False),
    "the code is not told of what was loosened": Way(tells=False),
    "a record of a later turn does not tell": Way(carries=False),
    "the record of a failed attempt is taken for all that is told": Way(passes_over_retries=False),
    "who asks again does nothing": Way(repeats=False),
}


def explore(way: Way = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the join, in its first turn and in one behind another."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, way))
        return Seen(after, _wrong(world, is_final=not after), not after)

    worlds = [World(), World(counter=SEAL)]
    return walk(NAME, worlds, look, stop_at_first=stop_at_first)


def hunt(bug: Way) -> Report | None:
    """Return the search that caught a way to loosen that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _record(world: World, policy: JoinPolicy, told: tuple[Loosened, ...]) -> JoinRecord:
    return JoinRecord(
        kind="parked",
        turn=world.turn,
        task="",
        output=NOTHING,
        needed=policy.threshold(CHILDREN),
        total=CHILDREN,
        policy=policy,
        members=b"".join(IDS),
        loosable=True,
        loosened=told,
    )


def _told(world: World, way: Way) -> tuple[Loosened, ...]:
    for record in reversed(world.records):
        if not (way.passes_over_retries and is_of_retry(record)):
            return record.loosened
    return ()


def _policy(world: World, way: Way) -> JoinPolicy:
    told = _told(world, way) if world.turn and way.tells else ()
    return policy_of(told, IDS) or ASKED


def _wrong(world: World, *, is_final: bool) -> str:
    if world.decided < 0:
        return f"otherwise: an attempt finds open what one before has found decided: {world}"
    by_turn: dict[int, int] = {}
    for record in world.records:
        if not record.counted:
            continue
        if record.policy.successes(CHILDREN) > by_turn.get(record.turn, CHILDREN):
            return f"tightened: a turn asks for more than before: {world}"
        by_turn[record.turn] = record.policy.successes(CHILDREN)
    if world.woken and world.decided == 0:
        fewest = min((one.policy.successes(CHILDREN) for one in world.records if one.counted), default=CHILDREN)
        if len(world.ended) < fewest:
            return f"early: the step goes on: {world}"
    asked = [one for one, (at, _) in zip(LOOSER, world.asking, strict=True) if at == OVER]
    enough = any(one.successes(CHILDREN) <= len(world.ended) for one in asked)
    if is_final and enough and not world.decided:
        return f"stuck: enough have ended, and the step waits: {world}"
    return ""


def _next(world: World, way: Way) -> Iterator[World]:
    yield from _of_children(world)
    yield from _of_those_who_loosen(world, way)
    yield from _of_the_step(world, way)


def _of_the_step(world: World, way: Way) -> Iterator[World]:
    if world.body == RUNNING:
        policy = _policy(world, way)
        verdict = policy.verdict(CHILDREN, len(world.ended), len(world.ended))
        told = _told(world, way) if world.turn and way.carries else ()
        if verdict != "met":
            if world.decided:
                yield world._replace(decided=-1)
                return
            record = _record(world, policy, told)
            yield world._replace(records=(*world.records, record), body=STORED)
            return
        by = policy.successes(CHILDREN)
        if world.retries:  # the attempt fails behind its join, and the next turn is of its retry
            record = JoinRecord(kind="parked", turn=world.turn, task="", output=NOTHING, needed=0, until=1.0, tried=1)
            turn = world.turn + 1
            yield world._replace(
                records=(*world.records, record), turn=turn, woken=turn, decided=by, retries=world.retries - 1
            )
        if world.sleeps:  # behind its join it is parked for something else
            record = JoinRecord(
                kind="parked", turn=world.turn, task="", output=NOTHING, needed=0, until=1.0, loosened=told
            )
            turn = world.turn + 1
            yield world._replace(
                records=(*world.records, record), turn=turn, woken=turn, decided=by, sleeps=world.sleeps - 1
            )
        yield world._replace(body=OVER, decided=by)
    elif world.body == STORED:  # who dies before it has counted is delivered again, and counts
        own = next(one for one in world.records if one.turn == world.turn and not one.looser)
        counted = world._replace(counter=world.counter + own.increment, body=PARKED)
        yield _looked(counted, counted.counter) if counted.counter >= SEAL or own.policy.early else counted
    elif world.body == PARKED and world.woken > world.turn:
        yield world._replace(body=RUNNING, turn=world.woken)


def _of_children(world: World) -> Iterator[World]:
    for child in ENDING:
        if child not in world.ended:
            yield world._replace(ended=world.ended | {child})
        elif child not in world.counted:
            value = world.counter + 1
            after = world._replace(counter=value, counted=world.counted | {child})
            yield _looked(after, value) if value >= SEAL else after


def _looked(world: World, value: int | None) -> World:
    """Look at the newest record. ``value`` is what the counter says: the ledger may spare the look."""
    if not world.records or (value is not None and value < world.worth):
        return world
    record = world.records[-1]
    if not record.counted:
        return world
    ended = len(world.ended)
    missing = record.policy.missing(record.total, ended, ended)
    if record.needed - ended > 0 and not record.policy.early:
        missing = max(missing, record.needed - ended)
    if missing > 0:
        return world if value is None else world._replace(worth=value + missing)
    return world._replace(woken=max(world.woken, record.turn + 1))


def _of_those_who_loosen(world: World, way: Way) -> Iterator[World]:
    for number, (at, read) in enumerate(world.asking):
        policy = LOOSER[number]
        if at == OVER:
            continue
        if world.crashes and (at > STORE or read is not None):  # and asks again
            again = (STORE, None) if way.repeats or at == STORE else (OVER, None)
            yield _asks(world, number, again)._replace(crashes=world.crashes - 1)
        if at == STORE and read is None:
            yield from _reads(world, number, policy, way)
        elif at == STORE and read is not None:
            newest = world.records[-1]
            if way.compares and newest is not read:
                yield _asks(world, number, (STORE, None))
                continue
            record = loosened(read, policy, read.members)
            yield _asks(world, number, (LOOK if way.counts_first else COUNT, None))._replace(
                records=(*world.records, record)
            )
        elif at == COUNT:
            by = COUNTED if way.counts else 0
            yield _asks(world, number, (LOOK, None))._replace(counter=world.counter + by)
        elif at == LOOK:
            after = _asks(world, number, (OVER, None))
            yield _looked(after, None) if way.looks else after


def _reads(world: World, number: int, policy: JoinPolicy, way: Way) -> Iterator[World]:
    """Read the newest record, if the step waits: who is told that it does not waits until it does."""
    if not world.records or world.woken > world.records[-1].turn:
        return
    record = world.records[-1]
    if why_not(record) is not None:
        return
    if same(record.policy, policy):
        yield _asks(world, number, (COUNT if way.repeats else OVER, None))
    elif way.refuses and tighter(record.policy, policy, CHILDREN) is not None:
        yield _asks(world, number, (OVER, None))
    else:
        counter = world.counter + (COUNTED if way.counts_first else 0)
        yield _asks(world, number, (STORE, record))._replace(counter=counter)


def _asks(world: World, number: int, state: tuple[int, JoinRecord | None]) -> World:
    asking = list(world.asking)
    asking[number] = state
    return world._replace(asking=tuple(asking))
