"""How steps end, and what that means for those behind them and for the run."""

from typing import Any

import msgspec
import pytest

from jetflow.engine.endings import TEXT_OF_ERRORS, decide, ending, left_out
from jetflow.engine.graph import Graph, Node
from jetflow.engine.tasks import NONE, Failure, Outcome, Status, Task

GRAPH = Graph.checked("w", [Node("a"), Node("b"), Node("c", ("a",)), Node("d", ("b",))])
TASK = Task(
    workflow="w",
    step="a",
    root="r",
    parent=NONE,
    run="r",
    turn=0,
    parent_step=NONE,
    version="",
    depth=0,
    digest="",
    input=b"null",
    key="k",
)


def ended(step: str, status: Status = "succeeded", **fields: Any) -> Outcome:
    error = None if status in ("succeeded", "skipped") else Failure("ValueError", f"{step} broke", step, "trace")
    return Outcome(status=status, step=step, error=error, output=msgspec.Raw(b'"out"'), **fields)


@pytest.mark.parametrize(
    ("before", "verdict"),
    [
        (["succeeded"], "run"),
        (["succeeded", "succeeded"], "run"),
        (["failed"], "cancel"),
        (["timed_out"], "cancel"),
        (["cancelled"], "cancel"),
        (["succeeded", "failed"], "cancel"),
        (["skipped", "failed"], "cancel"),
        (["skipped"], "skip"),
        (["skipped", "skipped"], "skip"),
        (["skipped", "succeeded"], "run"),
    ],
)
def test_a_gate_decides_by_how_the_steps_before_it_have_ended(before: list[Status], verdict: str) -> None:
    assert decide(before) == verdict


def test_a_step_that_is_left_out_says_why() -> None:
    outcome = left_out(
        TASK, "c", "cancel", {"a": ended("a", "timed_out", ended=3.0), "b": ended("b", "failed", ended=7.0)}
    )
    assert outcome.error == Failure("Cancelled", "not run: step 'a' timed out and step 'b' failed", "c")
    assert (outcome.status, outcome.step, outcome.started, outcome.ended) == ("cancelled", "c", 7.0, 7.0)
    assert left_out(TASK, "c", "skip", {"a": ended("a", "skipped")}).status == "skipped"


@pytest.mark.parametrize(
    ("ends", "status", "told"),
    [
        ({}, "succeeded", []),
        ({"a": "failed", "c": "cancelled"}, "failed", ["a"]),
        ({"b": "timed_out", "d": "cancelled"}, "timed_out", ["b"]),
        ({"a": "failed", "b": "timed_out", "c": "cancelled", "d": "cancelled"}, "failed", ["a", "b"]),
        ({"c": "cancelled"}, "cancelled", ["c"]),
        ({"c": "skipped"}, "succeeded", []),
    ],
)
def test_a_run_ends_as_its_steps_have(ends: dict[str, Status], status: Status, told: list[str]) -> None:
    outcomes = {step: ended(step, ends.get(step, "succeeded")) for step in "abcd"}
    run = ending(TASK, GRAPH, outcomes)
    assert run.status == status
    assert [failure.step for failure in run.failures] == told
    assert run.step == (told[0] if told else "")
    assert run.key == "k"


def test_the_errors_of_a_wide_run_fit_into_one_record() -> None:
    wide = Graph.checked("w", [Node(f"s{number}") for number in range(100)])
    trace = "x" * 16_000
    outcomes = {
        node.name: Outcome(status="failed", step=node.name, error=Failure("E", trace, node.name, f"{trace}end"))
        for node in wide.nodes
    }
    run = ending(TASK, wide, outcomes)
    assert len(run.errors) == 100
    assert len(msgspec.json.encode(run)) < 3 * TEXT_OF_ERRORS
    assert run.errors[99].traceback.endswith("end")
