"""Every history of a child that two steps spawn in a tree that is cancelled meanwhile.

The first step has spawned it, and a worker has its task. Cancelling removes the task, and not everybody has heard of it
then: the second step may spawn the child again, and a second worker end it beside the first. Workers die, and what is
still stored is delivered again. Checked is what is promised: one outcome at most, under whichever step, one at least if
a task is stored, and no task that is held for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.model.explorer import Report, Seen, walk

NAME: Final = "a child that two steps of a cancelled tree share"

ABSENT, HELD, ENDING, REFUSED, DONE = range(5)
"""How far a worker is with one task: it has it, is about to store an outcome, was told that there is one."""

FIRST, SECOND = range(2)


class Tree(NamedTuple):
    """What stands where. ``stored`` and ``outcomes`` are the steps under which a task or an outcome is stored.

    ``workers`` is how far the worker of each step's task is. ``crashes`` may come yet.
    """

    cancelled: bool = False
    stored: frozenset[int] = frozenset({FIRST})
    outcomes: tuple[int, ...] = ()
    workers: tuple[int, int] = (HELD, ABSENT)
    spawned: bool = False
    crashes: int = 2


@dataclass(frozen=True)
class Sharing:
    """How outcomes of the child are kept to one. The right way is `RIGHT`; each other is a planted bug."""

    guarded: frozenset[int] = frozenset({FIRST, SECOND})
    reads_any_step: bool = True


RIGHT: Final = Sharing()
BUGS: Final = {
    "an outcome is refused by one under its own step only": Sharing(guarded=frozenset()),
    "the outcome of the child that was put back is not guarded": Sharing(guarded=frozenset({FIRST})),
    "the outcome of the child whose task was removed is not guarded": Sharing(guarded=frozenset({SECOND})),
    "who was refused waits for an outcome under its own step": Sharing(reads_any_step=False),
}


def explore(sharing: Sharing = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the child."""

    def look(tree: Tree) -> Seen[Tree]:
        after = list(_next(tree, sharing))
        return Seen(after, _wrong(tree, is_final=not after), not after)

    return walk(NAME, [Tree()], look, stop_at_first=stop_at_first)


def hunt(bug: Sharing) -> Report | None:
    """Return the search that caught a way to keep outcomes to one that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(tree: Tree, *, is_final: bool) -> str:
    if len(tree.outcomes) > 1:
        return f"doubled: the child has two outcomes: {tree}"
    if is_final and any(step in tree.stored and tree.workers[step] != DONE for step in (FIRST, SECOND)):
        return f"stuck: a task is held for ever: {tree}"
    if is_final and tree.stored and not tree.outcomes:
        return f"lost: the child has a task and no outcome: {tree}"
    return ""


def _next(tree: Tree, sharing: Sharing) -> Iterator[Tree]:
    if not tree.cancelled:
        yield tree._replace(cancelled=True, stored=frozenset())
    if not tree.spawned:  # the second step, which has not heard: it attaches to the task that is stored, or stores one
        found = FIRST in tree.stored
        yield tree._replace(
            spawned=True,
            stored=tree.stored if found else tree.stored | {SECOND},
            workers=tree.workers if found else (tree.workers[FIRST], HELD),
        )
    for step, at in enumerate(tree.workers):
        yield from _of_worker(tree, step, at, sharing)


def _of_worker(tree: Tree, step: int, at: int, sharing: Sharing) -> Iterator[Tree]:
    if at in (ABSENT, DONE):
        return
    if tree.crashes:  # what is still stored is delivered again
        crashed = _at(tree, step, HELD if step in tree.stored else ABSENT)
        yield crashed._replace(crashes=tree.crashes - 1)
    if at == HELD:  # it ends as its body does or, of what was cancelled, without
        yield _at(tree, step, ENDING)
    elif at == ENDING:
        refused = bool(tree.outcomes) if step in sharing.guarded else step in tree.outcomes
        if refused:
            yield _at(tree, step, REFUSED)
        else:
            yield _at(tree, step, DONE)._replace(outcomes=(*tree.outcomes, step))
    elif at == REFUSED and (step in tree.outcomes or (sharing.reads_any_step and tree.outcomes)):
        yield _at(tree, step, DONE)


def _at(tree: Tree, step: int, at: int) -> Tree:
    workers = list(tree.workers)
    workers[step] = at
    return tree._replace(workers=(workers[FIRST], workers[SECOND]))
