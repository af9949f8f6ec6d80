"""Metadata: a JSON object that a run carries in a header of its tasks, and hands on to what it spawns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.errors import InvalidInput, PayloadTooLarge
from jetflow.wire.codec import ANY

METADATA_LIMIT: Final = 16 * 1024
"""Bytes of metadata as JSON; every descendant's task carries it."""

Told: TypeAlias = bytes | Callable[[Any], bytes] | None
"""What children are told besides what their parent was: one JSON object for all, or a function of the input."""

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def written_metadata(metadata: Any) -> bytes:
    """Return metadata as JSON.

    Raises:
        InvalidInput: they are no mapping, or JSON cannot hold them.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata is a mapping with JSON values, not {type(metadata).__name__}")
    return ANY.named("metadata").encode(dict(metadata))  # pyright: ignore[reportUnknownArgumentType] - of any kind


def told_of(metadata: Any, *, several: bool) -> Told:
    """Return what children are told: of ``several``, a function of the input may say it of each.

    Raises:
        InvalidInput: it is neither.
    """
    if metadata is None:
        return None
    if several and callable(metadata):
        return lambda value: written_metadata(metadata(value))
    return written_metadata(metadata)


def handed_on(inherited: bytes | None, told: bytes) -> bytes:
    """Return the metadata of a child: its parent's, and in their place what it was told.

    Raises:
        PayloadTooLarge: they are too large together.
    """
    merged = told if inherited is None else msgspec.json.encode(_members(inherited) | _read(told))
    if len(merged) > METADATA_LIMIT:
        raise PayloadTooLarge("the metadata of a child run", len(merged), METADATA_LIMIT)
    return merged


@lru_cache(maxsize=32)
def _members(inherited: bytes) -> dict[str, msgspec.Raw]:
    return _read(inherited)
