"""Large values: inputs and outputs that would not fit well into a message travel in chunks, by reference.

A value is kept under its tree's root and its own digest, so writing it twice stores it once, and deleting the tree is
one purge. Whoever reads it checks the digest.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.tasks import NULL, Outcome
from jetflow.errors import BrokerError, PayloadTooLarge

THRESHOLD: Final = 256 * 1024
"""Bytes of JSON from which on a value travels by reference."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of JSON that a value may have."""

_CHUNK: Final = 256 * 1024


class LostValue(BrokerError):
    """A large value is not stored any more, or is not what its reference says."""


def is_large(data: bytes | msgspec.Raw) -> bool:
    """Tell whether a value has to travel by reference."""
    return memoryview(data).nbytes > THRESHOLD


def check_size(what: str, data: bytes) -> None:
    """Refuse a value that is too large in any form.

    Raises:
        PayloadTooLarge: it is.
    """
    if len(data) > LARGEST:
        raise PayloadTooLarge(what, len(data), LARGEST)


async def put(session: Session, root: str, data: bytes) -> str:
    """Store a value, and return its reference."""
    digest = blake2b(data, digest_size=16).hexdigest()
    names = session.names
    chunks = range(0, len(data), _CHUNK)
    await asyncio.gather(
        *(
            session.publisher.store(names.value(root, digest, number), data[at : at + _CHUNK])
            for number, at in enumerate(chunks)
        )
    )
    return f"{digest}.{len(chunks)}"


async def get(session: Session, root: str, reference: str) -> bytes:
    """Return the value that a reference names.

    Raises:
        LostValue: it is not stored any more, or its digest does not fit.
    """
    digest, _, count = reference.partition(".")
    names = session.names
    if not count.isdecimal() or int(count) > LARGEST // _CHUNK:
        raise LostValue(f"{reference!r} is not the reference of a value")
    parts = await asyncio.gather(
        *(
            session.store.leader_last(names.values_stream, names.value(root, digest, number))
            for number in range(int(count))
        )
    )
    data = b"".join(part.body for part in parts if part is not None)
    if blake2b(data, digest_size=16).hexdigest() != digest:
        raise LostValue(f"the value {digest} of the tree {root} is gone, or was changed")
    return data


async def with_output(session: Session, root: str, outcome: Outcome) -> Outcome:
    """Return an outcome with its output at hand."""
    if outcome.value is None:
        return outcome
    output = msgspec.Raw(await get(session, root, outcome.value))
    return msgspec.structs.replace(outcome, output=output, value=None)


async def by_reference(session: Session, root: str, outcome: Outcome) -> Outcome:
    """Return an outcome whose output, if it is large, is stored and only referred to."""
    if not is_large(outcome.output):
        return outcome
    reference = await put(session, root, bytes(outcome.output))
    return msgspec.structs.replace(outcome, output=NULL, value=reference)
