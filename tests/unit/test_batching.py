"""Gathering: every task in one batch, none too large, too late, or of two keys; and what is refused at declaration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow import Batch, Context, Depends, Workflow, workflow
from jetflow.engine.batching import Gathering, results_of
from jetflow.errors import InvalidDeclaration, InvalidOutput


@given(
    st.integers(1, 5),
    st.integers(0, 20),
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 8), st.booleans()), max_size=40),
)
def test_what_is_gathered_comes_out_once_in_time_and_in_order(
    size: int, wait: int, most: int, coming: list[tuple[str, int, int, bool]]
) -> None:
    """The clock goes on between tasks; at each look everything that is due is taken, and some leave again."""
    gathering = Gathering[int](Batch(size=size, wait=wait, max_bytes=most))
    came: dict[int, tuple[str, int, int]] = {}
    out: list[int] = []
    left: set[int] = set()
    now = 0

    def check(batch: list[int], *, due: bool) -> None:
        assert batch
        keys, sizes, times = zip(*(came[one] for one in batch), strict=True)
        assert len(set(keys)) == 1
        assert len(batch) <= size
        assert sum(sizes) <= most or len(batch) == 1
        assert min(times) + wait <= now or not due
        assert batch == sorted(batch)
        out.extend(batch)

    for number, (key, weight, pause, leaves) in enumerate(coming):
        now += pause
        for batch in gathering.take_due(now):
            check(batch, due=True)
        came[number] = (key, weight, now)
        for batch in gathering.add(number, key, weight, now):
            check(batch, due=False)
        assert (number in gathering) is (number not in out)
        if leaves and number in gathering:
            gathering.remove(number)
            left.add(number)
        gathering.remove(-1)  # which is nowhere
        assert all(came[one][2] + wait > now or wait == 0 for one in gathering.members)
    while gathering.due is not None:
        now = max(now, int(gathering.due))
        for batch in gathering.take_due(now):
            check(batch, due=True)
    assert len(gathering) == 0
    assert sorted([*out, *left]) == list(range(len(coming)))


def test_the_oldest_goes_first() -> None:
    gathering = Gathering[str](Batch(size=9, wait=5))
    for number, key in enumerate(["x", "y", "x"]):
        assert gathering.add(f"{key}{number}", key, 1, float(number)) == []
    assert gathering.due == 5.0
    assert gathering.take_oldest() == ["x0", "x2"]
    assert gathering.due == 6.0


@pytest.mark.parametrize("returned", [None, {}, "ab", [1], (1, 2, 3), iter([1, 2])])
def test_results_that_are_not_one_for_each_are_refused(returned: Any) -> None:
    with pytest.raises(InvalidOutput, match="called with 2 inputs and returned"):
        results_of("step", returned, 2, broadcast=False)


def test_results_are_one_for_each_or_one_for_all() -> None:
    assert list(results_of("step", (1, 2), 2, broadcast=False)) == [1, 2]
    assert list(results_of("step", [1, 2], 2, broadcast=True)) == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 10_001},
        {"size": 1.5},
        {"size": True},
        {"size": "7"},
        {"wait": -1},
        {"wait": float("inf")},
        {"wait": float("nan")},
        {"wait": None},
        {"max_bytes": 0},
        {"key": "tenant"},
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(InvalidDeclaration, match=rf"Batch\({name}="):
        Batch(**options)


async def takes_one(number: int) -> list[int]:
    return [number]


async def takes_nothing() -> list[int]:
    return []


async def takes_one_context(numbers: list[int], ctx: Context) -> list[int]:
    return numbers


async def returns_one(numbers: list[int]) -> int:
    return len(numbers)


async def returns_nothing(numbers: list[int]) -> None: ...


async def returns_pair(numbers: list[int]) -> tuple[int, str]:
    return 1, ""


def of_run(ctx: Context) -> int:
    return ctx.attempt


async def depends(
    numbers: list[int], ctxs: list[Context], attempt: Annotated[int, Depends(of_run, per="attempt")]
) -> list[int]:
    return numbers


def plain(numbers: list[int]) -> list[int]:
    return numbers


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        (takes_one, {}, r"takes int, and one with batch= .* inputs: list\[int\]"),
        (takes_nothing, {}, "takes no input"),
        (takes_one_context, {}, r"ctxs: list\[Context\]"),
        (returns_one, {}, "returns int, and one with batch= returns a list"),
        (returns_nothing, {}, "returns NoneType, and one with batch="),
        (returns_pair, {}, "returns tuple"),
        (depends, {}, "takes the context of a run"),
        (plain, {"runs_in": "process"}, "runs in a process, which takes one task at a time"),
        (plain, {"max_running": 3}, "max_running=, which counts tasks"),
        (plain, {"batch": 100}, r"batch=Batch\(size=100\)"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(function: Callable[..., Any], options: dict[str, Any], told: str) -> None:
    flow = Workflow("flow")
    with pytest.raises(InvalidDeclaration, match=told):
        flow.step(**{"batch": Batch(), **options})(function)


def test_the_types_are_those_of_one_run() -> None:
    @workflow("typed", batch=Batch())
    async def typed(numbers: list[int]) -> list[str | ValueError | None]:
        return [None for _ in numbers]

    assert (typed.input.kind, typed.output.kind) == (int, str | None)

    @workflow("only-errors", batch=Batch())
    async def only_errors(numbers: list) -> list[Exception]:  # type: ignore[type-arg]
        return []

    assert only_errors.output.kind is type(None)
    untyped = Workflow("untyped")
    step = untyped.step(batch=Batch(), name="step")(partial(lambda inputs: inputs))
    assert step.input.kind is Any


def test_all_steps_of_a_workflow_take_the_same() -> None:
    flow = Workflow("mixed")

    @flow.step
    async def first(number: int) -> int:
        return number

    @flow.step(after=first, batch=Batch(size=7, wait=1))
    async def second(numbers: list[int]) -> list[int]:
        return numbers

    assert flow.input.kind is int
    declared = flow.declaration.steps["second"].batch
    assert declared is not None
    assert (declared.size, declared.wait, declared.max_bytes, declared.keyed) == (7, 1, 4 * 1024 * 1024, False)

    other = Workflow("other", input=int)
    with pytest.raises(InvalidDeclaration, match="takes str"):

        @other.step(batch=Batch())
        async def third(texts: list[str]) -> list[str]:
            return texts


def test_calling_it_runs_the_function() -> None:
    @workflow("called", batch=Batch())
    def called(numbers: list[int]) -> list[int]:
        return [2 * one for one in numbers]

    assert called([1, 2]) == [2, 4]
