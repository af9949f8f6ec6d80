"""Which deliveries are attempts, by what is recorded of them."""

from __future__ import annotations

from jetflow.engine.attempts import Recorded, attempts_made, has_only_queued
from jetflow.engine.tasks import Attempt, Failure

BEGUN = Attempt(attempt=1, worker="w", started=1.0)
RETURNED = Attempt(started=1.0, ended=1.0, returned=True)
FAILED = Attempt(started=1.0, ended=2.0, error=Failure("ValueError", "no"))


def recorded(*records: tuple[str, Attempt]) -> list[Recorded]:
    return [Recorded(delivery, attempt) for delivery, attempt in records]


def test_what_is_not_recorded_is_no_attempt() -> None:
    assert attempts_made([]) == 0


def test_a_body_that_began_or_failed_is_an_attempt() -> None:
    assert attempts_made(recorded(("2", BEGUN), ("3", FAILED))) == 2


def test_one_delivery_is_one_attempt() -> None:
    assert attempts_made(recorded(("2", BEGUN), ("2", FAILED))) == 1


def test_one_that_was_handed_back_is_none() -> None:
    assert attempts_made(recorded(("1", RETURNED), ("2", BEGUN), ("2", RETURNED))) == 0


def test_a_first_delivery_has_only_queued() -> None:
    assert has_only_queued([], 1)
    assert not has_only_queued(recorded(("2", BEGUN)), 1), "of another consumer, which was lost"


def test_a_task_of_whose_first_delivery_nothing_is_known_may_have_begun() -> None:
    assert not has_only_queued([], 2)
    assert not has_only_queued(recorded(("2", RETURNED)), 3)


def test_a_task_that_was_handed_back_each_time_has_only_queued() -> None:
    assert has_only_queued(recorded(("1", RETURNED), ("2", RETURNED)), 3)
