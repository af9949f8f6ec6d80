"""JSON of typed values: msgspec types, and pydantic models where pydantic is installed.

A codec is built once, when a workflow is declared, so that a type that cannot travel fails at import. Encoding is
canonical (sorted object keys), because the digest of an input is its identity.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
import msgspec.inspect

from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidOutput

T = TypeVar("T")


def _encode_other(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be written as JSON")


def _decode_other(kind: type[Any], value: Any) -> Any:
    if _is_pydantic(kind):
        return kind.model_validate(value)  # pydantic's ValidationError is a ValueError: msgspec adds the path
    raise TypeError(f"JSON cannot be read as {kind.__qualname__}")


def _is_pydantic(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


_encode = msgspec.json.Encoder(order="sorted", enc_hook=_encode_other).encode


class Codec(Generic[T]):
    """Reads and writes values of one type as JSON.

    Raises:
        InvalidDeclaration: values of the type cannot travel as JSON.
    """

    def __init__(self, kind: type[T] | Any, where: str) -> None:
        self.kind: Any = kind
        self.where = where
        try:
            for custom in _custom_types(msgspec.inspect.type_info(kind)):
                if not _is_pydantic(custom):
                    raise TypeError(
                        f"{custom!r} is neither a msgspec type, a dataclass, a TypedDict nor a pydantic model"
                    )
            self._decode = msgspec.json.Decoder(kind, dec_hook=_decode_other).decode
        except (TypeError, NameError) as error:
            raise InvalidDeclaration(f"{where}: the type {kind!r} cannot travel as JSON: {error}") from error

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Return the value that JSON holds.

        Raises:
            InvalidInput: it is not JSON, or does not fit the type; the message names the path inside.
        """
        try:
            return self._decode(data)
        except ValueError as error:  # msgspec's errors are ValueErrors, and bytes that are not UTF-8 raise one too
            raise InvalidInput(f"{self.where}: {error}") from error

    def encode(self, value: T | Any) -> bytes:
        """Return a value as canonical JSON, checked against the type.

        A value of another type that fits (a dict for a Struct) is brought to the declared type first, so that both
        have one digest.

        Raises:
            InvalidInput: it does not fit the type.
        """
        try:
            data = _encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"{self.where}: {error}") from error
        fitted = self.decode(data)
        return data if type(value) is self.kind or self.kind is Any else _encode(fitted)

    def encode_output(self, value: T | Any) -> bytes:
        """Return a step's output as JSON, checked against the type.

        Raises:
            InvalidOutput: it cannot be written as JSON, or does not fit the type.
        """
        try:
            data = _encode(value)
            if self.kind is not Any:
                self._decode(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidOutput(f"{self.where}: {error}") from error
        return data

    @property
    def schema(self) -> bytes:
        """The type's JSON Schema, as JSON."""
        return _encode(msgspec.json.schema(self.kind, schema_hook=_schema_of_other))


def _schema_of_other(kind: type[Any]) -> dict[str, Any]:
    if _is_pydantic(kind):
        return kind.model_json_schema()
    return {}


def _custom_types(info: Any) -> Iterator[Any]:
    """Yield the types inside ``info`` that msgspec leaves to a hook."""
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, msgspec.inspect.Type | msgspec.inspect.Field) and id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, msgspec.inspect.CustomType):
                yield item.cls
            waiting += [getattr(item, name) for name in item.__struct_fields__]


ANY: Codec[Any] = Codec(Any, "value")
"""Takes and gives whatever JSON can hold."""
