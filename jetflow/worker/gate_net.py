"""The net under the gates of limits: entries of runs that have ended or are cancelled, and runs that were not woken.

By the rules nothing falls into it, but what those leave behind that die while they cancel runs above others at gates.
What it finds is looked at again in the next sweep, for whoever is at it may only be slow; what it has to do then is
counted, and should be 0.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.gates import leave, leave_step, send_away
from jetflow.engine.graph import ADMIT
from jetflow.engine.limits import Place
from jetflow.engine.tasks import NONE, StepAddress
from jetflow.errors import MalformedRecord
from jetflow.runs.leaving import skeleton
from jetflow.runs.performer import Performer
from jetflow.wire.limits import LimitNames, Stands, decode_entry
from jetflow.wire.records import decode_join
from jetflow.worker.cancellation import Cancellations
from jetflow.worker.counts import Counts

ENTRIES_A_SWEEP: Final = 2000
"""Entries that one sweep looks at; the next one goes on behind them."""

GATES_A_SWEEP: Final = 100
"""Gates of those, drawn by chance, of which one sweep looks whom nobody has woken."""

FIRST: Final = 100
"""Runs of a gate that it looks at, at most."""

YOUNG: Final = 5.0
"""Seconds for which an entry is left alone."""

_log = logging.getLogger("jetflow.worker")


class GateNet:
    """Looks at the entries of all gates, some in each sweep."""

    def __init__(self, session: Session, performer: Performer, cancellations: Cancellations, counts: Counts) -> None:
        self._session = session
        self._names = LimitNames(session.names)
        self._performer = performer
        self._cancellations = cancellations
        self._counts = counts
        self._behind = 0
        self._over = set[str]()
        self._asleep = set[tuple[str, Place]]()

    async def look(self) -> int:
        """Look at some entries, and return how many runs had to leave or to be woken.

        Raises:
            BrokerError: the broker could not be asked, or takes nothing.
        """
        if not await self._session.optional.is_there(self._names.gates_stream):
            return 0
        entries = await self._some()
        stands = {one.subject: there for one in entries if (there := self._stands(one)) is not None}
        ended = await self._those_that_ended(entries)
        over = {one for one, there in stands.items() if one in ended or self._is_cancelled(there)}
        leaving, self._over = over & self._over, over - self._over
        for subject in leaving:
            await self._leave(stands[subject], ended=subject in ended)
        places = sorted({there.place for there in stands.values()})
        forgotten = dict[tuple[str, Place], Stands]()
        for place in random.sample(places, min(len(places), GATES_A_SWEEP)):
            async for there in self._forgotten(place):
                forgotten[there.run, place] = there
        waking, self._asleep = forgotten.keys() & self._asleep, forgotten.keys() - self._asleep
        for one in waking:
            await self._wake(forgotten[one])
        return len(leaving) + len(waking)

    def _stands(self, stored: Stored) -> Stands | None:
        return None if time() - stored.time < YOUNG else self._names.parse_entry(stored.subject)

    def _is_cancelled(self, stands: Stands) -> bool:
        if stands.parent == NONE:
            return False  # it has an outcome, or will have one
        return any(self._cancellations.knows(stands.root, run) for run in (stands.run, stands.parent))

    async def _some(self) -> list[Stored]:
        page, left = await self._session.store.page(
            self._names.gates_stream, self._names.entries(), after=self._behind, size=ENTRIES_A_SWEEP
        )
        self._behind = page[-1].sequence if page and left else 0
        return page

    async def _those_that_ended(self, entries: list[Stored]) -> set[str]:
        names = self._session.names
        outcomes = dict[str, list[str]]()
        for stored in entries:
            if (stands := self._names.parse_entry(stored.subject)) is not None:
                step = decode_entry(stored.body).step
                subject = names.run(stands.root, stands.parent, step, stands.run)
                outcomes.setdefault(subject, []).append(stored.subject)
                if stands.step is not None:
                    ended_by_itself = names.step(StepAddress(stands.root, stands.run, stands.step))
                    outcomes.setdefault(ended_by_itself, []).append(stored.subject)
        ended = set[str]()
        async for page in self._session.store.many(names.records_stream, list(outcomes)):
            ended.update(entry for one in page for entry in outcomes[one.subject])
        return ended

    async def _leave(self, stands: Stands, *, ended: bool) -> None:
        task = skeleton(stands.root, stands.parent, stands.run, stands.place.written)
        if not ended:
            rule = send_away(task, stands.step)  # who is cancelled, and is parked there, has no outcome
        else:
            rule = leave(task) if stands.step is None else leave_step(task, stands.step)
        await self._performer.run(rule)
        self._counts.swept += 1
        state = "has ended" if ended else "is cancelled"
        _log.warning("run %s %s, and is taken from limit %r", stands.run, state, stands.place.limit)

    async def _wake(self, stands: Stands) -> None:
        await self._performer.gates.wake(stands, stands.place)
        self._counts.swept += 1
        _log.warning("run %s may begin by limit %r, and was not woken", stands.run, stands.place.limit)

    async def _forgotten(self, place: Place) -> AsyncIterator[Stands]:
        """Find the runs that are parked among the first of a gate, and have no next turn."""
        names, store = self._session.names, self._session.store
        for stands in await self._performer.gates.first(place, FIRST):
            join = StepAddress(stands.root, stands.run, stands.step or ADMIT)
            stored = await store.leader_last(names.records_stream, names.joins_of_step(join))
            try:
                record = None if stored is None else decode_join(stored.body)
            except MalformedRecord:
                record = None
            if record is not None and record.gate == place.written and not await self._goes_on(stands, record.task):
                yield stands

    async def _goes_on(self, stands: Stands, parked: str) -> bool:
        """Tell whether a parked run has another task than the one that was parked: its next turn, or a first step."""
        names = self._session.names
        if stands.step is not None:  # other steps of the run go on beside it
            before, _, turn = parked.rpartition(".")
            following = f"{before}.{int(turn) + 1}"
            return await self._session.store.leader_last(names.tasks_stream, following) is not None
        newest = await self._session.store.leader_last(names.tasks_stream, names.tasks_of_run(stands.root, stands.run))
        return newest is None or newest.subject != parked
