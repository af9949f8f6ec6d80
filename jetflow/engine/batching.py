"""Which runs' tasks are handled by one call of a step's function: gathering them, and telling whose result is whose.

Theory of operation. A worker adds each task that it was given, and is told which groups are full by that. A group is
what has one key; it is let go of, whole, by whichever comes first: it has ``size`` members, its inputs have
``max_bytes``, or ``wait`` seconds have passed since its first member came. All groups of a step wait equally long, so
that the one that was begun first is due first. What is gathered can leave again until then.

Nothing of this is stored: a task that is gathered has not begun. Each member is a task of a run of its own, with its
own attempts, and its own outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from jetflow.errors import BatchKeyFailed, InvalidDeclaration, InvalidOutput

M = TypeVar("M")

MOST: Final = 10_000
"""Tasks of one step that a worker gathers, or has in calls, at once; and so the most that one batch may have."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Says that one call of a step's function handles the tasks of many runs.

    The function is called with a list of inputs, and returns a list with one output for each, in order; in the place of
    an output it may return an exception, by which that run alone fails. With ``broadcast`` it returns one output, which
    all of them get. ``size`` is how many tasks a call has at most, ``max_bytes`` how many bytes of inputs, as JSON; it
    is called when one of the two is reached, or ``wait`` seconds after the first task of the batch has come. ``key`` is
    a function of an input that returns a string: inputs of different keys are never in one call.

    Raises:
        InvalidDeclaration: a field is out of range, or no number.
    """

    size: int = 100
    wait: float = 0.2
    key: Callable[[Any], str] | None = None
    max_bytes: int = 4 * 1024 * 1024
    broadcast: bool = False

    def __post_init__(self) -> None:
        _check("size", self.size, 1 <= _number(self.size) <= MOST and type(self.size) is int, f"from 1 to {MOST:,}")
        _check("wait", self.wait, 0 <= _number(self.wait) < inf, "seconds, not below 0")
        _check("max_bytes", self.max_bytes, _number(self.max_bytes) >= 1, "bytes, at least 1")
        key: Any = self.key  # it comes from the user
        if key is not None and not callable(key):
            raise InvalidDeclaration(f"Batch(key={key!r}): a function of an input, such as key=lambda one: one.tenant")


def _number(given: Any) -> float:
    return given if isinstance(given, int | float) and not isinstance(given, bool) else nan


def _check(name: str, given: Any, fits: bool, rule: str) -> None:
    if not fits:
        raise InvalidDeclaration(f"Batch({name}={given!r}): {rule}")


class _Group(Generic[M]):
    """What is gathered of one key: the sizes of its members, in bytes, and when the first of them has come."""

    __slots__ = ("began", "members", "size")

    def __init__(self, began: float) -> None:
        self.began = began
        self.size = 0
        self.members: dict[M, int] = {}


class Gathering(Generic[M]):
    """The groups of one step in one worker. Times are seconds of a clock of the caller's that never goes back."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._groups: dict[str, _Group[M]] = {}
        self._keys: dict[M, str] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, member: M) -> bool:
        return member in self._keys

    @property
    def members(self) -> list[M]:
        """All that is gathered."""
        return list(self._keys)

    @property
    def due(self) -> float | None:
        """When the next group is due, if there is one."""
        first = next(iter(self._groups.values()), None)
        return None if first is None else first.began + self._batch.wait

    def add(self, member: M, key: str, size: int, now: float) -> list[list[M]]:
        """Gather a task of ``size`` bytes. Returns the groups that are full by that, the earlier one first."""
        batch, full = self._batch, list[list[M]]()
        group = self._groups.get(key)
        if group is not None and group.size + size > batch.max_bytes:
            full.append(self._let_go(key))
            group = None
        if group is None:
            group = self._groups[key] = _Group[M](now)
        group.members[member] = size
        group.size += size
        self._keys[member] = key
        if len(group.members) >= batch.size or group.size >= batch.max_bytes:
            full.append(self._let_go(key))
        return full

    def take_due(self, now: float) -> list[list[M]]:
        """Let go of the groups whose time has come."""
        taken: list[list[M]] = []
        while (due := self.due) is not None and due <= now:
            taken.append(self.take_oldest())
        return taken

    def take_oldest(self) -> list[M]:
        """Let go of the group that was begun first; there has to be one."""
        return self._let_go(next(iter(self._groups)))

    def remove(self, member: M) -> None:
        """Take a task out again. One that is not gathered (any more) is none."""
        key = self._keys.pop(member, None)
        if key is None:
            return
        group = self._groups[key]
        group.size -= group.members.pop(member)
        if not group.members:
            del self._groups[key]

    def _let_go(self, key: str) -> list[M]:
        members = list(self._groups.pop(key).members)
        for member in members:
            del self._keys[member]
        return members


def results_of(step: str, returned: Any, members: int, *, broadcast: bool) -> Sequence[Any]:
    """Return what each member gets of what a function has returned; an exception is how it fails.

    Raises:
        InvalidOutput: it is not one thing for each.
    """
    if broadcast:
        return [returned] * members
    if not isinstance(returned, list | tuple):
        what = "nothing" if returned is None else f"a {type(returned).__name__}"
        raise InvalidOutput(
            f"step {step!r} was called with {members} inputs and returned {what}: it has to return a list with one "
            "output, or one exception, for each (or say Batch(broadcast=True): one output for all)"
        )
    results = cast("Sequence[Any]", returned)
    if len(results) != members:
        raise InvalidOutput(
            f"step {step!r} was called with {members} inputs and returned {len(results)} outputs: it has to return one "
            "output, or one exception, for each, in order"
        )
    return results


def key_of(step: str, batch: Batch, value: Any) -> str:
    """Return of which key an input is.

    Raises:
        BatchKeyFailed: the function of the keys raised, or gave no string.
    """
    if batch.key is None:
        return ""
    try:
        found: Any = batch.key(value)
    except Exception as error:  # it is the user's code: it may raise whatever it likes
        raise BatchKeyFailed(step, f"raised {type(error).__name__}: {error}") from error
    if not isinstance(found, str):
        raise BatchKeyFailed(step, f"returned {found!r}, which is no string")
    return found
