"""Large values: inputs and outputs that would not fit well into a message travel in chunks, by reference.

A value is kept under its tree's root and its own digest, so writing it twice stores it once, and deleting the tree is
one purge. Whoever reads it checks the digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from hashlib import sha256
from typing import Final

import msgspec

from jetflow.broker.registry import is_subject_token
from jetflow.broker.session import Session
from jetflow.engine.identity import cut_hash
from jetflow.engine.joins import ID_BYTES
from jetflow.engine.tasks import NULL, Outcome
from jetflow.errors import BrokerError, PayloadTooLarge

THRESHOLD: Final = 256 * 1024
"""Bytes of JSON from which on a value travels by reference, where the server takes messages of 1 MiB or more."""

SMALL: Final = 4 * 1024
"""Bytes of JSON up to which no server's limit is asked for."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of JSON that a value may have."""

_MOST_CHUNKS: Final = 64 * 1024


class LostValue(BrokerError):
    """A large value is not stored any more, or is not what its reference says."""


def threshold(session: Session) -> int:
    """Return from how many bytes on a value travels by reference, which is also the size of its chunks."""
    return chunk_size(session.connection.max_payload)


def chunk_size(max_payload: int) -> int:
    """Return the size of chunks for a server that takes messages of ``max_payload`` bytes.

    A record may hold a value beside as many bytes of other things, so it is a quarter of that.
    """
    return min(THRESHOLD, max_payload // 4)


def chunks_of(data: bytes, size: int) -> tuple[str, list[bytes]]:
    """Return the reference of a value, and the chunks of ``size`` bytes that it is stored in.

    The size is in the reference: writers whose servers have other limits cut the same value otherwise.
    """
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    return f"{cut_hash(data).hex()}-{size}.{len(chunks)}", chunks


def is_large(session: Session, data: bytes | msgspec.Raw) -> bool:
    """Tell whether a value has to travel by reference."""
    size = len(data) if type(data) is bytes else memoryview(data).nbytes
    return size > SMALL and size > threshold(session)


def check_size(what: str, data: bytes) -> None:
    """Refuse a value that is too large in any form.

    Raises:
        PayloadTooLarge: it is.
    """
    if len(data) > LARGEST:
        raise PayloadTooLarge(what, len(data), LARGEST)


async def put(session: Session, root: str, data: bytes, *, timeout: float | None = None) -> str:
    """Store a value, and return its reference. ``timeout`` is seconds for each of its messages.

    Raises:
        BrokerTimeout: the server did not take one in time.
        BrokerError: this account has no stream for large values.
    """
    if not session.takes_large:
        lacks = f"a value (this account may have too few streams for {session.names.values_stream})"
        error = PayloadTooLarge(lacks, len(data), threshold(session))
        raise BrokerError(str(error)) from error
    reference, chunks = chunks_of(data, threshold(session))
    name = reference.partition(".")[0]
    names = session.names
    await asyncio.gather(
        *(
            session.publisher.store(names.value(root, name, number), chunk, timeout=timeout)
            for number, chunk in enumerate(chunks)
        )
    )
    return reference


async def get(session: Session, root: str, reference: str) -> bytes:
    """Return the value that a reference names.

    Raises:
        LostValue: it is not stored any more, or its digest does not fit.
    """
    name, _, count = reference.partition(".")
    digest = name.partition("-")[0]
    names = session.names
    if not count.isdecimal() or int(count) > _MOST_CHUNKS:
        raise LostValue(f"{reference!r} is not the reference of a value")
    parts = await asyncio.gather(
        *(
            session.store.leader_last(names.values_stream, names.value(root, name, number))
            for number in range(int(count))
        )
    )
    data = b"".join(part.body for part in parts if part is not None)
    if cut_hash(data).hex() != digest:
        raise LostValue(f"the value {digest} of the tree {root} is gone, or was changed")
    return data


async def chunks(session: Session, root: str, reference: str) -> AsyncGenerator[bytes]:
    """Yield the chunks of the value that a reference names, one after the other.

    Raises:
        LostValue: it is not stored any more, or its digest does not fit, which shows behind the last chunk.
    """
    name, _, count = reference.partition(".")
    digest, names = sha256(), session.names
    if not count.isdecimal() or int(count) > _MOST_CHUNKS or not is_subject_token(name):
        raise LostValue(f"{reference!r} is not the reference of a value")
    for number in range(int(count)):
        part = await session.store.leader_last(names.values_stream, names.value(root, name, number))
        if part is None:
            break
        digest.update(part.body)
        yield part.body
    if digest.digest()[:ID_BYTES].hex() != name.partition("-")[0]:
        raise LostValue(f"the value {name.partition('-')[0]} of the tree {root} is gone, or was changed")


async def size_of(session: Session, root: str, reference: str) -> int:
    """Return how many bytes of JSON the value has that a reference names; 0 if it is gone."""
    name, _, count = reference.partition(".")
    size = name.partition("-")[2]
    if not (count.isdecimal() and size.isdecimal() and int(count)):
        return 0
    last = int(count) - 1
    stored = await session.store.leader_last(session.names.values_stream, session.names.value(root, name, last))
    return 0 if stored is None else last * int(size) + len(stored.body)


async def with_output(session: Session, root: str, outcome: Outcome) -> Outcome:
    """Return an outcome with its output at hand."""
    if outcome.value is None:
        return outcome
    output = msgspec.Raw(await get(session, root, outcome.value))
    return msgspec.structs.replace(outcome, output=output, value=None)


async def with_readable_output(session: Session, root: str, outcome: Outcome) -> Outcome:
    """Return the outcome of a child with its output at hand. One whose output is lost has failed, for its parent."""
    if outcome.value is None:
        return outcome
    try:
        return await with_output(session, root, outcome)
    except LostValue as error:
        return outcome.unreadable("LostValue", str(error))


async def by_reference(session: Session, root: str, outcome: Outcome) -> Outcome:
    """Return an outcome whose output, if it is large, is stored and only referred to."""
    if not is_large(session, outcome.output):
        return outcome
    reference = await put(session, root, bytes(outcome.output))
    return msgspec.structs.replace(outcome, output=NULL, value=reference)
