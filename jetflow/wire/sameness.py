"""Whether a value that was read again is the one that was given; if not, what has changed, and where.

A codec asks only where the two are not equal. Then the type decides: where it says what stands there, the JSON form of
it may be given instead (a dict for a Struct, the text of a date); where it says nothing, what is read is plain JSON,
and what was given has to be that as well. Nothing that is found here is shown but types and numbers: it may be secret.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias, cast, get_origin

import msgspec
from msgspec import inspect

from jetflow.wire.models import extra_of, fields_of, is_pydantic, names_of, private_of, reread

BY_NAME: Final = inspect.RawType()
"""The type of a value whose type is known by a name only: whoever reads it decides."""

_PLAIN: Final = (str, int, float, bool, type(None))
_CONTAINERS: Final = (list, tuple, set, frozenset, dict)
_OBJECTS: Final = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)
_ARRAYS: Final = (inspect.ListType, inspect.VarTupleType, inspect.TupleType, inspect.SetType, inspect.FrozenSetType)

_Check: TypeAlias = Callable[[Any, Any, Any, str], None]


def check_same(given: Any, read: Any, kind: Any, path: str = "$") -> None:
    """Refuse a value that comes back as another one.

    Raises:
        ValueError: it does; the message names the path.
    """
    if _equal(given, read) or _both_nan(given, read):
        return
    if isinstance(kind, inspect.UnionType):
        kind = of_union(kind, read)
    if _is_untyped(kind):
        _check_plain(given, read, kind, path)
    elif kind is BY_NAME:
        _check_by_name(given, read, kind, path)
    else:
        _check_of(kind)(given, read, kind, path)


def _check_of(kind: Any) -> _Check:
    if isinstance(kind, inspect.CustomType):
        return _check_model
    if isinstance(kind, _OBJECTS):
        return _check_object
    if isinstance(kind, _ARRAYS):
        return _check_array
    return _check_members if isinstance(kind, inspect.DictType) else _check_scalar


def _is_untyped(kind: Any) -> bool:
    return isinstance(kind, inspect.AnyType) or (isinstance(kind, inspect.CustomType) and kind.cls is object)


def of_union(kind: inspect.UnionType, read: Any) -> Any:
    """Return the type of a union that a value was read by."""
    for one in kind.types:
        if isinstance(one, inspect.TypedDictType | inspect.DictType):
            fits = isinstance(read, dict)
        elif isinstance(one, inspect.ListType):
            fits = isinstance(read, list)
        elif isinstance(one, _ARRAYS):
            fits = isinstance(read, tuple | set | frozenset)
        elif _is_untyped(one):
            fits = True
        else:
            cls = getattr(one, "cls", ())
            fits = isinstance(read, get_origin(cls) or cls)
        if fits:
            return one
    return None


# --- where the type says nothing


def _check_plain(given: Any, read: Any, kind: Any, path: str) -> None:
    if isinstance(given, dict) and isinstance(read, dict):
        members = cast("dict[Any, Any]", given)
        _check_text_keys(members, path)
        for name, value in members.items():
            check_same(value, read[name], kind, f"{path}.{name}")
    elif isinstance(given, list) and isinstance(read, list):
        for at, one, again in _pairs(given, read):
            check_same(one, again, kind, f"{path}[{at}]")
    elif not (isinstance(given, _PLAIN) and isinstance(read, _PLAIN)) or isinstance(given, Enum):
        raise ValueError(
            f"{_an(given)} comes back as {_an(read)}, since no type says what it is: annotate it, or give JSON's own "
            f"types - at `{path}`"
        )
    else:
        _changed(given, read, path)


def _check_text_keys(given: dict[Any, Any], path: str) -> None:
    for name in given:
        if not isinstance(name, str):
            raise ValueError(
                f"the key {name!r} comes back as text, since no type says what it is: annotate it, as in "
                f"dict[{type(name).__name__}, ...] - at `{path}`"
            )


def _check_by_name(given: Any, read: Any, kind: Any, path: str) -> None:
    """Refuse what is lost whatever the type may be."""
    if is_pydantic(type(given)):
        _check_value(given, reread(given), path)
    elif isinstance(given, Mapping) and isinstance(read, dict):
        _check_members(given, cast("dict[Any, Any]", read), inspect.DictType(kind, kind), path)
    elif isinstance(given, list | tuple) and isinstance(read, list):
        for at, one, again in _pairs(given, read):
            check_same(one, again, kind, f"{path}[{at}]")
    elif isinstance(given, float):
        _changed(given, read, path)
    elif isinstance(read, dict):
        _check_own_fields(given, cast("dict[Any, Any]", read), kind, path)


def _check_own_fields(given: Any, read: dict[Any, Any], kind: Any, path: str) -> None:
    for name, encoded in (_fields(given) or {}).items():
        if encoded in read:
            check_same(getattr(given, name), read[encoded], kind, f"{path}.{name}")


# --- where it does


def _check_object(given: Any, read: Any, kind: Any, path: str) -> None:
    fields: Sequence[Any] = kind.fields
    if isinstance(given, Mapping):
        _check_given_members(cast("Mapping[Any, Any]", given), read, kind, path)
    elif type(given) is (cls := get_origin(kind.cls) or kind.cls):
        for field in fields:
            check_same(getattr(given, field.name), getattr(read, field.name), field.type, f"{path}.{field.name}")
    elif isinstance(given, cls):
        _changed(given, read, path)
    elif isinstance(given, list | tuple):
        for at, one, field in _pairs(given, fields):
            check_same(one, getattr(read, field.name), field.type, f"{path}[{at}]")


def _check_given_members(given: Mapping[Any, Any], read: Any, kind: Any, path: str) -> None:
    known = {field.encode_name: field for field in kind.fields}
    for name, value in given.items():
        field = known.get(name)
        if field is None and name != getattr(kind, "tag_field", None):
            raise ValueError(f"{kind.cls.__name__} has no field {name!r} - at `{path}`")
        if field is not None:
            again: Any = read[name] if isinstance(kind, inspect.TypedDictType) else getattr(read, field.name)
            check_same(value, again, field.type, f"{path}.{name}")


def _check_array(given: Any, read: Any, kind: Any, path: str) -> None:
    if not isinstance(given, list) and type(given) is not type(read):
        raise ValueError(f"{_an(given)} comes back as {_an(read)}: give {_an(read)}, or annotate it - at `{path}`")
    if isinstance(read, set | frozenset):
        if len(cast("list[Any]", given)) > len(cast("set[Any]", read)):
            raise ValueError(f"two of its items are one as {_an(read)} - at `{path}`")
        untyped = _is_untyped(getattr(kind, "item_type", None))
        for one in cast("Iterable[Any]", given):
            if one not in read and (untyped or not isinstance(one, str | int)):
                raise ValueError(f"{_an(one)} in it comes back as another value - at `{path}`")
        return
    if isinstance(given, list | tuple):
        for at, one, again in _pairs(given, read):
            inner = kind.item_types[at] if isinstance(kind, inspect.TupleType) else kind.item_type
            check_same(one, again, inner, f"{path}[{at}]")


def _check_members(given: Any, read: dict[Any, Any], kind: Any, path: str) -> None:
    if not isinstance(given, Mapping):
        return
    members = cast("Mapping[Any, Any]", given)
    texts = {key_text(name): (name, value) for name, value in read.items()}
    if len(texts) < len(members):
        raise ValueError(f"two of the keys are one key as JSON - at `{path}`")
    for name, value in members.items():
        key, again = texts[key_text(name)]
        if type(name) is not str and kind.key_type is not BY_NAME:  # text may be given for any key
            _check_text_keys({name: None}, path) if _is_untyped(kind.key_type) else check_same(name, key, None, path)
        check_same(value, again, kind.value_type, f"{path}.{key_text(name)}")


def key_text(name: Any) -> str:
    """Return a key as JSON has it."""
    return name if type(name) is str else next(iter(msgspec.to_builtins({name: None}, str_keys=True)))


def _check_scalar(given: Any, read: Any, kind: Any, path: str) -> None:
    if isinstance(given, datetime) and isinstance(read, datetime) and given.tzinfo is not None:
        if given.astimezone(UTC) != read.astimezone(UTC):  # in an hour that comes twice, no two zones are equal
            raise ValueError(f"its offset from UTC has seconds, which are not written - at `{path}`")
    elif type(given) is int and type(read) is float:
        return  # the type says float, and so every number is a double
    elif not isinstance(given, _PLAIN) or isinstance(read, _PLAIN):
        _changed(given, read, path)


# --- pydantic models


def _check_model(given: Any, read: Any, kind: Any, path: str) -> None:
    if isinstance(given, get_origin(kind.cls) or kind.cls):
        _check_value(given, read, path)
    else:
        _check_names(given, read, path)


def _check_names(given: Any, read: Any, path: str) -> None:
    """Refuse members of an object, given for a model, that the model has no field for."""
    if isinstance(given, Mapping) and is_pydantic(type(read)):
        names = names_of(read)
        for name, value in cast("Mapping[str, Any]", given).items():
            if names is not None and name not in names:
                raise ValueError(f"{type(read).__name__} has no field {name!r} - at `{path}`")
            if names is not None:
                _check_names(value, getattr(read, names[name]), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(read, list):
        for at, one, again in _pairs(given, read):
            _check_names(one, again, f"{path}[{at}]")


def _check_value(given: Any, read: Any, path: str) -> None:
    """Refuse what has changed inside a model, whose types are not known here."""
    if _equal(given, read) or _both_nan(given, read):
        return
    if type(given) is not type(read):
        _changed(given, read, path)
    elif is_pydantic(type(given)):
        check_fields(given, read, path)
    elif isinstance(given, dict) and given.keys() == read.keys():
        for name, value in cast("dict[Any, Any]", given).items():
            _check_value(value, read[name], f"{path}.{name}")
    elif isinstance(given, list | tuple) and len(cast("list[Any]", given)) == len(read):
        for at, one, again in _pairs(given, read):
            _check_value(one, again, f"{path}[{at}]")
    elif _fields(given) is not None:
        _check_attributes(given, read, _fields(given) or (), path)
    else:
        _check_scalar(given, read, None, path)


def _check_attributes(given: Any, read: Any, names: Iterable[str], path: str) -> None:
    for name in names:
        _check_value(getattr(given, name), getattr(read, name), f"{path}.{name}")


def check_fields(given: Any, read: Any, path: str) -> None:
    """Refuse a model of which a field, or what it holds beside its fields, comes back as something else.

    Raises:
        ValueError: one does; the message names the path.
    """
    _check_attributes(given, read, fields_of(given), path)
    _check_value(extra_of(given), extra_of(read), path)
    for name, value in private_of(given).items():
        if isinstance(value, _PLAIN + _CONTAINERS) and not _equal(value, private_of(read).get(name)):
            raise ValueError(f"a private attribute is not written: its value would be lost - at `{path}.{name}`")


# --- what is told


def _changed(given: Any, read: Any, path: str) -> None:
    if hasattr(given, "get_secret_value"):
        raise ValueError(
            f"a {type(given).__name__} is written as asterisks: let its field be written whole (a field_serializer), "
            f"or give a reference to the secret - at `{path}`"
        )
    if isinstance(given, float) and read is None:
        raise ValueError(f"{given} cannot be written as JSON - at `{path}`")
    if type(given) is type(read):
        raise ValueError(
            f"it is another value when it is read again: by which names, and validators, is it read? - at `{path}`"
        )
    raise ValueError(f"{_an(given)} comes back as {_an(read)} - at `{path}`")


def _an(value: Any) -> str:
    name = "null" if value is None else type(value).__name__
    return name if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _equal(given: Any, read: Any) -> bool:
    try:
        return bool(given == read)
    except Exception:  # whatever a user's class raises, or a signalling NaN: they are looked at one by one
        return False


def _both_nan(given: Any, read: Any) -> bool:
    if isinstance(given, Decimal) and isinstance(read, Decimal):
        return given.is_nan() and str(given) == str(read)
    return isinstance(given, float) and isinstance(read, float) and given != given and read != read


def _pairs(given: Any, read: Any) -> Iterator[tuple[int, Any, Any]]:
    return ((at, one, again) for at, (one, again) in enumerate(zip(given, read, strict=False)))


def _fields(value: Any) -> dict[str, str] | None:
    """Return the fields of a Struct or a dataclass, with their names in JSON."""
    if isinstance(value, msgspec.Struct):
        return dict(zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True))
    if dataclasses.is_dataclass(value):
        return {field.name: field.name for field in dataclasses.fields(value)}
    return None
