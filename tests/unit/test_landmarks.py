"""Places that are remembered in a long list."""

from __future__ import annotations

from jetflow.broker.seeking import LANDMARKS, Landmarks, Place


def test_the_places_around_a_number_are_those_that_are_known() -> None:
    landmarks = Landmarks()
    assert landmarks.around(5) == (None, None)
    for n in (30, 10, 20, 10):
        landmarks.add(Place(n * 7, n))
    assert landmarks.around(9) == (None, Place(70, 10))
    assert landmarks.around(10) == (Place(70, 10), Place(140, 20))
    assert landmarks.around(29) == (Place(140, 20), Place(210, 30))
    assert landmarks.around(99) == (Place(210, 30), None)


def test_no_more_places_are_kept_than_there_is_room_for() -> None:
    landmarks = Landmarks()
    for n in range(LANDMARKS * 3):
        landmarks.add(Place(n, n))
    assert len(landmarks._places) <= LANDMARKS
    low, _ = landmarks.around(LANDMARKS * 2)
    assert low is not None
    assert low.n == low.behind
