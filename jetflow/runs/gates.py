"""The gates of limits as they are stored: entering, looking, waking and leaving, over one session.

A look at a gate where few stand reads all of them, together with what other looks read in the same pass of the event
loop. Where many stand it goes by what an earlier one of this process has seen, and reads who stands behind, some ahead.
Where all have places, no more is asked: entries that have left meanwhile would only make room. Else as many as may be
admitted are asked for by their own names. So what a look costs does not grow with those who wait. Looks at a gate that
are asked for while one is under way share the next one: never that one, for what they have stored may come behind what
it has read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.broker.together import Together
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
from jetflow.runs.entries import FEW, Entries, Standers
from jetflow.runs.leaving import leave_below, wake_parked
from jetflow.runs.marks import ALONE, REST
from jetflow.runs.over import Over
from jetflow.wire.headers import Header
from jetflow.wire.limits import Entry, LimitNames, Needed, Stands, decode_needed, decode_settings
from jetflow.wire.records import encode, header_block

GATES_KEPT: Final = 10_000
"""Gates of which is remembered who stands there."""

LIMITS_AT_ONCE: Final = 50
"""Limits of which what is stored is read together."""

PARKED_INPUT: Final = 2048
"""Bytes that the input of a run has at most which this process has parked, and remembers."""

FOR_ALL: Final = 100_000
"""Entries of a gate that are read where all of them count."""

SPARE: Final = 4
"""Entries that are asked for besides those that may be admitted: some of them may have left."""

_ALREADY_GONE: Final = frozenset({10043, 10057})

Drive: TypeAlias = Callable[[Generator[Any, Any, Any]], Awaitable[Any]]

_log = logging.getLogger("jetflow.worker")


class _Seen(NamedTuple):
    """What a look has seen: the subjects of entries, who they are of (`stander`), and what is stored of the limit."""

    subjects: list[str]
    order: list[str]
    settings: LimitSettings | None


class _Gate:
    """What this process knows of one gate: who stands there, as a look has seen it, and whom it has woken."""

    def __init__(self) -> None:
        self.known: Standers = {}
        self.is_crowded: bool = False
        self.woken: set[str] = set()
        self.running: asyncio.Task[_Seen] | None = None
        self.next: asyncio.Task[_Seen] | None = None


class Gates:
    """Performs what the rules ask of gates. ``entering`` are those that this process is admitting (see `stander`)."""

    def __init__(self, session: Session, drive: Drive) -> None:
        self._session = session
        self._names = LimitNames(session.names)
        self._drive = drive
        self._gates: OrderedDict[Place, _Gate] = OrderedDict()
        self._entering: set[str] = set()
        self._parked: OrderedDict[str, tuple[Task, JoinRecord]] = OrderedDict()
        self._entries = Entries(session)
        self._over = Over(session, self._entries)
        self._settings = Together(self._settings_of, LIMITS_AT_ONCE)
        session.connection.on_reconnect(self._forget)  # a server that was away may have lost some

    def _forget(self) -> None:
        self._gates.clear()
        self._entries.forget()

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
        if gate is not None and subject in gate.known:
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
        return await self._over.is_over(effect.task)

    # --- looking

    async def look(self, effect: LookAtGate) -> Standing:
        """See `LookAtGate`."""
        seen = await self._looked(effect.place)
        if seen.settings is None:
            return Standing(admitted=False)
        most = seen.settings.max_of(effect.place.key)
        found = standing(effect.run, seen.order, most, seen.settings.when_full)
        if found.admitted:  # it goes on by itself
            self._gate(effect.place).woken.add(seen.subjects[found.before])
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

    async def _looked(self, place: Place) -> _Seen:
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

    async def _look_behind(self, place: Place, gate: _Gate, before: asyncio.Task[Any] | None) -> _Seen:
        if before is not None:
            await asyncio.wait([before])
        gate.running, gate.next = gate.next, None
        try:
            return await self._look(place, gate)
        finally:
            if gate.running is asyncio.current_task():
                gate.running = None

    async def _look(self, place: Place, gate: _Gate) -> _Seen:
        reading = self._settings.ask(place.limit)
        known = None if gate.is_crowded else await self._entries.all_of(place)
        settings = await asyncio.shield(reading)
        if settings is None:
            _log.error("nobody has declared limit %r: runs wait at it until a worker does", place.limit)
            return _Seen([], [], None)
        most, is_all = settings.max_of(place.key), known is not None
        if known is None:
            wanted = most if settings.when_full == "queue" else FOR_ALL
            known, is_all = await self._first(place, gate.known, most, wanted)
        gate.known, gate.is_crowded = known, not is_all or len(known) > FEW
        subjects = list(known)
        await self._wake(subjects[:most], place, gate)
        return _Seen(subjects, [subject.rpartition(".")[2] for subject in subjects], settings)

    async def _first(self, place: Place, seen: Standers, most: int, wanted: int) -> tuple[Standers, bool]:
        """Return who stands first at a gate, so many, by what was seen of it, and whether nobody else does.

        Behind them stand those that are known besides, of whom some may have left.
        """
        known, is_all = dict(seen), False
        if len(known) < wanted:
            found, is_all = await self._entries.behind(place, _newest(known), wanted - len(known))
            known |= found
        if is_all and len(known) <= most:
            return known, True
        there, rest = Standers(), list(known.items())
        while len(there) < wanted and rest:
            count = wanted - len(there) + SPARE
            there |= await self._entries.still_there(dict(rest[:count]))
            rest = rest[count:]
        if len(there) < wanted and not is_all:
            found, is_all = await self._entries.behind(place, _newest(known), wanted - len(there))
            there |= found
        return there | dict(rest), is_all

    async def settings(self, limit: str) -> LimitSettings | None:
        """Return what is stored of a limit."""
        stored = await self._entries.last_of(self._names.limits_stream, self._names.settings(limit))
        return None if stored is None else decode_settings(stored.body)

    async def _settings_of(self, limits: Sequence[str]) -> Mapping[str, LimitSettings | None]:
        return dict(zip(limits, await asyncio.gather(*map(self.settings, limits)), strict=True))

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
        await self._remove(subject, None if gate is None else gate.known.get(subject))
        if gate is not None:
            gate.known.pop(subject, None)

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


def _newest(known: Standers) -> int:
    """Return the sequence of who came last."""
    return next(reversed(known.values()), 0)
