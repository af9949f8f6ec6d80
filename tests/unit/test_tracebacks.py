"""A traceback reads as Python writes it, the first time and from what was kept."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

import pytest

from jetflow.worker import tracebacks
from jetflow.worker.tracebacks import traceback_of


def divides(number: int) -> float:
    return number / 0


def with_a_cause() -> None:
    try:
        divides(1)
    except ZeroDivisionError as error:
        raise ValueError("no result") from error


def in_a_group() -> None:
    errors: list[Exception] = []
    for number in range(2):
        try:
            divides(number)
        except ZeroDivisionError as error:
            errors.append(error)
    raise ExceptionGroup("both", errors)


def with_a_note() -> None:
    try:
        divides(1)
    except ZeroDivisionError as error:
        error.add_note("the second time")
        raise


def recurses(depth: int = 60) -> float:
    return divides(depth) if depth == 0 else recurses(depth - 1)


@pytest.mark.parametrize("fails", [with_a_cause, in_a_group, with_a_note, recurses])
def test_it_reads_as_python_writes_it(fails: Callable[[], object]) -> None:
    for _ in range(2):
        with pytest.raises((ValueError, ZeroDivisionError, ExceptionGroup)) as caught:
            fails()
        assert traceback_of(caught.value) == "".join(traceback.format_exception(caught.value))


def test_an_error_that_was_never_raised_has_no_frames() -> None:
    assert traceback_of(ValueError("x")) == "ValueError: x\n"


def test_no_more_frames_are_kept_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "KEPT", 2)
    kept = dict[tuple[str, str, int, int], str]()
    monkeypatch.setattr(tracebacks, "_kept", kept)
    for fails in (with_a_cause, with_a_note, recurses):
        with pytest.raises((ValueError, ZeroDivisionError)) as caught:
            fails()
        assert re.search(r"in divides|in with_a_cause", traceback_of(caught.value))
        assert len(kept) <= 2
