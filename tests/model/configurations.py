"""The small configurations. Each is about one thing; together they meet every rule with every fault."""

from __future__ import annotations

from typing import Final

from jetflow.engine.graph import Graph, Node
from jetflow.engine.policies import JoinPolicy
from tests.model.scenario import ONE_STEP, Body, Configuration, Faults, RunScript, leaf, leaves, parent

CHAIN: Final = Graph.checked("chain", [Node("x"), Node("y", ("x",))])
PAIR: Final = Graph.checked("pair", [Node("x"), Node("y")])
TRIO: Final = Graph.checked("trio", [Node("x"), Node("y"), Node("z")])
DIAMOND: Final = Graph.checked("diamond", [Node("x"), Node("y"), Node("z", ("x", "y"))])

FORK: Final = Graph.checked("fork", [Node("x"), Node("y", ("x",)), Node("z")])
LONGER: Final = Graph.checked("longer", [Node("x"), Node("y", ("x",)), Node("z", ("y",))])
FAST: Final = Graph.checked("fast", [Node("x"), Node("y"), Node("z", ("x", "y"))], fail_fast=True)

PAIR_SEQUEL: Final = Graph.checked("pair-sequel", [Node("x"), Node("y")], on_failure="mend")
SEQUEL: Final = Graph.checked("sequel", [Node("s")], on_failure="mend")
EITHER: Final = Graph.checked("either", [Node("s")], on_failure="mend", on_success="cheer")
PAIR_EITHER: Final = Graph.checked("pair-either", [Node("x"), Node("y")], on_failure="mend", on_success="cheer")

RETURN: Final = Body()
FAIL: Final = Body(ends="fail")
LATER: Final = Body(ends="later")
SLEEP: Final = Body(ends="sleep")
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
    Configuration("a step fails in a chain", {"root": _steps(LONGER, x=(FAIL,))}, Faults(crashes=2)),
    Configuration("a gate behind a failure", {"root": _steps(DIAMOND, x=(FAIL,))}, Faults(crashes=2, batches=1)),
    Configuration("both steps before a gate fail", {"root": _steps(DIAMOND, x=(FAIL,), y=(FAIL,))}, Faults(crashes=2)),
    Configuration(
        "a step and what is behind it go on beside a failure",
        {"root": _steps(FORK, x=(FAIL,), z=(A,)), **leaves("a")},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a zombie succeeds where a step has failed",
        {"root": _steps(LONGER, x=(RETURN, FAIL))},
        Faults(crashes=1, zombies=2),
    ),
    Configuration(
        "a zombie fails where a step has succeeded",
        {"root": _steps(FORK, x=(FAIL, RETURN))},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "a step fails whose child another shares",
        {"root": _steps(PAIR, x=(Body(("a",), "fail"),), y=(A,)), **leaves("a")},
        Faults(crashes=1),
        workers=1,
    ),
    Configuration(
        "a step fails whose child of an earlier attempt another shares",
        {"root": _steps(PAIR, x=(Body(("a",), "retry"), FAIL), y=(A,)), **leaves("a")},
        Faults(crashes=1),
        workers=1,
    ),
    Configuration(
        "a step runs after several failures",
        {"root": _steps(PAIR_SEQUEL, x=(FAIL,), y=(FAIL,))},
        Faults(crashes=2),
    ),
    Configuration("the first failure ends the run", {"root": _steps(FAST, x=(FAIL,), y=(FAIL,))}, Faults(crashes=2)),
    Configuration(
        "a child of several steps fails",
        {"root": parent((Body(("p",)),)), "p": RunScript(FORK, "root", {"x": ((FAIL,),)})},
        Faults(crashes=1),
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
    Configuration("a step runs after a success", {"root": _steps(EITHER, s=(A,)), "a": leaf()}, Faults(crashes=2)),
    Configuration(
        "a step runs after a success or a failure",
        {"root": _steps(EITHER, s=(Body(("a",), "fail"),)), "a": leaf()},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "a child that a step runs behind",
        {"root": parent((Body(("p",)),)), "p": RunScript(PAIR_EITHER, "root")},
        Faults(crashes=1),
        workers=1,
    ),
)

_TIMES = (
    Configuration(
        "an attempt that failed is made again", {"root": parent((LATER,), (LATER,), (RETURN,))}, Faults(crashes=2)
    ),
    Configuration(
        "an attempt is made again, and a zombie",
        {"root": parent((LATER,), (A,)), **leaves("a")},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "the next attempt spawns another set",
        {"root": parent((Body(("a",), "later"),), (B,)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "an attempt is made again after a park",
        {"root": parent((Body(("a",), "park"),), (Body(("a", "b"), "later"),), (AB,)), **leaves("ab")},
        Faults(crashes=1),
    ),
    Configuration(
        "a join with a deadline",
        {"root": parent((Body(("a", "b"), "park", bounded=True),), (RETURN,)), **leaves("ab")},
        Faults(crashes=2),
    ),
    Configuration(
        "a join with a deadline whose timer is lost",
        {"root": parent((Body(("a",), "park", bounded=True),), (A,)), **leaves("a")},
        Faults(crashes=1),
        timers_fire=False,
    ),
    Configuration(
        "a join with a deadline, then one without",
        {"root": parent((Body(("a",), "park", bounded=True),), (Body(("a",), "park"),), (A,)), **leaves("a")},
        Faults(crashes=1),
        workers=1,
    ),
    Configuration(
        "steps beside each other are tried again",
        {"root": RunScript(DIAMOND, bodies={"x": ((LATER,), (FAIL,)), "y": ((LATER,), (RETURN,))})},
        Faults(crashes=1),
    ),
)

_SLEEPS = (
    Configuration("a step sleeps", {"root": parent((SLEEP,), (RETURN,))}, Faults(crashes=2, zombies=1)),
    Configuration("a step sleeps twice", {"root": parent((SLEEP,), (SLEEP,), (RETURN,))}, Faults(crashes=1, zombies=1)),
    Configuration(
        "a step sleeps while its children end",
        {"root": parent((Body(("a", "b"), "sleep"),), (AB,)), **leaves("ab")},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a step sleeps after a park",
        {"root": parent((Body(("a",), "park"),), (Body(("a", "b"), "sleep"),), (AB,)), **leaves("ab")},
        Faults(crashes=1),
    ),
    Configuration(
        "a step fails after it has slept, and is tried again",
        {"root": parent((SLEEP,), (LATER,), (A,)), **leaves("a")},
        Faults(crashes=1),
    ),
    Configuration(
        "a step sleeps beside one that borrows from it",
        {"root": RunScript(PAIR, bodies={"x": ((Body(("a",), "sleep"),), (A,)), "y": ((A,),)}), **leaves("a")},
        Faults(crashes=1),
        workers=1,
    ),
)

LARGE: Final = (
    Configuration(
        "a look of another ends a step with an open child that is shared",
        {
            "root": _steps(PAIR, x=(Body(("a", "b"), policy=JoinPolicy.fail_fast()),), y=(A,)),
            "a": leaf(),
            "b": leaf(ends="fail"),
        },
        Faults(crashes=1),
        workers=1,
    ),
)
"""More than six million states: a planted bug is hunted in them, and for the rest there are the random walks."""

NEED_A_SWEEPER: Final = (
    Configuration(
        "a zombie spawns a shared child and dies, after its step has finished",
        {"root": _steps(PAIR, x=(RETURN, A), y=(A,)), **leaves("a")},
        Faults(crashes=1, zombies=1),
        workers=1,
    ),
)
"""Known to get stuck: the owner of a borrowed child has no join record, so that nobody looks when the child ends."""

CONFIGURATIONS: Final = (
    *_JOINS,
    *_ATTEMPTS,
    *_TURNS,
    *_STEPS,
    *_BORROWED,
    *_LATER,
    *_FAILURES,
    *_POLICIES,
    *_TIMES,
    *_SLEEPS,
)
