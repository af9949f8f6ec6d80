"""For how long a namespace keeps what is stored of a run: as its streams are, and not as they would be made."""

from __future__ import annotations

import asyncio
from time import time

from jetflow.broker.session import Session
from jetflow.broker.times import SECOND
from jetflow.engine.sleeping import check_kept, needs_root
from jetflow.engine.tasks import NONE, Task
from jetflow.runs.tasks import triggered_at


async def check_sleep(session: Session, task: Task, until: float) -> None:
    """Refuse a sleep that ends when what is stored of its run is there no more.

    Raises:
        SleepTooLong: it is one.
        BrokerError: the broker could not be asked.
    """
    kept = await kept_for(session)
    now = began = time()
    if needs_root(until, now=now, kept=kept):
        names = session.names
        first = names.task("*", "*", task.root, NONE, task.root)
        stored = await session.store.leader_last(names.tasks_stream, first)
        began = now if stored is None else min(now, triggered_at(stored))
    check_kept(until, now=now, began=began, kept=kept)


async def kept_for(session: Session) -> float | None:
    """Return for how many seconds tasks and records are kept; None for ever. It is asked once a session."""
    if session.kept is None:
        names, api = session.names, session.connection.api
        streams = (names.tasks_stream, names.records_stream)
        infos = await asyncio.gather(*(api(f"STREAM.INFO.{stream}") for stream in streams))
        ages = [info["config"].get("max_age", 0) / SECOND for info in infos]
        session.kept = min((age for age in ages if age > 0), default=0.0)
    return session.kept or None
