"""Which types a parameter takes, as far as that can be told when a step is declared.

A type checker says it better; this is for those who run none. What cannot be told is taken.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

_UNIONS: Final = (Union, types.UnionType)
_ALL: Final = (Any, object)
_LISTS: Final = (list, tuple, Sequence, Collection, Iterable)


def is_untyped(kind: Any) -> bool:
    """Tell whether a type says nothing of its values."""
    return kind in _ALL if isinstance(kind, type) or kind is Any else False


def takes(parameter: Any, kind: Any) -> bool:
    """Tell whether a parameter of one type may be given a value of another."""
    parameter, kind = _meant(parameter), _meant(kind)
    if parameter == kind or is_untyped(parameter) or is_untyped(kind) or isinstance(parameter, TypeVar):
        return True
    if get_origin(kind) in _UNIONS:
        return all(takes(parameter, one) for one in get_args(kind))
    if get_origin(parameter) in _UNIONS:
        return any(takes(one, kind) for one in get_args(parameter))
    if get_origin(kind) is Literal:
        return all(takes(parameter, type(one)) for one in get_args(kind)) or _is_part(kind, parameter)
    return _takes_class(parameter, kind)


def element_of(kind: Any) -> Any:
    """Return of what a type is a list, which is Any if it does not say; None if it is no list."""
    kind = _meant(kind)
    if is_untyped(kind):
        return Any
    outer, inner = get_origin(kind) or kind, get_args(kind)
    if outer not in _LISTS or (outer is tuple and inner[1:] != (...,)):
        return None
    return inner[0] if inner else Any


def without_errors(kind: Any) -> Any:
    """Return a type without the exceptions that it is a union with."""
    parts: tuple[Any, ...] = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
    left = tuple(one for one in parts if not _is_error(one))
    return kind if len(left) == len(parts) else Union[left] if left else type(None)  # noqa: UP007 - of what is left


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def shown(kind: Any) -> str:
    """Return a type as it is written in code."""
    return kind.__qualname__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _takes_class(parameter: Any, kind: Any) -> bool:
    outer, inner = get_origin(parameter) or parameter, get_origin(kind) or kind
    if not isinstance(outer, type) or not isinstance(inner, type):
        return False
    if getattr(outer, "_is_protocol", False):
        return True
    if not issubclass(inner, outer):
        return False
    asked, given = get_args(parameter), get_args(kind)
    return not asked or not given or (len(asked) == len(given) and all(map(takes, asked, given)))


def _is_part(kind: Any, parameter: Any) -> bool:
    return get_origin(parameter) is Literal and set(get_args(kind)) <= set(get_args(parameter))


def _meant(kind: Any) -> Any:
    """Return what a named type stands for, as those of ``NewType`` and ``type``."""
    while (meant := getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)) is not None:
        if isinstance(kind, type):  # an enum's member, or a class that has such an attribute
            break
        kind = meant
    return type(None) if kind is None else kind
