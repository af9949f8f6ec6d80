"""What Python values hold and JSON cannot: found with the path where it stands, so that nothing changes silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final, cast

DEEPEST: Final = 100
"""Arrays and objects that may stand in one another in an input: what the JSON readers of all languages take."""


def whole(value: Any) -> bool:
    """Tell whether all doubles of a value of built-in types are finite: msgspec writes others as null."""
    kind = value.__class__
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(whole, value.values()))
    if kind is list or kind is tuple:
        return all(map(whole, value))
    return True


def first_unwritable(value: Any) -> str:
    """Return what in a value of built-in types cannot be written as JSON, and its path; "" if there is nothing."""
    return next(_unwritable(value, "$"), "")


def too_deep(value: Any) -> bool:
    """Tell whether more arrays and objects stand in one another than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(one, dict | list) for one in level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


def _unwritable(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and not isfinite(value):
        yield f"{value} cannot be written as JSON - at `{path}`"
    elif isinstance(value, str) and not _is_text(value):
        yield f"{value!r} holds surrogates, which cannot be written as UTF-8 - at `{path}`"
    elif isinstance(value, Mapping):
        for name, inner in cast("Mapping[Any, Any]", value).items():
            yield from _unwritable(name, f"key of {path}")
            yield from _unwritable(inner, f"{path}.{name}" if isinstance(name, str) and _is_text(name) else path)
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(cast("Sequence[Any]", value)):
            yield from _unwritable(inner, f"{path}[{at}]")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
