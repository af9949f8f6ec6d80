"""The rule of levels: which queue a task stands in, whose turn it is, and what is asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from jetflow.engine.effects import Start
from jetflow.engine.graph import ADMIT, Graph, Node
from jetflow.engine.levels import EVERY, Levels, Turns, at_level, parts_of, queue_of, rank_of, to_ask_for
from jetflow.engine.transitions import after_failure, begin
from jetflow.wire.records import parse_task, task_headers
from jetflow.wire.subjects import Subjects

VECTORS: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "conformance" / "vectors" / "levels.json").read_text()
)
NAMES: Final = Subjects("default")
LEVELS: Final = Levels(("urgent", "normal", "low"), "normal")


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_what_follows_a_first_task(vector: dict[str, Any]) -> None:
    graph = msgspec.convert(vector["graph"], Graph)
    assert graph.first == ADMIT
    asked = parse_task(vector["first"]["subject"], vector["first"]["headers"], b"1")
    assert NAMES.task_of(asked) == vector["first"]["subject"]
    step, turn = vector["step"], vector["turn"]
    task = msgspec.structs.replace(at_level(asked, graph), step=step, turn=turn)
    assert NAMES.task_of(task) == vector["task"]["subject"]
    assert NAMES.timer_of(task) == vector["timer"]
    told = {name: value for name, value in task_headers(task, "m").items() if name == "Jf-Level"}
    assert told == vector["task"]["headers"]
    read = parse_task(vector["task"]["subject"], task_headers(task, "m"), b"1")
    assert read == task
    assert at_level(read, graph) == read
    assert NAMES.task_of_due(NAMES.due_of(read)) == vector["task"]["subject"]


def test_all_that_begins_a_step_puts_it_into_its_queue() -> None:
    nodes = [Node("a"), Node("b")]
    graph = Graph.checked("w", nodes, "failed", levels=LEVELS.names, level=LEVELS.default)
    asked = parse_task(f"jf.default.task.w._admit.{'a' * 32}.-.{'a' * 32}.0", {"Jf-Level": "low"}, b"1")
    begun = [effect for effect in begin(asked, graph) if isinstance(effect, Start)]
    ended = [effect for effect in after_failure(asked, graph) if isinstance(effect, Start)]
    assert [queue_of(effect.task, effect.step) for effect in begun + ended] == ["a=low", "b=low", "failed=low"]


def test_queues_and_ranks() -> None:
    assert parts_of("run") == ("run", None)
    assert parts_of("run=low") == ("run", "low")
    assert [rank_of(level, LEVELS) for level in (*LEVELS.names, "gone", None)] == [-1, 0, 1, 2, 0]
    assert rank_of("low", None) == 0


@given(some.lists(some.sets(some.integers(-2, 2), min_size=1), min_size=1, max_size=400))
def test_the_most_urgent_is_next_but_for_one_in_so_many(waiting: list[set[int]]) -> None:
    turns = Turns()
    others = 0
    for ranks in waiting:
        chosen = turns.next(sorted(ranks))
        assert chosen in ranks
        others += chosen != min(ranks)
    contested = sum(len(ranks) > 1 for ranks in waiting)
    assert others == contested // EVERY


@pytest.mark.parametrize("ranks", [(-1, 0), (-1, 0, 1), tuple(range(8))])
def test_no_level_that_waits_is_left_out(ranks: Sequence[int]) -> None:
    turns, chosen = Turns(), Counter[int]()
    rounds = 10 * EVERY * (len(ranks) - 1)
    chosen.update(turns.next(ranks) for _ in range(rounds))
    assert chosen[ranks[0]] == rounds - rounds // EVERY
    assert {chosen[rank] for rank in ranks[1:]} == {10}


def test_what_is_asked_for() -> None:
    assert to_ask_for(room=10, as_urgent=0, own=0) == 10
    assert to_ask_for(room=10, as_urgent=4, own=1) == 6, "what is as urgent has its slots already"
    assert to_ask_for(room=0, as_urgent=0, own=0) == 1, "one of each level is there before a slot comes free"
    assert to_ask_for(room=0, as_urgent=9, own=1) == 0
    assert to_ask_for(room=0, as_urgent=0, own=0, moving=False) == 0, "where steps are long, others may have it"
    assert to_ask_for(room=3, as_urgent=9, own=0) == 1, "else a busy level above would keep it from its turn"
