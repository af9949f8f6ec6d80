"""Admitting runs of workflows with limits, and steps with some of their own: which places they need, and taking them.

To admit a run needs no slot: where all slots run what a newer run is to replace, that one is admitted all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any, Literal

from jetflow.broker.session import Session
from jetflow.engine.admission import admit, come_through, has_places
from jetflow.engine.effects import Procedure
from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.limits import Place, places_of, stander
from jetflow.engine.rates import Rate
from jetflow.engine.tasks import Failure, Task
from jetflow.errors import MalformedRecord, PlaceHeld
from jetflow.runs import points
from jetflow.runs.performer import Performer
from jetflow.wire.limits import LimitNames, Needed
from jetflow.wire.records import decode_join
from jetflow.worker.assignment import Assignment
from jetflow.worker.inputs import Inputs
from jetflow.workflow import Workflow


class Admitting:
    """Admits runs for one worker."""

    def __init__(self, session: Session, performer: Performer) -> None:
        self._session = session
        self._gates = performer.gates
        self._run = performer.run
        self._inputs = Inputs(session)

    async def needed(self, work: Assignment) -> Needed:
        """Return what a run needs, and record it, so that all turns and versions of the code go by the same.

        Raises:
            LimitKeyFailed: the function of a key raises, or gives no str.
            RateUnitsFailed: the function of units raises, or gives no number of them.
            PlaceHeld: it would wait for a run above it.
            InvalidInput, LostValue: the input cannot be read.
        """
        task = work.task
        if task.turn or work.delivery.again:
            there = await self._gates.needed(task)
            if there is not None:
                return there
        workflow = work.workflow
        places, rates = ((), ()) if workflow is None else await self._asked(task, workflow)
        held = {(place.limit, place.key) for place in places_of(task.held)}
        for place in places:
            if (place.limit, place.key) in held:
                raise PlaceHeld(task.workflow, place.limit, place.shown)
        needed = Needed(
            places=tuple((place.limit, place.key, place.shown) for place in places),
            rates=tuple((rate.limit, rate.key, rate.shown, rate.units) for rate in rates),
            since=work.queued_at,
        )
        points.before("record_places")
        recorded = await self._gates.record(task, needed)
        points.after("record_places")
        return recorded

    async def _asked(self, task: Task, workflow: Workflow[Any, Any]) -> tuple[tuple[Place, ...], tuple[Rate, ...]]:
        """Return the places that a run needs, and what it needs of rate limits, by its newest code."""
        limits, rates = workflow.limits, workflow.rates
        value = None
        if any(limit.key for limit in (*limits, *rates)) or any(rate.units for rate in rates):
            body = task.input if task.value is None else await self._inputs.large(task.root, task.value)
            value = workflow.input.decode(body)
        return tuple(limit.place(value) for limit in limits), tuple(rate.rate(value) for rate in rates)

    async def booked(self, work: Assignment, needed: Needed) -> float | None:
        """Return the time that a run was given by its rate limits, if it was parked until then."""
        if not needed.rates or not work.task.turn:
            return None
        session = self._session
        turns = LimitNames(session.names).turns(work.task)
        stored = await session.store.leader_last(session.names.records_stream, turns)
        try:
            return None if stored is None else decode_join(stored.body).booked
        except MalformedRecord:
            return None

    # --- steps

    async def step_needed(self, work: Assignment) -> Needed | None:
        """Return what a step with limits of its own needs, and record it; None where this worker's code has none.

        Raises:
            LimitKeyFailed: the function of a key raises, or gives no str.
            PlaceHeld: it would wait for its own run, or for one above.
            InvalidInput, LostValue: the input cannot be read.
        """
        task, step = work.task, work.known_step
        if task.turn or work.delivery.again:
            there = await self._gates.needed(task, task.step)
            if there is not None:
                return there
        if not step.limits:
            return None
        value = None
        if any(limit.key for limit in step.limits):
            body = task.input if task.value is None else await self._inputs.large(task.root, task.value)
            value = step.input.decode(body)
        places = tuple(limit.place(value) for limit in step.limits)
        for written, own in ((task.places, True), (task.held, False)):
            held = {(place.limit, place.key) for place in places_of(written)}
            for place in places:
                if (place.limit, place.key) in held:
                    raise PlaceHeld(task.workflow, place.limit, place.shown, step=task.step, own=own)
        needed = tuple((place.limit, place.key, place.shown) for place in places)
        return await self.record_step(work, Needed(places=needed, since=work.queued_at))

    async def record_step(self, work: Assignment, needed: Needed) -> Needed:
        """Record what a step needs, unless something is recorded; return what is."""
        points.before("record_places")
        recorded = await self._gates.record(work.task, needed, work.task.step)
        points.after("record_places")
        return recorded

    async def step_admission(
        self, work: Assignment, needed: Needed
    ) -> JoinRecord | Failure | Literal["has all", "has gone"]:
        """Take the places that a step needs, as far as there are any: see `come_through`."""
        task, names = work.task, self._session.names
        places = tuple(Place(*one) for one in needed.places)
        if task.turn and has_places(await self._parked_before(task)):
            return "has all"
        allowed = work.known_step.schedule_timeout
        ends = (None if work.is_sequel else task.deadline, None if allowed is None else needed.since + allowed)
        until = min((end for end in ends if end is not None), default=None)
        rule = come_through(task, places, names.task_of(task), time(), until, tried=work.attempt - 1)
        with self._gates.entering(stander(task.run, task.step)):
            return await self._run(rule)

    async def _parked_before(self, task: Task) -> JoinRecord | None:
        """Return what the turn before was parked for."""
        names = self._session.names
        stored = await self._session.store.leader_last(names.records_stream, names.join(task.join, task.turn - 1))
        try:
            return None if stored is None else decode_join(stored.body)
        except MalformedRecord:
            return None

    # --- runs

    def _queued_until(self, work: Assignment, needed: Needed) -> float | None:
        allowed = None if work.workflow is None else work.workflow.schedule_timeout
        return None if allowed is None else needed.since + allowed

    async def admission(self, work: Assignment, needed: Needed) -> tuple[Any, ...]:
        """Return what `admitted` needs."""
        ends = [end for end in (work.task.deadline, self._queued_until(work, needed)) if end is not None]
        places = tuple(Place(*one) for one in needed.places)
        subject = self._session.names.task_of(work.task)
        rates = tuple(Rate(*one) for one in needed.rates)
        until, booked = min(ends, default=None), await self.booked(work, needed)
        return work.task, work.known_graph, places, subject, until, rates, booked

    def admitted(
        self,
        ended: Callable[[], None],
        task: Task,
        graph: Graph,
        places: tuple[Place, ...],
        subject: str,
        until: float | None,
        rates: tuple[Rate, ...],
        booked: float | None,
    ) -> Procedure:
        """Admit a run, or have it wait. Calls ``ended`` behind that."""
        try:
            with self._gates.entering(task.run):
                yield from admit(task, graph, places, subject, time(), until, rates=rates, booked=booked)
        finally:
            ended()
