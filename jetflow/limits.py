"""Limits as workflows declare them: how many runs of a key at once, over all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jetflow.engine.identity import check_name
from jetflow.engine.limits import EVERYBODY, STRATEGIES, Place, WhenFull
from jetflow.errors import InvalidDeclaration, LimitKeyFailed
from jetflow.wire.limits import limit_token
from jetflow.wire.records import DeclaredLimit


class Limit:
    """How many runs of a key may be admitted at once: ``Limit("tenant", key=lambda order: order.tenant, max=3)``.

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
        if self.key is None:
            return Place(self.name, EVERYBODY)
        try:
            key = self.key(value)
        except Exception as error:
            raise LimitKeyFailed(self.name, f"it raised {type(error).__name__}: {error}") from error
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
            raise LimitKeyFailed(self.name, f"it gave {key!r}, and a key is a str")
        return Place(self.name, limit_token(key), key)


def checked_max(of: str, value: Any) -> int:
    """Return how many runs may be admitted at once, if it is a number of them.

    Raises:
        InvalidDeclaration: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidDeclaration(f"{of}: max={value!r}: a whole number above 0")
    return value


def checked_limits(workflow: str, limits: Iterable[Any]) -> tuple[Limit, ...]:
    """Return the limits of a workflow in the order in which its runs come to them.

    Raises:
        InvalidDeclaration: one is none, or two have one name.
    """
    if isinstance(limits, Limit):
        limits = (limits,)
    found: dict[str, Limit] = {}
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidDeclaration(f"workflow {workflow!r}: limits takes Limit(...)s, and {limit!r} is none")
        if limit.name in found:
            raise InvalidDeclaration(f"workflow {workflow!r} has limit {limit.name!r} twice: one name is one limit")
        found[limit.name] = limit
    return tuple(found[name] for name in sorted(found))


def limits_of(workflows: Iterable[tuple[str, Iterable[Limit]]]) -> list[DeclaredLimit]:
    """Return the limits of some workflows, each once.

    Raises:
        InvalidDeclaration: two of one name differ.
    """
    found: dict[str, tuple[str, DeclaredLimit]] = {}
    for workflow, limits in workflows:
        for limit in limits:
            declared = limit.declared
            first, there = found.setdefault(limit.name, (workflow, declared))
            if (there.max, there.when_full) != (declared.max, declared.when_full):
                raise InvalidDeclaration(
                    f"limit {limit.name!r} has max={there.max}, when_full={there.when_full!r} in workflow {first!r}, "
                    f"and max={declared.max}, when_full={declared.when_full!r} in {workflow!r}: one name is one limit"
                )
    return [declared for _, declared in found.values()]
