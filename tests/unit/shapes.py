"""Random types in two editions, and random values of them: what the property test of identity is made of.

A shape is a tree of fields. From one shape come Structs, dataclasses, TypedDicts and pydantic models, each older and
newer: the newer one has all fields, the older one lacks those that are new, which have a default.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from functools import cache
from typing import Any, NotRequired, Optional, TypedDict

import msgspec
import pydantic
from hypothesis import strategies as st

from jetflow.wire.codec import Codec

SCALARS: dict[str, tuple[Any, st.SearchStrategy[Any], list[Any]]] = {
    "float": (
        float,
        st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False),
        [0.0, 1, 1.5, 1e21],
    ),
    "int": (int, st.integers(-(2**63), 2**63 - 1), [0, 1, -7]),
    "str": (str, st.text(max_size=8), ["", "é", "null"]),
    "bool": (bool, st.booleans(), [False, True]),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """``form`` is a scalar's name, or "list", "dict", "optional" or "object"."""

    form: str
    inner: Kind | None = None
    fields: tuple[Field, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """``default`` is a tuple of one JSON value, or empty where there is none."""

    name: str
    kind: Kind
    default: tuple[Any, ...]
    is_new: bool


def random_shape(draw: random.Random, depth: int = 2) -> Kind:
    fields = [_random_field(draw, f"f{at}", depth) for at in range(draw.randint(1, 4))]
    return Kind("object", None, tuple(fields))


def _random_field(draw: random.Random, name: str, depth: int) -> Field:
    kind = _random_kind(draw, depth)
    defaults = {"list": [], "dict": {}, "optional": None}
    default: tuple[Any, ...] = ()
    if draw.random() < 0.7:
        if kind.form in SCALARS:
            default = (draw.choice(SCALARS[kind.form][2]),)
        elif kind.form != "object":
            default = (defaults[kind.form],)
        elif all(field.default for field in kind.fields):
            default = ({},)
    return Field(name, kind, default, bool(default) and draw.random() < 0.5)


def _random_kind(draw: random.Random, depth: int) -> Kind:
    form = draw.choice([*SCALARS, "float", "list", "dict", "optional", "object"])
    if form in SCALARS or depth == 0:
        return Kind(form if form in SCALARS else "float")
    return random_shape(draw, depth - 1) if form == "object" else Kind(form, _random_kind(draw, depth - 1))


# --- types


def _struct(name: str, fields: list[tuple[Field, Any]]) -> Any:
    told = [
        (
            field.name,
            kind,
            msgspec.field(default_factory=kind)
            if field.kind.form == "object"
            else msgspec.field(default=field.default[0]),
        )
        if field.default
        else (field.name, kind)
        for field, kind in fields
    ]
    return msgspec.defstruct(name, told, kw_only=True)


def _dataclass(name: str, fields: list[tuple[Field, Any]]) -> Any:
    factories = {"list": list, "dict": dict}
    told: list[Any] = []
    for field, kind in fields:
        if not field.default:
            told.append((field.name, kind))
        elif field.kind.form in ("list", "dict", "object"):
            made_by = factories.get(field.kind.form, kind)
            told.append((field.name, kind, dataclasses.field(default_factory=made_by)))
        else:
            told.append((field.name, kind, dataclasses.field(default=field.default[0])))
    return dataclasses.make_dataclass(name, told, kw_only=True)


def _model(name: str, fields: list[tuple[Field, Any]]) -> Any:
    told: dict[str, Any] = {}
    for field, kind in fields:
        if not field.default:
            told[field.name] = (kind, ...)
        elif field.kind.form == "object":
            told[field.name] = (kind, pydantic.Field(default_factory=kind))
        else:
            told[field.name] = (kind, field.default[0])
    return pydantic.create_model(name, **told)


def _typed_dict(name: str, fields: list[tuple[Field, Any]]) -> Any:
    return TypedDict(name, {field.name: NotRequired[kind] if field.default else kind for field, kind in fields})  # type: ignore[operator]


FAMILIES: dict[str, Callable[[str, list[tuple[Field, Any]]], Any]] = {
    "Struct": _struct,
    "dataclass": _dataclass,
    "pydantic": _model,
    "TypedDict": _typed_dict,
}


@cache
def type_of(family: str, kind: Kind, newer: bool) -> Any:
    if kind.form in SCALARS:
        return SCALARS[kind.form][0]
    if kind.inner is not None:
        inner: Any = type_of(family, kind.inner, newer)
        return {"list": list[inner], "dict": dict[str, inner], "optional": Optional[inner]}[kind.form]  # noqa: UP045
    fields = [(field, type_of(family, field.kind, newer)) for field in kind.fields if newer or not field.is_new]
    return FAMILIES[family](f"Shape{next(NUMBERS)}", fields)


@cache
def codecs(family: str, kind: Kind, newer: bool) -> tuple[Codec[Any], Codec[Any]]:
    """Return the codecs by object and by name."""
    by_object: Codec[Any] = Codec(type_of(family, kind, newer), "by object")
    return by_object, Codec(Any, "by name", schema=by_object.schema)


# --- values


@cache
def values(kind: Kind, newer: bool) -> st.SearchStrategy[Any]:
    """Return JSON values of a shape. Fields with a default hold it, are left out, or hold something else."""
    if kind.form in SCALARS:
        return SCALARS[kind.form][1]
    if kind.inner is not None:
        inner = values(kind.inner, newer)
        return {
            "list": st.lists(inner, max_size=2),
            "dict": st.dictionaries(st.text(max_size=3), inner, max_size=2),
            "optional": st.none() | inner,
        }[kind.form]
    fields = [field for field in kind.fields if newer or not field.is_new]
    return st.fixed_dictionaries(
        {field.name: values(field.kind, newer) for field in fields if not field.default},
        optional={
            field.name: st.just(field.default[0]) | values(field.kind, newer) for field in fields if field.default
        },
    )


def made(family: str, kind: Kind, value: Any, newer: bool) -> Any:
    """Return the object of a type that a JSON value stands for; numbers stay as they are written."""
    if kind.inner is not None and kind.form == "list":
        return [made(family, kind.inner, one, newer) for one in value]
    if kind.inner is not None and kind.form == "dict":
        return {name: made(family, kind.inner, one, newer) for name, one in value.items()}
    if kind.inner is not None:
        return None if value is None else made(family, kind.inner, value, newer)
    if kind.form != "object":
        return value
    members = {
        field.name: made(family, field.kind, value[field.name], newer) for field in kind.fields if field.name in value
    }
    return members if family == "TypedDict" else type_of(family, kind, newer)(**members)


def without_defaults(kind: Kind, value: Any) -> Any:
    """Return a value without the members that hold their defaults: those of a TypedDict, as it would be written."""
    if kind.inner is not None and kind.form == "list":
        return [without_defaults(kind.inner, one) for one in value]
    if kind.inner is not None and kind.form == "dict":
        return {name: without_defaults(kind.inner, one) for name, one in value.items()}
    if kind.inner is not None:
        return None if value is None else without_defaults(kind.inner, value)
    if kind.form != "object":
        return value
    lean = {field.name: without_defaults(field.kind, value[field.name]) for field in kind.fields if field.name in value}
    for field in kind.fields:
        if field.name in lean and field.default and lean[field.name] == field.default[0]:
            del lean[field.name]
    return lean


NUMBERS = itertools.count()
"""Of types: msgspec tells no schema of two types of one name."""

DRAW = random.Random(8)
SHAPES = [random_shape(DRAW) for _ in range(24)]
