"""Topics, filters of consumers, conditions and the order of waits, as rules without a broker."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jetflow.engine.awaiting import Awaited, Group, Taken, WaitNames, earliest
from jetflow.engine.events import checked_pattern, is_of, key_token, run_of_event, without_overlap
from jetflow.engine.matching import Matching
from jetflow.engine.output import PROGRESS_EVERY, Bounds, Newest, Writing, wait_before_next
from jetflow.errors import InvalidDeclaration
from jetflow.wire.events import EventNames
from jetflow.wire.subjects import Subjects

NAMES = EventNames(Subjects("ns"))


@pytest.mark.parametrize(
    ("topic", "pattern", "fits"),
    [
        ("order.paid", "order.paid", True),
        ("order.paid", "order.*", True),
        ("order.paid", "*.paid", True),
        ("order.paid", ">", True),
        ("order.paid.now", "order.>", True),
        ("order", "order.>", False),
        ("order.paid.now", "order.*", False),
        ("order.paid", "order", False),
        ("order.>", "order.*", False),  # of patterns: all those of the first would have to be of the second
        ("order.*", "order.>", True),
    ],
)
def test_topics_and_patterns(topic: str, pattern: str, fits: bool) -> None:
    assert is_of(topic, pattern) is fits


@pytest.mark.parametrize("pattern", ["", "a.>.b", "a b", "**", 7, "a..b"])
def test_what_is_no_pattern(pattern: Any) -> None:
    with pytest.raises(InvalidDeclaration):
        checked_pattern("on", pattern)


def test_filters_of_one_consumer_do_not_overlap() -> None:
    everything = "e.>"
    assert without_overlap(["e.a.b", "e.a.*", "e.c"], everything=everything) == ["e.a.*", "e.c"]
    assert without_overlap(["e.a.>", "e.a.b.c"], everything=everything) == ["e.a.>"]
    assert without_overlap(["e.a.*", "e.*.b"], everything=everything) == [everything]
    assert without_overlap(["e.a.*", "e.*.b.c"], everything=everything) == ["e.*.b.c", "e.a.*"]


def test_keys_and_ids() -> None:
    assert key_token("customer-7") == "customer-7"
    assert key_token(None) == "_"
    assert key_token("_") != "_"
    assert key_token("customer 7") == key_token("customer 7") != key_token("customer 8")
    assert run_of_event("ship", "a") != run_of_event("shi", "pa")


def test_subjects_of_waits_tell_their_task() -> None:
    task = "jf.ns.task.flow.run.{0}.-.{0}.4".format("a" * 32)
    for awaited in (Awaited(topic="order.paid", key="k"), Awaited(topic="order", if_=(("n", "==", 1),))):
        wait = NAMES.wait(awaited, task, 2)
        assert NAMES.task_of_wait(wait) == task
        assert NAMES.is_conditional(wait) is bool(awaited.if_)
        filters = NAMES.waits_for(awaited.topic, awaited.key or "_")
        assert sum(wait.startswith(one[:-1]) for one in filters) == 1
        assert is_of(wait, NAMES.waits_of_tree("a" * 32))


VALUE = {"n": 10, "text": "abc", "yes": True, "user": {"id": 7, "tags": ["a", "b"]}, "none": None}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (["n", "==", 10], True),
        (["n", "==", 10.0], True),
        (["n", "==", "10"], False),
        (["yes", "==", 1], False),  # JSON's true is no number
        (["yes", "==", True], True),
        (["n", ">", 9], True),
        (["n", ">", 10], False),
        (["n", ">=", 10], True),
        (["n", "<", "a"], False),  # cannot be compared
        (["text", "<", "b"], True),
        (["text", "starts with", "ab"], True),
        (["text", "has", "bc"], True),
        (["user.id", "in", [1, 7]], True),
        (["user.id", "not in", [1, 7]], False),
        (["user.tags", "has", "b"], True),
        (["user.tags.1", "==", "b"], True),
        (["user.tags.2", "==", "b"], False),
        (["nothing", "!=", 1], False),  # what is not there fits nothing
        (["nothing", "exists", False], True),
        (["none", "exists", True], True),
        (["none", "==", None], True),
        (["", "has", "n"], True),
    ],
)
def test_conditions(condition: list[Any], holds: bool) -> None:
    assert Matching("on", [condition]).fits(VALUE) is holds
    assert Matching("on", [condition, ["n", "==", 10]]).fits(VALUE) is holds
    assert Matching("on", [condition, ["n", "==", 11]]).fits(VALUE) is False


def test_waits_are_told_apart_and_go_on_behind_what_was_taken() -> None:
    names = WaitNames()
    a, b = Awaited(topic="a", key="k"), Awaited(topic="b")
    both, one = Group(events=(a, b)), Group(events=(a,))
    assert len({names.name(one), names.name(one), names.name(both)}) == 3
    assert WaitNames().name(one) == WaitNames().name(one)
    assert names.name(Group(events=(a,), name="mine")) == "_wait-name-mine"
    names.took(both, Taken(which=0, sequence=7))
    names.took(one, Taken())  # timed out: what comes late is for the next
    assert (names.behind(a), names.behind(b)) == (7, 0)
    assert earliest([(0, 9), (2, 4)]) == 2
    assert earliest([]) is None
    assert msgspec.json.decode(msgspec.json.encode(Taken()), type=Taken) == Taken()


def test_output_takes_the_newest_writing_and_keeps_within_bounds() -> None:
    newest = Newest()
    assert newest.takes("run", Writing(0, 1))
    assert newest.takes("run", Writing(0, 2))
    assert not newest.takes("run", Writing(0, 1))
    assert newest.takes("other", Writing(0, 1))
    assert newest.takes("run", Writing(1, 1))
    bounds = Bounds(2, 100)
    bounds.take(99)
    assert not bounds.is_used_up
    bounds.take(1)
    assert bounds.is_used_up
    bounds.give(99)
    assert not bounds.is_used_up
    assert wait_before_next(10.0, None) == 0.0
    assert wait_before_next(10.0, 10.0) == pytest.approx(PROGRESS_EVERY)
