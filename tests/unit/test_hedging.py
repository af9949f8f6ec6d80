"""When a child is late, when to ask after it again, and which children never get a twin."""

from __future__ import annotations

import pytest

from jetflow import Hedge
from jetflow.engine.graph import Graph, Node
from jetflow.engine.hedging import Straggler, never, next_look, seconds_of, twin_of
from jetflow.engine.tasks import Outcome, Task
from jetflow.wire.records import header_block, parse_task, task_headers
from jetflow.wire.subjects import Subjects, run_of_task

TASK = Task(
    workflow="ask",
    step="run",
    root="0" * 32,
    parent="0" * 32,
    run="1" * 32,
    turn=2,
    parent_step="begin",
    version="1",
    depth=1,
    digest="2",
    input=b"3",
)


@pytest.mark.parametrize(
    ("after", "total", "enough"),
    [(0.95, 20, 19), (0.95, 100, 95), (0.95, 10, 9), (0.95, 2, 1), (0.95, 1, 1), (0.01, 20, 1), (0.29, 100, 29)],
)
def test_how_many_have_to_end_first(after: float, total: int, enough: int) -> None:
    """Fewer than all, so that some can be late; of one child, all."""
    assert Hedge(after=after).enough(total) == enough


def test_when_a_child_is_late() -> None:
    """By the slowest of the share that had to end; those that came later, and so took longer, count no more."""
    hedge = Hedge(after=0.5, factor=2, at_least=1)
    assert hedge.late_after([1, 2, 3, 4], 8, 4) == 8
    assert hedge.late_after([1, 2, 3, 4, 50, 60], 8, 6) == 8
    assert hedge.late_after([0.1], 8, 4) == 1
    assert hedge.late_after([], 8, 4) == 1


def test_only_children_that_ended_well_tell_how_long_it_takes() -> None:
    good = Outcome(status="succeeded", started=10.0, ended=12.5)
    bad = Outcome(status="failed", started=10.0, ended=10.1)
    assert seconds_of([good, bad, Outcome(status="succeeded")]) == [2.5]


def test_when_to_ask_again() -> None:
    """When the next one is late; of those that nobody runs ever more seldom; and never if all have twins."""
    runs = Straggler(run="a", seconds=3)
    assert next_look([runs], 1, 10, 0) == 7
    assert next_look([runs], 2, 10, 4) == 7
    assert next_look([], 1, 10, 4) == 10
    assert next_look([], 1, 10, 400) == 400
    assert next_look([Straggler(run="a", seconds=10)], 1, 10, 0) == 1
    assert next_look([Straggler(run="a", twin=True), Straggler(run="b", never="it has limits")], 2, 10, 0) is None


def test_who_never_gets_one() -> None:
    alone = Graph.checked("ask", [Node("run")])
    assert never(TASK, alone, idempotent=True) == ""
    assert "idempotent" in never(TASK, alone, idempotent=False)
    assert "last" in never(TASK, Graph.checked("ask", [Node("run"), Node("then", ("run",))]), idempotent=True)
    assert "limits" in never(TASK, Graph.checked("ask", [Node("run")], limited=["run"]), idempotent=True)


def test_a_twin_is_a_task_of_its_own() -> None:
    """It stands beside its original, which no filter for that takes it for; and it tells the same of its run."""
    names, twin = Subjects("here"), twin_of(TASK)
    subject = names.task_of(twin)
    assert subject == f"{names.task_of(TASK)}.h1"
    read = parse_task(subject, task_headers(twin, "id"), TASK.input)
    assert read == twin
    assert header_block(task_headers(twin, "id")) == header_block(task_headers(TASK, "id"))
    assert run_of_task(subject) is None
    assert names.run_of(twin) == names.run_of(TASK)
