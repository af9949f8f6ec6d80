"""One step of a workflow: a function with its name, its place in the graph, its types and its options."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from jetflow.conditions import OutputOf
from jetflow.deciding import Conditions, StepCondition
from jetflow.dependencies import Provider, in_order
from jetflow.engine.batching import Batch
from jetflow.engine.identity import check_name
from jetflow.engine.labels import Requires, requirements
from jetflow.engine.matching import Matching
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.retries import Retry
from jetflow.errors import InvalidDeclaration
from jetflow.limits import Limit, checked_step_limits
from jetflow.signature import Signature, first_paragraph, is_local, source_of
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.records import DeclaredBatch, DeclaredStep

I = TypeVar("I")  # noqa: E741 - the input of a workflow
P = ParamSpec("P")
R = TypeVar("R")
OUT = TypeVar("OUT")
OUT_co = TypeVar("OUT_co", covariant=True)


_CONDITIONS: Final = ("wait_for", "skip_if", "cancel_if")

_OPTIONS: Final = (
    *("name", "after", "retry", "timeout", "max_running", "schedule_timeout", "join", "runs_in", "batch", "requires"),
    *("slots", "limits", "idempotent"),
    *_CONDITIONS,
)

RunsIn: TypeAlias = Literal["process"]
"""Where a plain ``def`` may run, other than in a thread."""


class Step(Generic[P, R, OUT_co]):
    """One function of a workflow. Calling it runs the function, and nothing else.

    ``timeout`` is seconds; ``max_running`` is how many of its bodies may run at once across all workers; an
    ``idempotent`` one may run twice at once for one run. ``in_process``
    and ``in_thread`` say where it runs if not on the worker's event loop. To run one that ``is_plain`` is to await it.
    With a ``batch``, one call of its function is for many runs, and its input and output are those of each.
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
        runs_in: RunsIn | None = None,
        wait_for: StepCondition | None = None,
        skip_if: StepCondition | None = None,
        cancel_if: StepCondition | None = None,
        batch: Batch | None = None,
        requires: Requires | None = None,
        slots: int = 1,
        limits: Iterable[Limit] = (),
        idempotent: bool = False,
    ) -> None:
        self.workflow = workflow
        self.function = function
        self.name: str = check_name("step name", name)
        self.after: tuple[str, ...] = tuple(after)
        what = f"step {name!r}"
        self.retry: Retry = checked_retry(what, retry) or Retry()
        self.timeout: float | None = checked_positive(f"{what}: timeout (seconds)", timeout)
        self.max_running: int | None = checked_positive(f"{what}: max_running", max_running)
        self.schedule_timeout: float | None = checked_positive(f"{what}: schedule_timeout (seconds)", schedule_timeout)
        self.join: JoinPolicy = join
        self.conditions: Conditions = Conditions(
            f"{what} of workflow {workflow!r}", skip_if=skip_if, cancel_if=cancel_if, wait_for=wait_for
        )
        self.requires: Matching | None = requirements(f"{what} of workflow {workflow!r}", requires)
        signature = Signature(function, f"{what} of workflow {workflow!r}")
        self.is_async: bool = signature.is_async
        self.wraps_async: bool = signature.wraps_async
        self.in_process: bool = _checked_place(f"{what} of workflow {workflow!r}", runs_in, signature, function)
        self.in_thread: bool = not (self.is_async or self.in_process or batch)
        self.input_name: str | None = signature.input_name
        self.context_name: str | None = signature.context_name
        self.asks_for_json: bool = signature.asks_for_json
        self.dependencies: dict[str, Provider] = signature.dependencies
        _check_dependencies(f"{what} of workflow {workflow!r}", signature)
        self.batch: Batch | None = _checked_batch(f"{what} of workflow {workflow!r}", batch, self)
        self.limits: tuple[Limit, ...] = checked_step_limits(f"{what} of workflow {workflow!r}", limits)
        if self.limits and self.batch is not None:
            raise InvalidDeclaration(
                f"{what} of workflow {workflow!r} has batch= and limits=, which count tasks, and not calls: so few "
                "would be gathered that a batch is never full. Leave out limits="
            )
        self.idempotent: bool = _checked_idempotent(f"{what} of workflow {workflow!r}", idempotent, self)
        self.slots: int = _checked_slots(f"{what} of workflow {workflow!r}", slots, self)
        is_bare = self.is_async and not self.dependencies and self.batch is None
        self.is_plain: bool = is_bare and self.timeout is None
        taken, given = f"input of workflow {workflow!r}", f"output of {what} of workflow {workflow!r}"
        self.input: Codec[Any] = signature.input(taken) if batch is None else signature.batch_input(taken)
        self.output: Codec[Any] = (
            signature.output(given) if batch is None else signature.batch_output(given, broadcast=batch.broadcast)
        )

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
            conditions=self.conditions.said,
            batch=None if self.batch is None else declared_batch(self.batch),
            requires=() if self.requires is None else self.requires.conditions,
            limits=tuple(one.declared for one in self.limits),
            idempotent=self.idempotent,
            doc=first_paragraph(self.function),
            source=source_of(self.function),
        )

    def arguments(self, value: Any, context: Any) -> dict[str, Any]:
        """Return the keyword arguments for one call."""
        arguments: dict[str, Any] = {}
        if self.input_name is not None:
            arguments[self.input_name] = value
        if self.context_name is not None:
            arguments[self.context_name] = context
        return arguments


@overload
def output_of(step: Step[..., Any, OUT], holds: Callable[[OUT], bool]) -> OutputOf: ...
@overload
def output_of(step: str, holds: Callable[[Any], bool]) -> OutputOf: ...
def output_of(step: Step[..., Any, Any] | str, holds: Callable[[Any], bool]) -> OutputOf:
    """Return what a function says of the output of an earlier step, as a condition of a step.

    It is asked once, when the steps before have ended, and what it says is recorded. Of a step that was skipped it is
    not asked, and does not hold. If it raises an error, the step with the condition fails as ``PredicateFailed``.

    Raises:
        InvalidDeclaration: it is no step, or no function of its output.
    """
    if not isinstance(step, Step | str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise InvalidDeclaration(f"output_of() takes a step, or the name of one, and not {step!r}")
    if not callable(holds) or iscoroutinefunction(holds):
        raise InvalidDeclaration(f"output_of({step!r}, ...) takes a plain function of the output, and not {holds!r}")
    if isinstance(step, str):
        return OutputOf(step, None, ANY.named(f"the output of step {step!r}"), holds)
    return OutputOf(step.name, step.workflow, step.output, holds)


class _TakesContext(Protocol):
    @property
    def __jetflow_context__(self) -> bool: ...


C = TypeVar("C", bound=_TakesContext)


class BatchDecorator(Protocol):
    """Declares functions of many inputs as steps, as ``@flow.step(batch=Batch(...))``."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, list[OUT | Exception]]], /
    ) -> Step[P, Coroutine[Any, Any, list[OUT | Exception]], OUT]: ...
    @overload
    def __call__(self, function: Callable[P, list[OUT | Exception]], /) -> Step[P, list[OUT | Exception], OUT]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, list[OUT]]], /
    ) -> Step[P, Coroutine[Any, Any, list[OUT]], OUT]: ...
    @overload
    def __call__(self, function: Callable[P, list[OUT]], /) -> Step[P, list[OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R, Any]: ...


class StepDecorator(Generic[I]):
    """Declares functions as steps of one workflow, as ``@flow.step`` or ``@flow.step(after=[...])``.

    The function takes ``(input)`` or ``(input, ctx)``, and behind them what it depends on
    (``Annotated[Pool, Depends(pool)]``), and is ``async def`` or ``def`` (run in a thread); a method of an object, a
    partial and an object with ``__call__`` will do as well. Its input is the workflow's. Without ``name`` the
    step is called like the function. ``timeout`` is seconds that the function may run, time spent waiting for children
    not counted; ``schedule_timeout`` is seconds that a task may wait in the queue. ``join`` decides over the children
    that the step spawns and does not join itself. With ``runs_in="process"`` a plain ``def`` runs in a process of the
    worker's pool, on a core of its own, and is killed when its time is over or its run is cancelled. With ``batch`` the
    function is called for many runs at once: with a list of inputs, and a list of contexts if it takes those. See
    `Batch`. ``requires`` is what a worker's labels have to say for it to run the step: ``{"gpu": True}``, or conditions
    as those of `Workflow.on`. A heavy step takes several ``slots`` of its worker. ``limits`` say how many may run
    it at once, by keys of their input, over all workers: see `Limit`. An ``idempotent`` one may run twice at once for
    one run, so that a straggler may get a twin (see `Context.join`): it spawns nothing, does not sleep, waits for no
    event and streams nothing.

    When the steps before it have ended, it is skipped if ``skip_if`` comes first, cancelled if ``cancel_if`` does, and
    run when ``wait_for`` has come, or at once if there is none. Each is an `Event`, a `Signal`, ``sleep(...)``,
    ``output_of(step, function)``, ``any_of`` or ``all_of`` of these, or a function of the input that returns one of
    them, or true or false. Meanwhile it holds nothing. Of those that come at once the first named goes first.

    Raises:
        InvalidName: the name does not fit the token rule.
        InvalidDeclaration: an upstream step is unknown, a type cannot travel, the input is of another type than the
            workflow's, or what is decorated cannot be a step.
    """

    def __init__(self, declare: Callable[..., Step[..., Any, Any]], options: Mapping[str, Any]) -> None:
        self._declare = declare
        self._options = options

    @overload
    def __call__(
        self, function: Callable[[], Coroutine[Any, Any, OUT]], /
    ) -> Step[[], Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[[], OUT], /) -> Step[[], OUT, OUT]: ...
    @overload
    def __call__(
        self, function: Callable[[C], Coroutine[Any, Any, OUT]], /
    ) -> Step[[C], Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[[C], OUT], /) -> Step[[C], OUT, OUT]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[I, P], Coroutine[Any, Any, OUT]], /
    ) -> Step[Concatenate[I, P], Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[I, P], OUT], /) -> Step[Concatenate[I, P], OUT, OUT]: ...
    @overload
    def __call__(
        self, function: Callable[[C, I], Coroutine[Any, Any, OUT]], /
    ) -> Step[[C, I], Coroutine[Any, Any, OUT], OUT]: ...
    @overload
    def __call__(self, function: Callable[[C, I], OUT], /) -> Step[[C, I], OUT, OUT]: ...
    @overload
    def __call__(
        self,
        function: None = None,
        *,
        batch: Batch,
        name: str | None = None,
        after: Iterable[Step[..., Any, Any] | str] | Step[..., Any, Any] | str = (),
        retry: Retry | None = None,
        timeout: float | None = None,
        schedule_timeout: float | None = None,
        join: JoinPolicy = ALL_SUCCEED,
        requires: Requires | None = None,
    ) -> BatchDecorator: ...
    @overload
    def __call__(
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
        runs_in: RunsIn | None = None,
        wait_for: StepCondition | None = None,
        skip_if: StepCondition | None = None,
        cancel_if: StepCondition | None = None,
        requires: Requires | None = None,
        slots: int = 1,
        limits: Iterable[Limit] = (),
        idempotent: bool = False,
    ) -> StepDecorator[I]: ...
    def __call__(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        """Declare a function, or return what declares one with these options."""
        for name in options:
            if name not in _OPTIONS:
                near = get_close_matches(name, _OPTIONS, 1)
                hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(_OPTIONS)}"
                raise InvalidDeclaration(f"a step has no option {name!r}: {hint}")
        options = {**self._options, **options}
        return StepDecorator[I](self._declare, options) if function is None else self._declare(function, **options)


def _check_dependencies(what: str, signature: Signature) -> None:
    """Refuse what could not be given to a step when it is called.

    Raises:
        InvalidDeclaration: that is so.
    """
    opened = [one for one in in_order(signature.dependencies.values()) if one.per == "attempt"]
    takes_context = next((one for one in opened if one.context_name is not None), None)
    if takes_context is not None and signature.context_name is None:
        raise InvalidDeclaration(
            f"{what}: the dependency {takes_context.name!r} takes the context, so the step has to take it, too: "
            "(input, ctx, ...)"
        )
    if opened and signature.wraps_async:
        raise InvalidDeclaration(
            f"{what}: the dependency {opened[0].name!r} is opened per attempt, and would be closed before the "
            "coroutine is awaited that the decorator hands over: make the decorator's function an async def"
        )


def _checked_batch(what: str, batch: Any, step: Step[..., Any, Any]) -> Batch | None:
    """Return how tasks are gathered, if that and the step's other options fit.

    Raises:
        InvalidDeclaration: they do not.
    """
    if batch is None:
        return None
    if not isinstance(batch, Batch):
        raise InvalidDeclaration(f"{what}: batch is {batch!r}: write batch=Batch(size={batch!r})")
    if step.in_process:
        raise InvalidDeclaration(
            f'{what} runs in a process, which takes one task at a time: leave out runs_in="process"'
        )
    if step.max_running is not None:
        raise InvalidDeclaration(
            f"{what} has batch= and max_running=, which counts tasks, and not calls: so few would be gathered that a "
            "batch is never full. Leave out max_running= (a batch takes one of its worker's slots)"
        )
    for one in in_order(step.dependencies.values()):
        if one.context_name is not None:
            raise InvalidDeclaration(
                f"{what}: the dependency {one.name!r} takes the context of a run, and a batch is of many runs"
            )
    return batch


def _checked_slots(what: str, slots: Any, step: Step[..., Any, Any]) -> int:
    """Return how many of its worker's slots a step takes.

    Raises:
        InvalidDeclaration: it is no number from 1 on, or the step takes none of those slots.
    """
    if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
        raise InvalidDeclaration(f"{what}: slots is {slots!r}: a step takes one slot of its worker, or several")
    if slots > 1 and (step.in_process or step.batch is not None):
        why = "runs in a process, which is a slot of its own" if step.in_process else "has batch=, whose calls take one"
        raise InvalidDeclaration(f"{what} {why}: leave out slots=")
    return slots


def _checked_idempotent(what: str, idempotent: Any, step: Step[..., Any, Any]) -> bool:
    """Return whether a step may run twice at once.

    Raises:
        InvalidDeclaration: that is not said by true or false, or does not go with its other options.
    """
    if not isinstance(idempotent, bool):
        raise InvalidDeclaration(f"{what}: idempotent is {idempotent!r}: write idempotent=True")
    if idempotent and (step.batch is not None or step.limits):
        why = "batch=, whose calls are of many runs" if step.batch is not None else "limits=, which its twin would pass"
        raise InvalidDeclaration(f"{what} has idempotent=True, by which it may get twins, and {why}: leave one out")
    return idempotent


def declared_batch(batch: Batch) -> DeclaredBatch:
    """Return what the registry bucket says of a batch."""
    return DeclaredBatch(size=batch.size, wait=batch.wait, max_bytes=batch.max_bytes, keyed=batch.key is not None)


def checked_positive(what: str, value: Any) -> Any:
    """Return an option that has to be a number above 0, if it is given.

    Raises:
        InvalidDeclaration: it is not.
    """
    if value is None:
        return None
    if not isinstance(value, int | float) or not value > 0:
        raise InvalidDeclaration(f"{what} is {value!r}: it must be above 0")
    return value


def _checked_place(what: str, runs_in: Any, signature: Signature, function: Any) -> bool:
    """Return whether a step runs in a process, if its function can.

    Raises:
        InvalidDeclaration: it cannot, or another place is meant.
    """
    if runs_in is None:
        return False
    if runs_in != "process":
        raise InvalidDeclaration(f'{what}: runs_in is {runs_in!r}: there is runs_in="process", and nothing else')
    if signature.is_async or signature.wraps_async:
        raise InvalidDeclaration(
            f"{what} is an async def, which runs on the event loop of its worker: write a plain def, which "
            'runs_in="process" is for'
        )
    if is_local(function):
        raise InvalidDeclaration(
            f"{what} runs in a process, which finds it by import, and its function is a lambda or stands inside of "
            "another one: declare it with def at the top level of a module "
            "(is a functools.wraps missing in a decorator?)"
        )
    return True


def checked_retry(what: str, retry: Any) -> Retry | None:
    """Return how a step is tried again, if it is said.

    Raises:
        InvalidDeclaration: it is said otherwise than by a `Retry`.
    """
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidDeclaration(f"{what}: retry is {retry!r}: write retry=Retry(attempts={retry!r})")
    return retry
