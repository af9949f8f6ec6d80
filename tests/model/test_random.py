"""Random walks through configurations too large to explore: more children, deeper trees, more faults.

Hypothesis draws a tree of runs, the scripts of their bodies and the order of what happens. After the walk nothing
more fails, and all must end.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from jetflow.engine.graph import Graph
from jetflow.engine.policies import JoinPolicy
from tests.model.checks import Violation
from tests.model.configurations import CHAIN, DIAMOND, FORK, PAIR, TRIO
from tests.model.description import describe
from tests.model.model import Model, Step, Successor
from tests.model.scenario import ONE_STEP, Body, Configuration, Faults, RunScript, Turns, leaf
from tests.model.state import State

LONGEST = 3_000
"""More steps than any walk needs to end when nothing fails any more."""

SETS = st.lists(st.sampled_from("abcd"), unique=True, max_size=4).map(tuple)
POLICIES = st.sampled_from(
    [JoinPolicy.all_succeed(), JoinPolicy.tolerate(1), JoinPolicy.collect(), JoinPolicy.fail_fast()]
)


@st.composite
def turns(draw: st.DrawFn, prefix: str) -> Turns:
    """Draw one or two turns of a step: attempts may spawn different sets, and the last attempt does not retry."""

    def names() -> tuple[str, ...]:
        return tuple(prefix + name for name in draw(SETS))

    policy = draw(POLICIES)
    ends: st.SearchStrategy[Literal["return", "fail"]] = st.sampled_from(["return", "return", "fail"])
    last = Body(names(), draw(ends), policy=policy)
    first = Body(names(), draw(st.sampled_from(["return", "retry"])), policy=policy)
    before = draw(st.sampled_from(["nothing", "park", "later"]))
    if before == "nothing":
        return ((first, last),)
    spawned = names()
    if before == "later":
        return (Body(spawned, "later"),), (first, last)
    if not spawned:  # nobody parks to wait for nothing
        return ((first, last),)
    needed = draw(st.sampled_from([None, 1])) if len(spawned) > 1 else None
    return (Body(spawned, "park", needed=needed, bounded=draw(st.booleans())),), (first, last)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Draw a tree: a root run of one to three steps, its children, and under the first of them grandchildren."""
    graph: Graph = draw(st.sampled_from([ONE_STEP, CHAIN, PAIR, TRIO, DIAMOND, FORK]))
    root = RunScript(graph, bodies={step: draw(turns("")) for step in graph.upstream})
    ends: st.SearchStrategy[Literal["return", "fail"]] = st.sampled_from(["return", "return", "fail"])
    children = {name: leaf(ends=draw(ends)) for name in "bcd"}
    inner = RunScript(ONE_STEP, "root", {"s": draw(turns("a"))})
    grandchildren = {f"a{name}": leaf("a", draw(ends)) for name in "abcd"}
    zombies = 2 if graph == ONE_STEP else 0  # with a crash, see NEED_A_SWEEPER
    faults = Faults(crashes=3, zombies=zombies, repeats=3, batches=2)
    workers = draw(st.integers(1, 3))
    runs = {"root": root, "a": inner, **children, **grandchildren}
    return Configuration("random", runs, faults, workers, split_looks=draw(st.booleans()))


class Walk(RuleBasedStateMachine):
    """One history. Steps are chosen by number among all that may happen."""

    model: Model
    state: State

    @initialize(configuration=configurations())
    def begin(self, configuration: Configuration) -> None:
        self.model = Model(configuration)
        self.state = self.model.initial()
        self.lines: list[str] = []

    @rule(choices=st.lists(st.integers(0, 1_000), min_size=5, max_size=30))
    def go_on(self, choices: list[int]) -> None:
        for choice in choices:
            moves = list(self.model.progress(self.state))
            if moves:
                self.take(moves[choice % len(moves)])

    @precondition(lambda self: any(self.state.faults))
    @rule(choice=st.integers(0, 1_000))
    def fail(self, choice: int) -> None:
        moves = list(self.model.faults(self.state))
        if moves:
            self.take(moves[choice % len(moves)])

    def take(self, move: Successor) -> None:
        step, after = move
        self.note(step)
        if isinstance(after, Violation):
            raise AssertionError("\n".join([*self.lines, str(after)]))
        self.state = after

    def note(self, step: Step) -> None:
        self.lines.append(describe(self.model, step))

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        for turn in range(LONGEST):
            moves = list(self.model.progress(self.state))
            if not moves:
                break
            self.take(moves[turn % len(moves)])
        else:
            raise AssertionError("\n".join([*self.lines, "endless: it never comes to rest"]))
        stuck = self.model.checks.final(self.state)
        assert stuck is None, "\n".join([*self.lines, stuck or ""])


TestRandomWalks = Walk.TestCase
TestRandomWalks.settings = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
