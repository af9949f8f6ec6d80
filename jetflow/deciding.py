"""The conditions of one step, as it declares them: checked at import, and resolved when its run has come to it.

Each is an event, a signal to the run, a time, what a function says of an earlier output, `any_of` or `all_of` of these,
or a function of the run's input that returns one of them, or true or false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.conditions import AllOf, AnyOf, Event, OutputOf, Signal, Sleep, leaves_of
from jetflow.engine.conditions import ALL_SKIPPED, Armed, Groups, Term
from jetflow.engine.tasks import Outcome
from jetflow.errors import InvalidDeclaration, PredicateFailed

StepCondition: TypeAlias = Event[Any] | Signal[Any] | Sleep | OutputOf | AnyOf | AllOf | Callable[[Any], Any]
"""What a step may be skipped, cancelled or run by."""

_KINDS: Final = (Event, Signal, Sleep, OutputOf, AnyOf, AllOf)


class Conditions:
    """What a step declares of when it is skipped, cancelled, or run. ``of`` names the step in errors.

    Raises:
        InvalidDeclaration: one of them is no condition.
    """

    def __init__(self, of: str, *, skip_if: Any = None, cancel_if: Any = None, wait_for: Any = None) -> None:
        self._of = of
        self._asked: dict[str, Any] = {"skip_if": skip_if, "cancel_if": cancel_if, "wait_for": wait_for}
        for name, condition in self._asked.items():
            _check(f"{of}: {name}", condition)

    def __bool__(self) -> bool:
        return any(condition is not None for condition in self._asked.values())

    @property
    def outputs(self) -> list[OutputOf]:
        """What is asked of outputs, as far as it is said without a run's input."""
        return [one for condition in self._asked.values() for one in leaves_of(condition) if isinstance(one, OutputOf)]

    @property
    def steps(self) -> set[str]:
        """The steps whose outputs are asked of."""
        return {one.step for one in self.outputs}

    @property
    def may_skip(self) -> bool:
        """Whether they may come to that the step is skipped."""
        waits = self._asked["wait_for"]
        in_vain = any(isinstance(one, OutputOf) or _is_function(one) for one in leaves_of(waits))
        return self._asked["skip_if"] is not None or in_vain

    def judges_skipped(self, after: tuple[str, ...]) -> bool:
        """Whether the step itself says what becomes of it where the steps just before it were skipped."""
        skips = leaves_of(self._asked["skip_if"])
        return any(isinstance(one, OutputOf) and one.step in after for one in skips)

    @property
    def said(self) -> dict[str, str]:
        """The conditions as text, by kind."""
        return {name: _text(condition) for name, condition in self._asked.items() if condition is not None}

    def resolve(
        self,
        run: str,
        value: Any,
        before: Mapping[str, Outcome],
        after: tuple[str, ...],
        *,
        at: float,
        since: float,
    ) -> Armed:
        """Return the conditions of one run: ``before`` are the outcomes of the steps that are asked of.

        ``at`` is when the steps before had ended, ``since`` the time from which on events count.

        Raises:
            PredicateFailed: a function has raised an error, or returns what is no condition.
        """
        if after and all(before[step].status == "skipped" for step in after) and not self.judges_skipped(after):
            return Armed(at=at, skip=((Term(holds=True, said=ALL_SKIPPED),),))
        resolve = _Resolving(run, value, before, at=at, since=since)
        groups: dict[str, Groups] = {}
        for name, condition in self._asked.items():
            try:
                groups[name] = () if condition is None else resolve.groups(condition)
            except Exception as error:  # it is the user's code: its error is recorded once, as the end of the step
                raise PredicateFailed(f"{self._of}: {name}: {type(error).__name__}: {error}") from error
        return Armed(at=at, skip=groups["skip_if"], cancel=groups["cancel_if"], run=groups["wait_for"])


class _Resolving:
    """Resolves the conditions of one run."""

    def __init__(self, run: str, value: Any, before: Mapping[str, Outcome], *, at: float, since: float) -> None:
        self._run = run
        self._value = value
        self._before = before
        self._at = at
        self._since = since

    def groups(self, condition: Any) -> Groups:
        if _is_function(condition):
            name = getattr(condition, "__name__", "a function")
            given = condition(self._value)
            if isinstance(given, bool):
                return ((Term(holds=given, said=name),),)
            if not isinstance(given, _KINDS):
                raise TypeError(f"it returns {given!r}, and not true, false, or a condition")
            return self.groups(given)
        members = condition.members if isinstance(condition, AllOf) else (condition,)
        return tuple(tuple(map(self._term, one.members if isinstance(one, AnyOf) else (one,))) for one in members)

    def _term(self, one: Event[Any] | Signal[Any] | Sleep | OutputOf) -> Term:
        if isinstance(one, OutputOf):
            return Term(holds=self._holds(one), said=repr(one))
        if isinstance(one, Sleep):
            until = self._at + (one.seconds or 0.0) if one.until is None else one.until
            return Term(until=until, said=repr(one))
        awaited = one.awaited(self._run)
        if isinstance(one, Event):  # what is sent to the run itself is of no other
            awaited = msgspec.structs.replace(awaited, since=self._since - (one.lookback or 0.0))
        return Term(event=awaited, said=repr(one))

    def _holds(self, one: OutputOf) -> bool:
        ended = self._before[one.step]
        if ended.status != "succeeded":  # it was skipped: there is no output
            return False
        said = one.holds(one.codec.decode_output(ended.output))
        if not isinstance(said, bool):
            raise TypeError(f"the function of {one!r} returns {said!r}, and not true or false")
        return said


def _is_function(condition: Any) -> bool:
    return condition is not None and not isinstance(condition, _KINDS)


def _text(condition: Any) -> str:
    return getattr(condition, "__name__", repr(condition)) if _is_function(condition) else repr(condition)


def _check(what: str, condition: Any) -> None:
    if condition is None or isinstance(condition, _KINDS):
        return
    if isinstance(condition, list | tuple):
        raise InvalidDeclaration(f"{what} is a list: write any_of(...) or all_of(...), which says how many have to be")
    if hasattr(condition, "codec") or hasattr(condition, "after"):
        raise InvalidDeclaration(f"{what} is {condition!r}: what its output says is output_of(step, function)")
    if not callable(condition):
        raise InvalidDeclaration(
            f"{what} is {condition!r}: it takes an Event, a Signal, sleep(...), output_of(step, function), "
            "any_of(...), all_of(...), or a function of the input"
        )
    if iscoroutinefunction(condition):
        raise InvalidDeclaration(f"{what} is an async def: a condition is decided by a plain function")
