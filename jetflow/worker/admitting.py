"""Admitting runs of workflows with limits: which places they need, and taking them by the engine's rule.

It needs no slot: where all slots run what a newer run is to replace, that one is admitted all the same.
"""

from __future__ import annotations

from time import time
from typing import Any

from jetflow.broker.session import Session
from jetflow.engine.admission import admit
from jetflow.engine.effects import Procedure
from jetflow.engine.graph import Graph
from jetflow.engine.limits import Place, places_of
from jetflow.engine.rates import Rate
from jetflow.engine.tasks import Task
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
        task: Task,
        graph: Graph,
        places: tuple[Place, ...],
        subject: str,
        until: float | None,
        rates: tuple[Rate, ...],
        booked: float | None,
    ) -> Procedure:
        """Admit a run, or have it wait."""
        with self._gates.entering(task.run):
            yield from admit(task, graph, places, subject, time(), until, rates=rates, booked=booked)
