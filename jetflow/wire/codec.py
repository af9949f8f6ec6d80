"""JSON of typed values: msgspec types, and pydantic models where pydantic is installed.

A codec is built once, when a workflow is declared, so that a type that cannot travel fails at import. What it writes
has its keys sorted, and says the value whole: what JSON cannot hold is refused, and never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from jetflow.engine.identity import input_digest
from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidOutput
from jetflow.wire.canonical import Canonical
from jetflow.wire.schemas import custom_types, is_pydantic, schema_of
from jetflow.wire.unwritable import DEEPEST, first_unwritable, too_deep, whole

T = TypeVar("T")

_TROUBLE = (TypeError, ValueError, OverflowError, RecursionError)


def _encode_other(value: Any) -> Any:
    if is_pydantic(type(value)):  # by the names that it is read by, and without what is computed
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    raise TypeError(f"a value of type {type(value).__qualname__} cannot be written as JSON")


def _decode_other(kind: type[Any], value: Any) -> Any:
    if is_pydantic(kind):
        return kind.model_validate(value)  # pydantic's ValidationError is a ValueError: msgspec adds the path
    if kind is object:
        return value
    raise TypeError(f"JSON cannot be read as {kind.__qualname__}")


_encode = msgspec.json.Encoder(order="sorted", enc_hook=_encode_other).encode
_parse = msgspec.json.Decoder().decode


class Codec(Generic[T]):
    """Reads and writes values of one type as JSON.

    ``schema`` is what is known of a type that is not at hand: that of a workflow by its name.

    Raises:
        InvalidDeclaration: values of the type cannot travel as JSON.
    """

    def __init__(self, kind: type[T] | Any, where: str, *, schema: bytes | None = None) -> None:
        self.kind: Any = kind
        self.where = where
        try:
            custom = custom_types(kind)
            for one in custom:
                if not is_pydantic(one):
                    raise TypeError(f"{one!r} is neither a msgspec type, a dataclass, a TypedDict nor a pydantic model")
            self._decode = msgspec.json.Decoder(kind, dec_hook=_decode_other).decode
            self.schema: bytes = _encode(schema_of(kind)) if schema is None else schema
        except (TypeError, NameError, ValueError) as error:
            raise InvalidDeclaration(f"{where}: the type {kind!r} cannot travel as JSON: {error}") from error
        self._has_custom = bool(custom)
        self._canonical = Canonical(_parse(self.schema), exact=schema is None and not custom)
        self._may_change = self._canonical.nullable or not self._canonical.bounded
        self.digest: Callable[[bytes], str] = input_digest if self._canonical.as_written else self._digest
        """Returns the digest of an input that `encode` has written (``docs/wire.md``, section Identity)."""

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Return the value that JSON holds.

        Raises:
            InvalidInput: it is not JSON, or does not fit the type; the message names the path inside.
        """
        try:
            return self._decode(data)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors; so is that of wrong UTF-8
            raise InvalidInput(f"{self.where}: {error}") from error

    def decode_output(self, data: bytes | msgspec.Raw) -> T:
        """Return an output that was stored.

        Raises:
            InvalidOutput: it does not fit the type that is asked for; the message names the path inside.
        """
        try:
            return self.decode(data)
        except InvalidInput as error:
            raise InvalidOutput(str(error)) from error

    def encode(self, value: T | Any) -> bytes:
        """Return an input as JSON with sorted keys, checked against the type.

        A value of another type that fits (a dict for a Struct) is brought to the declared type first.

        Raises:
            InvalidInput: it does not fit the type, or JSON cannot hold it; the message names the path inside.
        """
        try:
            data = _encode(value)
            fitted = self._decode(data)
            if type(value) is not self.kind and self.kind is not Any:
                data = _encode(fitted)
            if self._may_change:
                self._check(value, data, fitted)
        except _TROUBLE as error:
            raise InvalidInput(f"{self.where}: {_reason(value, error)}") from error
        return data

    def canonical(self, data: bytes) -> bytes:
        """Return the canonical text of an input that `encode` has written.

        Raises:
            InvalidInput: a number is too large for a double, which its place in the type asks for.
        """
        try:
            return self._canonical.text(data)
        except _TROUBLE as error:
            raise InvalidInput(f"{self.where}: {error}") from error

    def encode_output(self, value: T | Any) -> bytes:
        """Return a step's output as JSON, checked against the type.

        Raises:
            InvalidOutput: JSON cannot hold it, or it does not fit the type; the message names the path inside.
        """
        try:
            data = _encode(value)
            if self.kind is not Any:
                self._decode(data)
            if self._canonical.nullable:
                _check_finite(value, data)
        except _TROUBLE as error:
            raise InvalidOutput(f"{self.where}: {_reason(value, error)}") from error
        return data

    def _digest(self, data: bytes) -> str:
        return input_digest(self.canonical(data))

    def _check(self, value: Any, data: bytes, fitted: Any) -> None:
        """Refuse a value that would not arrive as it is."""
        if not self._canonical.as_written or fitted != value:  # where no double can be, None is all that is null
            _check_finite(value, data)
        if len(data) > 2 * DEEPEST and data.count(b"[") + data.count(b"{") > DEEPEST and too_deep(_parse(data)):
            raise ValueError(f"more than {DEEPEST} arrays and objects stand in one another")
        if self._has_custom and (again := _encode(fitted)) != data and self.canonical(again) != self.canonical(data):
            raise ValueError("it is another value when it is read again: by which names, and validators, is it read?")


def _check_finite(value: Any, data: bytes) -> None:
    if data.find(b"null") >= 0 and not whole(_plain(value)):  # msgspec writes NaN and the infinities as null
        raise ValueError("a number is not finite")


def _reason(value: Any, error: Exception) -> str:
    """Return why a value cannot be written, by its name if it is one that JSON does not have."""
    try:
        return first_unwritable(_plain(value)) or str(error)
    except _TROUBLE:
        return str(error)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_other)


ANY: Codec[Any] = Codec(Any, "value")
"""Takes and gives whatever JSON can hold."""
