"""Which types a parameter takes, as far as that can be told when a step is declared.

A type checker says it better; this is for those who run none. What cannot be told is taken.
"""

from __future__ import annotations

import types
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

_UNIONS: Final = (Union, types.UnionType)
_ALL: Final = (Any, object)


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
