"""Labels: what a worker says that it has, and what a step requires of the workers that run it.

A requirement is a filter over the labels, as data (`jetflow.engine.matching`). Whoever does not fit does not pull the
step's consumer; its tasks wait for a worker that does. So nothing of this is decided for each task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, TypeAlias, cast

from jetflow.engine.identity import is_name
from jetflow.engine.matching import Condition, Matching
from jetflow.errors import InvalidDeclaration

Label: TypeAlias = str | int | float | bool
Requires: TypeAlias = Mapping[str, Label] | Iterable[Condition]
"""``{"gpu": True}``, or conditions: ``[["memory", ">=", 32], ["zone", "in", ["a", "b"]]]``."""


def checked_labels(given: Any) -> dict[str, Label]:
    """Return labels by their names; text is ``gpu,zone=a,memory=64``, where numbers and true and false are those.

    Raises:
        ValueError: a label is none.
    """
    labels: dict[Any, Any] = _read(given) if isinstance(given, str) else dict(given or {})
    for name, value in labels.items():
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"the name of a label is 1 to 64 of A-Z a-z 0-9 _ -, not {name!r}")
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not isfinite(value)):
            raise ValueError(f"the label {name!r} is a text, a number, or true or false, not {value!r}")
    return cast("dict[str, Label]", labels)


def _read(text: str) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    for part in text.split(","):
        if part.strip():
            name, says, value = part.partition("=")
            labels[name.strip()] = _value(value.strip()) if says else True
    return labels


def _value(text: str) -> Label:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def requirements(of: str, given: Any) -> Matching | None:
    """Return what a step requires; None if that is nothing.

    Raises:
        InvalidDeclaration: it is no condition on labels.
    """
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Mapping | Iterable):
        raise InvalidDeclaration(f'{of}: requires is {given!r}: write requires={{"gpu": True}}')
    conditions: list[Any] = (
        [(name, "==", value) for name, value in cast("Mapping[Any, Any]", given).items()]
        if isinstance(given, Mapping)
        else list(cast("Iterable[Any]", given))
    )
    matching = Matching(of, conditions, named="requires")
    for path, _, _ in matching.conditions:
        if not is_name(path):
            raise InvalidDeclaration(f"{of}: requires asks for labels by their names, and {path!r} cannot be one")
    return matching if matching.conditions else None
