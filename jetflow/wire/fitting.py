"""Whether a value fits a JSON Schema, as far as that is certain: for inputs of workflows that are known by name only.

What a schema says in words that are not known here, and what stands behind pydantic's names, whose readers take more
than their schemas tell, fits: a worker that knows the type has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

_DEFS: Final = "#/$defs/"
_PYDANTIC: Final = "#/$defs/pydantic."

DEEPEST: Final = 100
"""Levels of a value that are looked at."""


def misfit(value: Any, schema: Any) -> str | None:
    """Return why a value of JSON's own types does not fit a schema, and where; None if it may fit."""
    definitions: dict[str, Any] = cast("dict[str, Any]", schema).get("$defs", {}) if isinstance(schema, dict) else {}
    found = _Look(definitions).at("$", value, schema, 0)
    return None if found is None else f"{found[1]} - at {found[0]}"


LONGEST_SHOWN: Final = 80
"""Characters of a value that are shown."""

_OF_A_TAG: Final = "expected the value "
_OF_A_KIND: Final = "expected "

_Misfit: TypeAlias = tuple[str, str]
"""Where, and why."""


class _Look:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def at(self, path: str, value: Any, schema: Any, depth: int) -> _Misfit | None:
        """Return where and why a value does not fit, as deep as that is known."""
        if not isinstance(schema, dict) or depth > DEEPEST:
            return None
        said = cast("dict[str, Any]", schema)
        reference = said.get("$ref")
        if isinstance(reference, str):
            known = reference.startswith(_DEFS) and not reference.startswith(_PYDANTIC)
            meant = self._definitions.get(reference.removeprefix(_DEFS)) if known else None
            return self.at(path, value, meant, depth + 1)
        for one in said.get("allOf", ()):
            if (found := self.at(path, value, one, depth + 1)) is not None:
                return found
        several = said.get("anyOf") or said.get("oneOf")
        return self._of_several(path, value, several, depth) if several else self._plain(path, value, said, depth)

    def _plain(self, path: str, value: Any, said: dict[str, Any], depth: int) -> _Misfit | None:
        why = _unlike(value, said)
        if why is not None:
            return path, why
        if isinstance(value, dict):
            return self._object(path, cast("dict[str, Any]", value), said, depth)
        if isinstance(value, list):
            return self._array(path, cast("list[Any]", value), said, depth)
        return _out_of_bounds(path, value, said)

    def _of_several(self, path: str, value: Any, several: Any, depth: int) -> _Misfit | None:
        """Tell what is wrong by the alternative that it comes nearest to: that where it fails deepest."""
        found = [self.at(path, value, one, depth + 1) for one in several]
        misfits = [one for one in found if one is not None]
        if len(misfits) < len(found) or not misfits:
            return None
        meant = [one for one in misfits if not self._is_another(one, path)]  # its kind, or its tag, tells which is
        if meant:
            return max(meant, key=lambda one: len(one[0]))
        deepest = max(misfits, key=lambda one: len(one[0]))
        return deepest[0], " or ".join(dict.fromkeys(why for where, why in misfits if where == deepest[0]))

    @staticmethod
    def _is_another(found: _Misfit, path: str) -> bool:
        where, why = found
        return why.startswith(_OF_A_TAG) or (where == path and why.startswith(_OF_A_KIND))

    def _object(self, path: str, value: dict[str, Any], said: dict[str, Any], depth: int) -> _Misfit | None:
        for name in said.get("required", ()):
            if name not in value:
                return path, f"required field {name!r} is missing"
        properties, others = said.get("properties", {}), said.get("additionalProperties")
        for name, one in value.items():
            schema = properties.get(name, others)
            if schema is False:
                return path, f"unknown field {name!r}"
            if (found := self.at(f"{path}.{name}", one, schema, depth + 1)) is not None:
                return found
        return None

    def _array(self, path: str, value: list[Any], said: dict[str, Any], depth: int) -> _Misfit | None:
        least, most = said.get("minItems"), said.get("maxItems")
        if isinstance(least, int) and len(value) < least:
            return path, f"expected {least} items at least, got {len(value)}"
        if isinstance(most, int) and len(value) > most:
            return path, f"expected {most} items at most, got {len(value)}"
        first, others = said.get("prefixItems", ()), said.get("items")
        for at, one in enumerate(value):
            schema = first[at] if at < len(first) else others
            if (found := self.at(f"{path}[{at}]", one, schema, depth + 1)) is not None:
                return found
        return None


def _unlike(value: Any, said: dict[str, Any]) -> str | None:
    """Return why a value is none of those that are named, or of another kind."""
    named = [said["const"]] if "const" in said else said.get("enum")
    if named is not None and not any(_same(value, one) for one in named):
        is_tag = len(named) == 1
        return (
            f"{_OF_A_TAG}{_shown(named[0])}, got {_shown(value)}"
            if is_tag
            else f"{_shown(value)} is none of {_shown(named)}"
        )
    kind = said.get("type")
    return (
        f"{_OF_A_KIND}{kind}, got {_kind_of(value)}"
        if isinstance(kind, str) and not _is_of(kind, value, said)
        else None
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _is_of(kind: str, value: Any, said: dict[str, Any]) -> bool:
    if kind == "string" and said.get("format") == "decimal":
        return isinstance(value, str) or _KINDS["number"](value)
    is_one = _KINDS.get(kind)
    return is_one is None or is_one(value)


_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


def _kind_of(value: Any) -> str:
    return next((kind for kind, is_one in _KINDS.items() if is_one(value)), type(value).__name__)


def _same(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


_BOUNDS: Final[tuple[tuple[str, str, Callable[[Any, Any], bool]], ...]] = (
    ("minimum", "at least", lambda value, bound: value >= bound),
    ("exclusiveMinimum", "more than", lambda value, bound: value > bound),
    ("maximum", "at most", lambda value, bound: value <= bound),
    ("exclusiveMaximum", "less than", lambda value, bound: value < bound),
)


def _out_of_bounds(path: str, value: Any, said: dict[str, Any]) -> _Misfit | None:
    if isinstance(value, str):
        least, most = said.get("minLength"), said.get("maxLength")
        if isinstance(least, int) and len(value) < least:
            return path, f"expected {least} characters at least"
        return (path, f"expected {most} characters at most") if isinstance(most, int) and len(value) > most else None
    if not _KINDS["number"](value):
        return None
    for name, words, holds in _BOUNDS:
        bound = said.get(name)
        if _KINDS["number"](bound) and not holds(value, bound):
            return path, f"expected {words} {bound}, got {value}"
    return None
