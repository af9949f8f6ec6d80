"""What came first decides; and what nobody waits for any more is not waited for."""

from __future__ import annotations

from typing import Any

import pytest

from jetflow.engine.awaiting import Awaited
from jetflow.engine.conditions import NEVER_RUN, Armed, Decided, Term, Undecided, weigh
from jetflow.engine.endings import decided_against, ending
from jetflow.engine.graph import Graph, Node
from jetflow.engine.tasks import NONE, Outcome, Task
from jetflow.engine.transitions import leave_out

A, B = Awaited(topic="a"), Awaited(topic="b", if_=(("n", "in", [1]),))
YES, NO = Term(holds=True, said="yes"), Term(holds=False)


def event(awaited: Awaited) -> Term:
    return Term(event=awaited, said=awaited.topic)


def until(time: float) -> Term:
    return Term(until=time, said=f"at {time:g}")


@pytest.mark.parametrize(
    ("armed", "now", "came", "verdict", "at"),
    [
        ({}, 20, {}, "run", 10),
        ({"skip": ((YES,),)}, 20, {}, "skip", 10),
        ({"skip": ((NO,),)}, 20, {}, "run", 10),
        ({"skip": ((NO, YES),), "cancel": ((YES,),)}, 20, {}, "skip", 10),
        ({"skip": ((YES,), (NO,)), "cancel": ((YES,),)}, 20, {}, "cancel", 10),
        ({"skip": ((until(12),),), "run": ((event(A),),)}, 20, {"a": 11}, "run", 11),
        ({"skip": ((until(12),),), "run": ((event(A),),)}, 20, {"a": 13}, "skip", 12),
        ({"skip": ((until(12),),), "run": ((event(A),),)}, 11, {"a": 13}, "skip", 12),
        ({"skip": ((event(A),),), "run": ((event(B),),)}, 20, {"a": 15, "b": 15}, "skip", 15),
        ({"run": ((event(A),), (event(B),))}, 20, {"a": 15, "b": 12}, "run", 15),
        ({"run": ((event(A), until(12)),)}, 20, {}, "run", 12),
        ({"skip": ((event(A),),)}, 20, {"a": 4}, "skip", 10),
        ({"skip": ((event(A),),)}, 20, {"a": 14}, "run", 10),
        ({"run": ((NO,), (event(A),)), "cancel": ((event(B),),)}, 20, {"b": 12}, "skip", 10),
        ({"run": ((NO,),), "cancel": ((YES,),)}, 20, {}, "cancel", 10),
    ],
)
def test_what_came_first_decides(
    armed: dict[str, Any], now: float, came: dict[str, float], verdict: str, at: float
) -> None:
    found = weigh(Armed(at=10, **armed), now, {one.whole: came[one.topic] for one in (A, B) if one.topic in came})
    assert isinstance(found, Decided)
    assert (found.verdict, found.at) == (verdict, at)


def test_what_is_waited_for_is_what_may_still_decide() -> None:
    armed = Armed(
        at=10,
        skip=((NO,), (event(B), until(99))),
        cancel=((event(A), until(30)), (event(A), until(40))),
        run=((event(A),), (until(50),)),
    )
    found = weigh(armed, 20, {})
    assert isinstance(found, Undecided)
    assert (found.until, found.events) == (30, (A,))
    later = weigh(armed, 35, {})
    assert isinstance(later, Undecided)
    assert later.until == 40


def test_reasons_are_told() -> None:
    armed = Armed(at=10, run=((event(A), until(12)), (YES,)))
    found = weigh(armed, 20, {})
    assert isinstance(found, Decided)
    assert found.reason == "at 12 and yes"
    hopeless = weigh(Armed(at=10, run=((NO,), (event(A),))), 20, {})
    assert isinstance(hopeless, Decided)
    assert (hopeless.verdict, hopeless.reason) == ("skip", NEVER_RUN)


TASK = Task(
    workflow="w", step="b", root="r", parent=NONE, run="r", turn=1, parent_step=NONE, version="", depth=0, digest="",
    input=b"1",
)  # fmt: skip


def test_a_skipped_last_step_is_no_end_of_its_run_by_itself() -> None:
    """It has an outcome of its own, which the end of the run is made of: succeeded, without an output."""
    graph = Graph.checked("w", [Node("a"), Node("b", ("a",))], conditional=["b"])
    outcome = decided_against(TASK, "skip", "yes", 5.0, "me")
    procedure = leave_out(TASK, graph, outcome)
    effects, result = [type(next(procedure)).__name__], [outcome, {"a": Outcome(status="succeeded"), "b": outcome}]
    effects += [type(procedure.send(one)).__name__ for one in result]
    assert effects == ["StoreStep", "ReadSteps", "StoreRun"]
    ended = ending(TASK, graph, {"a": Outcome(status="succeeded"), "b": outcome})
    assert (ended.status, bytes(ended.output)) == ("succeeded", b"null")


def test_a_cancelled_one_says_by_what() -> None:
    outcome = decided_against(TASK, "cancel", "a", 5.0, "me")
    assert outcome.status == "cancelled"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("Cancelled", "cancelled by its condition: a")


def test_the_version_of_a_graph_without_any_does_not_change() -> None:
    nodes = [Node("a"), Node("b", ("a",))]
    assert Graph.checked("w", nodes).version == Graph.checked("w", nodes, conditional=[]).version
    assert Graph.checked("w", nodes).version != Graph.checked("w", nodes, conditional=["b"]).version
