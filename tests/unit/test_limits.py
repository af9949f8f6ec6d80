"""The rule of limits: who may begin, who is refused, who has to make room."""

from __future__ import annotations

import pytest

from jetflow.engine.limits import LimitSettings, Place, Standing, WhenFull, places_of, standing, written_places
from jetflow.engine.tasks import NONE, Task
from jetflow.wire.limits import LimitNames, limit_token
from jetflow.wire.records import parse_task, task_headers
from jetflow.wire.subjects import Subjects

ROOT, RUN = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("run", "most", "when_full", "expected"),
    [
        ("a", 1, "queue", Standing(admitted=True)),
        ("b", 1, "queue", Standing(admitted=False, before=1)),
        ("b", 2, "queue", Standing(admitted=True, before=1)),
        ("z", 9, "queue", Standing(admitted=False)),
        ("b", 1, "reject", Standing(admitted=False, before=1, refused=True)),
        ("d", 1, "cancel_running", Standing(admitted=False, before=3, doomed=("a", "b", "c"))),
        ("d", 3, "cancel_running", Standing(admitted=False, before=3, doomed=("a",))),
        ("a", 3, "cancel_running", Standing(admitted=True, refused=True)),
        ("d", 1, "keep_newest", Standing(admitted=False, before=3, doomed=("b", "c"))),
        ("c", 1, "keep_newest", Standing(admitted=False, before=2, refused=True, doomed=("b",))),
        ("b", 1, "keep_oldest", Standing(admitted=False, before=1)),
        ("c", 1, "keep_oldest", Standing(admitted=False, before=2, refused=True)),
    ],
)
def test_how_a_run_stands(run: str, most: int, when_full: WhenFull, expected: Standing) -> None:
    assert standing(run, ["a", "b", "c", "d"], most, when_full) == expected


def test_which_max_counts() -> None:
    settings = LimitSettings(max=3)
    assert settings.max_of("k") == 3
    settings = LimitSettings(max=3, chosen=5, keys={"k": 1})
    assert (settings.max_of("k"), settings.max_of("other")) == (1, 5)


def test_places_travel() -> None:
    places = (Place("one", "_"), Place("two", "k-1"))
    assert places_of(written_places(places)) == places
    assert places_of(None) == ()
    task = Task(
        workflow="w",
        step="s",
        root=RUN,
        parent=NONE,
        run=RUN,
        turn=1,
        parent_step=NONE,
        version="v",
        depth=0,
        digest="",
        input=b"1",
        places=written_places(places),
        held="three.k",
    )
    subject = Subjects("ns").task_of(task)
    assert parse_task(subject, task_headers(task, "id"), b"1") == task


def test_subjects_of_entries_are_read_back() -> None:
    names, place = LimitNames(Subjects("ns")), Place("one", limit_token("a key"))
    task = parse_task(f"jf.ns.task.w.s.{ROOT}.{ROOT}.{RUN}.0", {"Jf-Parent-Step": "p"}, b"")
    stands = names.parse_entry(names.entry(place, task))
    assert stands is not None
    assert (stands.place, stands.root, stands.parent, stands.run) == (place, ROOT, ROOT, RUN)
    assert names.parse_entry(names.gone(ROOT, RUN)) is None
    assert limit_token("_") != "_"
