"""Canonical JSON of an input: the text that its digest is made of (``docs/wire.md``, section Identity).

The text is a pure function of a JSON value and of the JSON Schema of the workflow's input, so that every language, and
a client that knows a workflow by name only, computes the same. A schema is compiled once into places; then a value and
its place are walked together. What a schema says beyond what is read here makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

import msgspec

_encode = msgspec.json.Encoder(order="sorted").encode
_parse: Callable[[bytes], Any] = msgspec.json.Decoder().decode

_FRACTION: Final = re.compile(rb"\.[0-9]")
_EXPONENT: Final = re.compile(rb"e[0-9-]")
"""One of them is found in every text of msgspec that holds a double."""


class Canonical:
    """The canonical texts of one schema's values.

    ``exact``: the values hold nothing but what the schema tells, as those of a type that msgspec has checked do. Of
    these is known: ``as_written``, that msgspec writes them canonically; ``nullable``, that a null may stand in them;
    and ``bounded``, that they are not nested deeper than the schema is.
    """

    def __init__(self, schema: Any, *, exact: bool) -> None:
        compiler = _Compiler(schema)
        self._place = compiler.place(schema)
        self._says_something = compiler.left_out or compiler.doubles
        self.as_written: bool = exact and not (self._says_something or compiler.untyped)
        self.nullable: bool = compiler.nullable or not exact
        self.bounded: bool = exact and not (compiler.untyped or compiler.recursive)

    def text(self, body: bytes) -> bytes:
        """Return the canonical text of a value that msgspec has written with sorted keys.

        Raises:
            ValueError, OverflowError: it is not JSON, or holds a number that no double comes near to.
        """
        if self.as_written:  # msgspec orders keys, escapes strings and writes integers as the rule says
            return body
        value = _parse(body)
        if self._says_something or _FRACTION.search(body) or _EXPONENT.search(body):
            value = self._place.normal(value)
        return _encode(value)


def double_text(value: float) -> str:
    """Return a double as RFC 8785 writes it (section 3.2.2.3), which is as ECMAScript does."""
    _, figures, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, figures)).rstrip("0")
    if not digits:
        return "0"
    point = len(figures) + cast("int", exponent)  # where the point stands, counted from the first digit
    if len(digits) <= point <= 21:
        text = digits.ljust(point, "0")
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{point - 1:+}"
    return f"-{text}" if value < 0 else text


def _double(value: float) -> Any:
    """Return what msgspec writes as RFC 8785 writes a double."""
    if -1e15 < value < 1e15:
        if value.is_integer():
            return int(value)
        if not -1e-4 < value < 1e-4:
            return value
    return msgspec.Raw(double_text(value).encode())


class _Place:
    """A place in a value, and what its schema says of it.

    ``is_double``: an integer that is written here is read as a double. ``objects`` and ``arrays`` are what the schema
    says of a value of that form; where it leaves a choice, there are several.
    """

    def __init__(self) -> None:
        self.is_double = False
        self.objects: list[_Object] = []
        self.arrays: list[_Array] = []

    def normal(self, value: Any) -> Any:
        """Return a parsed value as msgspec has to be given it, to write it canonically."""
        kind = value.__class__
        if kind is float:
            return _double(value)
        if kind is int:
            return _double(float(value)) if self.is_double else value
        if not value:
            return value
        if kind is dict:
            return self._normal_object(value)
        if kind is list:
            return (self.arrays[0] if len(self.arrays) == 1 else _ANY_ARRAY).normal(value)
        return value

    def _normal_object(self, members: dict[str, Any]) -> dict[str, Any]:
        if len(self.objects) == 1:
            return self.objects[0].normal(members)
        fitting = [one for one in self.objects if one.fits(members)]
        return (fitting[0] if len(fitting) == 1 else _ANY_OBJECT).normal(members, tagged=True)


class _Object:
    """What a schema says of an object. ``tags`` are the members that tell it from others, and their values."""

    def __init__(self) -> None:
        self.members: dict[str, tuple[_Place, _Default | None]] = {}
        self.others: tuple[_Place, None] = _ANYTHING, None
        self.tags: dict[str, list[Any]] = {}

    def fits(self, members: Mapping[str, Any]) -> bool:
        return all(members.get(name) in values for name, values in self.tags.items())

    def normal(self, members: Mapping[str, Any], *, tagged: bool = False) -> dict[str, Any]:
        """Return the object without what holds its default. One that is ``tagged`` keeps its tags in any case."""
        normal: dict[str, Any] = {}
        known, others = self.members, self.others
        for name, member in members.items():
            place, default = known.get(name, others)
            value = member if type(member) is str else place.normal(member)
            if default is None or not default.is_held_by(value) or (tagged and name in self.tags):
                normal[name] = value
        return normal


class _Array:
    """What a schema says of an array. One that is a ``set`` holds each item once, in no order."""

    def __init__(self) -> None:
        self.first: list[tuple[_Place, _Default | None]] = []
        self.others = _ANYTHING
        self.is_set = False

    def normal(self, items: list[Any]) -> list[Any]:
        """Return the array without the last items that hold their defaults."""
        if not self.first:
            normal = list(map(self.others.normal, items))
            return [msgspec.Raw(text) for text in sorted(set(map(_encode, normal)))] if self.is_set else normal
        normal = [place.normal(item) for (place, _), item in zip(self.first, items, strict=False)]
        normal += map(self.others.normal, items[len(normal) :])
        while 0 < len(normal) <= len(self.first):
            default = self.first[len(normal) - 1][1]
            if default is None or not default.is_held_by(normal[-1]):
                break
            normal.pop()
        return normal


class _Default:
    """A default. It is brought into canonical form when it is first asked for: then every place is known."""

    def __init__(self, place: _Place, value: Any) -> None:
        self._place = place
        self._value = value
        self._text: bytes | None = None
        self._asked = False

    def is_held_by(self, normal: Any) -> bool:
        if type(normal) is str or normal is None:
            return normal == self._value
        if self._text is None:
            if self._asked:  # a default inside its own value is not left out of it
                return False
            self._asked = True
            self._text = _encode(self._place.normal(self._value))
        return _encode(normal) == self._text


_ANYTHING: Final = _Place()
_ANY_OBJECT: Final = _Object()
_ANY_ARRAY: Final = _Array()


class _Compiler:
    """Makes places of a schema, and notes what it says. ``left_out`` are defaults, and what comes twice in a set."""

    def __init__(self, schema: Any) -> None:
        self._definitions = _mapping(_mapping(schema).get("$defs"))
        self._objects: dict[int, _Object] = {}
        self._arrays: dict[int, _Array] = {}
        self._under_way: set[int] = set()
        self.doubles = False
        self.left_out = False
        self.nullable = False
        self.recursive = False
        self.untyped = False

    def place(self, schema: Any) -> _Place:
        """Return what a schema says of the place where it stands."""
        place = _Place()
        kinds: set[str] = set()
        for choice in self._choices(schema, frozenset()):
            kinds |= (may_be := _kinds(choice))
            if "object" in may_be:
                place.objects.append(self._object(choice))
            if "array" in may_be:
                place.arrays.append(self._array(choice))
        self.untyped |= "any" in kinds
        self.doubles |= "number" in kinds
        self.nullable |= self.untyped or "null" in kinds
        if "any" in kinds:
            return _ANYTHING
        place.is_double = "number" in kinds and "integer" not in kinds
        return place

    def _choices(self, schema: Any, inside: frozenset[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the schemas that a value may be of: references and choices are followed."""
        schema = _mapping(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference not in inside:
                yield from self._choices(self._definitions.get(reference[len("#/$defs/") :]), inside | {reference})
            return
        choices = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
        if not choices and len(both := _list(schema.get("allOf"))) == 1:
            choices = both
        if not choices:
            yield schema
        for choice in choices:
            yield from self._choices(choice, inside)

    def _object(self, schema: Mapping[str, Any]) -> _Object:
        if id(schema) in self._objects:
            self.recursive |= id(schema) in self._under_way
            return self._objects[id(schema)]
        found = self._objects[id(schema)] = _Object()  # before its inside, which may be of the same schema
        self._under_way.add(id(schema))
        members = _mapping(schema.get("properties"))
        found.others = self._others(schema.get("additionalProperties", not members)), None
        for name, inner in members.items():
            member = _mapping(inner)
            found.members[name] = self._with_default(member)
            if "const" in member or "enum" in member:
                found.tags[name] = [member["const"]] if "const" in member else _list(member["enum"])
        self._under_way.discard(id(schema))
        return found

    def _array(self, schema: Mapping[str, Any]) -> _Array:
        if id(schema) in self._arrays:
            self.recursive |= id(schema) in self._under_way
            return self._arrays[id(schema)]
        found = self._arrays[id(schema)] = _Array()
        self._under_way.add(id(schema))
        first = _list(schema.get("prefixItems"))
        found.first = [self._with_default(_mapping(item)) for item in first]
        found.others = self._others(schema.get("items", not first))
        found.is_set = schema.get("uniqueItems") is True
        self.left_out |= found.is_set
        self._under_way.discard(id(schema))
        return found

    def _others(self, schema: Any) -> _Place:
        return _ANYTHING if schema is False else self.place(schema)

    def _with_default(self, schema: Mapping[str, Any]) -> tuple[_Place, _Default | None]:
        place = self.place(schema)
        if "default" not in schema:
            return place, None
        self.left_out = True
        return place, _Default(place, schema["default"])


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a schema leaves. Those of constants make no difference, but for null."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return {kinds}
    if isinstance(kinds, list):
        return set(map(str, cast("list[Any]", kinds)))
    if "enum" in schema or "const" in schema:
        return {"null"} if None in (schema.get("const"), *_list(schema.get("enum"))) else set()
    return {"any"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else _EMPTY


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


_EMPTY: Final[Mapping[str, Any]] = {}
