"""What is asked of pydantic's models, where pydantic is installed. It is never imported for it."""

from __future__ import annotations

import sys
from typing import Any, Final, cast

STORED: Final = {"jetflow": True}
"""The context in which models are written, so that a type of theirs can tell that it is stored, and not shown."""


def is_pydantic(kind: Any) -> bool:
    """Tell whether a type is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def own_equality(kind: Any) -> bool:
    """Tell whether a model is compared by a rule of its own."""
    return kind.__eq__ is not sys.modules["pydantic"].BaseModel.__eq__


def written(model: Any) -> Any:
    """Return a model as JSON's own types: by the names that it is read by, and without what is computed."""
    return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False, context=STORED)


def first_unwritten(model: Any) -> list[str]:
    """Return the name of the first field of a model that cannot be written, if it is one of them."""
    for name in fields_of(model):
        try:
            model.model_dump(mode="json", include={name}, round_trip=True, warnings=False, context=STORED)
        except Exception:  # whatever it raises, it is this field
            return [name]
    return []


def read(kind: Any, value: Any) -> Any:
    """Return the model that JSON's own types stand for.

    Raises:
        ValueError: there is none. What was given is not told: it may be secret.
    """
    pydantic = sys.modules["pydantic"]
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        told = error.errors(include_input=False, include_url=False, include_context=False)
        lines = (f"{'.'.join(map(str, one['loc']))}\n  {one['msg']}" for one in told[:3])
        raise ValueError("\n".join(lines)) from None


def reread(model: Any) -> Any:
    """Return what a model becomes when it is written and read by its own type.

    Raises:
        ValueError: it cannot be read.
    """
    return read(type(model), written(model))


def fields_of(model: Any) -> list[str]:
    """Return the names of a model's fields, without those that are computed, and without private ones."""
    return list(_kind(model).model_fields)


def extra_of(model: Any) -> dict[str, Any]:
    """Return what a model holds beside its fields."""
    return model.__pydantic_extra__ or {}


def _kind(model: Any) -> Any:
    return cast("Any", type(model))


def private_of(model: Any) -> dict[str, Any]:
    """Return the private attributes of a model."""
    return model.__pydantic_private__ or {}


def names_of(model: Any) -> dict[str, str] | None:
    """Return the names by which a model's fields may be given, with those of the fields; None if that is open."""
    kind = _kind(model)
    if kind.model_config.get("extra") == "allow" or "root" in kind.model_fields:
        return None
    names: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        aliases: tuple[Any, ...] = (field.alias, field.validation_alias)
        if any(alias is not None and not isinstance(alias, str) for alias in aliases):
            return None
        names |= {known: name for known in (name, *aliases) if known}
    return names
