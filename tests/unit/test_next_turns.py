"""The next turn of a task that is made of its headers as they stand is the one that the engine's rule publishes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from jetflow.engine.tasks import NONE, Task
from jetflow.wire.next_turns import next_turn
from jetflow.wire.records import header_block, task_headers
from jetflow.wire.subjects import Subjects

NAMES = Subjects("default")
RUN, PARENT, ROOT = "a" * 32, "b" * 32, "c" * 32
CHILD = Task(
    workflow="index-file",
    step="read_1",
    root=ROOT,
    parent=PARENT,
    run=RUN,
    turn=0,
    parent_step="scan",
    version="0123456789abcdef",
    depth=2,
    digest="2-0f",
    input=b'{"path":"x"}',
)
FIRST = replace(CHILD, root=RUN, parent=NONE, parent_step=NONE, depth=0)
TOLD = replace(
    CHILD,
    key='"a\\u00e9"',
    metadata=b'{"by":"h\xc3\xa5nd","x":["Nats-Stream: y"]}',
    trace="00-1-2-01",
    deadline=1764280000.5,
    not_before=1764270000.25,
    eager=True,
    shared=True,
    value="ff-262144.3",
    places="p",
    held="h",
    elder="e.f",
    rerun="all",
)


def brought(task: Task, headers: dict[str, str] | None = None) -> bytes:
    """Return the headers of a stored task as a direct get brings them."""
    given = task_headers(task, f"{task.run}.{task.step}.{task.turn}") if headers is None else headers
    more = f"Nats-Stream: S\r\nNats-Subject: {NAMES.task_of(task)}\r\nNats-Sequence: 7\r\nNats-Time-Stamp: t\r\n\r\n"
    return header_block(given)[:-2] + more.encode()


@pytest.mark.parametrize("task", [CHILD, FIRST, TOLD, replace(TOLD, turn=99, tried=3), replace(CHILD, digest="")])
@pytest.mark.parametrize("tried", [0, 1, 12])
def test_it_is_the_turn_that_the_rule_publishes(task: Task, tried: int) -> None:
    following = replace(task, turn=task.turn + 1, tried=tried)
    made = next_turn(NAMES.task_of(task), brought(task), tried)
    assert made is not None
    assert made.subject == NAMES.task_of(following)
    assert made.headers == header_block(task_headers(following, f"{task.run}.{task.step}.{following.turn}"))
    assert made.outcome == NAMES.run_of(task)
    assert (made.root, made.run, made.step, made.turn) == (task.root, task.run, task.step, task.turn + 1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Jf-Parent-Step": "scan"},
        {"Jf-Depth": "2", "Jf-Parent-Step": "scan", "Nats-Msg-Id": "x"},
        {"Nats-Msg-Id": "x", "Jf-Parent-Step": "no name", "Jf-Depth": "2"},
        {"Nats-Msg-Id": "x", "Jf-Parent-Step": "scan", "Somebody": "else"},
        {"Nats-Msg-Id": "x", "Jf-Parent-Step": "scan", "Jf-Attempt": "many"},
    ],
)
def test_of_another_form_nothing_is_made(headers: dict[str, str]) -> None:
    assert next_turn(NAMES.task_of(CHILD), brought(CHILD, headers), 0) is None


@pytest.mark.parametrize(
    "subject",
    [
        f"jf.default.task.w.s.{ROOT}.{PARENT}.{RUN}.01",
        f"jf.default.task.w.s.{ROOT}.-.{RUN}.0",
        f"jf.default.run.w.s.{ROOT}.{PARENT}.{RUN}.0",
        f"jf.default.task.w.s.{ROOT}.{PARENT}.0",
    ],
)
def test_of_no_task_nothing_is_made(subject: str) -> None:
    assert next_turn(subject, brought(CHILD), 0) is None
