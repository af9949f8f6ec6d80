"""Every history of a cancelled root's first task, which is purged with its tree and put back.

The identity of a keyed run, and its input, rest on that task. Two clients cancel the same tree, and may die at each
step of it or before a purge that they have sent has come to the server; a worker looks for what was not put back;
somebody deletes the tree at any moment. Checked is what is promised: in the end the task is there if the tree was not
deleted, it is not if it was, and no copy of it is left behind. (A worker that puts it back while the tree is deleted
does not die between that and its next look: this takes three things in one second.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.model.explorer import Report, Seen, walk

NAME: Final = "the first task of a cancelled tree"

FIRST: Final = "trigger"
READ, COPIED, PURGING, PURGED, PUT, DONE, DEAD = range(7)
"""What a client that cancels has done."""

WATCHING, PUTTING, CHECKING = range(3)
"""What a worker does about a copy: it looks, puts the task back, looks whether the tree was deleted meanwhile."""

IDLE, MARKED, DELETED = range(3)
"""What who deletes has done."""


class Store(NamedTuple):
    """What stands where. ``task`` is who has stored the first task, ``copies`` whose copies of it there are.

    ``purges`` are under way. ``net`` is what a worker does about it that has found a copy and no task.
    ``deleting`` is how far who deletes the tree is, who marks it first.
    """

    task: str = FIRST
    copies: frozenset[str] = frozenset()
    purges: frozenset[str] = frozenset()
    clients: tuple[int, int] = (READ, READ)
    net: int = WATCHING
    deleting: int = IDLE


@dataclass(frozen=True)
class Keeping:
    """How the task is kept. The right way is `RIGHT`; each other is a planted bug."""

    copies: bool = True
    own_copies: bool = True
    copies_first: bool = True
    puts_first: bool = True
    leaves_deleted: bool = True
    net_looks: bool = True
    net_waits: bool = True
    net_checks: bool = True
    net_cleans: bool = True


RIGHT: Final = Keeping()
BUGS: Final = {
    "there is no copy": Keeping(copies=False),
    "clients share one copy": Keeping(own_copies=False),
    "the copy is stored behind the purge": Keeping(copies_first=False),
    "the copy is removed before the task is put back": Keeping(puts_first=False),
    "a client removes the copy of a tree that was deleted": Keeping(leaves_deleted=False),
    "nobody looks for what was not put back": Keeping(net_looks=False),
    "a copy is removed while its purge may be under way": Keeping(net_waits=False),
    "a worker does not look again whether the tree was deleted": Keeping(net_checks=False),
    "what was put back of a deleted tree is left there": Keeping(net_cleans=False),
}


def explore(keeping: Keeping = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of the task."""

    def look(store: Store) -> Seen[Store]:
        after = list(_next(store, keeping))
        is_final = not after and store.deleting != MARKED
        return Seen([*after, *_of_deletion(store)], _wrong(store) if is_final else "", is_final)

    return walk(NAME, [Store()], look, stop_at_first=stop_at_first)


def hunt(bug: Keeping) -> Report | None:
    """Return the search that caught a way to keep the task that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(store: Store) -> str:
    if store.deleting == IDLE and not store.task:
        return f"lost: nobody puts the first task back: {store}"
    if store.deleting == DELETED and store.task:
        return f"wrong: a task is left of a deleted tree: {store}"
    return f"wrong: a copy is left behind: {store}" if store.copies else ""


def _next(store: Store, keeping: Keeping) -> Iterator[Store]:
    for number, done in enumerate(store.clients):
        yield from _of_client(store, number, done, keeping)
        if done < DONE:
            yield _at(store, number, DEAD)
    for owner in store.purges:
        yield store._replace(task="", purges=store.purges - {owner})
    if keeping.net_looks:
        yield from _of_net(store, keeping)


def _at(store: Store, number: int, done: int) -> Store:
    clients = list(store.clients)
    clients[number] = done
    return store._replace(clients=(clients[0], clients[1]))


def _owner(number: int, keeping: Keeping) -> str:
    return f"client {number}" if keeping.own_copies else "both clients"


def _of_client(store: Store, number: int, done: int, keeping: Keeping) -> Iterator[Store]:
    me, owner = f"client {number}", _owner(number, keeping)
    copied = store.copies | {owner} if keeping.copies else store.copies
    if done == READ and store.task:  # it has the task in its memory from here on
        yield _at(store._replace(copies=copied) if keeping.copies_first else store, number, COPIED)
    elif done == READ:
        yield _at(store, number, DONE)
    elif done == COPIED:
        yield _at(store._replace(purges=store.purges | {me}), number, PURGING)
    elif done == PURGING and me not in store.purges:
        late = store if keeping.copies_first else store._replace(copies=copied)
        yield _at(late if keeping.puts_first else _without(late, owner), number, PURGED)
    elif done == PURGED:
        yield _at(store._replace(task=store.task or me), number, PUT)
    elif done == PUT:
        leaves = keeping.leaves_deleted and store.deleting != IDLE
        yield _at(store if leaves else _without(store, owner), number, DONE)


def _of_net(store: Store, keeping: Keeping) -> Iterator[Store]:
    """A worker looks at each copy: it puts back what is missing, and removes the copy when it is old."""
    if store.net == PUTTING:
        yield store._replace(net=WATCHING) if store.task else store._replace(net=CHECKING, task="worker")
        return
    if store.net == CHECKING:
        deleted = keeping.net_checks and store.deleting != IDLE and store.task == "worker"
        yield store._replace(net=WATCHING, task="" if deleted else store.task)
        return
    is_old = not keeping.net_waits or _is_old(store)
    for owner in store.copies:
        if store.deleting == IDLE and not store.task:
            yield store._replace(net=PUTTING)
        elif is_old and store.deleting != IDLE and store.task and keeping.net_cleans:
            yield store._replace(task="")
        elif is_old:
            yield _without(store, owner)


def _is_old(store: Store) -> bool:
    """By then whoever has stored a copy is done, or dead, and what they had sent has come to the server."""
    return not store.purges and all(done >= DONE for done in store.clients)


def _without(store: Store, owner: str) -> Store:
    return store._replace(copies=store.copies - {owner})


def _of_deletion(store: Store) -> Iterator[Store]:
    if store.deleting == IDLE:
        yield store._replace(deleting=MARKED)
    elif store.deleting == MARKED:
        yield store._replace(deleting=DELETED, task="")
