"""How errors are recorded: their type, their message, and the place in the user's code."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jetflow import JoinPolicy, NonRetryable
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
