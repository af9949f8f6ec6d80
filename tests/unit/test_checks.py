"""What queues, workers and declarations tell of a namespace: what is worth a look."""

from __future__ import annotations

from jetflow.runs.query.checks import checks_of
from jetflow.runs.query.rows import QueueRow, WorkerRow


def found(queues: list[QueueRow], workers: list[WorkerRow]) -> dict[str, str]:
    return {check.name: check.detail for check in checks_of(queues, workers, {}) if check.state == "look"}


def test_nothing_is_worth_a_look_where_nothing_is() -> None:
    assert found([], []) == {}


def test_workers_that_are_late_had_to_mend_or_differ_are_worth_a_look() -> None:
    one, two = WorkerRow(name="one", lag=0.9, version="1"), WorkerRow(name="two", swept=3, version="2")
    told = found([], [one, two])
    assert set(told) == {"loops", "swept", "versions"}
    assert told["loops"].endswith("one by 0.9 s")
    assert told["swept"].endswith("two 3")


def test_a_queue_that_nobody_serves_is_worth_a_look_but_for_one_that_is_paused() -> None:
    waiting, paused = QueueRow(workflow="a", step="run", waiting=1), QueueRow(workflow="b", step="run", waiting=1)
    told = found([waiting, QueueRow(workflow="b", step="run", waiting=1, paused_until=9.0)], [WorkerRow(name="w")])
    assert set(told) == {"queues", "paused", "orphans"}
    assert told["queues"].endswith("pulls: a/run")
    assert "a/run, b/run" in found([waiting, paused], [])["orphans"]
