"""Conditions on JSON as data: which events start a run, or end a wait, where no user code is at hand.

A filter is a list of conditions, all of which have to hold: ``[path, operator, value]``. A path is the names of members
with dots between them, and the numbers of items; an empty one is the whole value. What is not there, or cannot be
compared, does not fit: a filter never fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, cast

from jetflow.errors import InvalidDeclaration

Condition: TypeAlias = list[Any] | tuple[Any, ...]

MOST_CONDITIONS: Final = 50
"""Conditions of one filter."""

_MISSING: Final[Any] = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_ordered(left: Any, right: Any) -> bool:
    return (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON does: ``true`` is not ``1``, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        lefts, rights = cast(list[Any], left), cast(list[Any], right)
        return len(lefts) == len(rights) and all(map(_same, lefts, rights))
    if isinstance(left, dict) and isinstance(right, dict):
        members, others = cast(dict[str, Any], left), cast(dict[str, Any], right)
        return members.keys() == others.keys() and all(_same(members[name], others[name]) for name in members)
    return left == right


def _has(left: Any, right: Any) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and right in left
    if isinstance(left, dict):
        return isinstance(right, str) and right in left
    return isinstance(left, list) and any(_same(one, right) for one in cast(list[Any], left))


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": _same,
    "!=": lambda left, right: not _same(left, right),
    "<": lambda left, right: _are_ordered(left, right) and left < right,
    "<=": lambda left, right: _are_ordered(left, right) and left <= right,
    ">": lambda left, right: _are_ordered(left, right) and left > right,
    ">=": lambda left, right: _are_ordered(left, right) and left >= right,
    "in": lambda left, right: _has(right, left),
    "not in": lambda left, right: not _has(right, left),
    "has": _has,
    "starts with": lambda left, right: isinstance(left, str) and left.startswith(right),
}

EXISTS: Final = "exists"
"""The operator that asks whether something is there; its value is true or false."""


class Matching:
    """A filter that was checked. ``conditions`` are what it was made of, for the wire; ``named`` is how errors call it.

    Raises:
        InvalidDeclaration: a condition is none; the message says which, and why.
    """

    def __init__(self, of: str, conditions: Iterable[Condition] | None, *, named: str = "if_") -> None:
        given = [] if conditions is None else list(conditions)
        if len(given) > MOST_CONDITIONS:
            raise InvalidDeclaration(
                f"{of}: {named} has {len(given)} conditions, and {MOST_CONDITIONS} at most are taken"
            )
        self.conditions: tuple[tuple[str, str, Any], ...] = tuple(
            _checked(f"{of}: condition {n} of {named}", one) for n, one in enumerate(given, 1)
        )
        self._tests = [(path.split(".") if path else [], operator, value) for path, operator, value in self.conditions]

    def fits(self, value: Any) -> bool:
        """Tell whether all conditions hold of a JSON value."""
        return all(_holds(_found(value, path), operator, wanted) for path, operator, wanted in self._tests)


def _checked(of: str, condition: Any) -> tuple[str, str, Any]:
    if not isinstance(condition, list | tuple) or len(cast(list[Any], condition)) != 3:
        raise InvalidDeclaration(f'{of} is [path, operator, value], such as ["amount", ">", 10], not {condition!r}')
    path, operator, value = cast(list[Any], condition)
    if not isinstance(path, str) or (path and not all(path.split("."))):
        raise InvalidDeclaration(f'{of}: the path is names with dots between them, such as "user.id", not {path!r}')
    if operator == EXISTS:
        if not isinstance(value, bool):
            raise InvalidDeclaration(f"{of}: {EXISTS} is true or false, not {value!r}")
    elif operator not in _OPERATORS:
        known = ", ".join(repr(one) for one in (*_OPERATORS, EXISTS))
        raise InvalidDeclaration(f"{of}: {operator!r} is no operator; there are {known}")
    elif operator == "starts with" and not isinstance(value, str):
        raise InvalidDeclaration(f"{of}: what a text starts with is a text, not {value!r}")
    elif operator in ("in", "not in") and not isinstance(value, list | tuple | str):
        raise InvalidDeclaration(f"{of}: a value is in a list, or in a text, not in {value!r}")
    return path, operator, _plain(of, value)


def _plain(of: str, value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(of, one) for one in cast(list[Any], value)]
    if isinstance(value, dict):
        return {str(name): _plain(of, one) for name, one in cast(dict[Any, Any], value).items()}
    raise InvalidDeclaration(f"{of}: {value!r} is no value that JSON has")


def _found(value: Any, path: list[str]) -> Any:
    for name in path:
        if isinstance(value, dict):
            value = cast(dict[str, Any], value).get(name, _MISSING)
        elif isinstance(value, list) and name.isascii() and name.isdecimal() and len(name) < 10:
            items = cast(list[Any], value)
            value = items[int(name)] if int(name) < len(items) else _MISSING
        else:
            return _MISSING
    return value


def _holds(found: Any, operator: str, wanted: Any) -> bool:
    if operator == EXISTS:
        return (found is not _MISSING) is wanted
    return found is not _MISSING and _OPERATORS[operator](found, wanted)
