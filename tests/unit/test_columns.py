"""Rows of children in memory: kept small, found by their ids, chosen and sorted."""

from __future__ import annotations

import secrets

import pytest

from jetflow.engine.tasks import Failure
from jetflow.runs.query.columns import SORTS, Choice, Columns, End, Kind

LEAF, OTHER = Kind("leaf", "run", "spread"), Kind("other", "first", "again")


def filled(count: int, *, key: str | None = "k{}") -> tuple[Columns, list[bytes]]:
    columns, ids = Columns(), [secrets.token_bytes(16) for _ in range(count)]
    for at, run in enumerate(ids):
        columns.add(run, OTHER if at % 7 == 3 else LEAF, None if key is None else key.format(at), 1000.0 + at)
    return columns, ids


def test_a_row_takes_about_sixty_bytes() -> None:
    columns, _ = filled(100_000, key=None)
    assert columns.size <= 60 * len(columns)


def test_each_row_is_found_by_its_id() -> None:
    columns, ids = filled(5000)
    for at, run in enumerate(ids):
        columns.end(run, End(status="succeeded", attempt=at % 3 + 1, started=2000.0, ended=2000.0 + at / 1000))
    assert len(columns.chosen(Choice(status="succeeded"))) == 5000
    assert [columns.id(at) for at in range(5000)] == [run.hex() for run in ids]
    assert list(columns.chosen(Choice(sort="-took")))[:3] == [4999, 4998, 4997]
    assert columns.took(range(5000))[-1] == pytest.approx(4.999)


def test_an_end_may_be_told_before_its_child() -> None:
    columns, early = Columns(), secrets.token_bytes(16)
    columns.end(early, End(status="timed_out"))
    columns.add(secrets.token_bytes(16), LEAF, None, 1.0)
    columns.add(early, LEAF, "", 2.0)
    columns.add(early, LEAF, "again", 3.0)
    assert list(columns.chosen(Choice(status="timed_out"))) == [1]
    assert list(columns.chosen(Choice(status="open"))) == [0]
    assert (columns.key(0), columns.key(1), len(columns)) == (None, "", 2)


def test_what_is_searched_is_key_error_and_the_beginning_of_the_id() -> None:
    columns, ids = filled(30, key="Datei-Ä-{}")
    columns.end(ids[4], End(status="failed", error=Failure("ValueError", "the Sky is falling")))
    assert list(columns.chosen(Choice(search="datei-ä-29"))) == [29]
    assert list(columns.chosen(Choice(search="valueerror: the sky"))) == [4]
    assert 7 in columns.chosen(Choice(search=ids[7].hex()[:8]))
    assert list(columns.chosen(Choice(search="nothing"))) == []


def test_choices_add_up() -> None:
    columns, ids = filled(70)
    for run in ids[:35]:
        columns.end(run, End(status="succeeded"))
    assert list(columns.chosen(Choice(workflow="other", status="open"))) == [38, 45, 52, 59, 66]
    assert list(columns.chosen(Choice(step="again", sort="-n", status="succeeded"))) == [31, 24, 17, 10, 3]
    assert list(columns.chosen(Choice(step="spread", workflow="other"))) == []


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_sorts_both_ways(sort: str) -> None:
    columns, ids = filled(20)
    for at, run in enumerate(ids[:15]):
        columns.end(
            run,
            End(
                status=("failed", "succeeded")[at % 2],
                attempt=at % 4,
                started=2000.0,
                ended=2000.0 + at % 6,
                worker="w",
            ),
        )
    up, down = list(columns.chosen(Choice(sort=sort))), list(columns.chosen(Choice(sort=f"-{sort}")))
    assert sorted(up) == sorted(down) == list(range(20))
    assert up != down or sort == "queued"
