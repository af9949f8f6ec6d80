"""The gates of limits as they are stored: entering, looking, waking and leaving, over one session.

A look goes by what an earlier one of this process has seen, and reads what stands behind. Where all of that has places,
no more is asked: entries that have left meanwhile would only make room. Else each that was seen before is asked for by
its own subject. So a look costs one small read while there are places, and as many more as runs may be admitted when
there are none, however many wait. Looks at a gate that are asked for while one is under way share the next one: never
that one, for what they have stored may come behind what it has read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, Final, TypeAlias

from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.effects import (
    ClearBelow,
    EndRuns,
    Enter,
    LookAtGate,
    ReadOver,
    ReadPlaces,
    RemoveEntry,
    StoreGone,
    WakeParked,
)
from jetflow.engine.gates import let_through
from jetflow.engine.graph import ADMIT
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import OF_STEP, LimitSettings, Place, Standing, places_of, stander, standing
from jetflow.engine.tasks import NONE, Failure, Task
from jetflow.errors import BrokerRefused, UnknownRun
from jetflow.runs.cancelling import cancel_run, clear_below
from jetflow.runs.leaving import leave_below, wake_parked
from jetflow.runs.marks import ALONE, REST, rest_but
from jetflow.wire.headers import Header
from jetflow.wire.limits import Entry, LimitNames, Needed, Stands, decode_needed, decode_settings
from jetflow.wire.records import encode, header_block

GATES_KEPT: Final = 10_000
"""Gates of which is remembered who stands there."""

REPLICAS_KNOWN: Final = 10.0
"""Seconds for which is remembered how many replicas there are: somebody may add some."""

PARKED_INPUT: Final = 2048
"""Bytes that the input of a run has at most which this process has parked, and remembers."""

FOR_ALL: Final = 100_000
"""Entries of a gate that are read where all of them count."""

_ALREADY_GONE: Final = frozenset({10043, 10057})

Drive: TypeAlias = Callable[[Generator[Any, Any, Any]], Awaitable[Any]]

_log = logging.getLogger("jetflow.worker")


class _Gate:
    """What this process knows of one gate: who stands there, as a look has seen it, and whom it has woken."""

    def __init__(self) -> None:
        self.known: list[tuple[int, str]] = []
        self.woken: set[str] = set()
        self.running: asyncio.Task[tuple[list[str], LimitSettings | None]] | None = None
        self.next: asyncio.Task[tuple[list[str], LimitSettings | None]] | None = None


class Gates:
    """Performs what the rules ask of gates. ``entering`` are those that this process is admitting (see `stander`)."""

    def __init__(self, session: Session, drive: Drive) -> None:
        self._session = session
        self._names = LimitNames(session.names)
        self._drive = drive
        self._gates: OrderedDict[Place, _Gate] = OrderedDict()
        self._entering: set[str] = set()
        self._parked: OrderedDict[str, tuple[Task, JoinRecord]] = OrderedDict()
        self._alone: dict[str, tuple[float, bool]] = {}
        self._asking: dict[str, asyncio.Task[LimitSettings | None]] = {}
        session.connection.on_reconnect(self._forget)  # a server that was away may have lost some

    def _forget(self) -> None:
        self._gates.clear()
        self._alone.clear()

    def performed(self) -> dict[type[Any], Callable[[Any], Any]]:
        """Return what performs each kind of effect."""
        return {
            Enter: self.enter,
            LookAtGate: self.look,
            EndRuns: self.end_runs,
            ReadOver: self.is_over,
            ReadPlaces: self.places,
            WakeParked: self.wake_parked,
            ClearBelow: self.clear_below,
            StoreGone: self.store_gone,
            RemoveEntry: self.remove_entry,
        }

    @contextmanager
    def entering(self, who: str) -> Generator[None]:
        """Spare others the waking of who is being admitted here, until it has looked and found no place."""
        self._entering.add(who)
        try:
            yield
        finally:
            self._entering.discard(who)

    # --- entering

    async def enter(self, effect: Enter) -> bool:
        """See `Enter`."""
        session, names, task = self._session, self._names, effect.task
        subject = names.entry(effect.place, task, effect.step)
        gone = names.gone(task.root, task.run, effect.step)
        headers = header_block({Header.EXPECTED_LAST: "0", Header.EXPECTED_LAST_OF: gone})
        body = encode(Entry(workflow=task.workflow, step=task.parent_step, key=effect.place.shown))
        gate = self._gates.get(Place(effect.place.limit, effect.place.key))
        if gate is not None and any(subject == known for _, known in gate.known):
            return True  # or it has left meanwhile: then the look that follows does not find it
        while True:
            if (await session.publisher.store(subject, body, headers)).stored:
                return True
            if await session.store.leader_last(names.gates_stream, gone) is not None:
                return False
            if await session.store.leader_last(names.gates_stream, subject) is not None:
                return True

    async def is_over(self, effect: ReadOver) -> bool:
        """See `ReadOver`."""
        names, store, task = self._session.names, self._session.store, effect.task
        runs = {run for run in (task.run, task.parent, task.root) if run != NONE}
        ended, *marks = await asyncio.gather(
            store.leader_last(names.records_stream, names.run_of_any_step(task)),
            *(self._last_of(names.tasks_stream, names.cancelled(task.root, run)) for run in runs),
        )
        of = dict(zip(runs, marks, strict=True))
        if ended is not None or of[task.run] is not None:
            return True
        return _covers(of.get(task.parent), task.parent_step) or _covers(of[task.root], None)

    # --- looking

    async def look(self, effect: LookAtGate) -> Standing:
        """See `LookAtGate`."""
        order, settings = await self._looked(effect.place)
        if settings is None:
            return Standing(admitted=False)
        found = standing(effect.run, order, settings.max_of(effect.place.key), settings.when_full)
        if found.admitted:  # it goes on by itself
            gate = self._gate(effect.place)
            gate.woken.update(subject for _, subject in gate.known if subject.endswith(effect.run))
        else:  # this may be its last look: whoever looks behind it has to wake it, also while it is not done here
            self._entering.discard(effect.run)
        return found

    async def look_at_all(self, limit: str) -> None:
        """Look at all gates of a limit at which anybody stands."""
        places = set[Place]()
        async for page in self._session.store.leader_subjects(self._names.gates_stream, self._names.entries(limit)):
            places.update(stands.place for one in page if (stands := self._names.parse_entry(one)) is not None)
        for place in sorted(places):
            await self._looked(place)

    async def first(self, place: Place, most: int) -> list[Stands]:
        """Return the runs that may begin, at most so many, as the leader has them: nothing is remembered or woken."""
        settings, found, after = await self.settings(place.limit), list[Stands](), 0
        wanted = min(most, 0 if settings is None else settings.max_of(place.key))
        while len(found) < wanted:
            stored = await self._session.store.leader_next(
                self._names.gates_stream, self._names.entries(place.limit, place.key), after
            )
            stands = None if stored is None else self._names.parse_entry(stored.subject)
            if stored is None or stands is None:
                break
            found.append(stands)
            after = stored.sequence
        return found

    async def _looked(self, place: Place) -> tuple[list[str], LimitSettings | None]:
        gate = self._gate(place)
        if gate.next is None:
            gate.next = asyncio.get_running_loop().create_task(self._look_behind(place, gate, gate.running))
        return await asyncio.shield(gate.next)

    def _gate(self, place: Place) -> _Gate:
        key = Place(place.limit, place.key)
        gate = self._gates.setdefault(key, _Gate())
        self._gates.move_to_end(key)
        if len(self._gates) > GATES_KEPT:
            oldest, kept = self._gates.popitem(last=False)
            if kept.next is not None or kept.running is not None:  # somebody looks at it just now
                self._gates[oldest] = kept
        return gate

    async def _look_behind(
        self, place: Place, gate: _Gate, before: asyncio.Task[Any] | None
    ) -> tuple[list[str], LimitSettings | None]:
        if before is not None:
            await asyncio.wait([before])
        gate.running, gate.next = gate.next, None
        try:
            return await self._look(place, gate)
        finally:
            if gate.running is asyncio.current_task():
                gate.running = None

    async def _look(self, place: Place, gate: _Gate) -> tuple[list[str], LimitSettings | None]:
        settings = await self._current(place.limit)
        if settings is None:
            _log.error("nobody has declared limit %r: runs wait at it until a worker does", place.limit)
            return [], None
        most = settings.max_of(place.key)
        wanted = most if settings.when_full == "queue" else FOR_ALL
        known = list(gate.known)
        after = known[-1][0] if known else 0
        is_all = await self._read_on(place, known, after, wanted)
        if known and (not is_all or len(known) > most):
            after = known[-1][0]
            known = await self._still_there(known)
            await self._read_on(place, known, after, wanted)
        gate.known = known
        await self._wake([subject for _, subject in known[:most]], place, gate)
        return [subject.rpartition(".")[2] for _, subject in known], settings

    async def _read_on(self, place: Place, known: list[tuple[int, str]], after: int, wanted: int) -> bool:
        """Read who stands behind those that are known, so many in all; tell whether nobody else stands there.

        Who came last is asked first: to search behind him, and find nobody, costs the server fifty times as much.
        """
        entries = self._names.entries(place.limit, place.key)
        last = await self._newest(entries) if len(known) < wanted else None
        while len(known) < wanted:
            if last is None or last.sequence <= after:
                return True
            found = await self._next(entries, after)
            if found is None:
                return True
            known.append((found.sequence, found.subject))
            after = found.sequence
        return False

    async def _still_there(self, known: list[tuple[int, str]]) -> list[tuple[int, str]]:
        stored = await asyncio.gather(*(self._last(subject) for _, subject in known))
        return [one for one, there in zip(known, stored, strict=True) if there is not None]

    async def _last(self, subject: str) -> Stored | None:
        return await self._last_of(self._names.gates_stream, subject)

    async def _last_of(self, stream: str, subject: str) -> Stored | None:
        """Read a message: where there is one replica any answer is the leader's, and a direct one is cheaper."""
        store = self._session.store
        return await (store.last if await self._is_alone(stream) else store.leader_last)(stream, subject)

    async def _newest(self, subject: str) -> Stored | None:
        stream, store = self._names.gates_stream, self._session.store
        return await (store.newest if await self._is_alone(stream) else store.leader_last)(stream, subject)

    async def _next(self, subject: str, after: int) -> Stored | None:
        stream, store = self._names.gates_stream, self._session.store
        if await self._is_alone(stream):
            return await store.first(stream, subject, after=after)
        return await store.leader_next(stream, subject, after)

    async def _is_alone(self, stream: str) -> bool:
        """Tell whether a stream has one replica: then whoever answers is its leader."""
        asked, alone = self._alone.get(stream, (-inf, False))
        if monotonic() - asked > REPLICAS_KNOWN:
            info = await self._session.connection.api(f"STREAM.INFO.{stream}")
            alone = int(info["config"].get("num_replicas", 1)) == 1
            self._alone[stream] = monotonic(), alone
        return alone

    async def settings(self, limit: str) -> LimitSettings | None:
        """Return what is stored of a limit."""
        stored = await self._last_of(self._names.limits_stream, self._names.settings(limit))
        return None if stored is None else decode_settings(stored.body)

    async def _current(self, limit: str) -> LimitSettings | None:
        """Return what is stored of a limit by now. Looks that ask before a reading has begun share it."""
        waiting = self._asking.get(limit)
        if waiting is None:
            waiting = self._asking[limit] = asyncio.get_running_loop().create_task(self._read_settings(limit))
        return await asyncio.shield(waiting)

    async def _read_settings(self, limit: str) -> LimitSettings | None:
        await asyncio.sleep(0)  # those that ask in the same pass of the loop
        del self._asking[limit]
        return await self.settings(limit)

    async def _wake(self, admitted: list[str], place: Place, gate: _Gate) -> None:
        """Wake the runs that may begin and are parked, unless this process has done so, or is admitting them."""
        gate.woken.intersection_update(admitted)
        asleep = [subject for subject in admitted if subject not in gate.woken]
        if asleep:
            gate.woken.update(await self._woken(asleep, place))

    async def _woken(self, subjects: list[str], place: Place) -> list[str]:
        """Wake runs, and return those that need not be woken any more."""
        found = [(one, stands) for one in subjects if (stands := self._names.parse_entry(one)) is not None]
        found = [(one, stands) for one, stands in found if stands.who not in self._entering]
        await asyncio.gather(*(self.wake(stands, place) for _, stands in found))
        return [one for one, _ in found]

    async def wake(self, stands: Stands, place: Place) -> bool:
        """Publish the next turn of a run, or a step, that is parked at a gate. Returns False where it is not."""
        gate = Place(place.limit, place.key).written
        task, record = self._parked.pop(stands.who, (None, None))
        if task is None or record is None or record.gate != gate:
            return await wake_parked(self._session, self._drive, stands.root, stands.run, gate, step=stands.step)
        graph = self._session.registry.cached_graph(task.workflow, task.version)
        await self._drive(let_through(task, record, graph))
        return True

    def note_parked(self, task: Task, record: JoinRecord) -> None:
        """Note that this process has parked a run, or a step, at a gate: to wake it then takes no reading."""
        if len(task.input) <= PARKED_INPUT:
            self._parked[stander(task.run, None if task.step == ADMIT else task.step)] = task, record
            if len(self._parked) > GATES_KEPT:
                self._parked.popitem(last=False)

    # --- making room

    async def end_runs(self, effect: EndRuns) -> None:
        """See `EndRuns`."""
        reason = Failure(
            "LimitReached", f"limit {effect.place.limit!r} has its places for other runs of this key: a newer one came"
        )
        for one in effect.runs:
            try:  # of a step that stands there by itself, its run
                await cancel_run(self._session, self._drive, one.partition(OF_STEP)[0], reason=reason)
            except UnknownRun:
                continue

    async def clear_below(self, effect: ClearBelow) -> None:
        """See `ClearBelow`."""
        names, task = self._session.names, effect.task
        mark = await self._session.store.leader_last(names.tasks_stream, names.cancelled(task.root, task.run))
        if mark is not None and (mark.body == ALONE or mark.body.startswith(REST)):
            return
        if task.parent == NONE:  # the mark of a root run says it of all below it
            await leave_below(self._session, self._drive, task.root)
        else:
            await clear_below(self._session, self._drive, task.root, [task.run])

    # --- leaving

    async def wake_parked(self, effect: WakeParked) -> None:
        """See `WakeParked`."""
        await wake_parked(self._session, self._drive, effect.task.root, effect.task.run, step=effect.step)

    async def places(self, effect: ReadPlaces) -> tuple[Place, ...]:
        """See `ReadPlaces`."""
        if effect.step is None and effect.task.places is not None:
            return places_of(effect.task.places)
        needed = await self.needed(effect.task, effect.step)
        return () if needed is None else tuple(Place(*one) for one in needed.places)

    async def needed(self, task: Task, step: str | None = None) -> Needed | None:
        """Return what is recorded of the places that a run, or a step of it, needs."""
        subject = self._names.needed(task, step)
        stored = await self._session.store.leader_last(self._session.names.records_stream, subject)
        return None if stored is None else decode_needed(stored.body)

    async def record(self, task: Task, needed: Needed, step: str | None = None) -> Needed:
        """Record which places a run, or a step of it, needs, write-once; return what is recorded."""
        item = Item(self._names.needed(task, step), b"", encode(needed))
        while not (await self._session.records.store(item)).stored:
            there = await self.needed(task, step)
            if there is not None:
                return there
        return needed

    async def store_gone(self, effect: StoreGone) -> None:
        """See `StoreGone`."""
        subject = self._names.gone(effect.task.root, effect.task.run, effect.step)
        while not (await self._session.publisher.store(subject, b"")).stored:
            if await self._session.store.leader_last(self._names.gates_stream, subject) is not None:
                return

    async def remove_entry(self, effect: RemoveEntry) -> None:
        """See `RemoveEntry`."""
        subject = self._names.entry(effect.place, effect.task, effect.step)
        gate = self._gates.get(Place(effect.place.limit, effect.place.key))
        sequence = None if gate is None else next((number for number, one in gate.known if one == subject), None)
        await self._remove(subject, sequence)
        if gate is not None and sequence is not None:
            gate.known = [one for one in gate.known if one[1] != subject]

    async def _remove(self, subject: str, sequence: int | None) -> None:
        if sequence is not None:  # one message by its sequence is cheaper than a filter
            try:
                await self._session.connection.api(
                    f"STREAM.MSG.DELETE.{self._names.gates_stream}", {"seq": sequence, "no_erase": True}
                )
            except BrokerRefused as error:
                if error.err_code not in _ALREADY_GONE:
                    raise
            return
        await self._session.connection.api(f"STREAM.PURGE.{self._names.gates_stream}", {"filter": subject})


def _covers(mark: Stored | None, step: str | None) -> bool:
    """Tell whether the mark of a parent or a root says that what the ``step`` has spawned is cancelled."""
    if mark is None or mark.body == ALONE:
        return False
    return not mark.body.startswith(REST) or (step is not None and mark.body != rest_but(step))
