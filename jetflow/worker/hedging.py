"""Looking out, beside a join, for children that run far longer than their siblings did: they get twins.

It is one more wait of the step: until enough children have ended, then until one of the others may be late. So a step
that is parked goes on at these times, asks, and is parked again. Nothing of it is stored but the twins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from time import time
from typing import Final

from jetflow.broker.session import Session
from jetflow.broker.survey import survey
from jetflow.children import ChildGroup
from jetflow.engine.hedging import Hedge, Straggler, next_look, seconds_of
from jetflow.engine.joins import split_ids
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError, NothingToHedge
from jetflow.runs import points
from jetflow.wire.filters import Filters
from jetflow.wire.hedging import MOST_RUNS, Late, decode_stragglers
from jetflow.wire.records import decode_outcome, encode
from jetflow.worker.waiting import Waiting

ANSWER_WITHIN: Final = 1.0
"""Seconds in which a worker answers, and has stored the twins."""

SAMPLE: Final = 1000
"""Children whose times are compared, of those that have ended."""

_log = logging.getLogger("jetflow.worker")


@asynccontextmanager
async def hedged(
    session: Session, task: Task, waiting: Waiting, groups: Sequence[ChildGroup], hedge: Hedge
) -> AsyncGenerator[None]:
    """Look out for stragglers while a step waits for its children.

    Raises:
        NothingToHedge: a workflow of the children ends by no step that is declared idempotent, or has limits.
    """
    with waiting.arriving():
        for workflow in dict.fromkeys(group.workflow for group in groups):
            await _check(session, workflow)
    looking = asyncio.get_running_loop().create_task(_Hedging(session, task, waiting, groups, hedge).look_out())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _check(session: Session, workflow: str) -> None:
    declaration = await session.registry.find(workflow)
    graph = declaration.graph
    if len(graph.sinks) != 1 or not (last := declaration.steps.get(graph.sinks[0])) or not last.idempotent:
        raise NothingToHedge(workflow, "it does not end by one step that is declared idempotent=True")
    if declaration.limits or declaration.rates or graph.limited:
        raise NothingToHedge(workflow, "it has limits, and a twin would be one more than they allow")


class _Hedging:
    def __init__(
        self, session: Session, task: Task, waiting: Waiting, groups: Sequence[ChildGroup], hedge: Hedge
    ) -> None:
        self._session = session
        self._task = task
        self._waiting = waiting
        self._workflow_of = {child: group.workflow for group in groups for child in split_ids(bytes(group.ids))}
        self._hedge = hedge

    async def look_out(self) -> None:
        """Have twins made for as long as there may be stragglers. What the broker cannot do leaves them as they are."""
        total = len(self._workflow_of)
        enough = self._hedge.enough(total)
        if enough >= total:
            return
        await self._waiting.some(set(self._workflow_of), enough)
        pause: float | None = 0.0
        while pause is not None:
            if pause:
                await self._waiting.sleep(time() + pause, alone=False)
            with self._waiting.arriving():  # the step is not parked without its next look
                try:
                    pause = await self._look(total)
                except BrokerError as error:
                    _log.warning("run %s: no twins are made of its stragglers: %s", self._task.run, error)
                    return

    async def _look(self, total: int) -> float | None:
        """Ask who runs what has not ended, and return after how many seconds to ask again; None if never."""
        ended = self._waiting.ended_of(self._workflow_of)
        sample = [decode_outcome(body) for body in islice(filter(None, ended.values()), SAMPLE)]
        late_after = self._hedge.late_after(seconds_of(sample), total, len(ended))
        late = [child for child in self._workflow_of if child not in ended][:MOST_RUNS]
        told = await self._ask(late, late_after)
        for one in told:
            if one.never:
                _log.info("run %s gets no twin: %s", one.run, one.never)
        waited = time() - max((one.ended for one in sample), default=time())
        return next_look(told, len(late), late_after, waited)

    async def _ask(self, late: Iterable[bytes], late_after: float) -> list[Straggler]:
        by_workflow: dict[str, list[str]] = {}
        for child in late:
            by_workflow.setdefault(self._workflow_of[child], []).append(child.hex())
        filters = Filters(self._session.names)
        points.before("ask_late")
        answers = await asyncio.gather(
            *(
                survey(
                    self._session.connection,
                    filters.ask_late(workflow),
                    encode(Late(runs=tuple(runs), late_after=late_after)),
                    within=ANSWER_WITHIN,
                )
                for workflow, runs in by_workflow.items()
            )
        )
        points.after("ask_late")
        told = (one for some in answers for answer in some for one in decode_stragglers(answer))
        return list({one.run: one for one in told}.values())
