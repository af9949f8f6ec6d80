"""How errors are recorded: their type, their message, and the place in the user's code."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest

from jetflow import JoinPolicy, NonRetryable
from jetflow.engine.failures import clipped, fitted
from jetflow.engine.tasks import Failure, Outcome
from jetflow.worker.failures import failure_of


def place_of(act: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, its place is what counts
        act()
    return failure_of(caught.value, "step").place


def fails() -> None:
    raise ValueError("no")


def reads_json() -> None:
    json.loads("{")


def misuses_jetflow() -> None:
    JoinPolicy.of_quorum(0)


def test_the_place_is_where_the_user_s_code_failed() -> None:
    assert place_of(fails) == "test_failures.py:fails"


@pytest.mark.parametrize("act", [reads_json, misuses_jetflow])
def test_the_standard_library_and_jetflow_are_no_place(act: Callable[[], None]) -> None:
    assert place_of(act) == f"test_failures.py:{act.__name__}"


def test_a_place_in_a_thread_or_behind_an_await() -> None:
    async def in_thread() -> None:
        with ThreadPoolExecutor() as threads:
            await asyncio.get_running_loop().run_in_executor(threads, fails)

    async def behind(wait: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.wait_for(wait(), 10)

    assert place_of(lambda: asyncio.run(behind(in_thread))) == "test_failures.py:fails"


def test_an_error_of_jetflow_has_the_place_that_raised_it() -> None:
    def gives_up() -> None:
        raise NonRetryable("enough")

    failure = None
    try:
        gives_up()
    except NonRetryable as error:
        failure = failure_of(error, "step")
    assert failure is not None
    assert (failure.place, failure.traceback) == ("test_failures.py:gives_up", "")


def test_an_error_that_nobody_raised_has_no_place() -> None:
    assert failure_of(ValueError("no"), "step").place == ""


class Speechless(Exception):
    def __str__(self) -> str:
        return cast(Any, self).words  # as when it is forgotten


class NoText(Exception):
    def __str__(self) -> str:
        return cast(str, None)


class Quits(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Nameless(Exception): ...


Nameless.__name__ = ""


def deep_cause() -> Exception:
    error = ValueError("no")
    for _ in range(5_000):
        error, cause = ValueError("no"), error
        error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (Speechless(), "Speechless", "(its __str__ raised AttributeError)"),
        (NoText(), "NoText", "(its __str__ raised TypeError)"),
        (Quits(), "Quits", "(its __str__ raised SystemExit)"),
        (Nameless(), "Nameless", "Nameless()"),
        (AssertionError(), "AssertionError", "AssertionError()"),
        (TimeoutError("  "), "TimeoutError", "TimeoutError('  ')"),
        (ValueError("\ud800"), "ValueError", "?"),
        (ValueError("x" * 3_000_000), "ValueError", "x" * 16_000),
        (deep_cause(), "ValueError", "no"),
        (BaseExceptionGroup("many", [KeyboardInterrupt()]), "BaseExceptionGroup", "many (1 sub-exception)"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_every_error_can_be_told(error: BaseException, name: str, message: str) -> None:
    failure = failure_of(error, "step")
    assert (failure.type, failure.message) == (name, message)


def test_an_error_without_words_says_its_place_and_line() -> None:
    def asserts() -> None:
        assert not asserts

    with pytest.raises(AssertionError) as caught:
        asserts()
    caught.value.args = ()
    assert failure_of(caught.value, "step").message == (
        "AssertionError() at test_failures.py:asserts: assert not asserts"
    )


@pytest.mark.parametrize("text", ["x", "é", "\x00", '"', "𝄞", "x\x00"])
@pytest.mark.parametrize("room", [4_000, 16_000, 64_000])
def test_a_failure_fits_whatever_its_characters_take(text: str, room: int) -> None:
    failure = clipped(Failure(text * 9_000, f"begin{text * 90_000}", "step", f"{text * 90_000}end", text * 9_000), room)
    assert len(msgspec.json.encode(failure)) <= room
    assert failure.message.startswith("begin")
    assert failure.traceback.endswith("end")


def test_the_errors_of_many_steps_fit_together() -> None:
    errors = tuple(Failure("ValueError", "x" * 16_000, f"step-{number}") for number in range(100))
    outcome = fitted(Outcome(status="failed", error=errors[0], errors=errors), 16_000)
    assert len(msgspec.json.encode(outcome)) <= 16_000
    assert outcome.errors
    assert outcome.error is not None
    assert outcome.error.message
