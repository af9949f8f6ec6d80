"""Declaring workflows: names, steps, the edges between them, and the types that travel.

A workflow is declared once, at import. Everything that can be wrong with it (a name, a type, an unknown upstream
step, a cycle) is refused here, before anything reaches the broker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import cached_property
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, get_type_hints, overload

import msgspec

from jetflow.engine.graph import START, Graph, Node
from jetflow.engine.identity import check_name
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.retries import Retry
from jetflow.errors import InvalidDeclaration
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.records import Declaration, DeclaredStep

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
P = ParamSpec("P")
R = TypeVar("R")
GI = TypeVar("GI")
GO = TypeVar("GO")
OUT_co = TypeVar("OUT_co", covariant=True)
OUT = TypeVar("OUT")

ONE_STEP: Final = "run"
"""The name of the step of a workflow that was declared as one function."""

DOC_LIMIT: Final = 500
"""Characters of a step's documentation that its declaration holds."""

CONTEXT_MARK: Final = "__jetflow_context__"
"""The attribute by which a step's signature knows the context's class."""


class Step(Generic[P, R, OUT_co]):
    """One function of a workflow. Calling it runs the function, and nothing else.

    ``timeout`` is seconds; ``max_running`` is how many of its bodies may run at once across all workers.
    """

    def __init__(
        self,
        workflow: str,
        function: Callable[P, R],
        *,
        name: str,
        after: Sequence[str] = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        join: JoinPolicy = ALL_SUCCEED,
    ) -> None:
        self.workflow = workflow
        self.function = function
        self.name: str = check_name("step name", name)
        self.after: tuple[str, ...] = tuple(after)
        self.retry: Retry = retry or Retry()
        self.timeout: float | None = _checked_positive(f"step {name!r}: timeout (seconds)", timeout)
        self.max_running: int | None = _checked_positive(f"step {name!r}: max_running", max_running)
        self.schedule_timeout: float | None = _checked_positive(
            f"step {name!r}: schedule_timeout (seconds)", schedule_timeout
        )
        self.join: JoinPolicy = join
        self.is_async: bool = inspect.iscoroutinefunction(function)
        signature = _Signature(function, f"step {name!r} of workflow {workflow!r}")
        self.input_name: str | None = signature.input_name
        self.context_name: str | None = signature.context_name
        self.input: Codec[Any] = signature.codec(self.input_name, f"input of workflow {workflow!r}")
        self.output: Codec[Any] = signature.codec("return", f"output of step {name!r} of workflow {workflow!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Step {self.name!r} of {self.workflow!r}>"

    @property
    def declared(self) -> DeclaredStep:
        """What the registry bucket says of the step."""
        return DeclaredStep(
            attempts=self.retry.attempts,
            timeout=self.timeout,
            max_running=self.max_running,
            join=self.join,
            doc=_first_paragraph(self.function.__doc__ or ""),
            source=_source(self.function),
        )

    def arguments(self, value: Any, context: Any) -> dict[str, Any]:
        """Return the keyword arguments for one call."""
        arguments: dict[str, Any] = {}
        if self.input_name is not None:
            arguments[self.input_name] = value
        if self.context_name is not None:
            arguments[self.context_name] = context
        return arguments


class _StepDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, OUT]], /
    ) -> Step[P, Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[P, OUT], /) -> Step[P, OUT, OUT]: ...


class Workflow(Generic[I, O]):
    """A named DAG of steps.

    ``retry``, ``timeout`` (seconds), ``max_running`` and ``schedule_timeout`` (seconds in the queue) are the defaults
    of its steps. ``deadline`` is how many seconds a run may take in all, its descendants included. Without ``input``
    and ``output`` the types come from the annotations of the first and last steps.

    When a step fails, the steps beside it go on, and the run ends with the last of them. With ``fail_fast`` the first
    step that fails ends the run, and what is left of it is cancelled.

    Raises:
        InvalidName: the name does not fit ``[A-Za-z0-9][A-Za-z0-9_-]{0,63}``.
        InvalidDeclaration: a type cannot travel as JSON, or an option is out of range.
    """

    @overload
    def __init__(
        self: Workflow[Any, Any],
        name: str,
        *,
        input: None = None,
        output: None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        deadline: float | None = None,
        fail_fast: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[GI, Any],
        name: str,
        *,
        input: type[GI],
        output: None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        deadline: float | None = None,
        fail_fast: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[Any, GO],
        name: str,
        *,
        input: None = None,
        output: type[GO],
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        deadline: float | None = None,
        fail_fast: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[GI, GO],
        name: str,
        *,
        input: type[GI],
        output: type[GO],
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        deadline: float | None = None,
        fail_fast: bool = False,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: Any = None,
        output: Any = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        deadline: float | None = None,
        fail_fast: bool = False,
    ) -> None:
        self.name: str = check_name("workflow name", name)
        self.fail_fast = fail_fast
        self.retry = retry
        self.timeout: float | None = _checked_positive(f"workflow {name!r}: timeout (seconds)", timeout)
        self.max_running: int | None = _checked_positive(f"workflow {name!r}: max_running", max_running)
        self.schedule_timeout: float | None = _checked_positive(
            f"workflow {name!r}: schedule_timeout (seconds)", schedule_timeout
        )
        self.deadline: float | None = _checked_positive(f"workflow {name!r}: deadline (seconds)", deadline)
        self.steps: dict[str, Step[..., Any, Any]] = {}
        self.failure_step: Step[..., Any, Any] | None = None
        self._input: Codec[Any] | None = None if input is None else Codec(input, f"input of workflow {name!r}")
        self._output: Codec[Any] | None = None if output is None else Codec(output, f"output of workflow {name!r}")

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}: {', '.join(self.steps) or 'no steps yet'}>"

    @overload
    def step(self, function: Callable[P, Coroutine[Any, Any, OUT]], /) -> Step[P, Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def step(self, function: Callable[P, OUT], /) -> Step[P, OUT, OUT]: ...
    @overload
    def step(
        self,
        function: None = None,
        *,
        name: str | None = None,
        after: Iterable[Step[..., Any, Any] | str] | Step[..., Any, Any] | str = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        join: JoinPolicy = ALL_SUCCEED,
    ) -> _StepDecorator: ...
    def step(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        after: Iterable[Step[..., Any, Any] | str] | Step[..., Any, Any] | str = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        join: JoinPolicy = ALL_SUCCEED,
    ) -> Any:
        """Declare a function as a step, as ``@flow.step`` or ``@flow.step(after=[...])``.

        The function takes ``(input)`` or ``(input, ctx)`` and is ``async def`` or ``def`` (run in a thread). Without
        ``name`` the step is called like the function. ``timeout`` is seconds that the function may run, time
        spent waiting for children not counted; ``schedule_timeout`` is seconds that a task may wait in the queue.
        ``join`` decides over the children that the step spawns and does not join itself.

        Raises:
            InvalidName: the name does not fit the token rule.
            InvalidDeclaration: an upstream step is unknown, a type cannot travel, the signature does not fit.
        """

        def declare(function: Callable[..., Any]) -> Step[..., Any, Any]:
            step: Step[..., Any, Any] = Step(
                self.name,
                function,
                name=name or function.__name__,
                after=[self._upstream(upstream) for upstream in ([after] if isinstance(after, Step | str) else after)],
                retry=retry or self.retry,
                timeout=timeout if timeout is not None else self.timeout,
                max_running=max_running if max_running is not None else self.max_running,
                schedule_timeout=schedule_timeout if schedule_timeout is not None else self.schedule_timeout,
                join=join,
            )
            self._add(step)
            return step

        return declare if function is None else declare(function)

    @overload
    def on_failure(
        self, function: Callable[P, Coroutine[Any, Any, OUT]], /
    ) -> Step[P, Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def on_failure(self, function: Callable[P, OUT], /) -> Step[P, OUT, OUT]: ...
    def on_failure(self, function: Callable[..., Any]) -> Any:
        """Declare a function that runs once when a run has failed or timed out; ``ctx.errors`` tells why.

        Raises:
            InvalidDeclaration: there is one already, or the signature does not fit.
        """
        if self.failure_step is not None:
            raise InvalidDeclaration(f"workflow {self.name!r} has an on_failure step already")
        self._check_open(function.__name__)
        step: Step[..., Any, Any] = Step(self.name, function, name=function.__name__, retry=self.retry)
        self.failure_step = step
        return step

    def _upstream(self, upstream: Step[..., Any, Any] | str) -> str:
        if isinstance(upstream, Step):
            if self.steps.get(upstream.name) is not upstream:
                raise InvalidDeclaration(f"{upstream!r} cannot stand before a step of workflow {self.name!r}")
            return upstream.name
        return check_name("upstream step name", upstream)

    def _check_open(self, step: str) -> None:
        if "graph" in self.__dict__:
            raise InvalidDeclaration(
                f"workflow {self.name!r} is in use already: declare step {step!r} before workers or clients do"
            )

    def _add(self, step: Step[..., Any, Any]) -> None:
        self._check_open(step.name)
        if step.name in self.steps:
            raise InvalidDeclaration(f"workflow {self.name!r} declares step {step.name!r} twice: give one a name=")
        Graph.checked(self.name, [*self._nodes(), Node(step.name, step.after)])
        self.steps[step.name] = step

    def _nodes(self) -> list[Node]:
        return [Node(step.name, step.after) for step in self.steps.values()]

    @cached_property
    def graph(self) -> Graph:
        """The steps and edges. Reading it ends the declaration: no step can be added after.

        Raises:
            InvalidDeclaration: no step, an unknown upstream step, or a cycle.
        """
        on_failure = None if self.failure_step is None else self.failure_step.name
        if on_failure in self.steps:
            raise InvalidDeclaration(f"workflow {self.name!r} uses the name {on_failure!r} for two steps")
        return Graph.checked(self.name, self._nodes(), on_failure, fail_fast=self.fail_fast)

    @cached_property
    def input(self) -> Codec[Any]:
        """Reads and writes the input."""
        first = self.steps[self.graph.roots[0]]
        return self._input or first.input

    @cached_property
    def output(self) -> Codec[Any]:
        """Reads and writes the output."""
        sinks = self.graph.sinks
        if self._output is not None:
            return self._output
        return self.steps[sinks[0]].output if len(sinks) == 1 else ANY

    @cached_property
    def declaration(self) -> Declaration:
        """What the registry bucket says of the workflow."""
        steps = [*self.steps.values(), *([] if self.failure_step is None else [self.failure_step])]
        return Declaration(
            graph=self.graph,
            version=self.graph.version,
            deadline=self.deadline,
            input=msgspec.Raw(self.input.schema),
            output=msgspec.Raw(self.output.schema),
            steps={step.name: step.declared for step in steps},
        )

    @property
    def consumed_steps(self) -> list[str]:
        """The steps that workers pull tasks of, the implied start included."""
        implied = [START] if self.graph.first == START else []
        after_all = [] if self.failure_step is None else [self.failure_step.name]
        return implied + [node.name for node in self.graph.nodes] + after_all

    def find_step(self, name: str) -> Step[..., Any, Any] | None:
        """Return a step by its name, the one on failure included."""
        if self.failure_step is not None and name == self.failure_step.name:
            return self.failure_step
        return self.steps.get(name)


class FunctionWorkflow(Workflow[I, O], Generic[I, O, P, R]):
    """A workflow of one function. Calling it runs the function, and nothing else."""

    def __init__(self, name: str, function: Callable[P, R], **options: Any) -> None:
        super().__init__(name, **options)
        self.function = function
        self.step(name=ONE_STEP)(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function."""
        return self.function(*args, **kwargs)


class _WorkflowDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[[], Coroutine[Any, Any, O]], /
    ) -> FunctionWorkflow[None, O, [], Coroutine[Any, Any, O]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[I, P], Coroutine[Any, Any, O]], /
    ) -> FunctionWorkflow[I, O, Concatenate[I, P], Coroutine[Any, Any, O]]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> FunctionWorkflow[None, O, [], O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[I, P], O], /) -> FunctionWorkflow[I, O, Concatenate[I, P], O]: ...


def workflow(
    name: str,
    *,
    retry: Retry | None = None,
    timeout: float | None = None,
    max_running: int | None = None,
    schedule_timeout: float | None = None,
    deadline: float | None = None,
) -> _WorkflowDecorator:
    """Declare a function as a workflow of one step. ``timeout`` and the others are seconds; see `Workflow`.

    Raises:
        InvalidName: the name does not fit the token rule.
        InvalidDeclaration: a type cannot travel as JSON, the signature does not fit.
    """

    def declare(function: Callable[..., Any]) -> Any:
        made: FunctionWorkflow[Any, Any, ..., Any] = FunctionWorkflow(
            name,
            function,
            retry=retry,
            timeout=timeout,
            max_running=max_running,
            schedule_timeout=schedule_timeout,
            deadline=deadline,
        )
        return made

    return declare


class _Signature:
    """Which parameters of a step's function are the input and the context, and their types."""

    def __init__(self, function: Callable[..., Any], where: str) -> None:
        self._where = where
        self._hints = _resolved_hints(function, where)
        self.input_name: str | None = None
        self.context_name: str | None = None
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InvalidDeclaration(f"{where}: parameter {parameter} must be a plain one: (input) or (input, ctx)")
            if self._is_context(parameter):
                self.context_name = parameter.name
            elif self.input_name is None:
                self.input_name = parameter.name
            elif parameter.default is parameter.empty:
                raise InvalidDeclaration(f"{where} takes more than (input, ctx): what would {parameter.name!r} be?")

    def _is_context(self, parameter: inspect.Parameter) -> bool:
        hint = self._hints.get(parameter.name)
        return hasattr(hint, CONTEXT_MARK) or (hint is None and parameter.name == "ctx")

    def codec(self, name: str | None, where: str) -> Codec[Any]:
        if name is None or name not in self._hints:
            return ANY
        return Codec(self._hints[name], where)


def _resolved_hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return the annotations, with names looked up where the function was declared, too."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        try:
            return get_type_hints(function, localns=frame.f_locals, include_extras=True)
        except NameError as error:
            frame = frame.f_back
            if frame is None:
                raise InvalidDeclaration(f"{where}: an annotation cannot be resolved: {error}") from error
    return {}


def _first_paragraph(doc: str) -> str:
    paragraph = " ".join(inspect.cleandoc(doc).partition("\n\n")[0].split())
    return paragraph if len(paragraph) <= DOC_LIMIT else f"{paragraph[: DOC_LIMIT - 1]}…"


def _source(function: Callable[..., Any]) -> str:
    """Return where a function is declared, without the path of the machine."""
    if function.__module__ != "__main__":
        return f"{function.__module__}:{function.__qualname__}"
    code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"


def _checked_positive(what: str, value: Any) -> Any:
    if value is not None and not value > 0:
        raise InvalidDeclaration(f"{what} is {value!r}: it must be above 0")
    return value
