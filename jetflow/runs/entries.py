"""Reading who stands at gates. Every reading is of what the stream's leader has.

Where the stream has one replica whoever answers is its leader, and may be asked for much at once: for all entries of
many gates where those are few, for those of one by their names, and for the next hundred where they are many. Else the
leader tells them one by one. What is read may have left by then: so ranks are too high, never too low.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from time import monotonic
from typing import Final, TypeAlias

from jetflow.broker.session import Session
from jetflow.broker.store import PAGE, Stored
from jetflow.broker.together import Together
from jetflow.engine.limits import Place
from jetflow.wire.limits import LimitNames

GATES_AT_ONCE: Final = 50
"""Gates of which one reading tells who stands there."""

FEW: Final = 32
"""Who stands at a gate at most of which all are read in each look."""

AHEAD: Final = 250
"""Entries of a gate where many stand that are read at once."""

AT_ONCE: Final = 500
"""Entries that are asked for by their names in one reading."""

REPLICAS_KNOWN: Final = 10.0
"""Seconds for which is remembered how many replicas there are: somebody may add some."""

Standers: TypeAlias = dict[str, int]
"""Who stands at a gate: the subjects of entries, in their order, with their sequences."""


class Entries:
    """Reads the entries of gates."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._store = session.store
        self._names = LimitNames(session.names)
        self._gates = Together(self._read_gates, GATES_AT_ONCE)
        self._alone: dict[str, tuple[float, bool]] = {}

    def forget(self) -> None:
        """Find out anew how many replicas there are."""
        self._alone.clear()

    async def all_of(self, place: Place) -> Standers | None:
        """Return who stands at a gate; None where they are many, or have to be asked for one by one."""
        if not await self.is_alone(self._names.gates_stream):
            return None
        found = await self._gates.ask(self._names.entries(place.limit, place.key))
        return None if found is None else dict(found)

    async def _read_gates(self, filters: Sequence[str]) -> Mapping[str, Standers | None]:
        entries = await self._store.few_subjects(self._names.gates_stream, filters)
        if entries is None and len(filters) > 1:  # one of them may be crowded
            middle = len(filters) // 2
            halves = await asyncio.gather(self._read_gates(filters[:middle]), self._read_gates(filters[middle:]))
            return {**halves[0], **halves[1]}
        if entries is None:
            return dict.fromkeys(filters)
        gates: dict[str, Standers] = {_gate_of(one): {} for one in filters}
        for sequence, subject in entries:
            gates[_gate_of(subject)][subject] = sequence
        return {one: gates[_gate_of(one)] for one in filters}

    async def behind(self, place: Place, after: int, wanted: int) -> tuple[Standers, bool]:
        """Return who stands behind a sequence, ``wanted`` or more, and whether nobody else does.

        Who came last is asked first: to search behind him, and find nobody, costs the server fifty times as much.
        """
        entries, stream = self._names.entries(place.limit, place.key), self._names.gates_stream
        entries, stream = self._names.entries(place.limit, place.key), self._names.gates_stream
        last, found = await self._newest(entries), Standers()
        alone = await self.is_alone(stream)
        while last is not None and last.sequence > after and len(found) < wanted:
            if alone:
                size = min(max(AHEAD, wanted), PAGE)
                page, left = await self._store.next_subjects(stream, entries, after=after, size=size)
            else:
                one = await self._store.leader_next(stream, entries, after)
                page, left = ([], 0) if one is None else ([(one.sequence, one.subject)], 1)
            found.update((subject, sequence) for sequence, subject in page)
            if not page or not left:
                return found, True
            after, _ = page[-1]
        return found, last is None or last.sequence <= after

    async def still_there(self, known: Standers) -> Standers:
        """Return those of some that have not left."""
        subjects, stream = list(known), self._names.gates_stream
        if await self.is_alone(stream):
            chunks = [subjects[at : at + AT_ONCE] for at in range(0, len(subjects), AT_ONCE)]
            pages = await asyncio.gather(*(self._store.few_subjects(stream, chunk) for chunk in chunks))
            if None not in pages:
                there = {subject for page in pages for _, subject in page or ()}
                return {subject: sequence for subject, sequence in known.items() if subject in there}
        stored = await asyncio.gather(*(self._store.leader_last(stream, subject) for subject in subjects))
        there = {one.subject for one in stored if one is not None}
        return {subject: sequence for subject, sequence in known.items() if subject in there}

    async def last_of(self, stream: str, subject: str) -> Stored | None:
        """Read a message: where there is one replica any answer is the leader's, and a direct one is cheaper."""
        return await (self._store.last if await self.is_alone(stream) else self._store.leader_last)(stream, subject)

    async def _newest(self, entries: str) -> Stored | None:
        stream = self._names.gates_stream
        return await (self._store.newest if await self.is_alone(stream) else self._store.leader_last)(stream, entries)

    async def is_alone(self, stream: str) -> bool:
        """Tell whether a stream has one replica: then whoever answers is its leader."""
        asked, alone = self._alone.get(stream, (-inf, False))
        if monotonic() - asked > REPLICAS_KNOWN:
            info = await self._session.connection.api(f"STREAM.INFO.{stream}")
            alone = int(info["config"].get("num_replicas", 1)) == 1
            self._alone[stream] = monotonic(), alone
        return alone


def _gate_of(subject: str) -> str:
    """Return what the entries of one gate begin with, and their filter."""
    return subject.rsplit(".", 3)[0]
