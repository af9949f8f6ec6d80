"""Declaring workflows: names, steps, the edges between them, and the types that travel.

A workflow is declared once, at import. Everything that can be wrong with it (a name, a type, an unknown upstream
step, a cycle) is refused here, before anything reaches the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from functools import cached_property
from time import time
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

import msgspec

from jetflow.engine.batching import Batch
from jetflow.engine.graph import IMPLIED, Graph, Node
from jetflow.engine.holding import Unless
from jetflow.engine.identity import check_name
from jetflow.engine.labels import Requires
from jetflow.engine.levels import BETWEEN, Levels, checked_level, checked_levels
from jetflow.engine.matching import Condition
from jetflow.engine.planning import Plan, PlanBesideCron, planned
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.retries import Retry
from jetflow.engine.schedules import Schedule
from jetflow.errors import InvalidDeclaration, InvalidInput, UnknownLevel
from jetflow.kinds import is_untyped, shown, takes
from jetflow.limits import AnyLimit, Limit, RateLimit, checked_limits
from jetflow.signature import named_like
from jetflow.step import RunsIn, Step, StepDecorator, checked_positive, checked_retry
from jetflow.subscriptions import Subscription
from jetflow.wire.codec import ANY, Codec, OutputsByStep
from jetflow.wire.records import Declaration

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
P = ParamSpec("P")
R = TypeVar("R")
GI = TypeVar("GI")
GO = TypeVar("GO")
OUT = TypeVar("OUT")
F = TypeVar("F")

ONE_STEP: Final = "run"
"""The name of the step of a workflow that was declared as one function."""


class Workflow(Generic[I, O]):
    """A named DAG of steps.

    ``retry``, ``timeout`` (seconds), ``max_running`` and ``schedule_timeout`` (seconds in the queue) are the defaults
    of its steps. ``deadline`` is how many seconds a run may take in all, its descendants included. Without ``input``
    and ``output`` the types come from the annotations of the first and last steps.

    ``limits`` say how many of its runs, by keys, may be under way at once: see `Limit`; and how many may begin in a
    stretch of time: see `RateLimit`.

    ``levels`` are names, the most urgent first: where runs wait for slots, more urgent ones begin first, and of 16 one
    is of a less urgent level. A run has the ``level`` that it is triggered or spawned with, else that of its parent,
    else ``default_level``, which is the last one if nothing is said.

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
        limits: Iterable[AnyLimit] = (),
        levels: Iterable[str] = (),
        default_level: str | None = None,
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
        limits: Iterable[AnyLimit] = (),
        levels: Iterable[str] = (),
        default_level: str | None = None,
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
        limits: Iterable[AnyLimit] = (),
        levels: Iterable[str] = (),
        default_level: str | None = None,
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
        limits: Iterable[AnyLimit] = (),
        levels: Iterable[str] = (),
        default_level: str | None = None,
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
        limits: Iterable[AnyLimit] = (),
        levels: Iterable[str] = (),
        default_level: str | None = None,
    ) -> None:
        self.name: str = check_name("workflow name", name)
        self.fail_fast = fail_fast
        self.retry: Retry | None = checked_retry(f"workflow {name!r}", retry)
        self.timeout: float | None = checked_positive(f"workflow {name!r}: timeout (seconds)", timeout)
        self.max_running: int | None = checked_positive(f"workflow {name!r}: max_running", max_running)
        self.schedule_timeout: float | None = checked_positive(
            f"workflow {name!r}: schedule_timeout (seconds)", schedule_timeout
        )
        self.deadline: float | None = checked_positive(f"workflow {name!r}: deadline (seconds)", deadline)
        limited, paced = checked_limits(name, limits)
        self.limits: tuple[Limit, ...] = limited
        self.rates: tuple[RateLimit, ...] = paced
        self.levels: Levels | None = checked_levels(f"workflow {name!r}", levels, default_level)
        self.steps: dict[str, Step[..., Any, Any]] = {}
        self.schedules: dict[str, tuple[Schedule, Any]] = {}
        self.failure_step: Step[..., Any, Any] | None = None
        self.success_step: Step[..., Any, Any] | None = None
        self.subscriptions: list[Subscription] = []
        self._input: Codec[Any] | None = None if input is None else Codec(input, f"input of workflow {name!r}")
        self._output: Codec[Any] | None = None if output is None else Codec(output, f"output of workflow {name!r}")

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}: {', '.join(self.steps) or 'no steps yet'}>"

    def schedule(
        self, cron: str | None = None, *, name: str | None = None, input: Any = None, **plan: Unpack[PlanBesideCron]
    ) -> Callable[[F], F]:
        """Declare that runs begin by themselves, with this input: ``flow.schedule("0 3 * * *", tz="Europe/Berlin")``.

        It is stored by the workers of the workflow, in the place of what they have stored before; what is declared no
        more, they remove. ``name`` tells several apart: else it is that of the workflow. See `Plan`. What it returns
        gives back what it is called with, so that it may stand as a decorator, too.

        Raises:
            InvalidDeclaration: the plan makes no sense, or there is one of this name.
        """
        name = check_name("schedule name", self.name if name is None else name)
        if name in self.schedules:
            raise InvalidDeclaration(f"workflow {self.name!r} has two schedules {name!r}: give them names of their own")
        said = cast("Plan", plan if cron is None else {**plan, "cron": cron})
        try:
            made = planned(self.name, said, now=time(), declared=True)
            if made.level is not None:
                checked_level(self.name, () if self.levels is None else self.levels.names, made.level)
            self.schedules[name] = made, input
        except (InvalidInput, UnknownLevel) as error:
            raise InvalidDeclaration(f"schedule {name!r} of workflow {self.name!r}: {error}") from error
        return lambda declared: declared

    @property
    def step(self) -> StepDecorator[I]:
        """Declares steps: ``@flow.step``, or ``@flow.step(after=[...])``. See `StepDecorator`."""
        return StepDecorator(self._declare, {})

    def _declare(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        after: Iterable[Step[..., Any, Any] | str] | Step[..., Any, Any] | str = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        max_running: int | None = None,
        schedule_timeout: float | None = None,
        join: JoinPolicy = ALL_SUCCEED,
        runs_in: RunsIn | None = None,
        batch: Batch | None = None,
        requires: Requires | None = None,
        slots: int = 1,
        limits: Iterable[Limit] = (),
        idempotent: bool = False,
        **conditions: Any,
    ) -> Step[..., Any, Any]:
        step: Step[..., Any, Any] = Step(
            self.name,
            self._plain(function),
            name=named_like(function, f"a step of workflow {self.name!r}") if name is None else name,
            after=[self._upstream(one) for one in _several(after)],
            retry=retry or self.retry,
            timeout=timeout if timeout is not None else self.timeout,
            max_running=max_running if max_running is not None else self.max_running,
            schedule_timeout=schedule_timeout if schedule_timeout is not None else self.schedule_timeout,
            join=join,
            runs_in=runs_in,
            batch=batch,
            requires=requires,
            slots=slots,
            limits=limits,
            idempotent=idempotent,
            **conditions,
        )
        self._add(step)
        return step

    def _plain(self, function: Any) -> Callable[..., Any]:
        """Return what is to be a step, unless it is a declared thing itself, or the name of one."""
        if isinstance(function, str):
            raise InvalidDeclaration(f"workflow {self.name!r}: a step's name is given as @flow.step(name={function!r})")
        if isinstance(function, Step | Workflow):
            raise InvalidDeclaration(f"{function!r} is declared already: a step of {self.name!r} is a function")
        return function

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
        self.failure_step = self._sequel("on_failure", function, self.failure_step)
        return self.failure_step

    @overload
    def on_success(
        self, function: Callable[P, Coroutine[Any, Any, OUT]], /
    ) -> Step[P, Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def on_success(self, function: Callable[P, OUT], /) -> Step[P, OUT, OUT]: ...
    def on_success(self, function: Callable[..., Any]) -> Any:
        """Declare a function that runs once when a run has succeeded; ``ctx.output`` gives what any step has returned.

        The run has ended then: whatever becomes of this step changes it no more.

        Raises:
            InvalidDeclaration: there is one already, or the signature does not fit.
        """
        self.success_step = self._sequel("on_success", function, self.success_step)
        return self.success_step

    def _sequel(
        self, what: str, function: Callable[..., Any], there: Step[..., Any, Any] | None
    ) -> Step[..., Any, Any]:
        if there is not None:
            raise InvalidDeclaration(f"workflow {self.name!r} has an {what} step already")
        name = named_like(function, f"the {what} step of workflow {self.name!r}")
        self._check_open(f"step {name!r}")
        step: Step[..., Any, Any] = Step(self.name, self._plain(function), name=name, retry=self.retry)
        self._check_input(step)
        return step

    def on(
        self,
        topic: str,
        *,
        key: str | None = None,
        if_: Iterable[Condition] | None = None,
        run_key: Callable[[Any], str] | None = None,
        unless: Unless | None = None,
        within: float | timedelta | None = None,
        if_failed: Literal["rerun"] | None = None,
    ) -> Subscription:
        """Have each event of a topic start one run, whose input is the event's payload.

        In ``topic``, ``*`` stands for any one of its names, and a last ``>`` for all that follow. With ``key``, only
        events with that key. ``if_`` is conditions on the payload that all have to hold, as
        ``[["amount", ">", 10], ["user.country", "in", ["de", "fr"]]]``; as a decorator it takes a function of the
        payload that decides further. Several of one workflow start no second run for one event.

        With ``run_key``, a function of the payload, an event starts no run while that key stands for one:
        ``unless=Running`` until that has ended, or ``within`` a time since it was begun (seconds). With
        ``if_failed="rerun"`` an event whose key stands for a run that has failed has it run again, of what has failed.

        Raises:
            InvalidDeclaration: the topic, the key or a condition is none, or the workflow is in use already.
        """
        self._check_open(f"on({topic!r})")
        subscription = Subscription(
            self.name, topic, key=key, if_=if_, run_key=run_key, unless=unless, within=within, if_failed=if_failed
        )
        self.subscriptions.append(subscription)
        return subscription

    def _upstream(self, upstream: Step[..., Any, Any] | str) -> str:
        if isinstance(upstream, Step):
            if self.steps.get(upstream.name) is not upstream:
                raise InvalidDeclaration(f"{upstream!r} cannot stand before a step of workflow {self.name!r}")
            return upstream.name
        if not isinstance(upstream, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
            raise InvalidDeclaration(
                f"workflow {self.name!r}: after={upstream!r} is no step: decorate it with @flow.step, or name the step"
            )
        return check_name("upstream step name", upstream)

    def _check_open(self, declared: str) -> None:
        if "graph" in self.__dict__:
            raise InvalidDeclaration(
                f"workflow {self.name!r} is in use already: declare {declared} before workers or clients do"
            )

    def _add(self, step: Step[..., Any, Any]) -> None:
        self._check_open(f"step {step.name!r}")
        if self.levels is not None and step.max_running is not None:
            raise InvalidDeclaration(
                f"step {step.name!r} of workflow {self.name!r} has max_running, which is of one queue, and levels give "
                f"it several: write limits=[Limit({self.name!r}, max={step.max_running})]"
            )
        if step.name in self.steps:
            raise InvalidDeclaration(f"workflow {self.name!r} declares step {step.name!r} twice: give one a name=")
        whole = {limit.name for limit in self.limits if limit.key is None}
        for limit in step.limits:
            if limit.key is None and limit.name in whole:
                raise InvalidDeclaration(
                    f"step {step.name!r} of workflow {self.name!r} has limit {limit.name!r}, of which its runs hold a "
                    "place already, and would wait for ever: leave it out"
                )
        if step.idempotent and (self.limits or self.rates):
            raise InvalidDeclaration(
                f"step {step.name!r} of workflow {self.name!r} has idempotent=True, by which it may get twins, and the "
                "workflow has limits=, which these would pass: leave one out"
            )
        Graph.checked(self.name, [*self._nodes(), Node(step.name, step.after)])
        self._check_input(step)
        self.steps[step.name] = step

    def _check_input(self, step: Step[..., Any, Any], of: Step[..., Any, Any] | None = None) -> None:
        """Refuse a step that takes something else than the workflow, whose input is that of the step ``of``."""
        kind = self._input.kind if of is None and self._input is not None else Any if of is None else of.input.kind
        if step.input_name is not None and not takes(step.input.kind, kind):
            whose = "" if of is None else f", that of step {of.name!r}"
            raise InvalidDeclaration(
                f"step {step.name!r} of workflow {self.name!r} takes {shown(step.input.kind)}, and the workflow's "
                f"input is {shown(kind)}{whose}: every step is given the input of the run (what a step before it has "
                "returned is ctx.output(step))"
            )

    def _nodes(self) -> list[Node]:
        return [Node(step.name, step.after) for step in self.steps.values()]

    @cached_property
    def graph(self) -> Graph:
        """The steps and edges. Reading it ends the declaration: no step can be added after.

        Raises:
            InvalidDeclaration: no step, an unknown upstream step, or a cycle.
        """
        on_failure, on_success = (None if one is None else one.name for one in (self.failure_step, self.success_step))
        names = [step.name for step in self.all_steps]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidDeclaration(f"workflow {self.name!r} uses the name {twice!r} for two steps")
        conditional = sorted(name for name, step in self.steps.items() if step.conditions)
        graph = Graph.checked(
            self.name,
            self._nodes(),
            on_failure,
            fail_fast=self.fail_fast,
            gated=bool(self.limits or self.rates),
            conditional=conditional,
            levels=() if self.levels is None else self.levels.names,
            level=None if self.levels is None else self.levels.default,
            on_success=on_success,
            limited=[name for name, step in self.steps.items() if step.limits],
        )
        self._give_input(graph.roots)
        if conditional:
            self._check_conditions(graph)
        return graph

    def _check_conditions(self, graph: Graph) -> None:
        """Refuse conditions on steps that do not come before, and an output that a run without one does not fit.

        Raises:
            InvalidDeclaration: there is one.
        """
        may_be_skipped: dict[str, bool] = {}
        for node in graph.nodes:
            step = self.steps[node.name]
            for one in step.conditions.outputs:
                if one.workflow not in (None, self.name) or one.step not in graph.ancestors[node.name]:
                    raise InvalidDeclaration(
                        f"step {node.name!r} of workflow {self.name!r} has a condition on the output of "
                        f"{one.step!r}, which does not come before it: name it in after="
                    )
            # Of several before it, one is meant to run: they are branches.
            with_it = len(node.after) == 1 and may_be_skipped[node.after[0]]
            itself = with_it and not step.conditions.judges_skipped(node.after)
            may_be_skipped[node.name] = step.conditions.may_skip or itself
        if len(graph.sinks) == 1 and may_be_skipped[graph.sinks[0]]:
            codec = self._output or self.steps[graph.sinks[0]].output
            try:
                codec.decode(b"null")
            except InvalidInput:
                last = f"the last step {graph.sinks[0]!r} of workflow {self.name!r}"
                raise InvalidDeclaration(
                    f"{last} may be skipped, and the run has no output then, but null: annotate the step with "
                    f"-> {shown(codec.kind)} | None, or let a step follow that runs in any case"
                ) from None

    def _give_input(self, roots: Iterable[str]) -> None:
        """Give all steps the one type that the input has: the workflow's, or that of its first step with a type.

        A step that says `Any` gets plain JSON.
        """
        first = [self.steps[name] for name in roots]
        typed = next((step for step in first if not is_untyped(step.input.kind)), first[0])
        codec = self._input or typed.input
        for step in self.all_steps:
            if self._input is None:
                self._check_input(step, typed)
            if not is_untyped(codec.kind) and not step.asks_for_json:
                step.input = codec
        self._input = codec

    @cached_property
    def input(self) -> Codec[Any]:
        """Reads and writes the input."""
        _ = self.graph  # which settles it
        return self._input or ANY

    @cached_property
    def output(self) -> Codec[Any]:
        """Reads and writes the output."""
        sinks = self.graph.sinks
        if self._output is not None:
            return self._output
        if len(sinks) == 1:
            return self.steps[sinks[0]].output
        return OutputsByStep(f"output of workflow {self.name!r}", {name: self.steps[name].output for name in sinks})

    @cached_property
    def declaration(self) -> Declaration:
        """What the registry bucket says of the workflow."""
        return Declaration(
            graph=self.graph,
            version=self.graph.version,
            deadline=self.deadline,
            input=msgspec.Raw(self.input.schema),
            output=msgspec.Raw(self.output.schema),
            steps={step.name: step.declared for step in self.all_steps},
            on=tuple(one.declared for one in self.subscriptions),
            limits=tuple(one.declared for one in self.limits),
            rates=tuple(one.declared for one in self.rates),
        )

    @property
    def step_limits(self) -> list[Limit]:
        """The limits of its steps."""
        return [limit for step in self.all_steps for limit in step.limits]

    @property
    def consumed_steps(self) -> list[str]:
        """The steps that workers pull tasks of, the implied start included."""
        implied = list(self.graph.implied)
        return implied + [node.name for node in self.graph.nodes] + list(self.graph.sequels)

    @property
    def queues(self) -> list[str]:
        """The queues of its steps, the most urgent first: one a step, and where there are levels one a level beside it.

        That without a level holds what was queued before there were levels.
        """
        levels = () if self.levels is None else self.levels.names
        leveled = [f"{step}{BETWEEN}{level}" for level in levels for step in self.consumed_steps if step not in IMPLIED]
        return leveled + self.consumed_steps

    @property
    def all_steps(self) -> list[Step[..., Any, Any]]:
        """The steps, with those on failure and on success behind them."""
        return [*self.steps.values(), *(one for one in (self.failure_step, self.success_step) if one is not None)]

    def find_step(self, name: str) -> Step[..., Any, Any] | None:
        """Return a step by its name, those on failure and on success included."""
        return self.steps.get(name) or next((step for step in self.all_steps if step.name == name), None)


class FunctionWorkflow(Workflow[I, O], Generic[I, O, P, R]):
    """A workflow of one function. Calling it runs the function, and nothing else."""

    def __init__(
        self,
        name: str,
        function: Callable[P, R],
        *,
        runs_in: RunsIn | None = None,
        batch: Batch | None = None,
        requires: Requires | None = None,
        slots: int = 1,
        idempotent: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.function = function
        self._declare(
            function,
            name=ONE_STEP,
            runs_in=runs_in,
            batch=batch,
            requires=requires,
            slots=slots,
            idempotent=idempotent,
        )

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


def checked_workflow(where: str, given: Any) -> Workflow[Any, Any]:
    """Return what is given, if it is a workflow.

    Raises:
        InvalidDeclaration: it is something else: most often a function that was not decorated.
    """
    if not isinstance(given, Workflow):
        raise InvalidDeclaration(
            f"{where} takes workflows, and {given!r} is none: declare a function with @workflow(...), and give the "
            "workflow of a step"
        )
    return cast("Workflow[Any, Any]", given)


def _several(after: Any) -> Iterable[Any]:
    return [after] if isinstance(after, Step | str) or callable(after) else after


class _BatchWorkflowDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[Concatenate[list[I], P], Coroutine[Any, Any, list[O | Exception]]], /
    ) -> FunctionWorkflow[I, O, Concatenate[list[I], P], Coroutine[Any, Any, list[O | Exception]]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[list[I], P], list[O | Exception]], /
    ) -> FunctionWorkflow[I, O, Concatenate[list[I], P], list[O | Exception]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[list[I], P], Coroutine[Any, Any, list[O]]], /
    ) -> FunctionWorkflow[I, O, Concatenate[list[I], P], Coroutine[Any, Any, list[O]]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[list[I], P], list[O]], /
    ) -> FunctionWorkflow[I, O, Concatenate[list[I], P], list[O]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[list[I], P], R], /
    ) -> FunctionWorkflow[I, Any, Concatenate[list[I], P], R]: ...


@overload
def workflow(
    name: str,
    *,
    batch: Batch,
    retry: Retry | None = None,
    timeout: float | None = None,
    schedule_timeout: float | None = None,
    deadline: float | None = None,
    requires: Requires | None = None,
    levels: Iterable[str] = (),
    default_level: str | None = None,
) -> _BatchWorkflowDecorator: ...
@overload
def workflow(
    name: str,
    *,
    retry: Retry | None = None,
    timeout: float | None = None,
    max_running: int | None = None,
    schedule_timeout: float | None = None,
    deadline: float | None = None,
    runs_in: RunsIn | None = None,
    limits: Iterable[AnyLimit] = (),
    requires: Requires | None = None,
    levels: Iterable[str] = (),
    default_level: str | None = None,
    slots: int = 1,
    idempotent: bool = False,
) -> _WorkflowDecorator: ...
def workflow(
    name: str,
    *,
    retry: Retry | None = None,
    timeout: float | None = None,
    max_running: int | None = None,
    schedule_timeout: float | None = None,
    deadline: float | None = None,
    runs_in: RunsIn | None = None,
    limits: Iterable[AnyLimit] = (),
    batch: Batch | None = None,
    requires: Requires | None = None,
    levels: Iterable[str] = (),
    default_level: str | None = None,
    slots: int = 1,
    idempotent: bool = False,
) -> Any:
    """Declare a function as a workflow of one step. ``timeout`` and the others are seconds; see `Workflow`.

    ``runs_in="process"`` is for a plain ``def`` that computes; see `StepDecorator`. With ``batch`` one call is for many
    runs; see `Batch`. ``requires`` is what the labels of its workers have to say, ``slots`` how many of its worker's it
    takes. An ``idempotent`` one may get twins, see `StepDecorator`.

    Raises:
        InvalidName: the name does not fit the token rule.
        InvalidDeclaration: a type cannot travel as JSON, what is decorated cannot be a step, or no name is given.
    """
    if callable(name):  # the function itself, where the decorator stands bare
        called = getattr(name, "__name__", "name")
        raise InvalidDeclaration(f'a workflow has a name of its own: write @workflow("{called.replace("_", "-")}")')

    def declare(function: Callable[..., Any]) -> Any:
        made: FunctionWorkflow[Any, Any, ..., Any] = FunctionWorkflow(
            name,
            function,
            retry=retry,
            timeout=timeout,
            max_running=max_running,
            schedule_timeout=schedule_timeout,
            deadline=deadline,
            runs_in=runs_in,
            limits=limits,
            batch=batch,
            requires=requires,
            levels=levels,
            default_level=default_level,
            slots=slots,
            idempotent=idempotent,
        )
        return made

    return declare
