"""Running again, for an event, what its key stands for, if that has failed.

Which run is run again is recorded write-once for each event, before it is: so an event that is delivered again, when
the rerun has failed as well, leads to no other.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.elders import FAILED
from jetflow.engine.endings import FAILED as NOT_WELL
from jetflow.engine.tasks import StepAddress
from jetflow.errors import AlreadyRerun, InputLost, NothingToRerun, RecentlyDeleted, RunNotEnded, UnknownRun
from jetflow.runs import points
from jetflow.runs.rerunning import newest_of, rerun
from jetflow.wire.records import decode_outcome, encode

EVENT: Final = "_event"
"""Stands for a step where it is kept what an event has led to: no step has such a name."""

ELDER: Final = "elder"

_GONE: Final = (InputLost, NothingToRerun, RecentlyDeleted, RunNotEnded, UnknownRun)
"""Why it cannot be run again any more."""

_log = logging.getLogger("jetflow.worker")

_read = msgspec.json.Decoder(str).decode


async def rerun_for_event(session: Session, event: str, held: str, trace: str | None) -> None:
    """Run ``held`` again, or the newest of its reruns, if that has failed. ``event`` is the run that it would start.

    Raises:
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    names, store = session.names, session.store
    subject = names.once(StepAddress(event, event, EVENT), ELDER)
    stored = await store.leader_last(names.records_stream, subject)
    elder = await _failed(session, held) if stored is None else _read(stored.body)
    if elder is None:
        return
    if stored is None:
        points.before("store_elder")
        receipt = await session.publisher.store(subject, encode(elder), timeout=30)
        points.after("store_elder")
        if not receipt.stored and (first := await store.leader_last(names.records_stream, subject)) is not None:
            elder = _read(first.body)
    try:
        await rerun(session, elder, FAILED, trace=trace, timeout=30)
    except AlreadyRerun:
        pass  # by another event, or by hand
    except _GONE as error:
        _log.warning("run %s is not run again for an event: %s", elder, error)


async def _failed(session: Session, held: str) -> str | None:
    """Return the newest of the chain of a run, if it has failed."""
    names, store = session.names, session.store
    try:
        newest = await newest_of(session, held)
    except UnknownRun:
        return None
    stored = await store.leader_last(names.records_stream, names.run_by_id(newest))
    return newest if stored is not None and decode_outcome(stored.body).status in NOT_WELL else None
