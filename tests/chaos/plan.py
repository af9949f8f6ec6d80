"""What each run of the load does, as pure functions of its input; and, from that, how it must end.

The workers in `fleet/` say the same in other languages.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

import msgspec

POISONED = "poison"

FRAIL = "frail"
"""A leaf with one attempt: only a death in the middle of its body may cost it that."""
DOOMED = ("doomed", POISONED)


class Leaf(msgspec.Struct, frozen=True):
    seed: int


class Node(msgspec.Struct, frozen=True):
    """A tree to build. ``depth`` is how many levels of trees may stand below."""

    seed: int
    depth: int = 0
    poisoned: bool = False


class Total(msgspec.Struct, frozen=True):
    total: int
    failed: int


KINDS = ("branch", "scatter", "diamond", "narrow", "several", "hasty", "timely")
"""The workflows that trees are made of."""


def draw(seed: int, what: str, below: int) -> int:
    """Return a number from 0 to ``below - 1`` that the seed and the purpose alone decide."""
    return int.from_bytes(sha256(f"{seed}/{what}".encode()).digest()[:8]) % below


def leaf_value(seed: int) -> int:
    return draw(seed, "value", 1000)


def fails_before(seed: int) -> int:
    """How many attempts of a leaf fail before one succeeds."""
    return max(0, draw(seed, "fails", 14) - 11)


def join_style(seed: int) -> str:
    return ("all", "completed", "one by one")[draw(seed, "join", 3)]


def _seeds(seed: int, what: str, count: int) -> list[int]:
    return [draw(seed, f"{what} {number}", 2**40) for number in range(count)]


def leaves(kind: str, node: Node) -> list[tuple[str, list[int], bool]]:
    """The leaves of a node: workflow, seeds, and whether they are spawned with keys."""
    seed = node.seed
    groups = [
        ("leaf", _seeds(seed, "keyed", 1 + draw(seed, "keyed", 6)), True),
        ("leaf", _seeds(seed, "hashed", draw(seed, "hashed", 5)), False),
        ("sync-leaf", _seeds(seed, "sync", draw(seed, "sync", 3)), False),
        ("apart-leaf", _seeds(seed, "apart", draw(seed, "apart", 2)), False),
    ]
    if kind in ("several", "hasty", "timely") or draw(seed, "late", 6) == 0:
        groups.append(("late", _seeds(seed, "late", draw(seed, "late ones", 3)), False))
    if node.poisoned:
        groups.append((POISONED, _seeds(seed, "poison", 1), True))
    elif (kind in ("branch", "timely") and draw(seed, "doom", 4) == 0) or (
        kind == "scatter" and draw(seed, "doom", 12) == 0
    ):
        groups.append(("doomed", _seeds(seed, "doomed", 1 + draw(seed, "doomed", 2)), False))
    return [group for group in groups if group[1]]


def subtrees(kind: str, node: Node) -> list[tuple[str, Node]]:
    """The trees below a node: workflow and input."""
    if node.depth == 0 or kind == "hasty":  # whose descendants are cancelled when it fails
        return []
    count = {"branch": 1 + draw(node.seed, "trees", 3), "scatter": 1 + draw(node.seed, "trees", 2)}.get(kind, 1)
    return [
        (KINDS[draw(below, "kind", len(KINDS))], Node(below, node.depth - 1))
        for below in _seeds(node.seed, "tree", count)
    ]


def second_batch(seed: int, total: int) -> list[int]:
    """The leaves that a branch spawns when it knows what the first ones came to."""
    return _seeds(seed, f"second {total}", (total + seed) % 4)


def shared_leaf(seed: int) -> int:
    return draw(seed, "shared", 2**40)


# --- runs of several steps -------------------------------------------------------------------------------------

GRAPHS: dict[str, dict[str, tuple[str, ...]]] = {
    "scatter": {"throw": (), "gather": ("throw",)},
    "diamond": {"left": (), "right": (), "middle": ("left", "right"), "up": ("left", "middle"), "down": ("middle",)},
    "several": {
        "a": (),
        "b": (),
        "c": (),
        "d": ("a",),
        "e": ("a", "b"),
        "f": ("b", "c"),
        "i": ("c",),
        "g": ("d",),
        "h": ("e", "f"),
    },
    "hasty": {"x": (), "y": (), "z": ("x", "y")},
}
"""The steps of the workflows that have more than one, each with those before it, in the order of the graph."""


class Fate(NamedTuple):
    """How a step ends, and how many of its attempts fail before that."""

    status: str
    tries: int


def fate(kind: str, seed: int, step: str) -> Fate:
    """How the function of one step of a ``several`` or ``hasty`` run ends, if it is run."""
    tries = max(0, draw(seed, f"tries {step}", 7) - 4)
    if draw(seed, "trouble", 3) == 0:
        return Fate("succeeded", tries)
    number = draw(seed, f"fate {step}", 16 if kind == "several" else 6)
    return Fate("failed" if number < 2 else "timed_out" if number == 2 and kind == "several" else "succeeded", tries)


def pause(seed: int, what: str, attempt: int) -> float:
    """Seconds until the next attempt: held in memory below 1, by a timer of the broker above."""
    number = draw(seed, f"pause {what} {attempt}", 1000) / 1000
    return 0.05 + number / 2 if draw(seed, f"held {what} {attempt}", 2) else 1.5 + 2.5 * number


def bound(seed: int) -> float:
    """Seconds after which a ``timely`` run goes on, whatever has ended by then."""
    return 1.2 + draw(seed, "bound", 300) / 100


def late_attempts(seed: int) -> int:
    """How many attempts of a late leaf fail before one succeeds."""
    return 1 + draw(seed, "late attempts", 2)


def last_steps(kind: str) -> list[str]:
    before = {step for steps in GRAPHS[kind].values() for step in steps}
    return [step for step in GRAPHS[kind] if step not in before]


def statuses(kind: str, node: Node) -> dict[str, str]:
    """How each step of a run with several steps ends; of a ``hasty`` one that fails, how it would end by itself."""
    _, (_, failed) = _children(kind, node)
    own: dict[str, str] = {}
    if kind == "scatter" and failed:
        own["throw"] = "failed"
    elif kind == "diamond" and failed:
        own["left"] = "failed"
    found: dict[str, str] = {}
    for step, before in GRAPHS[kind].items():
        if any(found[one] != "succeeded" for one in before):
            found[step] = "cancelled"
        elif kind in ("several", "hasty"):
            found[step] = fate(kind, node.seed, step).status
        else:
            found[step] = own.get(step, "succeeded")
    return found


def step_value(kind: str, node: Node, step: str) -> int:
    """The output of a step of a ``several`` or ``hasty`` run that succeeds."""
    own = draw(node.seed, f"value {step}", 1000)
    if step in ("b", "y"):
        own += _children(kind, node)[0]
    return own + sum(step_value(kind, node, one) for one in GRAPHS[kind][step])


# --- times and events ------------------------------------------------------------------------------------------

DOZES, LISTENS, CHOOSES, ORDERED, TICKED = "dozes", "listens", "chooses", "ordered", "ticked"
"""Workflows that sleep, wait for signals, wait for whichever comes first, are started by events, and by schedules."""

DECIDES = "decides"
"""The workflow whose steps have conditions."""

MOMENTS = (DOZES, LISTENS, CHOOSES, ORDERED, TICKED, DECIDES)


def doze(seed: int, number: int) -> float:
    """Seconds of one sleep: in memory, or parked, by how long the worker waits warm."""
    return 0.05 + draw(seed, f"doze {number}", 4000) / 1000


def signals(seed: int) -> int:
    """How many signals a run waits for."""
    return 1 + draw(seed, "signals", 5)


def is_small(value: int) -> bool:
    """Whether what a run has measured is so little that a step behind it is skipped."""
    return value % 3 == 0


def is_refused(seed: int) -> bool:
    """Whether a run is sent the signal that cancels one of its steps, and not the one that this step waits for."""
    return draw(seed, "refused", 4) == 0


def decided(seed: int) -> dict[str, str]:
    """How each step of a run of `DECIDES` ends, but those that a race of a time and an event decides."""
    refused = is_refused(seed)
    return {
        "measure": "succeeded",
        "surplus": "skipped" if is_small(leaf_value(seed)) else "succeeded",
        "rest": "succeeded",
        "agree": "cancelled" if refused else "succeeded",
    } | ({"tell": "cancelled"} if refused else {})


# --- limits ----------------------------------------------------------------------------------------------------

LIMITED, PACED = "limited", "paced"
"""Workflows of which few may run at once, and of which few may begin in a stretch of time."""

PLACES, PLACES_IN_ALL = 2, 4
BEGIN, BEGIN_IN_ALL, IN_SECONDS = 4, 9, 2.0


def limit_key(seed: int) -> str:
    """Which runs share their places."""
    return f"key-{seed % 3}"


def sharing(seed: int) -> list[int]:
    """Seeds of the same key, to be triggered together."""
    return [seed + 3 * number for number in range(1 + draw(seed, "sharing", 6))]


# --- what is run again -----------------------------------------------------------------------------------------

MENDS, BRITTLE = "mends", "brittle"
"""Workflows that fail, and succeed when they are run again."""


def kept(seed: int) -> list[int]:
    """The leaves that succeed in the first run."""
    return _seeds(seed, "kept", 1 + draw(seed, "kept", 5))


def broken(seed: int) -> list[int]:
    """Those that break in it."""
    return _seeds(seed, "broken", 1 + draw(seed, "broken", 2))


def mended_below(node: Node) -> list[Node]:
    """The trees below that break as this one does."""
    return [Node(seed, node.depth - 1) for seed in _seeds(node.seed, "below", 1)] if node.depth else []


def _mended(node: Node) -> int:
    own = sum(map(leaf_value, (*kept(node.seed), *broken(node.seed))))
    return own + sum(map(_mended, mended_below(node)))


# --- how it must end -------------------------------------------------------------------------------------------

FAILED = ("failed", None)
Ending: TypeAlias = tuple[str, Any]


def ending(workflow: str, input: Any, *, again: bool = False) -> Ending:
    """Return the status and the output with which a run of ``workflow`` on the JSON value ``input`` must end.

    ``again`` says that it is made of one that has failed.
    """
    if workflow in (MENDS, BRITTLE):
        if not again:
            return FAILED
        return "succeeded", leaf_value(input["seed"]) if workflow == BRITTLE else _mended(msgspec.convert(input, Node))
    if workflow in ("leaf", "sync-leaf", "apart-leaf", "late", FRAIL, LIMITED, PACED, *DOOMED):
        return FAILED if workflow in DOOMED else ("succeeded", leaf_value(input["seed"]))
    if workflow == DECIDES:
        return ("cancelled", None) if is_refused(input["seed"]) else ("succeeded", _measured(input["seed"]))
    if workflow in MOMENTS:
        return "succeeded", _moment(workflow, input["seed"])
    return _tree(workflow, msgspec.convert(input, Node))


def _moment(workflow: str, seed: int) -> Any:
    if workflow == LISTENS:
        return list(range(signals(seed)))
    return leaf_value(seed) + (leaf_value(shared_leaf(seed)) if workflow == DOZES else 0)


def _measured(seed: int) -> int:
    value = leaf_value(seed)
    return value if is_small(value) else value + leaf_value(seed + 1)


@lru_cache(200_000)
def _tree(workflow: str, node: Node) -> Ending:
    total, failed = _children(workflow, node)
    seed = node.seed
    if workflow in ("several", "hasty"):
        return _several(workflow, node)
    if workflow == "timely":
        return _total(total, failed[0] + failed[1])
    if workflow == "branch":
        return _total(total + sum(map(leaf_value, second_batch(seed, total))), failed[0] + failed[1])
    if failed[1]:
        return FAILED
    if workflow in ("scatter", "narrow"):
        return _total(total, failed[0])
    middle = total + leaf_value(shared_leaf(seed)) + leaf_value(seed)
    return "succeeded", {"up": middle + failed[0], "down": -leaf_value(seed)}


def _several(workflow: str, node: Node) -> Ending:
    ended = set(statuses(workflow, node).values())
    for status in ("failed", "timed_out"):
        if status in ended:
            return status, None
    outputs = {step: step_value(workflow, node, step) for step in last_steps(workflow)}
    return "succeeded", outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _total(total: int, failed: int) -> Ending:
    return "succeeded", {"total": total, "failed": failed}


def _children(workflow: str, node: Node) -> tuple[int, tuple[int, int]]:
    """Return the sum over a node's children, the failures that they report, and how many failed themselves."""
    endings = [ending(child, {"seed": seed}) for child, seeds, _ in leaves(workflow, node) for seed in seeds]
    endings += [_tree(child, below) for child, below in subtrees(workflow, node)]
    total = reported = 0
    for status, output in endings:
        if status == "succeeded" and isinstance(output, int):
            total += output
        elif status == "succeeded" and "total" in output:
            total += output["total"]
            reported += output["failed"]
        elif status == "succeeded":
            total += sum(output.values())
    return total, (reported, sum(status != "succeeded" for status, _ in endings))
