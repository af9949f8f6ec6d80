"""JSON of typed values: msgspec types, and pydantic models where pydantic is installed.

A codec is built once, when a workflow is declared, so that a type that cannot travel fails at import. What it writes
has its keys sorted, and says the value whole: what JSON cannot hold is refused, and never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from jetflow.engine.identity import input_digest
from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidOutput
from jetflow.wire import models
from jetflow.wire.canonical import Canonical
from jetflow.wire.hidden import check_hidden, is_hiding
from jetflow.wire.sameness import BY_NAME, check_same
from jetflow.wire.schemas import custom_types, parts_of, schema_of
from jetflow.wire.unwritable import DEEPEST, first_too_deep, first_too_large, told, why_not

T = TypeVar("T")


def _encode_other(value: Any) -> Any:
    if models.is_pydantic(type(value)):
        return models.written(value)
    raise TypeError(why_not(value))


def _decode_other(kind: type[Any], value: Any) -> Any:
    if models.is_pydantic(kind):
        return models.read(kind, value)  # msgspec adds the path to a ValueError
    if kind is object:
        return value
    raise TypeError(f"JSON cannot be read as {kind.__qualname__}")


_encode = msgspec.json.Encoder(order="sorted", enc_hook=_encode_other).encode
_parse = msgspec.json.Decoder().decode
_parse_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _unlike(_: bytes) -> Any:
    """Read what equals nothing: the values of types that compare some of their fields only are always looked into."""
    return object()


def _write(value: Any) -> bytes:
    """Write what the sorting encoder does not take: keys that are no text, and sets of what has no order."""
    try:
        return _encode(value)
    except TypeError:
        return _encode(msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_other))


class Codec(Generic[T]):
    """Reads and writes values of one type as JSON.

    ``schema`` is what is known of a type that is not at hand: that of a workflow by its name.

    Raises:
        InvalidDeclaration: values of the type cannot travel as JSON.
    """

    def __init__(self, kind: type[T] | Any, where: str, *, schema: bytes | None = None) -> None:
        self.kind: Any = Any if kind is object else kind
        self.where = where
        try:
            custom = custom_types(self.kind)
            self._decode = msgspec.json.Decoder(self.kind, dec_hook=_decode_other).decode
            self.schema: bytes = _encode(schema_of(self.kind)) if schema is None else schema
            self._hides: bool = schema is None and any(map(is_hiding, parts_of(self.kind)))
            self._type: Any = msgspec.inspect.type_info(self.kind) if schema is None else BY_NAME
        except (TypeError, NameError, ValueError) as error:
            raise InvalidDeclaration(f"{where}: the type {kind!r} cannot travel as JSON: {error}") from error
        self._read_again: Callable[[bytes], Any] = _unlike if self._hides else self._decode
        self._canonical = Canonical(_parse(self.schema), exact=schema is None and not custom)
        self.digest: Callable[[bytes], str] = input_digest if self._canonical.as_written else self._digest
        """Returns the digest of an input that `encode` has written (``docs/wire.md``, section Identity)."""

    def named(self, where: str) -> Codec[T]:
        """Return a codec of the same type for values that stand elsewhere."""
        other = copy(self)
        other.where = where
        return other

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Return the value that JSON holds.

        Raises:
            InvalidInput: it is not JSON, or does not fit the type; the message names the path inside.
        """
        try:
            return self._decode(data)
        except MemoryError:
            raise
        except Exception as error:  # a type's own code may raise whatever it likes
            raise InvalidInput(f"{self.where}: {_misfit(error)}") from error

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
            if self._read_again(data) != value:
                data = self._fitted(value)
        except Exception:  # it is looked at again, for what is wrong with it
            data = self._refused_or_fitted(value, InvalidInput, ": was the input forgotten?")
        if not self._canonical.bounded and (too_deep := _too_deep(data)):
            raise InvalidInput(f"{self.where}: {too_deep}")
        return data

    def canonical(self, data: bytes) -> bytes:
        """Return the canonical text of an input that `encode` has written.

        Raises:
            InvalidInput: a number is too large for a double, which its place in the type asks for.
        """
        try:
            return self._canonical.text(data)
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidInput(f"{self.where}: {error}{first_too_large(_parse(data))}") from error

    def encode_output(self, value: T | Any) -> bytes:
        """Return a step's output as JSON, checked against the type.

        Raises:
            InvalidOutput: JSON cannot hold it, or it does not fit the type; the message names the path inside.
        """
        try:
            data = _encode(value)
            return data if self._read_again(data) == value else self._fitted(value)
        except Exception:  # it is looked at again, for what is wrong with it
            return self._refused_or_fitted(value, InvalidOutput)

    def _digest(self, data: bytes) -> str:
        return input_digest(self.canonical(data))

    def _refused_or_fitted(self, value: Any, refused: type[InvalidInput | InvalidOutput], if_null: str = "") -> bytes:
        try:
            return self._fitted(value)
        except MemoryError:
            raise
        except Exception as error:  # a type's own code may raise whatever it likes
            raise refused(f"{self.where}: {_reason(value, error)}{if_null if value is None else ''}") from error

    def _fitted(self, value: Any) -> bytes:
        """Return the JSON of a value that is not equal to what is read of it, brought to the type.

        Raises:
            Exception: it would come back as another value.
        """
        fitted = self._decode(_write(value))
        if self._hides or not _is_part(value, fitted):
            self._check_same(value, fitted)
        data = _write(fitted)
        self._check_same(fitted, self._decode(data))
        return data

    def _check_same(self, given: Any, read: Any) -> None:
        check_same(given, read, self._type)
        if self._hides:
            check_hidden(given, read, self._type)


class OutputsByStep(Codec[dict[str, Any]]):
    """Reads the output of a run with several last steps: an object of theirs by name, each as its step's type."""

    def __init__(self, where: str, codecs: Mapping[str, Codec[Any]]) -> None:
        super().__init__(Any, where)
        self._codecs = codecs

    def decode(self, data: bytes | msgspec.Raw) -> dict[str, Any]:
        """See `Codec.decode`. An output that no step of now is known for is plain JSON."""
        try:
            outputs = _parse_by_name(data)
        except ValueError as error:
            raise InvalidInput(f"{self.where}: {_misfit(error)}") from error
        return {name: self._codecs.get(name, ANY).decode(output) for name, output in outputs.items()}


def _is_part(members: Any, fitted: Any) -> bool:
    """Tell whether a value, as JSON has it, has all these members: the short way for a dict in place of a Struct."""
    plain = msgspec.to_builtins(fitted, str_keys=True, enc_hook=_encode_other) if type(members) is dict else None
    return type(plain) is dict and {**plain, **members} == plain


def _too_deep(data: bytes) -> str:
    if len(data) > 2 * DEEPEST and data.count(b"[") + data.count(b"{") > DEEPEST:
        return first_too_deep(_parse(data))
    return ""


def _misfit(error: Exception) -> str:
    """Return why JSON does not fit a type, with the path inside, which msgspec leaves out for the whole value."""
    text = str(error) or type(error).__name__
    malformed = isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError)
    return text if malformed or "`$" in text else f"{text} - at `$`"


def _reason(value: Any, error: Exception) -> str:
    """Return why a value cannot travel: by its name if it is one that JSON does not have."""
    found = "" if "`$" in str(error) and not isinstance(error, msgspec.ValidationError) else told(value, _write)
    return found or _misfit(error)


ANY: Codec[Any] = Codec(Any, "value")
"""Takes and gives whatever JSON can hold."""


def written(value: Any, where: str) -> bytes:
    """Return any value that JSON can hold as JSON: of a type of the user's own, by its type.

    Raises:
        InvalidInput: JSON cannot hold it.
    """
    return _codec_of(value.__class__).named(where).encode(value)


@lru_cache(maxsize=256)
def _codec_of(kind: type[Any]) -> Codec[Any]:
    if kind.__module__ == "builtins":
        return ANY
    try:
        return Codec(kind, "value")
    except InvalidDeclaration:  # it is told of by the value
        return ANY
