"""Every history of a step that spawns three children in a window of one or two, one of which fails.

The rule is the engine's own, `jetflow.engine.windows`. A body takes the inputs in order, spawns while there is room,
hears of children that end, or finds them when it looks, and stores pages. It is parked while it waits, or its worker
dies, or it is cut off and goes on beside its successor; a child that is about to be stored when its worker dies may be
stored, or not. Whoever begins goes on from the newest page. Checked is what is promised: never more are open than the
window has, every input is a child, the step ends when all have, and each is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from jetflow.engine.windows import Page, Window
from tests.model.explorer import Report, Seen, walk

NAME: Final = "a step that spawns in a window"

INPUTS: Final = 3
FAILS: Final = 1
"""The input whose child does not end well."""

BEGIN, RUN, SENT, PAGED = range(4)
"""What a worker does next: it reads the newest page, goes on, waits for a child to be stored, or stores a page."""


class Body(NamedTuple):
    """A worker with the step: how far it is with its window, and the children that it does not look for."""

    at: int = BEGIN
    spawned: int = 0
    open: tuple[int, ...] = ()
    failed: int = 0
    heard_of: frozenset[int] = frozenset()


class Pages(NamedTuple):
    """What one page says."""

    spawned: int
    open: tuple[int, ...]
    failed: int


class World(NamedTuple):
    """What stands where. ``size`` is that of the window."""

    size: int = 2
    stored: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    counter: int = 0
    pages: tuple[Pages, ...] = ()
    bodies: tuple[Body, ...] = ()
    result: tuple[int, int] = (-1, -1)
    crashes: int = 1
    zombies: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Spawning:
    """How a stream is spawned. The right way is `RIGHT`; each other is a planted bug."""

    pages_behind: bool = True
    keeps_open: bool = True
    keeps_failed: bool = True
    counts_ids: bool = True
    drains: bool = True
    looks: bool = True
    waits_for_found: bool = True
    restarts_whole: bool = True
    takes_one_place_each: bool = True


RIGHT: Final = Spawning()
BUGS: Final = {
    "a page says that a child is stored before it is": Spawning(pages_behind=False),
    "a page leaves out which children are open": Spawning(keeps_open=False),
    "a page leaves out how many have failed": Spawning(keeps_failed=False),
    "the counter, which may count twice, tells the room": Spawning(counts_ids=False),
    "the step ends with its source": Spawning(drains=False),
    "who begins anew only listens": Spawning(looks=False),
    "a child that is there already is not waited for": Spawning(waits_for_found=False),
    "who begins anew counts again what it has counted": Spawning(restarts_whole=False),
    "there is room for one child too many": Spawning(takes_one_place_each=False),
}


def explore(spawning: Spawning = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the step."""

    def look(world: World) -> Seen[World]:
        after = list(_next(world, spawning))
        return Seen(after, _wrong(world, is_final=not after), not after)

    return walk(NAME, [World(size) for size in (2, 1)], look, stop_at_first=stop_at_first)


def hunt(bug: Spawning) -> Report | None:
    """Return the search that caught a way to spawn that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(world: World, *, is_final: bool) -> str:
    if len(world.stored - world.ended) > world.size:
        return f"too many: more are open than the window has: {world}"
    if world.result != (-1, -1):
        if world.stored != frozenset(range(INPUTS)):
            return f"lost: an input has no child: {world}"
        if world.ended != world.stored:
            return f"early: a child is open: {world}"
        if world.result != (INPUTS, 1):
            return f"miscounted: {world.result} were counted: {world}"
    elif is_final:
        return f"stuck: the step never ends: {world}"
    return ""


def _next(world: World, spawning: Spawning) -> Iterator[World]:
    if world.result != (-1, -1):
        return
    for child in world.stored - world.ended:
        ended = world._replace(ended=world.ended | {child})
        if not spawning.looks:
            heard = [body._replace(heard_of=body.heard_of | {child}) for body in world.bodies]
            ended = ended._replace(bodies=_sorted(*heard))
        if not spawning.counts_ids:
            ended = ended._replace(counter=world.counter + 1)
        yield ended
        if world.repeats and not spawning.counts_ids:  # its worker died behind the count, and it is counted again
            yield ended._replace(counter=world.counter + 2, repeats=world.repeats - 1)
    alive = len(world.bodies)
    if not alive or (world.zombies and alive == 1):
        yield world._replace(bodies=_sorted(*world.bodies, Body()), zombies=world.zombies - (alive == 1))
    for number, body in enumerate(world.bodies):
        rest = world._replace(bodies=world.bodies[:number] + world.bodies[number + 1 :])
        if world.crashes:
            yield rest._replace(crashes=world.crashes - 1)
            if body.at == SENT:  # what was under way comes in time, or never
                yield _stored(rest, body)._replace(crashes=world.crashes - 1)
        yield from _of_body(rest, body, spawning)


def _sorted(*bodies: Body) -> tuple[Body, ...]:
    return tuple(sorted(bodies, key=lambda body: (*body[:4], sorted(body.heard_of))))


def _stored(world: World, body: Body) -> World:
    return world._replace(stored=world.stored | {body.spawned - 1})


def _window(body: Body, size: int) -> Window:
    """Return the engine's own window of a body."""
    page = Page(spawned=body.spawned, open=b"".join(_id(child) for child in body.open), failed=body.failed)
    return Window(size, page)


def _id(child: int) -> bytes:
    return bytes([child]) * 16


def _body(at: int, window: Window, heard: frozenset[int]) -> Body:
    open_ones = tuple(sorted(child[0] for child in window.open))
    return Body(at, window.spawned, open_ones, window.failed, heard & frozenset(open_ones))


def _of_body(world: World, body: Body, spawning: Spawning) -> Iterator[World]:
    def go_on(there: World, after: Body) -> World:
        return there._replace(bodies=_sorted(*there.bodies, after))

    if body.at == BEGIN:
        yield go_on(world, _begun(world, spawning))
        return
    window = _window(body, world.size)
    if body.at == SENT:
        found = body.spawned - 1 in world.stored
        if found and not spawning.waits_for_found:
            window.end(_id(body.spawned - 1), well=body.spawned - 1 != FAILS)
        after = _stored(world, body)
        yield go_on(after, _body(RUN, window, body.heard_of))
        if not spawning.pages_behind:
            yield go_on(_paged(world, body, spawning), body)
        return
    if body.at == PAGED:
        yield go_on(_paged(world, body, spawning), _body(RUN, window, body.heard_of))
        return
    yield from _running(world, body, window, spawning)


def _running(world: World, body: Body, window: Window, spawning: Spawning) -> Iterator[World]:
    def go_on(after: Body) -> World:
        return world._replace(bodies=_sorted(*world.bodies, after))

    ended = [child for child in body.open if child in (world.ended if spawning.looks else body.heard_of)]
    for child in ended:
        hearing = _window(body, world.size)
        hearing.end(_id(child), well=child != FAILS)
        yield go_on(_body(RUN, hearing, body.heard_of))
    room = window.room if spawning.counts_ids else world.size - (body.spawned - world.counter)
    if body.spawned < INPUTS and room + (not spawning.takes_one_place_each) > 0:
        window.spawn([_id(body.spawned)])
        yield go_on(_body(SENT, window, body.heard_of))
    elif body.spawned == INPUTS and not (window.open and spawning.drains):
        yield world._replace(result=(body.spawned, body.failed))
    if body.spawned and body.spawned not in {page.spawned for page in world.pages}:
        yield go_on(body._replace(at=PAGED))


def _paged(world: World, body: Body, spawning: Spawning) -> World:
    """Store a page, write-once for how many were spawned."""
    if body.spawned in {page.spawned for page in world.pages}:
        return world
    page = Pages(body.spawned, body.open if spawning.keeps_open else (), body.failed if spawning.keeps_failed else 0)
    return world._replace(pages=(*world.pages, page))


def _begun(world: World, spawning: Spawning) -> Body:
    """Go on from the page that was stored last."""
    if not world.pages:
        return Body(RUN)
    newest = world.pages[-1]
    if not spawning.restarts_whole:
        return Body(RUN, 0, (), newest.failed)
    return Body(RUN, newest.spawned, newest.open, newest.failed)
