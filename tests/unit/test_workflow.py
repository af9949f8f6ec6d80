"""Declaring workflows: what is read from a function, and what is refused."""

# pyright: reportUnusedFunction=false, reportArgumentType=false, reportCallIssue=false

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jetflow import Context, InvalidDeclaration, JoinPolicy, Retry, Workflow, workflow
from jetflow.engine.graph import START
from jetflow.errors import InvalidName
from jetflow.signature import DOC_LIMIT
from jetflow.wire.records import DeclaredStep, decode_declaration, encode


class Tree(msgspec.Struct):
    root: str


class Unknown:
    pass


# --- what is read


def test_a_decorated_function_is_a_workflow_of_one_step() -> None:
    @workflow("double")
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8, "calling it runs it"
    assert double.name == "double"
    assert list(double.steps) == ["run"]
    assert double.graph.first == "run"
    assert double.input.decode(b"3") == 3
    assert double.output.encode_output(6) == b"6"


async def test_an_async_function_is_called_as_one() -> None:
    @workflow("w")
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert await later(4) == 4
    assert later.steps["run"].is_async


@pytest.mark.parametrize(
    ("function", "input_name", "context_name"),
    [
        (lambda: None, None, None),
        (lambda value: value, "value", None),
        (lambda value, ctx: value, "value", "ctx"),
        (lambda ctx: None, None, "ctx"),
        (lambda value, extra=1: value, "value", None),
    ],
)
def test_parameters_by_name(function: Callable[..., Any], input_name: str | None, context_name: str | None) -> None:
    step = Workflow("w").step(name="s")(function)
    assert (step.input_name, step.context_name) == (input_name, context_name)


def test_the_context_is_known_by_its_type() -> None:
    flow = Workflow("w")

    @flow.step
    def with_context(context: Context, tree: Tree) -> None: ...

    assert flow.steps["with_context"].context_name == "context"
    assert flow.steps["with_context"].input_name == "tree"
    assert with_context.arguments(1, 2) == {"tree": 1, "context": 2}


def test_types_may_be_local_and_written_as_text() -> None:
    class Local(msgspec.Struct):
        x: int

    @workflow("w")
    def step(value: "Local") -> "list[Local]":
        return [value]

    assert step.input.decode(b'{"x":1}') == Local(1)
    assert step.output.kind == list[Local]


def test_a_dag() -> None:
    flow = Workflow("w", input=Tree, output=int)

    @flow.step
    def a(tree: Tree) -> None: ...

    @flow.step(after=[a])
    def b(tree: Tree) -> None: ...

    @flow.step(after=["a"], name="c")
    def other(tree: Tree) -> None: ...

    @flow.step(after=[b, "c"])
    def d(tree: Tree) -> int: ...

    assert flow.graph.downstream["a"] == ("b", "c")
    assert flow.graph.sinks == ("d",)
    assert flow.consumed_steps == ["a", "b", "c", "d"]
    assert repr(d) == "<Step 'd' of 'w'>"
    assert repr(flow) == "<Workflow 'w': a, b, c, d>"


def test_one_step_may_stand_alone_in_after() -> None:
    flow = Workflow("w")

    @flow.step
    def a() -> None: ...

    @flow.step(after=a)
    def b() -> None: ...

    @flow.step(after="b")
    def c() -> None: ...

    assert flow.graph.sinks == ("c",)


def test_several_first_steps_have_an_implied_one_before_them() -> None:
    flow = Workflow("w")

    @flow.step
    def a() -> None: ...

    @flow.step
    def b() -> None: ...

    assert flow.graph.first == START
    assert flow.consumed_steps == [START, "a", "b"]
    assert flow.output.kind is Any, "several last steps give an object"


def test_options_of_a_workflow_are_defaults_of_its_steps() -> None:
    flow = Workflow("w", retry=Retry(attempts=7), timeout=30, max_running=2)

    @flow.step
    def a() -> None: ...

    @flow.step(retry=Retry(attempts=1), timeout=5, max_running=1)
    def b() -> None: ...

    assert (a.retry.attempts, a.timeout, a.max_running) == (7, 30, 2)
    assert (b.retry.attempts, b.timeout, b.max_running) == (1, 5, 1)
    assert workflow("w")(lambda: None).steps["run"].retry == Retry()


def test_a_declaration_can_be_drawn_and_checked_without_the_code() -> None:
    @workflow("index-tree")
    def index_tree(tree: Tree) -> int: ...

    declaration = index_tree.declaration
    assert declaration.version == index_tree.graph.version
    assert msgspec.json.decode(declaration.output) == {"type": "integer"}
    assert b'"root"' in bytes(declaration.input)


def test_a_declaration_tells_of_its_steps() -> None:
    flow = Workflow("w", timeout=30)

    @flow.step(retry=Retry(attempts=1), join=JoinPolicy.first())
    def a() -> None:
        """Count what is there.

        And more that is not told.
        """

    @flow.step(after=a, max_running=2, timeout=5)
    def b() -> None: ...

    @flow.on_failure
    def mourn() -> None: ...

    steps = flow.declaration.steps
    here = f"{__name__}:test_a_declaration_tells_of_its_steps.<locals>"
    assert steps == {
        "a": DeclaredStep(timeout=30, join=JoinPolicy.first(), doc="Count what is there.", source=f"{here}.a"),
        "b": DeclaredStep(attempts=3, timeout=5, max_running=2, source=f"{here}.b"),
        "mourn": DeclaredStep(attempts=3, source=f"{here}.mourn"),
    }
    assert encode(steps["mourn"]) == f'{{"attempts":3,"source":"{here}.mourn"}}'.encode()
    assert decode_declaration(encode(flow.declaration)) == flow.declaration


def test_what_is_told_of_steps_is_no_part_of_the_version() -> None:
    flows = [Workflow("w"), Workflow("w", timeout=1)]
    for flow in flows:
        flow.step(name="a")(lambda: None)
    told, other = (flow.declaration for flow in flows)
    assert told.steps != other.steps
    assert told.version == other.version


def test_documentation_of_a_step_is_cut() -> None:
    def long() -> None: ...

    long.__doc__ = "word " * 1000
    flow = Workflow("w")
    assert len(flow.step(long).declared.doc) == DOC_LIMIT


def test_a_step_of_a_program_is_found_by_its_line() -> None:
    """A module that is run has no name by which it could be found, and the path is the machine's."""

    def run() -> None: ...

    run.__module__ = "__main__"
    line = run.__code__.co_firstlineno
    assert Workflow("w").step(run).declared.source == f"test_workflow.py:{line}"


# --- what is refused


@pytest.mark.parametrize("name", ["", "a.b", "a b", "_run", "x" * 65, "ü"])
def test_a_name_must_fit_a_subject(name: str) -> None:
    with pytest.raises(InvalidName, match="workflow name"):
        Workflow(name)
    with pytest.raises(InvalidName, match="step name"):
        Workflow("w").step(name=name or "_")(lambda: None)
    with pytest.raises(InvalidName, match="upstream step name"):
        Workflow("w").step(after=[name])(lambda: None)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidName, match="'<lambda>'"):
        Workflow("w").step(lambda: None)


def wrong_input(value: Unknown) -> None: ...
def wrong_output() -> Unknown: ...
def unresolved(value: "Missing") -> None: ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
def three(value: int, ctx: Context, more: str) -> None: ...
def starred(*values: int) -> None: ...
def starred_keywords(**values: int) -> None: ...
def positional(value: int, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (wrong_input, "input of workflow 'w': the type .*Unknown.* cannot travel"),
        (wrong_output, "output of step 'wrong_output' of workflow 'w': the type .*Unknown.* cannot travel"),
        (unresolved, "an annotation cannot be resolved: name 'Missing'"),
        (three, "takes more than .input, ctx.: what would 'more' be"),
        (starred, r"parameter \*values: int must be a plain one"),
        (starred_keywords, r"parameter \*\*values"),
        (positional, "must be a plain one"),
    ],
)
def test_a_signature_that_does_not_fit(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(InvalidDeclaration, match=message):
        Workflow("w").step(function)


def test_types_given_to_the_workflow_are_checked_too() -> None:
    with pytest.raises(InvalidDeclaration, match="input of workflow 'w'"):
        Workflow("w", input=Unknown)
    with pytest.raises(InvalidDeclaration, match="output of workflow 'w'"):
        Workflow("w", output=Unknown)


def test_a_step_name_is_taken_once() -> None:
    flow = Workflow("w")
    flow.step(name="a")(lambda: None)
    with pytest.raises(InvalidDeclaration, match="declares step 'a' twice"):
        flow.step(name="a")(lambda: None)


def test_a_step_comes_after_steps_that_are_declared() -> None:
    with pytest.raises(InvalidDeclaration, match="'b' of workflow 'w' comes after 'a', which is not declared"):
        Workflow("w").step(name="b", after=["a"])(lambda: None)


def test_a_step_of_another_workflow_cannot_stand_before() -> None:
    stranger = Workflow("other").step(name="a")(lambda: None)
    with pytest.raises(InvalidDeclaration, match="<Step 'a' of 'other'> cannot stand before"):
        Workflow("w").step(name="b", after=[stranger])(lambda: None)


def test_a_workflow_without_steps_cannot_be_used() -> None:
    with pytest.raises(InvalidDeclaration, match="has no step"):
        _ = Workflow("w").graph


def test_a_workflow_in_use_takes_no_more_steps() -> None:
    flow = Workflow("w")
    flow.step(name="a")(lambda: None)
    _ = flow.graph
    with pytest.raises(InvalidDeclaration, match="is in use already"):
        flow.step(name="b")(lambda: None)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"max_running": 0}], ids=str)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidDeclaration, match="must be above 0"):
        Workflow("w", **options)
    with pytest.raises(InvalidDeclaration, match="must be above 0"):
        Workflow("w").step(name="a", **options)(lambda: None)
