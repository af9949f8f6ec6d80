"""The small configurations. Each is about one thing; together they meet every rule with every fault."""

from __future__ import annotations

from typing import Final

from jetflow.engine.graph import Graph, Node
from jetflow.engine.policies import JoinPolicy
from tests.model.scenario import ONE_STEP, Body, Configuration, Faults, RunScript, leaf, leaves, parent

CHAIN: Final = Graph.checked("chain", [Node("x"), Node("y", ("x",))])
PAIR: Final = Graph.checked("pair", [Node("x"), Node("y")])
DIAMOND: Final = Graph.checked("diamond", [Node("x"), Node("y"), Node("z", ("x", "y"))])

SEQUEL: Final = Graph.checked("sequel", [Node("s")], on_failure="mend")

RETURN: Final = Body()
A: Final = Body(("a",))
B: Final = Body(("b",))
AB: Final = Body(("a", "b"))
ABC: Final = Body(("a", "b", "c"))


def _steps(graph: Graph, **bodies: tuple[Body, ...]) -> RunScript:
    """Return a root run whose steps have these bodies, by attempt, in their only turn."""
    return RunScript(graph, bodies={step: (attempts,) for step, attempts in bodies.items()})


_JOINS = (
    Configuration("two children, two crashes", {"root": parent((AB,)), **leaves("ab")}, Faults(crashes=2)),
    Configuration(
        "two children, a crash and a zombie", {"root": parent((AB,)), **leaves("ab")}, Faults(crashes=1, zombies=1)
    ),
    Configuration("three children, a crash", {"root": parent((ABC,)), **leaves("abc")}, Faults(crashes=1)),
    Configuration(
        "three children, counted twice, one worker",
        {"root": parent((ABC,)), **leaves("abc")},
        Faults(repeats=2, batches=1),
        workers=1,
    ),
    Configuration(
        "increments that share a batch, and a crash",
        {"root": parent((AB,)), **leaves("ab")},
        Faults(crashes=1, repeats=1, batches=1),
    ),
    Configuration(
        "a look in two halves, and a crash",
        {"root": parent((AB,)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
        split_looks=True,
    ),
    Configuration(
        "a forged outcome",
        {"root": parent((AB,)), **leaves("ab")},
        Faults(crashes=1, forgeries=1, repeats=1),
        forged=(("root", "s"),),
    ),
)

_ATTEMPTS = (
    Configuration(
        "a retry spawns another set, a crash",
        {"root": parent((Body(("a",), "retry"), B)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a zombie of another set",
        {"root": parent((A, B)), **leaves("ab")},
        Faults(crashes=1, zombies=1),
    ),
    Configuration("a zombie of a smaller set", {"root": parent((AB, B)), **leaves("ab")}, Faults(zombies=1, repeats=1)),
    Configuration(
        "a retry spawns nothing", {"root": parent((Body(("a",), "retry"), RETURN)), **leaves("a")}, Faults(crashes=2)
    ),
    Configuration(
        "a step that waits warm",
        {"root": parent((Body(("a", "b"), waits=True),)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
    ),
)

_TURNS = (
    Configuration(
        "a parked step goes on",
        {"root": parent((Body(("a",), "park"),), (AB,)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a parked step and a zombie",
        {"root": parent((Body(("a",), "park"),), (AB,)), **leaves("ab")},
        Faults(zombies=1),
    ),
    Configuration(
        "a step parks for one of two, then for both",
        {"root": parent((Body(("a", "b"), "park", needed=1),), (Body(("a", "b"), "park"),), (AB,)), **leaves("ab")},
        Faults(crashes=1),
    ),
    Configuration(
        "a parked attempt against one that seals",
        {"root": parent((Body(("a",), "park"), B), (A,)), **leaves("ab")},
        Faults(crashes=1, zombies=1),
        workers=1,
    ),
)

_STEPS = (
    Configuration("a chain, two crashes", {"root": _steps(CHAIN, x=(A,), y=(B,)), **leaves("ab")}, Faults(crashes=2)),
    Configuration("a gate of two", {"root": _steps(DIAMOND, x=(A,)), **leaves("a")}, Faults(crashes=1, repeats=1)),
    Configuration("a gate of two and a batch", {"root": _steps(DIAMOND)}, Faults(crashes=2, batches=1, repeats=1)),
    Configuration(
        "a child run with two last steps",
        {"root": parent((Body(("p",)),)), "p": RunScript(PAIR, "root")},
        Faults(crashes=1),
    ),
    Configuration(
        "a tree of three levels",
        {"root": parent((Body(("p",)),)), "p": RunScript(ONE_STEP, "root", {"s": ((A,),)}), **leaves("a", "p")},
        Faults(crashes=2),
    ),
)

_BORROWED = (
    Configuration("two steps share a child", {"root": _steps(PAIR, x=(A,), y=(A,)), **leaves("a")}, Faults(crashes=1)),
    Configuration(
        "two steps borrow from each other",
        {"root": _steps(PAIR, x=(AB,), y=(Body(("b", "a")),)), **leaves("ab")},
        Faults(repeats=1),
        workers=1,
    ),
    Configuration(
        "a borrower with children of its own, counted twice",
        {"root": _steps(PAIR, x=(A,), y=(ABC,)), **leaves("abc")},
        Faults(repeats=1),
        workers=1,
    ),
    Configuration(
        "a forged outcome beside a borrowed child",
        {"root": _steps(PAIR, x=(A,), y=(AB,)), **leaves("ab")},
        Faults(forgeries=1),
        workers=1,
        forged=(("root", "y"),),
    ),
    Configuration(
        "the owner of a shared child retries without it",
        {"root": _steps(PAIR, x=(Body(("a",), "retry"), RETURN), y=(A,)), **leaves("a")},
        Faults(crashes=1),
        workers=1,
    ),
)

_LATER = (
    Configuration(
        "a later step shares a child of an attempt that failed",
        {"root": _steps(CHAIN, x=(Body(("a",), "retry"), RETURN), y=(A,)), **leaves("a")},
    ),
)

_FAILURES = (
    Configuration(
        "a child fails",
        {"root": parent((AB,)), "a": leaf(ends="fail"), "b": leaf()},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a shared child fails",
        {"root": _steps(PAIR, x=(Body(("a",), excused=("a",)),), y=(A,)), "a": leaf(ends="fail")},
    ),
    Configuration(
        "a step fails beside one that waits",
        {"root": _steps(PAIR, x=(Body(ends="fail"),), y=(A,)), **leaves("a")},
        Faults(crashes=1),
    ),
)

_POLICIES = (
    Configuration(
        "two of three, one fails",
        {
            "root": parent((Body(("a", "b", "c"), policy=JoinPolicy.of_quorum(2)),)),
            "a": leaf(ends="fail"),
            **leaves("bc"),
        },
        Faults(repeats=1),
        workers=1,
    ),
    Configuration(
        "the first failure decides",
        {"root": parent((Body(("a", "b"), policy=JoinPolicy.fail_fast()),)), "a": leaf(ends="fail"), "b": leaf()},
        Faults(crashes=1),
    ),
    Configuration(
        "one failure is tolerated",
        {"root": parent((Body(("a", "b"), policy=JoinPolicy.tolerate(1)),)), "a": leaf(ends="fail"), "b": leaf()},
        Faults(crashes=1),
    ),
    Configuration(
        "a step runs after a failure",
        {"root": _steps(SEQUEL, s=(A,)), "a": leaf(ends="fail")},
        Faults(crashes=2),
    ),
)

NEED_A_SWEEPER: Final = (
    Configuration(
        "a zombie spawns a shared child and dies, after its step has finished",
        {"root": _steps(PAIR, x=(RETURN, A), y=(A,)), **leaves("a")},
        Faults(crashes=1, zombies=1),
        workers=1,
    ),
)
"""Known to get stuck: the owner of a borrowed child has no join record, so that nobody looks when the child ends."""

CONFIGURATIONS: Final = (*_JOINS, *_ATTEMPTS, *_TURNS, *_STEPS, *_BORROWED, *_LATER, *_FAILURES, *_POLICIES)
