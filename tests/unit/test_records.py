"""Headers, task messages and record bodies."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetflow.engine.graph import Graph, Node
from jetflow.engine.joins import Borrowed, JoinRecord
from jetflow.engine.tasks import NONE, Attempt, Failure, Outcome, Task
from jetflow.errors import MalformedRecord
from jetflow.wire.records import (
    MARK_BYTES,
    MARK_TEXT,
    SHOWN_KEY,
    Declaration,
    MalformedTask,
    Mark,
    decode_attempt,
    decode_declaration,
    decode_graph,
    decode_join,
    decode_mark,
    decode_outcome,
    encode,
    header_block,
    mark_body,
    parse_task,
    shown_key,
    task_headers,
)
from jetflow.wire.subjects import Subjects

ROOT, PARENT, RUN = "0" * 32, "1" * 32, "2" * 32
SUBJECT = f"jf.ns.task.w.run.{ROOT}.{PARENT}.{RUN}.0"
ROOT_SUBJECT = f"jf.ns.task.w.run.{RUN}.-.{RUN}.0"
HEADERS = {"Jf-Parent-Step": "scan", "Jf-Version": "v", "Jf-Depth": "1", "Jf-Digest": "2-d"}


OPTIONAL = {
    "Jf-Key": '"ü"',
    "Jf-Metadata": "{}",
    "Jf-Deadline": "1795363200.250",
    "Jf-Eager": "1",
    "Jf-Value": "d.1",
    "traceparent": "t",
}


# --- headers


def test_a_header_block_is_as_nats_has_it() -> None:
    assert header_block({"A": "1", "B": ""}) == b"NATS/1.0\r\nA: 1\r\nB: \r\n\r\n"
    assert header_block({"A": "é"}) == "NATS/1.0\r\nA: é\r\n\r\n".encode()


@given(st.text(max_size=300))
def test_a_shown_key_is_one_line_of_json(key: str) -> None:
    shown = shown_key(key)
    assert "\r" not in shown
    assert "\n" not in shown
    read = msgspec.json.decode(shown, type=str)
    assert len(read) <= SHOWN_KEY
    assert read == key if len(key) <= SHOWN_KEY else read[:-1] == key[: SHOWN_KEY - 1]


def test_a_key_that_is_no_unicode_can_be_shown() -> None:
    assert shown_key("a\udcff") == '"a?"'


# --- tasks


def test_a_task_of_a_child() -> None:
    task = parse_task(SUBJECT, HEADERS | {"Jf-Key": '"k\\n"', "Jf-Metadata": '{"a":1}', "traceparent": "00-x"}, b"{}")
    assert task == Task(
        workflow="w",
        step="run",
        root=ROOT,
        parent=PARENT,
        run=RUN,
        turn=0,
        parent_step="scan",
        version="v",
        depth=1,
        digest="2-d",
        input=b"{}",
        key="k\n",
        metadata=b'{"a":1}',
        trace="00-x",
    )
    assert task.parent_join is not None
    assert task.parent_join.step == "scan"


def test_a_task_of_a_root_run_needs_no_headers() -> None:
    task = parse_task(ROOT_SUBJECT, None, b"1")
    assert (task.parent, task.parent_step, task.version, task.depth, task.key) == (NONE, NONE, "", 0, None)
    assert task.parent_join is None


def test_a_key_that_is_not_json_is_taken_as_it_is() -> None:
    assert parse_task(SUBJECT, HEADERS | {"Jf-Key": "k: v"}, b"").key == "k: v"


def test_headers_say_what_the_task_says() -> None:
    task = parse_task(SUBJECT, HEADERS | OPTIONAL, b"[]")
    assert (task.key, task.deadline, task.eager, task.value) == ("ü", 1795363200.25, True, "d.1")
    headers = task_headers(task, "id")
    assert headers["Nats-Msg-Id"] == "id"
    assert parse_task(Subjects("ns").task_of(task), headers, task.input) == task


@pytest.mark.parametrize(
    ("subject", "headers", "message"),
    [
        ("jf.ns.task.w.run", {}, "does not end in workflow, step"),
        (f"{SUBJECT}.0", HEADERS, "does not end in workflow, step"),
        (SUBJECT.replace(RUN, "run"), HEADERS, "does not end in"),
        (SUBJECT.replace(ROOT, "A" * 32), HEADERS, "does not end in"),
        (SUBJECT.replace(PARENT, "--"), HEADERS, "does not end in"),
        (f"{SUBJECT[:-1]}x", HEADERS, "does not end in"),
        (f"{SUBJECT[:-1]}-1", HEADERS, "does not end in"),
        (SUBJECT, HEADERS | {"Jf-Depth": "deep"}, "Jf-Depth is 'deep'"),
        (SUBJECT, HEADERS | {"Jf-Depth": "-1"}, "Jf-Depth"),
        (SUBJECT, HEADERS | {"Jf-Deadline": "soon"}, "Jf-Deadline is 'soon'"),
        (SUBJECT, HEADERS | {"Jf-Parent-Step": "*"}, "Jf-Parent-Step"),
        (SUBJECT, HEADERS | {"Jf-Parent-Step": "-"}, "Jf-Parent-Step"),
        (SUBJECT, {}, "Jf-Parent-Step"),
        (ROOT_SUBJECT, HEADERS, "Jf-Parent-Step is 'scan'"),
    ],
)
def test_malformed_tasks_are_refused(subject: str, headers: dict[str, str], message: str) -> None:
    with pytest.raises(MalformedTask, match=message):
        parse_task(subject, headers, b"")


# --- bodies


def test_an_outcome_leaves_out_what_is_default() -> None:
    outcome = Outcome(status="succeeded", output=msgspec.Raw(b'{"a":1}'), workflow="w")
    assert encode(outcome) == b'{"status":"succeeded","output":{"a":1},"workflow":"w"}'
    assert decode_outcome(encode(outcome)) == outcome


def test_the_least_outcome_that_a_worker_may_write() -> None:
    outcome = decode_outcome(b'{"status":"succeeded","new":true}')
    assert outcome.output == msgspec.Raw(b"null")
    assert outcome.attempt == 1
    failed = decode_outcome(b'{"status":"failed","error":{"type":"E","message":"m"}}')
    assert failed.error == Failure("E", "m")


def test_an_outcome_that_cannot_be_read_is_a_failure() -> None:
    """Whoever waits for it must go on."""
    outcome = decode_outcome(b'{"status":"done"}')
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.type == "MalformedOutcome"


def test_a_join_record() -> None:
    record = JoinRecord(
        kind="sealed",
        turn=1,
        task=SUBJECT,
        needed=2,
        members=bytes(range(16)),
        borrowed=(Borrowed(RUN, "other"),),
        output=msgspec.Raw(b"1"),
    )
    body: dict[str, Any] = msgspec.json.decode(encode(record))
    assert body["members"] == "AAECAwQFBgcICQoLDA0ODw=="
    assert body["borrowed"] == [[RUN, "other"]]
    assert decode_join(encode(record)) == record


def test_no_members_are_not_the_same_as_all() -> None:
    parked = JoinRecord(kind="parked", turn=0, task=SUBJECT, needed=1, members=b"")
    assert decode_join(encode(parked)).members == b""
    assert decode_join(b'{"kind":"parked","turn":0,"task":"t","needed":1}').members is None


def test_an_attempt() -> None:
    attempt = Attempt(attempt=2, worker="z", started=1.0, ended=2.0, returned=True)
    assert encode(attempt) == b'{"attempt":2,"worker":"z","started":1.0,"ended":2.0,"returned":true}'
    assert decode_attempt(encode(attempt)) == attempt


def test_an_attempt_may_leave_out_whatever_holds_its_default() -> None:
    assert decode_attempt(b"{}") == Attempt(attempt=1, worker="", started=0.0, ended=0.0)
    assert encode(Attempt(again=3.5)) == b'{"again":3.5}'


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"attempt":"one"}'])
def test_an_attempt_that_cannot_be_read_is_one_that_failed(body: bytes) -> None:
    attempt = decode_attempt(body)
    assert attempt.error is not None
    assert (attempt.error.type, attempt.returned) == ("MalformedAttempt", False)


@pytest.mark.parametrize("decode", [decode_join, decode_declaration, decode_graph])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"[" * 100_000], ids=len)
def test_what_a_run_rests_on_cannot_be_guessed(decode: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(MalformedRecord, match="cannot be read"):
        decode(body)


def test_a_mark_tells_of_a_failure_in_short() -> None:
    error = Failure("ValueError", "m" * 1000, "scan", "Traceback …", "flows.py:scan")
    mark = decode_mark(mark_body(Outcome(status="failed", error=error, key="k")))
    assert mark == Mark(
        type="ValueError", message="m" * (MARK_TEXT - 1) + "…", step="scan", place="flows.py:scan", key="k"
    )
    assert mark_body(Outcome(status="failed")) == b"{}"


@given(st.text(), st.text(), st.text(), st.text())
@example("x" * 300, "\x00" * 300, "ü" * 300, "🜁" * 300)
def test_a_mark_is_small(kind: str, message: str, place: str, key: str) -> None:
    error = Failure(kind, message, "s" * 64, "", place)
    body = mark_body(Outcome(status="failed", error=error, key=key))
    assert len(body) <= MARK_BYTES
    assert decode_mark(body).step == "s" * 64


@pytest.mark.parametrize("body", [b"", b"1", b'{"type":1}'])
def test_a_mark_that_cannot_be_read_is_one_all_the_same(body: bytes) -> None:
    assert decode_mark(body) == Mark()


def test_a_declaration_that_a_worker_in_another_language_may_write() -> None:
    declared = decode_declaration(
        b'{"graph":{"workflow":"w","nodes":[{"name":"a"},{"name":"b","after":["a"]}]},"version":"v1"}'
    )
    assert declared.graph == Graph("w", (Node("a"), Node("b", ("a",))))
    assert declared.input == msgspec.Raw(b"{}")
    assert decode_declaration(encode(declared)) == declared
    assert decode_graph(encode(declared.graph)) == declared.graph
    assert isinstance(declared, Declaration)
