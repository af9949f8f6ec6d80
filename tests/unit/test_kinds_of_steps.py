"""What can be a step besides a plain function, and what is refused when it is declared."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NewType

import msgspec
import pytest

from jetflow import Context, InvalidDeclaration, Worker, Workflow, workflow
from jetflow.kinds import takes


class Tree(msgspec.Struct):
    root: str


class Forest(Tree):
    others: list[str] = []


async def scale(number: int, *, factor: int = 1) -> int:
    return number * factor


def scale_here(number: int, factor: int = 1, ctx: Context | None = None) -> int:
    return number * factor


class Scaler:
    async def __call__(self, number: int) -> int:
        """Scale by three."""
        return number * 3

    def method(self, number: int) -> int:
        return number * 3

    @staticmethod
    async def static(number: int) -> int:
        return number * 3

    @classmethod
    async def of_class(cls, number: int) -> int:
        return number * 3


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate functions of both kinds, as if there was only one."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


class Counting:
    """Decorate by an object, which keeps what it decorates."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


def renaming(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(value: Any) -> Any:
        return await function(value)

    return inner


def supplying(function: Callable[..., Any]) -> Callable[..., Any]:
    """Supply what a worker does not."""

    @functools.wraps(function)
    def inner(number: int) -> Any:
        return function(number, 3)

    return inner


def scale_by(number: int, factor: int) -> int:
    return number * factor


async def run(step: Any, value: Any) -> Any:
    """Call a step as a worker does."""
    result = step.function(**step.arguments(value, None))
    return await result if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (functools.partial(scale, factor=3), True),
        (functools.partial(functools.partial(scale), factor=3), True),
        (functools.partial(scale_here, factor=3), False),
        (functools.partial(Scaler()), True),
        (Scaler(), True),
        (Scaler().method, False),
        (Scaler.static, True),
        (staticmethod(Scaler.static), True),
        (Scaler.of_class, True),
        (renaming(Scaler()), True),
        (supplying(scale_by), False),
        (lambda number: number * 3, False),
    ],
    ids=range(12),
)
async def test_whatever_takes_the_input_can_be_a_step(function: Any, is_async: bool) -> None:
    step = Workflow("w", input=int).step(name="s")(function)
    assert (step.is_async, step.wraps_async) == (is_async, False)
    assert await run(step, 2) == 6
    assert step.declared.source.startswith(f"{__name__}:")


async def test_a_decorator_may_hand_over_a_coroutine() -> None:
    step = Workflow("w", input=int).step(name="s")(logged(Scaler().method))
    assert (step.is_async, step.wraps_async) == (False, False)
    step = Workflow("w", input=int).step(name="s")(logged(scale))
    assert (step.is_async, step.wraps_async) == (False, True)
    assert await run(step, 2) == 2


async def test_a_decorator_may_be_an_object() -> None:
    for function, wraps_async in ((scale, True), (scale_here, False)):
        step = Workflow("w").step(Counting(function))
        assert (step.is_async, step.wraps_async) == (False, wraps_async)
        assert (step.name, step.input.kind, step.output.kind) == (function.__name__, int, int)
        assert await run(step, 2) == 2


def test_what_a_partial_has_bound_is_not_the_input() -> None:
    step = Workflow("w").step(name="s")(functools.partial(scale_here, number=5))
    assert (step.input_name, step.context_name) == ("factor", "ctx")


def test_an_object_tells_of_itself() -> None:
    step = Workflow("w").step(name="s")(Scaler())
    assert step.declared.doc == "Scale by three."
    assert step.declared.source == f"{__name__}:Scaler.__call__"
    assert step.output.kind is int


# --- what is refused


def generator(number: int) -> Iterator[int]:
    yield number


async def async_generator(number: int) -> AsyncIterator[int]:
    yield number


def starred(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


def unnamed(*args: Any, **kwargs: Any) -> None: ...


class Methods:
    def plain(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (generator, r"step 's' of workflow 'w' is a generator: .* into a list"),
        (async_generator, "is a generator"),
        (functools.partial(generator), "is a generator"),
        (Methods.plain, r"is a method without its object: .* flow\.step\(thing\.plain\)"),
        (Tree, "is not a function"),
        (7, "7 is not a function"),
        (print, r"parameter \*args must be a plain one"),
        (unnamed, r"is a functools\.wraps missing in a decorator"),
        (starred(scale), r"a decorator of it takes no 'number': let it take \*\*kwargs"),
        (iter, "its parameters cannot be read"),
        ("s", r"a step's name is given as @flow\.step\(name='s'\)"),
        (workflow("other")(scale), "<Workflow 'other': run> is declared already"),
        (Workflow("other").step(scale), "<Step 'scale' of 'other'> is declared already"),
    ],
    ids=range(13),
)
def test_what_cannot_be_a_step_is_refused_where_it_stands(function: Any, message: str) -> None:
    with pytest.raises(InvalidDeclaration, match=message):
        Workflow("w").step(name="s")(function)
    if callable(function):
        with pytest.raises(InvalidDeclaration, match=message.replace("step 's'", "step 'run'")):
            workflow("w")(function)


@pytest.mark.parametrize("function", [Scaler(), functools.partial(scale)], ids=["object", "partial"])
def test_what_has_no_name_is_given_one(function: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=r"has no name of its own: give the step one with name="):
        Workflow("w").step(function)
    with pytest.raises(InvalidDeclaration, match=r"the on_failure step of workflow 'w': .* has no name"):
        Workflow("w").on_failure(function)


def test_a_workflow_is_declared_with_its_name() -> None:
    with pytest.raises(InvalidDeclaration, match=r'a workflow has a name of its own: write @workflow\("scale-here"\)'):
        workflow(scale_here)


def test_a_worker_takes_workflows() -> None:
    flow = Workflow("w")
    step = flow.step(name="s")(scale)
    for given in (scale, [scale], [flow, step], "w"):
        with pytest.raises(InvalidDeclaration, match=r"a worker takes workflows, and .* is none"):
            Worker(given)


def test_a_step_comes_after_steps() -> None:
    flow = Workflow("w")
    flow.step(name="scan")(scale)
    for after in (scale, [scale], [7]):
        with pytest.raises(InvalidDeclaration, match=r"after=.* is no step: decorate it with @flow\.step"):
            flow.step(name="s", after=after)(scale)
    with pytest.raises(InvalidDeclaration, match=r"comes after 'scna', which is not declared; did you mean 'scan'\?"):
        flow.step(name="s", after="scna")(scale)


@pytest.mark.parametrize("options", [{"retry": 3}, {"timeout": "30"}, {"max_running": [1]}], ids=str)
def test_options_of_the_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidDeclaration, match=r"write retry=Retry\(attempts=3\)|must be above 0"):
        Workflow("w", **options)
    with pytest.raises(InvalidDeclaration, match=r"write retry=Retry\(attempts=3\)|must be above 0"):
        Workflow("w").step(name="s", **options)(scale)


def test_an_option_that_a_step_does_not_have() -> None:
    with pytest.raises(InvalidDeclaration, match=r"a step has no option 'retries': did you mean retry=\?"):
        Workflow("w").step(name="s", retries=3)
    with pytest.raises(InvalidDeclaration, match=r"a step has no option 'x': there are name, after, retry"):
        Workflow("w").step(x=3)


# --- the input of a step is its workflow's


def test_a_step_that_takes_something_else_than_its_workflow_is_refused() -> None:
    flow = Workflow("w", input=Tree)
    with pytest.raises(InvalidDeclaration, match=r"^step 's' of workflow 'w' takes str, and .* input is Tree"):
        flow.step(name="s")(lambda_of(str))
    with pytest.raises(InvalidDeclaration, match="takes str, and the workflow's input is Tree"):
        flow.on_failure(lambda_of(str))


def test_steps_that_take_different_things_are_refused() -> None:
    flow = Workflow("w")
    flow.step(name="a")(lambda: None)
    flow.step(name="b")(lambda_of(list[int]))
    flow.step(name="c", after="b")(lambda_of(str))
    with pytest.raises(InvalidDeclaration, match=r"step 'c' .* takes str, .* is list\[int\], that of step 'b'"):
        _ = flow.graph


def test_all_steps_are_given_the_input_as_it_is() -> None:
    """Whatever they say of it: what has no type, or a wider one, loses nothing."""
    flow = Workflow("w", input=Forest)
    for at, kind in enumerate((Forest, Tree, object, Forest | None)):
        flow.step(name=f"s{at}")(lambda_of(kind))
    flow.step(name="untyped")(lambda value: value)
    flow.on_failure(lambda_of(Tree, "mourn"))
    assert flow.input.kind is Forest
    assert flow.failure_step is not None
    for step in (*flow.steps.values(), flow.failure_step):
        assert step.input.decode(b'{"root":"/","others":["a"]}') == Forest("/", ["a"])


def test_a_step_may_ask_for_plain_json() -> None:
    flow = Workflow("w", input=Tree)
    step = flow.step(name="s")(lambda_of(Any))
    _ = flow.graph
    assert step.input.decode(b'{"root":"/"}') == {"root": "/"}


def test_without_a_type_of_its_own_a_workflow_takes_what_its_first_steps_take() -> None:
    flow = Workflow("w")
    flow.step(name="a")(lambda value: value)
    flow.step(name="b")(lambda_of(Tree))
    assert flow.input.kind is Tree
    assert flow.steps["a"].input.kind is Tree


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("parameter", "kind", "taken"),
    [
        (int, int, True),
        (int, bool, True),
        (Tree, Forest, True),
        (Forest, Tree, False),
        (int | str, int, True),
        (int, int | str, False),
        (list, list[int], True),
        (Sequence[Any], list[int], True),
        (list[str], list[int], False),
        (Mapping[str, object], dict[str, int], True),
        (dict[str, int], Mapping[str, int], False),
        (int, UserId, True),
        (str, Literal["a", "b"], True),
        (Literal["a", "b"], Literal["a"], True),
        (Literal["a"], Literal["a", "b"], False),
        (None, type(None), True),
        (Any, Tree, True),
        (Tree, Any, True),
        (str, Tree, False),
    ],
    ids=str,
)
def test_which_types_a_parameter_takes(parameter: Any, kind: Any, taken: bool) -> None:
    assert takes(parameter, kind) is taken


def lambda_of(kind: Any, name: str = "step") -> Awaitable[Any] | Any:
    def step(value: Any) -> None: ...

    step.__annotations__["value"] = kind
    step.__name__ = name
    return step
