"""Join records as they are stored: one that is too large for a message travels by reference, as large values do."""

from __future__ import annotations

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.joins import JoinRecord, Tally
from jetflow.engine.tasks import NULL, StepAddress
from jetflow.errors import MalformedRecord
from jetflow.runs.values import get, is_large, put
from jetflow.wire.headers import Header
from jetflow.wire.records import decode_join, encode
from jetflow.wire.subjects import run_of_task


async def packed(session: Session, root: str, record: JoinRecord) -> bytes:
    """Return a join record as it is stored. What is too large for it is stored first, and referred to."""
    if is_large(session, record.output):
        value = await put(session, root, bytes(record.output))
        record = msgspec.structs.replace(record, output=NULL, value=value)
    body = encode(record)
    if not is_large(session, body):
        return body
    whole = await put(session, root, body)
    return encode(msgspec.structs.replace(record, members=None, borrowed=(), excused=(), output=NULL, whole=whole))


async def unpacked(session: Session, join: StepAddress, body: bytes) -> JoinRecord:
    """Return the join record that a stored body holds or refers to.

    Raises:
        MalformedRecord: it cannot be read.
        LostValue: it was kept apart, and is gone.
    """
    record = read_record(join, body)
    return record if record.whole is None else read_record(join, await get(session, join.root, record.whole))


def read_record(join: StepAddress, body: bytes) -> JoinRecord:
    """Return the join record of a step that a body holds, what is kept apart left out.

    Raises:
        MalformedRecord: it cannot be read, or is of a task of another run.
    """
    record = decode_join(body)
    if not record.task.endswith(f".{join.run}.{record.turn}"):
        raise MalformedRecord("join record", f"its task {record.task!r} is not of run {join.run}, turn {record.turn}")
    return record


async def spawned_by(session: Session, join: StepAddress) -> bytes:
    """Return the packed ids of the children that are stored as spawned by a step."""
    found: set[bytes] = set()
    names = session.names
    async for page in session.store.pages(names.tasks_stream, names.tasks_of_parent(join.root, join.run)):
        for stored in page:
            if stored.headers.get(Header.PARENT_STEP) == join.step:
                child = run_of_task(stored.subject)
                if child is not None:
                    found.add(child)
    return b"".join(found)


async def counted_by(session: Session, join: StepAddress, record: JoinRecord | None) -> bytes | None:
    """Return the packed ids of the children that count in a join that is done; None if all that are stored do.

    ``record`` is the last that the step left. It is none, or one of a turn before, if it waited for all of them: then
    those count that were spawned.
    """
    if record is not None and record.streamed and record.kind == "sealed":
        return None
    if record is None or record.kind == "parked":
        return await spawned_by(session, join)
    if record.members is not None:
        return record.members
    tally = Tally(record)
    async for page in session.store.leader_ids(session.names.records_stream, session.names.runs_of_join(join)):
        tally.add(page)
    for _ in record.borrowed:
        tally.add_borrowed()
    return await spawned_by(session, join) if tally.disputed else None
