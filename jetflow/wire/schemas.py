"""JSON Schemas of the types that travel, in which every default that is known before a value is made is told.

msgspec and pydantic leave out most defaults that a factory makes. An input's identity depends on them, so they are
added: those of empty containers, and of a type that is made without arguments.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast

import msgspec
from msgspec import inspect

from jetflow.wire.models import is_pydantic

_DEFS: Final = "#/$defs/"
_PYDANTIC: Final = "pydantic."
"""Before the names of pydantic's definitions, as msgspec's may be the same."""

_EMPTY: Final[dict[Any, Any]] = {list: [], tuple: [], set: [], frozenset: [], dict: {}, str: "", bytearray: ""}

_ANYTHING: Final = {"title": "Any"}
"""Says nothing of a value: msgspec takes no empty schema."""

_NO_KEYS: Final = (
    inspect.BoolType,
    inspect.NoneType,
    inspect.ListType,
    inspect.TupleType,
    inspect.VarTupleType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.DictType,
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)
"""What msgspec reads as a key, and never writes as one."""

_Fields: TypeAlias = inspect.StructType | inspect.DataclassType | inspect.NamedTupleType


def custom_types(kind: Any) -> list[Any]:
    """Return the types inside a type that msgspec leaves to a hook: all are pydantic models.

    Raises:
        TypeError: a type inside it cannot be read, or a dict has keys that cannot be written.
    """
    parts = list(parts_of(kind))
    custom = [part.cls for part in parts if isinstance(part, inspect.CustomType) and part.cls is not object]
    for one in custom:
        if not is_pydantic(one):
            hint = ": use str" if issubclass(one, PurePath) else ""
            raise TypeError(f"{one!r} is neither a msgspec type, a dataclass, a TypedDict nor a pydantic model{hint}")
    for part in parts:
        if isinstance(part, inspect.DictType) and isinstance(part.key_type, _NO_KEYS):
            raise TypeError("the keys of a dict have to be text or numbers, or what is written as text")
    return custom


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type, with its defaults.

    Raises:
        TypeError: the type has none.
    """
    parts = list(parts_of(kind))
    models = list(dict.fromkeys(custom_types(kind)))
    known = {part.cls: part for part in parts if isinstance(part, _Fields)}
    references, definitions = _of_pydantic(models)
    try:
        (schema, *named), components = msgspec.json.schema_components(
            [kind, *known], schema_hook=lambda model: dict(references.get(model, _ANYTHING))
        )
    except KeyError as error:
        raise TypeError(f"two types inside of it have the name {error.args[0]!r}: name one otherwise") from error
    for part, reference in zip(known.values(), named, strict=True):
        _tell_defaults(part, components[reference["$ref"].removeprefix(_DEFS)])
    definitions |= components
    return {**schema, "$defs": definitions} if definitions else schema


def _tell_defaults(kind: _Fields, schema: dict[str, Any]) -> None:
    tags = 1 if isinstance(kind, inspect.StructType) and kind.tag_field is not None else 0
    for at, field in enumerate(kind.fields, start=tags):
        inner = schema["properties"][field.encode_name] if "properties" in schema else schema["prefixItems"][at]
        default = _made_by(field.default_factory)
        if default is not None and "default" not in inner:
            inner["default"] = default


def _made_by(factory: Any) -> Any:
    """Return the JSON of what a factory makes, if that is known: an empty container, or a value of all defaults."""
    if not isinstance(factory, type):
        return None
    if issubclass(factory, msgspec.Struct):
        config = factory.__struct_config__
        tag = {} if config.tag_field is None else {config.tag_field: config.tag}
        return list(tag.values()) if config.array_like else tag
    made = cast("type[Any]", factory)
    return {} if is_pydantic(made) or dataclasses.is_dataclass(made) else _EMPTY.get(made)


def _of_pydantic(models: Sequence[Any]) -> tuple[Mapping[Any, Mapping[str, Any]], dict[str, Any]]:
    """Return the references to models, and all definitions, under names that msgspec's cannot be."""
    if not models:
        return {}, {}
    pydantic: Any = importlib.import_module("pydantic.json_schema")
    references, schema = pydantic.models_json_schema(
        [(model, "validation") for model in models],
        ref_template=f"{_DEFS}{_PYDANTIC}{{model}}",
        schema_generator=_generator(pydantic.GenerateJsonSchema),
    )
    definitions = cast("dict[str, Any]", schema.get("$defs", {}))
    return {model: references[model, "validation"] for model in models}, {
        f"{_PYDANTIC}{name}": definition for name, definition in definitions.items()
    }


def _generator(generator: Any) -> Any:
    def default_schema(self: Any, schema: dict[str, Any]) -> Any:
        default = _made_by(schema.get("default_factory"))
        told = schema if default is None else {**schema, "default": default}
        return generator.default_schema(self, told)

    return type("WithDefaults", (generator,), {"default_schema": default_schema})


def parts_of(kind: Any) -> Iterator[Any]:
    """Yield what msgspec knows of a type, and of the types inside it."""
    seen: set[int] = set()
    waiting: list[Any] = [inspect.type_info(kind)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += cast("Sequence[Any]", item)
        elif isinstance(item, inspect.Type | inspect.Field) and id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting += [getattr(item, name) for name in item.__struct_fields__]
