"""What one running step waits for: each of its waits takes the earliest event that fits, once and in order.

What is recorded of a wait stands; else the broker's leader is asked, and what it has is recorded write-once. Two waits
for the same events, of one body at once, go one after the other, for the second looks behind what the first has taken.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from contextlib import AsyncExitStack
from time import time
from typing import Protocol

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.awaiting import Awaited, Group, Taken, WaitNames, earliest
from jetflow.engine.tasks import Task
from jetflow.runs import points
from jetflow.runs.ages import check_sleep
from jetflow.runs.awaiting import Awaiting
from jetflow.runs.tasks import triggered_at
from jetflow.wire.records import encode
from jetflow.worker.waiting import Waiting

AFORE: float = 1.0
"""Seconds before its run that an event may be stored and count: the clocks of servers differ, and none may be lost."""


class Recording(Protocol):
    """What is needed of the execution of a step. ``clean`` says that nothing of it is recorded but by itself."""

    waiting: Waiting
    clean: bool

    async def recorded(self, name: str) -> bytes | None:
        """The value that is recorded once, if it is."""
        ...

    async def record(self, name: str, body: bytes) -> bytes | None:
        """Record a value once, and return the one that is recorded."""
        ...

    async def reached(self, name: str, end: Callable[[float], float]) -> float:
        """When a wait ends, fixed when it is first reached."""
        ...


_read = msgspec.json.Decoder(Taken).decode


class Expectations:
    """The waits for events of one execution of one step."""

    def __init__(self, session: Session, task: Task, step: Recording, awaiting: Awaiting) -> None:
        self._session = session
        self._task = task
        self._step = step
        self._awaiting = awaiting
        self._names = WaitNames()
        self._reached = set[str]()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._began: float | None = None

    async def all(self, groups: Sequence[Group], *, alone: bool) -> list[Taken]:
        """Wait until each group has come to something, and return what."""
        names = [self._names.name(group) for group in groups]
        async with AsyncExitStack() as stack:
            for same in sorted({event.same for group in groups for event in group.events}):
                await stack.enter_async_context(self._turns[same])
            return await self._all(groups, names, alone=alone)

    async def _all(self, groups: Sequence[Group], names: Sequence[str], *, alone: bool) -> list[Taken]:
        taken: dict[int, Taken] = {}
        ends: dict[int, float] = {}
        for number, (group, name) in enumerate(zip(groups, names, strict=True)):
            if self._step.clean and name not in self._reached:
                self._reached.add(name)
                continue
            with self._step.waiting.arriving():
                stored = await self._step.recorded(name)
            if stored is not None:
                self._take(taken, number, group, stored)
        for number, group in enumerate(groups):
            if number not in taken and group.has_end:
                with self._step.waiting.arriving():
                    ends[number] = until = await self._step.reached(f"{names[number]}-until", group.end)
                    if until - time() > self._step.waiting.park_after:
                        await check_sleep(self._session, self._task, until)
        while len(taken) < len(groups):
            with self._step.waiting.arriving():
                await self._look(groups, names, taken, ends)
            left = [number for number in range(len(groups)) if number not in taken]
            if left:
                events = [event for number in left for event in await self._behind(groups[number])]
                until = min((ends[number] for number in left if number in ends), default=None)
                await self._step.waiting.expect(tuple(events), until, alone=alone)
        return [taken[number] for number in range(len(groups))]

    def _take(self, taken: dict[int, Taken], number: int, group: Group, stored: bytes) -> None:
        taken[number] = _read(stored)
        self._names.took(group, taken[number])

    async def _look(
        self, groups: Sequence[Group], names: Sequence[str], taken: dict[int, Taken], ends: dict[int, float]
    ) -> None:
        """Record what groups have come to, in their order.

        An event that an earlier group has just looked for in vain is left to it: it may have come since.
        """
        left_to_earlier = set[str]()
        for number, group in enumerate(groups):
            if number in taken:
                continue
            is_over = number in ends and time() >= ends[number]  # before it looks: what came in time is found
            found = await self._found(group, left_to_earlier)
            if found is None and not is_over:
                left_to_earlier.update(event.same for event in group.events)
                continue
            points.before("take_event")
            stored = await self._step.record(names[number], encode(found or Taken()))
            points.after("take_event")
            assert stored is not None, "what was recorded is there"
            self._take(taken, number, group, stored)

    async def _found(self, group: Group, left_to_earlier: Set[str]) -> Taken | None:
        """Return the earliest event that ends a group, if one is stored."""
        events = [(n, one) for n, one in enumerate(await self._behind(group)) if one.same not in left_to_earlier]
        stored = await asyncio.gather(*(self._awaiting.earliest(event) for _, event in events))
        found = {n: one for (n, _), one in zip(events, stored, strict=True) if one is not None}
        which = earliest([(n, event.sequence) for n, (event, _) in found.items()])
        if which is None:
            return None
        event, body = found[which]
        return Taken(
            which=which, sequence=event.sequence, id=event.id, key=event.key, payload=msgspec.Raw(body), at=event.at
        )

    async def _behind(self, group: Group) -> list[Awaited]:
        """Return the events of a group, with where each begins to count."""
        events: list[Awaited] = []
        for event, lookback in zip(group.events, group.lookbacks, strict=True):
            after = self._names.behind(event)
            if not after and event.key != self._task.run:  # what is sent to the run itself is of no other
                since = await self._run_began() - max(AFORE, lookback or 0.0)
                events.append(msgspec.structs.replace(event, since=since))
            else:
                events.append(msgspec.structs.replace(event, after=after))
        return events

    async def _run_began(self) -> float:
        """Return when the first task of the run was stored. By its own subject: a filter would be searched for."""
        if self._began is None:
            names, task, store = self._session.names, self._task, self._session.store
            graph = await self._session.registry.graph(task.workflow, task.version)
            if graph is None:
                first = await store.leader_next(names.tasks_stream, names.tasks_of_run(task.root, task.run), after=0)
            else:
                subject = names.task(task.workflow, graph.first, task.root, task.parent, task.run, 0)
                first = await store.leader_last(names.tasks_stream, subject)
            self._began = time() if first is None else triggered_at(first)
        return self._began
