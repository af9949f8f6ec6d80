"""Starting root runs by a key that stands for one for a while. The rule is in `jetflow.engine.holding`."""

from __future__ import annotations

import asyncio
from time import time
from typing import Final

import msgspec
from uuid_utils import uuid7

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.holding import Found, Hold, Holder, verdict
from jetflow.engine.identity import cut_hash
from jetflow.engine.tasks import Task
from jetflow.errors import KeyConflict, RecentlyDeleted
from jetflow.runs import points
from jetflow.runs.marks import was_deleted
from jetflow.runs.targets import start_root
from jetflow.wire.headers import Header
from jetflow.wire.records import encode, header_block

KEPT: Final = 30 * 86400
"""Seconds for which it is kept which run a key stands for: no run lasts for longer."""

_read = msgspec.json.Decoder(Holder).decode


async def start_held(
    session: Session, task: Task, key: str, hold: Hold, *, candidate: str | None = None, timeout: float | None
) -> tuple[str, bool]:
    """Start a root run, unless its key stands for another one. Returns the run it stands for, and whether that is new.

    The new run is ``candidate``, if one is given, which is the same however often it is asked for.

    Raises:
        PayloadTooLarge: the input is larger than the server accepts.
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    names, store = session.names, session.store
    subject = names.holder_of_key(task.workflow, cut_hash(key.encode("utf-8", "surrogatepass")).hex())
    while True:
        stored = await store.leader_last(names.timers_stream, subject)
        holder = _holder(stored)
        what = verdict(hold, holder, await _found(session, holder), now=time())
        if holder is not None and what == "there":
            return holder.run, False
        if holder is not None and what == "start":
            try:
                return holder.run, await _start(session, task, holder.run, timeout=timeout)
            except KeyConflict:  # it was started meanwhile, with another input
                return holder.run, False
            except RecentlyDeleted:
                continue
        run = candidate or uuid7().hex
        if await _claim(session, subject, Holder(run, time()), stored, timeout=timeout):
            try:
                return run, await _start(session, task, run, timeout=timeout)
            except KeyConflict:  # whoever found the claim has started it, with another input
                return run, False


def _holder(stored: Stored | None) -> Holder | None:
    try:
        return None if stored is None else _read(stored.body)
    except msgspec.DecodeError:
        return None  # nobody stands for what cannot be read


async def _found(session: Session, holder: Holder | None) -> Found:
    if holder is None:
        return "absent"
    names, store = session.names, session.store
    outcome, task = await asyncio.gather(
        store.leader_last(names.records_stream, names.run(holder.run, "-", "-", holder.run)),
        store.leader_last(names.tasks_stream, names.tasks_of_run(holder.run, holder.run)),
    )
    if outcome is not None:
        return "ended"
    if task is not None:
        return "open"
    return "deleted" if await was_deleted(session, holder.run) else "absent"


async def _claim(
    session: Session, subject: str, holder: Holder, before: Stored | None, *, timeout: float | None
) -> bool:
    """Have a key stand for a run, if what it stood for is as it was read."""
    expected = "0" if before is None else str(before.sequence)
    headers = header_block({Header.EXPECTED_LAST: expected, Header.TTL: f"{KEPT}s", Header.ROLLUP: "sub"})
    points.before("claim_key")
    receipt = await session.publisher.store(subject, encode(holder), headers, timeout=timeout)
    points.after("claim_key")
    return receipt.stored


async def _start(session: Session, task: Task, run: str, *, timeout: float | None) -> bool:
    points.before("start_held")
    created = await start_root(session, msgspec.structs.replace(task, run=run, root=run), timeout=timeout)
    points.after("start_held")
    return created
