"""What Python values hold and JSON cannot: found with the path where it stands, so that nothing changes silently."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, cast

import msgspec

from jetflow.wire.models import fields_of, first_unwritten, is_pydantic

DEEPEST: Final = 100
"""Arrays and objects that may stand in one another in an input: what the JSON readers of all languages take."""

_LONGEST: Final = 200
"""Characters of a path that are told."""

_TOO_DEEP: Final = f"more than {DEEPEST} arrays and objects stand in one another"


def told(value: Any, write: Callable[[Any], Any]) -> str:
    """Return what in a value cannot be written, and its path; "" if ``write`` takes it."""
    found = _first(value, write, "$", 0)
    return "" if found is None else _at(*found)


def why_not(value: Any) -> str:
    """Return why a value of a type that JSON does not have is not written."""
    if inspect.iscoroutine(value):
        return "a coroutine cannot be written as JSON: an await is missing"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return f"{type(value).__name__} cannot be written as JSON: collect what it yields into a list"
    if isinstance(value, type):
        return f"the type {value.__qualname__} itself cannot be written as JSON: is a value of it meant?"
    return f"a value of type {type(value).__qualname__} cannot be written as JSON"


def first_too_deep(value: Any) -> str:
    """Return that more arrays and objects stand in one another than `DEEPEST`, and where; "" if they do not."""
    level = [("$", value)]
    for _ in range(DEEPEST):
        level = [inner for path, outer in level for inner in _parts(outer, path)]
    path = next((path for path, one in level if isinstance(one, dict | list)), "")
    return path and _at(path, _TOO_DEEP)


def first_too_large(value: Any) -> str:
    """Return the path of the first integer that no double comes near to, as it is told; "" if there is none."""
    for path, one in _all(value, "$"):
        if isinstance(one, int) and one.bit_length() > 1024:
            return f" - at `{path}`"
    return ""


def _first(value: Any, write: Callable[[Any], Any] | None, path: str, depth: int) -> tuple[str, str] | None:
    if isinstance(value, float) and not isfinite(value):  # written without an error, as null
        return path, f"{value} cannot be written as JSON"
    reason = None
    try:
        if write is not None:
            write(value)
            write = None  # nor will any part of it fail
    except Exception as error:  # whatever a user's class raises when it is written
        reason = error
    if depth > DEEPEST or (isinstance(reason, RecursionError) and not _has_parts(value)):
        return path, f"{_TOO_DEEP}: is it a recursion?"
    for inner, part in _parts(value, path):
        found = _first(part, write, inner, depth + 1)
        if found is not None:
            return found
    if reason is not None and is_pydantic(type(value)):
        path = f"{path}{''.join(f'.{name}' for name in first_unwritten(value))}"
    return None if reason is None else (path, _reason(value, reason))


def _reason(value: Any, error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"{value!r} holds surrogates, which cannot be written as UTF-8"
    return str(error) or type(error).__name__


def _has_parts(value: Any) -> bool:
    return next(iter(_parts(value, "")), None) is not None


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what stands in a value, with its path."""
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[Any, Any]", value).items():
            if isinstance(name, str):
                yield f"key of {path}", name
            yield f"{path}.{name}" if _is_text(name) else path, inner
    elif isinstance(value, list | tuple | set | frozenset):
        for at, inner in enumerate(cast("Iterable[Any]", value)):
            yield f"{path}[{at}]", inner
    else:
        for name in _fields(value):
            inner = getattr(value, name, None)
            yield f"{path}.{name}", inner


def _fields(value: Any) -> Iterable[str]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_pydantic(type(value)):
        return fields_of(value)
    return [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else ()


def _all(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    for inner, part in _parts(value, path):
        yield from _all(part, inner)


def _is_text(name: Any) -> bool:
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def _at(path: str, reason: str) -> str:
    return f"{reason} - at `{path if len(path) <= _LONGEST else f'{path[:_LONGEST]}…'}`"
