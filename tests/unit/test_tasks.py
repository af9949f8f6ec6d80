"""Delivered tasks: whatever was remembered of siblings, what is read is what `parse_task` says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow.broker.parser import Message
from jetflow.engine.tasks import Task
from jetflow.runs.tasks import FAMILIES, TaskReader
from jetflow.wire.records import MalformedTask, header_block, parse_task

ROOT, PARENT = "0" * 32, "1" * 32
RUNS = ["2" * 32, "3" * 32, "a" * 32, "A" * 32, "x"]
SHARED = {"Jf-Parent-Step": "scan", "Jf-Version": "v", "Jf-Depth": "1"}
OF_ROOT = {"Nats-Msg-Id": "m", "Jf-Parent-Step": "-", "Jf-Version": "v", "Jf-Depth": "0", "Jf-Digest": "2-d"}

subjects = st.builds(
    "jf.ns.task.{}.run.{}.{}.{}.{}".format,
    st.sampled_from(["w", "v"]),
    st.sampled_from([ROOT, PARENT]),
    st.sampled_from([PARENT, ROOT, "-"]),
    st.sampled_from([*RUNS, ROOT]),
    st.sampled_from(["0", "1", "x"]),
)
headers = st.builds(
    lambda shared, message_id, own: shared | message_id | own,
    st.sampled_from([SHARED, SHARED | {"Jf-Deadline": "5.0", "Jf-Eager": "1"}, SHARED | {"Jf-Depth": "x"}, {}]),
    st.sampled_from([{"Nats-Msg-Id": "a.scan"}, {"Nats-Msg-Id": "b"}, {}]),
    st.sampled_from([{}, {}, {"Jf-Digest": "2-d"}, {"Jf-Key": '"k"'}, {"Jf-Value": "d.1"}, {"Nats-Msg-Id": "c"}]),
) | st.builds(
    lambda of_root, own: of_root | own,
    st.sampled_from([OF_ROOT, OF_ROOT | {"Jf-Version": "u"}, OF_ROOT | {"Jf-Depth": "x"}]),
    st.sampled_from([{}, {"Jf-Digest": "3-é"}, {"Jf-Digest": " 4 "}, {"Jf-Key": '"k"'}, {"Jf-Parent-Step": "scan"}]),
)


def message(subject: str, headers: dict[str, str], body: bytes = b"1") -> Message:
    return Message(subject, "", body, header_block(headers) if headers else None)


def parsed(message: Message) -> Task | str:
    try:
        return parse_task(message.subject, message.headers, message.data)
    except MalformedTask as error:
        return str(error)


@given(st.lists(st.tuples(subjects, headers, st.sampled_from([b"1", b"[]"])), max_size=12))
def test_siblings_are_read_as_strangers_are(delivered: list[tuple[str, dict[str, str], bytes]]) -> None:
    reader = TaskReader()
    for parts in delivered:
        try:
            found = reader.read(message(*parts))
        except MalformedTask as error:
            found = str(error)
        assert found == parsed(message(*parts))


def test_a_sibling_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TaskReader()
    first, second = (
        message(f"jf.ns.task.w.run.{ROOT}.{PARENT}.{run}.0", SHARED | {"Nats-Msg-Id": run}) for run in RUNS[:2]
    )
    reader.read(first)
    expected = parsed(second)
    monkeypatch.setattr("jetflow.runs.tasks.parse_task", None)
    assert reader.read(second) == expected


def test_the_next_step_of_a_root_run_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TaskReader()
    first, second = (
        message(f"jf.ns.task.w.{step}.{run}.-.{run}.0", OF_ROOT | {"Jf-Digest": f"2-{step}"})
        for step, run in (("a", ROOT), ("b", PARENT))
    )
    reader.read(first)
    expected = parsed(second)
    monkeypatch.setattr("jetflow.runs.tasks.parse_task", None)
    assert reader.read(second) == expected


def test_not_all_families_are_remembered() -> None:
    reader = TaskReader()
    for number in range(FAMILIES + 2):
        reader.read(message(f"jf.ns.task.w.run.{ROOT}.{number:032x}.{RUNS[0]}.0", SHARED | {"Nats-Msg-Id": "m"}))
    assert len(reader._siblings) == 2
