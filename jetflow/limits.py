"""Limits as workflows declare them: how many runs of a key at once, and how many in a time, over all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from math import isfinite
from typing import Any, TypeAlias, TypeVar

from jetflow.engine.identity import check_name
from jetflow.engine.limits import EVERYBODY, STRATEGIES, Place, WhenFull
from jetflow.engine.rates import Rate
from jetflow.errors import InvalidDeclaration, LimitKeyFailed, RateUnitsFailed
from jetflow.wire.limits import limit_token
from jetflow.wire.records import DeclaredLimit, DeclaredRate

D = TypeVar("D", DeclaredLimit, DeclaredRate)


class Limit:
    """How many runs of a key may be admitted at once: ``Limit("tenant", key=lambda order: order.tenant, max=3)``.

    Of a step (``@flow.step(limits=...)``) it is how many of its runs may have begun it and not ended it: those wait for
    it before the step, and not before their first one, and there is ``when_full="queue"`` alone.

    ``key`` is a function of the run's input, and gives a str; without one all runs of the limit share one key. Limits
    of one name are one limit, in whichever workflows they stand. What counts are runs that were admitted and have no
    outcome; a run that waits for children, sleeps, or is to be tried again keeps its place. ``when_full`` says what
    becomes of those that come when all places are taken:

    - ``"queue"``: they wait, in the order in which they came; each key has a queue of its own.
    - ``"reject"``: they are cancelled.
    - ``"cancel_running"``: they get the places of the oldest, which are cancelled.
    - ``"keep_newest"``: only the newest waits, and those that waited before it are cancelled.
    - ``"keep_oldest"``: only the oldest waits, and those that come behind it are cancelled.

    ``max`` can be changed at run time, for all keys and for one: `Client.limits`.

    Raises:
        InvalidName: the name does not fit the token rule.
        InvalidDeclaration: ``max`` is no whole number above 0, ``key`` is no function, or ``when_full`` none of these.
    """

    def __init__(
        self, name: str, *, max: int, key: Callable[[Any], str] | None = None, when_full: WhenFull = "queue"
    ) -> None:
        self.name: str = check_name("limit name", name)
        self.max: int = checked_max(f"limit {name!r}", max)
        if key is not None and not callable(key):
            raise InvalidDeclaration(f"limit {name!r}: key is a function of the input, not {key!r}")
        if when_full not in STRATEGIES:
            raise InvalidDeclaration(f"limit {name!r}: when_full={when_full!r} is none of {', '.join(STRATEGIES)}")
        self.key: Callable[[Any], str] | None = key
        self.when_full: WhenFull = when_full

    def __repr__(self) -> str:
        return f"<Limit {self.name!r}: {self.max}>"

    @property
    def declared(self) -> DeclaredLimit:
        """What the registry says of it."""
        return DeclaredLimit(name=self.name, max=self.max, when_full=self.when_full, keyed=self.key is not None)

    def place(self, value: Any) -> Place:
        """Return the place that a run with this input needs.

        Raises:
            LimitKeyFailed: the function of its key raises, or gives no str.
        """
        token, shown = _key_of(self, value)
        return Place(self.name, token, shown)


class RateLimit:
    """How many runs of a key may begin in any stretch of time: ``RateLimit("api", max=100, per=timedelta(minutes=1))``.

    ``per`` is a timedelta, or seconds. ``key`` is a function of the run's input, and gives a str; without one all runs
    of the rate limit share one key. ``units`` is one that gives how many of the ``max`` a run takes, 1 without one.
    Rate limits of one name are one, in whichever workflows they stand. A run whose turn has not come is parked until
    then, and holds no slot; those of a key begin in the order in which they came.

    Raises:
        InvalidName: the name does not fit the token rule.
        InvalidDeclaration: ``max`` is no whole number above 0, ``per`` no time above 0, or ``key`` or ``units`` no
            function.
    """

    def __init__(
        self,
        name: str,
        *,
        max: int,
        per: timedelta | float,
        key: Callable[[Any], str] | None = None,
        units: Callable[[Any], int] | None = None,
    ) -> None:
        self.name: str = check_name("rate limit name", name)
        self.max: int = checked_max(f"rate limit {name!r}", max)
        self.per: float = _checked_per(name, per)
        for called, function in (("key", key), ("units", units)):
            if function is not None and not callable(function):
                raise InvalidDeclaration(f"rate limit {name!r}: {called} is a function of the input, not {function!r}")
        self.key: Callable[[Any], str] | None = key
        self.units: Callable[[Any], int] | None = units

    def __repr__(self) -> str:
        return f"<RateLimit {self.name!r}: {self.max} in {self.per:g} s>"

    @property
    def declared(self) -> DeclaredRate:
        """What the registry says of it."""
        return DeclaredRate(name=self.name, max=self.max, per=self.per, keyed=self.key is not None)

    def rate(self, value: Any) -> Rate:
        """Return what a run with this input needs of it.

        Raises:
            LimitKeyFailed: the function of its key raises, or gives no str.
            RateUnitsFailed: the function of its units raises, or gives no number of them.
        """
        token, shown = _key_of(self, value)
        return Rate(self.name, token, shown, self._units_of(value))

    def _units_of(self, value: Any) -> int:
        if self.units is None:
            return 1
        try:
            units = self.units(value)
        except Exception as error:
            raise RateUnitsFailed(self.name, f"it raised {type(error).__name__}: {error}") from error
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
            raise RateUnitsFailed(self.name, f"it gave {units!r}, and units are a whole number above 0")
        if units > self.max:
            raise RateUnitsFailed(self.name, f"it gave {units:,}, and there are never more than {self.max:,}")
        return units


AnyLimit: TypeAlias = Limit | RateLimit
"""What a workflow may be given as its limits."""


def _key_of(limit: AnyLimit, value: Any) -> tuple[str, str]:
    """Return the key of a run with this input, as it stands in subjects and as it was given."""
    if limit.key is None:
        return EVERYBODY, ""
    try:
        key = limit.key(value)
    except Exception as error:
        raise LimitKeyFailed(limit.name, f"it raised {type(error).__name__}: {error}") from error
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise LimitKeyFailed(limit.name, f"it gave {key!r}, and a key is a str")
    return limit_token(key), key


def _checked_per(name: str, per: Any) -> float:
    seconds = per.total_seconds() if isinstance(per, timedelta) else per
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not (seconds > 0 and isfinite(seconds)):
        raise InvalidDeclaration(f"rate limit {name!r}: per={per!r}: a timedelta above 0, or seconds")
    return float(seconds)


def checked_max(of: str, value: Any) -> int:
    """Return how many runs may be admitted at once, if it is a number of them.

    Raises:
        InvalidDeclaration: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidDeclaration(f"{of}: max={value!r}: a whole number above 0")
    return value


def checked_step_limits(step: str, limits: Any) -> tuple[Limit, ...]:
    """Return the limits of a step in the order in which it comes to them.

    Raises:
        InvalidDeclaration: one is none, or not of steps, or two have one name.
    """
    given: Iterable[Any] = (limits,) if isinstance(limits, AnyLimit) else limits
    found: dict[str, Limit] = {}
    for limit in given:
        if isinstance(limit, RateLimit):
            raise InvalidDeclaration(
                f"{step}: a RateLimit is of the runs of a workflow, and {limit.name!r} stands at a step: give it to "
                "the workflow, or give the step a workflow of its own, and spawn that"
            )
        if not isinstance(limit, Limit):
            raise InvalidDeclaration(f"{step}: limits takes Limit(...)s, and {limit!r} is none")
        if limit.when_full != "queue":
            raise InvalidDeclaration(
                f"{step}: limit {limit.name!r} has when_full={limit.when_full!r}, which cancels runs: the limits of a "
                'step only have them wait (when_full="queue"); give it to the workflow'
            )
        if limit.name in found:
            raise InvalidDeclaration(f"{step} has limit {limit.name!r} twice: one name is one limit")
        found[limit.name] = limit
    return tuple(found[name] for name in sorted(found))


def check_order(workflows: Iterable[tuple[str, Iterable[Limit], Iterable[Limit]]]) -> None:
    """Refuse workflows whose runs could wait for one another in a circle: by limits that they hold while steps wait.

    Each is told by its name, its limits and those of its steps.

    Raises:
        InvalidDeclaration: there are such.
    """
    behind: dict[str, dict[str, str]] = {}
    for workflow, of_runs, of_steps in workflows:
        for limit in of_runs:
            behind.setdefault(limit.name, {}).update({one.name: workflow for one in of_steps})
    for first, waits in behind.items():
        for second, workflow in waits.items():
            if first == second:
                continue  # another key of it, or it is refused when it is asked for
            path = _way(behind, second, first, {second})
            if path is not None:
                raise InvalidDeclaration(
                    f"runs of workflow {workflow!r} hold limit {first!r} while its steps wait for {second!r}, and "
                    f"those of {path!r} come to them the other way round: they could wait for one another for ever; "
                    "have the steps, or the runs, of both take them"
                )


def _way(behind: dict[str, dict[str, str]], start: str, end: str, seen: set[str]) -> str | None:
    """Return the workflow by which one limit is waited for, on some way, while another is held, if there is one."""
    for name, workflow in behind.get(start, {}).items():
        if name == end:
            return workflow
        if name not in seen:
            seen.add(name)
            if (found := _way(behind, name, end, seen)) is not None:
                return found
    return None


def checked_limits(workflow: str, limits: Iterable[Any]) -> tuple[tuple[Limit, ...], tuple[RateLimit, ...]]:
    """Return the limits of a workflow in the order in which its runs come to them, and its rate limits.

    Raises:
        InvalidDeclaration: one is none, or two have one name.
    """
    if isinstance(limits, AnyLimit):
        limits = (limits,)
    found: dict[str, AnyLimit] = {}
    for limit in limits:
        if not isinstance(limit, AnyLimit):
            raise InvalidDeclaration(
                f"workflow {workflow!r}: limits takes Limit(...)s and RateLimit(...)s, and {limit!r} is none"
            )
        if limit.name in found:
            raise InvalidDeclaration(f"workflow {workflow!r} has limit {limit.name!r} twice: one name is one limit")
        found[limit.name] = limit
    ordered = [found[name] for name in sorted(found)]
    return (
        tuple(one for one in ordered if isinstance(one, Limit)),
        tuple(one for one in ordered if isinstance(one, RateLimit)),
    )


def rates_of(workflows: Iterable[tuple[str, Iterable[RateLimit]]]) -> list[DeclaredRate]:
    """Return the rate limits of some workflows, each once.

    Raises:
        InvalidDeclaration: two of one name differ.
    """
    return _each_once(
        "rate limit",
        ((workflow, rate.declared) for workflow, rates in workflows for rate in rates),
        lambda rate: f"max={rate.max}, per={rate.per:g} s",
    )


def limits_of(workflows: Iterable[tuple[str, Iterable[Limit]]]) -> list[DeclaredLimit]:
    """Return the limits of some workflows, each once.

    Raises:
        InvalidDeclaration: two of one name differ.
    """
    return _each_once(
        "limit",
        ((workflow, limit.declared) for workflow, limits in workflows for limit in limits),
        lambda limit: f"max={limit.max}, when_full={limit.when_full!r}",
    )


def _each_once(kind: str, declared: Iterable[tuple[str, D]], told: Callable[[D], str]) -> list[D]:
    """Return what workflows declare, each name once; ``told`` gives what has to be the same of it everywhere."""
    found: dict[str, tuple[str, D]] = {}
    for workflow, one in declared:
        first, there = found.setdefault(one.name, (workflow, one))
        if told(there) != told(one):
            raise InvalidDeclaration(
                f"{kind} {one.name!r} has {told(there)} in workflow {first!r}, and {told(one)} in {workflow!r}: "
                f"one name is one {kind}"
            )
    return [one for _, one in found.values()]
