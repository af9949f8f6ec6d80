"""Every history of a key that stands for a run until that has ended: three triggers, of which one may die at any place.

Each reads for which run the key stands, and what is stored of it; then, as the engine's own rule says, it leaves it at
that, starts that run, or claims the key for a run of its own and starts it. A run ends at any time once it is stored.
Checked is what is promised: never two runs of the key that go on, and whoever was told of a run finds it stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from jetflow.engine.holding import Found, Hold, Holder, verdict
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a key that stands for a run until it has ended"

TRIGGERS: Final = 3

READ, LOOK, DECIDE, CLAIM, START, TOLD, GONE = range(7)
"""What a trigger does next."""


class Trigger(NamedTuple):
    """One that triggers: ``run`` is what it has read, starts, or was told of; ``seen`` how often it was claimed."""

    at: int = READ
    run: int = 0
    seen: int = 0
    found: Found = "absent"


class World(NamedTuple):
    """For which run the key stands (0: none), how often it was claimed, and which runs are stored, and have ended."""

    triggers: tuple[Trigger, ...] = (Trigger(),) * TRIGGERS
    holder: int = 0
    claims: int = 0
    stored: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    crashes: int = 1


@dataclass(frozen=True)
class Claiming:
    """How a key is claimed. The right way is `RIGHT`; each other is a planted bug."""

    claims_first: bool = True
    compares: bool = True
    helps: bool = True
    starts_what_it_finds: bool = True
    reads_again: bool = True


RIGHT: Final = Claiming()
BUGS: Final = {
    "a run is started before its key is claimed": Claiming(claims_first=False),
    "a claim replaces whatever is there": Claiming(compares=False),
    "a claim whose run is not stored yet counts for nothing": Claiming(helps=False),
    "a claim whose run is not stored is left at that": Claiming(starts_what_it_finds=False),
    "a claim that was refused starts its run all the same": Claiming(reads_again=False),
}


def explore(claiming: Claiming = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the key."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, claiming))
        return Seen(after, _wrong(world), not after)

    return walk(NAME, [World()], look, stop_at_first=stop_at_first)


def hunt(bug: Claiming) -> Report | None:
    """Return the search that caught a way to claim that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(world: World) -> str:
    going_on = world.stored - world.ended
    if len(going_on) > 1:
        return f"twice: runs {sorted(going_on)} of one key go on: {world}"
    for trigger in world.triggers:
        if trigger.at == TOLD and trigger.run not in world.stored:
            return f"lost: somebody was told of run {trigger.run}, which is not stored: {world}"
    return ""


def _next(world: World, claiming: Claiming) -> Iterator[World]:
    for run in world.stored - world.ended:
        yield world._replace(ended=world.ended | {run})
    for number, trigger in enumerate(world.triggers):
        if trigger.at in (TOLD, GONE):
            continue
        if world.crashes:
            yield _with(world, number, Trigger(GONE))._replace(crashes=world.crashes - 1)
        yield _moved(world, number, trigger, claiming)


def _with(world: World, number: int, trigger: Trigger) -> World:
    triggers = list(world.triggers)
    triggers[number] = trigger
    return world._replace(triggers=tuple(triggers))


def _moved(world: World, number: int, trigger: Trigger, claiming: Claiming) -> World:
    own = number + 1
    if trigger.at == READ:
        return _with(world, number, Trigger(LOOK, world.holder, world.claims))
    if trigger.at == LOOK:
        run = trigger.run
        found: Found = "ended" if run in world.ended else "open" if run in world.stored else "absent"
        return _with(world, number, trigger._replace(at=DECIDE, found=found))
    if trigger.at == DECIDE:
        return _with(world, number, _decided(trigger, own, claiming))
    if trigger.at == CLAIM:
        return _claimed(world, number, trigger, own, claiming)
    stored = world._replace(stored=world.stored | {trigger.run})
    at = TOLD if claiming.claims_first or trigger.run != own else CLAIM
    return _with(stored, number, trigger._replace(at=at))


def _decided(trigger: Trigger, own: int, claiming: Claiming) -> Trigger:
    holder = Holder(str(trigger.run), 0.0) if trigger.run else None
    what = verdict(Hold(running=True), holder, trigger.found, now=1.0)
    if what == "start" and not claiming.helps:
        what = "claim"
    if what == "start" and not claiming.starts_what_it_finds:
        what = "there"
    if what == "there":
        return trigger._replace(at=TOLD)
    if what == "start":
        return trigger._replace(at=START)
    return trigger._replace(at=CLAIM if claiming.claims_first else START, run=own)


def _claimed(world: World, number: int, trigger: Trigger, own: int, claiming: Claiming) -> World:
    after = START if claiming.claims_first else TOLD
    if claiming.compares and trigger.seen != world.claims:
        at = READ if claiming.reads_again and claiming.claims_first else after
        return _with(world, number, Trigger(at, own))
    claimed = world._replace(holder=own, claims=world.claims + 1)
    return _with(claimed, number, trigger._replace(at=after, run=own))
