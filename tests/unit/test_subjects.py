"""Names on the broker, built and parsed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetflow.engine.tasks import NONE, StepAddress, Task
from jetflow.errors import InvalidName
from jetflow.wire.records import parse_task
from jetflow.wire.subjects import Subjects, last_token

ROOT, PARENT, RUN = "0" * 32, "1" * 32, "2" * 32
NAMES = Subjects("ns")
JOIN = StepAddress(ROOT, PARENT, "scan")

names = st.text("aZ09_-", max_size=63).map("a".__add__)
run_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
tasks = st.builds(
    Task,
    workflow=names,
    step=names,
    root=run_ids,
    parent=run_ids,
    run=run_ids,
    turn=st.integers(0, 1000),
    parent_step=names,
    version=names,
    depth=st.integers(0, 1000),
    digest=st.just("2-d"),
    input=st.binary(),
)
CHILD = Task(
    workflow="index-file",
    step="run",
    root=ROOT,
    parent=PARENT,
    run=RUN,
    turn=0,
    parent_step="scan",
    version="v",
    depth=1,
    digest="2-d",
    input=b"",
)


def matches(subject: str, pattern: str) -> bool:
    """Match as NATS does."""
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and matches(".".join(tokens[: len(wanted) - 1]), ".".join(wanted[:-1]))
    return len(tokens) == len(wanted) and all(w in ("*", t) for t, w in zip(tokens, wanted, strict=True))


@settings(max_examples=30)
@given(tasks)
def test_a_task_is_read_from_its_subject(task: Task) -> None:
    parsed = parse_task(NAMES.task_of(task), {"Jf-Parent-Step": task.parent_step}, task.input)
    for field in ("workflow", "step", "root", "parent", "run", "turn", "parent_step", "input"):
        assert getattr(parsed, field) == getattr(task, field)


@settings(max_examples=30)
@given(tasks)
def test_every_filter_finds_its_task(task: Task) -> None:
    subject = NAMES.task_of(task)
    for pattern in (
        NAMES.all_tasks[0],
        NAMES.tasks_of_step(task.workflow, task.step),
        NAMES.tasks_of_parent(task.root, task.parent),
        NAMES.tasks_of_run(task.root, task.run),
        NAMES.tasks_of_run_id(task.run),
        NAMES.tasks_of_tree(task.root),
    ):
        assert matches(subject, pattern)
    assert not matches(subject, NAMES.tasks_of_run_id("f" * 32)) or task.run == "f" * 32
    before, after = NAMES.child_tasks(task.workflow, task.step, task.root, task.parent)
    assert NAMES.task(task.workflow, task.step, task.root, task.parent, task.run) == f"{before}{task.run}{after}"


def test_the_subjects_of_the_wire_format() -> None:
    assert NAMES.task_of(CHILD) == f"jf.ns.task.index-file.run.{ROOT}.{PARENT}.{RUN}.0"
    assert NAMES.run_of(CHILD) == f"jf.ns.run.{ROOT}.{PARENT}.scan.{RUN}"
    assert NAMES.mark_of(CHILD, "failed") == f"jf.ns.mark.{ROOT}.{PARENT}.scan.failed.index-file.{RUN}"
    assert NAMES.run(RUN, NONE, NONE, RUN) == f"jf.ns.run.{RUN}.-.-.{RUN}"
    assert NAMES.step(JOIN) == f"jf.ns.step.{ROOT}.{PARENT}.scan"
    assert NAMES.join(JOIN, 2) == f"jf.ns.join.{ROOT}.{PARENT}.scan.2"
    assert NAMES.attempt(JOIN, 0, 3) == f"jf.ns.try.{ROOT}.{PARENT}.scan.0.3"
    assert NAMES.counter("join", JOIN) == f"$KV.jf_ns_counters.join.{ROOT}.{PARENT}.scan"
    assert NAMES.counter("gate", JOIN) == f"$KV.jf_ns_counters.gate.{ROOT}.{PARENT}.scan"
    assert NAMES.workflow_version("w", "v") == "$KV.jf_ns_workflows.w.v"
    assert NAMES.inbox_trigger("w") == "jf.ns.in.trigger.w"
    assert NAMES.inbox_look(JOIN) == f"jf.ns.in.look.{ROOT}.{PARENT}.scan"
    assert NAMES.consumer("index-file", "run") == "index-file=run"


def test_an_outcome_is_found_by_its_join_its_parent_and_its_id() -> None:
    outcome = NAMES.run_of(CHILD)
    for pattern in (NAMES.runs_of_join(JOIN), NAMES.runs_of_parent(ROOT, PARENT), NAMES.run_by_id(RUN)):
        assert matches(outcome, pattern)
    assert not matches(outcome, NAMES.runs_of_join(StepAddress(ROOT, PARENT, "other")))
    assert last_token(outcome) == RUN


def test_what_the_streams_hold() -> None:
    def held(subject: str, patterns: tuple[str, ...] = NAMES.all_records) -> bool:
        return any(matches(subject, pattern) for pattern in patterns)

    assert all(
        map(
            held,
            (
                NAMES.run_of(CHILD),
                NAMES.step(JOIN),
                NAMES.join(JOIN, 0),
                NAMES.mark_of(CHILD, "failed"),
                NAMES.attempt(JOIN, 0, 1),
                NAMES.once(JOIN, "charge"),
            ),
        )
    )
    assert not held(NAMES.live_run_by_id(RUN))
    assert not held(NAMES.value(ROOT, "d", 0))
    assert matches(NAMES.value(ROOT, "d", 0), NAMES.all_values)
    assert matches(NAMES.cancelled(ROOT, RUN), NAMES.all_cancelled)
    assert not held(NAMES.task_of(CHILD))
    assert held(NAMES.task_of(CHILD), NAMES.all_tasks)
    assert held(NAMES.cancelled(ROOT, RUN), NAMES.all_tasks)
    assert not held(NAMES.cancelled(ROOT, RUN))


def test_live_copies() -> None:
    source, live = NAMES.republished_records
    assert matches(NAMES.run(RUN, NONE, NONE, RUN), source)
    assert not matches(NAMES.run_of(CHILD), source)
    assert live == "jf.ns.live.run.{{wildcard(1)}}.-.-.{{wildcard(2)}}"
    for pattern in (NAMES.live_run_by_id(RUN), NAMES.live_runs_of_parent(ROOT, PARENT)):
        assert matches(NAMES.live_run(NAMES.run_of(CHILD)), pattern)
    source, live = NAMES.republished_tasks
    assert matches(NAMES.cancelled(ROOT, RUN), source)
    assert matches(NAMES.cancelled(ROOT, RUN).replace(".cancel.", ".live.cancel.", 1), live)
    assert matches(NAMES.cancelled(ROOT, RUN).replace(".cancel.", ".live.cancel.", 1), NAMES.live_cancelled)


def test_copies_of_first_tasks_are_no_marks_and_outlive_the_purge_of_their_tree() -> None:
    copy = NAMES.kept(ROOT, "ab" * 8)
    assert matches(copy, NAMES.all_kept)
    assert not matches(copy, NAMES.all_cancelled)
    assert not matches(copy, NAMES.tasks_of_tree(ROOT))
    assert any(matches(copy, pattern) for pattern in NAMES.all_tasks)
    assert not matches(NAMES.cancelled(ROOT, RUN), NAMES.all_kept)


def test_a_tree_is_deleted_by_its_filters() -> None:
    def deleted(subject: str) -> bool:
        return any(matches(subject, pattern) for pattern in NAMES.records_of_tree(ROOT))

    assert all(map(deleted, (NAMES.run_of(CHILD), NAMES.step(JOIN), NAMES.join(JOIN, 0), NAMES.once(JOIN, "x"))))
    assert not deleted(NAMES.cancelled(ROOT, ROOT)), "the mark stays"
    assert not deleted(NAMES.run(RUN, NONE, NONE, RUN))
    assert matches(NAMES.counter("join", JOIN), NAMES.counters_of_tree(ROOT))
    assert matches(NAMES.value(ROOT, "d", 0), NAMES.values_of_tree(ROOT))


def test_counters_and_inbox_messages_are_parsed() -> None:
    assert NAMES.parse_counter(NAMES.counter("join", JOIN)) == JOIN
    assert matches(NAMES.counter("join", JOIN), NAMES.join_counters)
    assert not matches(NAMES.counter("gate", JOIN), NAMES.join_counters)
    assert NAMES.parse_inbox(NAMES.inbox_trigger("w")) == ["trigger", "w"]
    assert NAMES.parse_inbox(NAMES.inbox_look(JOIN)) == ["look", ROOT, PARENT, "scan"]


def test_the_next_turn() -> None:
    assert NAMES.next_turn(NAMES.task_of(CHILD)) == f"jf.ns.task.index-file.run.{ROOT}.{PARENT}.{RUN}.1"
    assert NAMES.next_turn("a.9") == "a.10"


@pytest.mark.parametrize("namespace", ["", "a.b", "*", "_x", "é"])
def test_a_namespace_is_a_name(namespace: str) -> None:
    with pytest.raises(InvalidName, match="namespace"):
        Subjects(namespace)
