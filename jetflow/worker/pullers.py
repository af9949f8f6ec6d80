"""The pullers of a worker's steps, each on the consumer of its step, which is made again when it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from jetflow.broker.puller import Puller
from jetflow.broker.session import Session
from jetflow.broker.topology import consumers_of, ensure_step_consumer
from jetflow.engine.labels import Label
from jetflow.engine.levels import parts_of, rank_of
from jetflow.errors import BrokerError
from jetflow.worker.fetching import Fetcher
from jetflow.workflow import Step, Workflow

_log = logging.getLogger("jetflow.worker")


class StepPullers:
    """Starts the pullers of all steps that a worker runs, each for the fetcher that ``fetcher_of`` tells for its step.

    A step that requires other ``labels`` than this worker has is left to others: it has a consumer, and no puller here.
    ``ack_wait`` is what this worker asks for, in seconds; what each consumer has is told to ``on_ack_wait``,
    and that one is gone to ``on_lost``.
    """

    def __init__(
        self,
        session: Session,
        workflows: Mapping[str, Workflow[Any, Any]],
        fetcher_of: Callable[[Step[..., Any, Any] | None, str], Fetcher],
        *,
        labels: Mapping[str, Label],
        ack_wait: float,
        on_ack_wait: Callable[[float], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._session = session
        self._workflows = workflows
        self._fetcher_of = fetcher_of
        self._labels = labels
        self._ack_wait = ack_wait
        self._on_ack_wait = on_ack_wait
        self._on_lost = on_lost
        self._repairs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the consumers there, and a started puller of each with its fetcher."""
        for workflow, step in await self._steps():
            await self._start(workflow, step)

    async def repaired(self) -> None:
        """Wait until the consumers that are being made again are."""
        await asyncio.gather(*self._repairs, return_exceptions=True)

    async def stop(self) -> None:
        """Make no more consumers. The pullers are the fetcher's to stop."""
        for repair in self._repairs:
            repair.cancel()
        await self.repaired()

    async def _steps(self) -> list[tuple[str, str]]:
        """Return the queues of this worker's workflows' steps, and those that an earlier version of them had."""
        steps = [(workflow.name, step) for workflow in self._workflows.values() for step in workflow.queues]
        for consumer in await consumers_of(self._session.connection, self._session.names.tasks_stream):
            workflow, _, step = consumer.partition("=")
            if workflow in self._workflows and (workflow, step) not in steps:
                steps.append((workflow, step))
        return steps

    async def _start(self, workflow: str, step: str) -> None:
        session = self._session
        name, level = parts_of(step)
        declared = self._workflows[workflow].find_step(name)
        fetcher = self._fetcher_of(declared, name)
        rank = rank_of(level, self._workflows[workflow].levels)

        async def ensure() -> None:
            consumer = await ensure_step_consumer(
                session.connection,
                session.names,
                workflow,
                step,
                ack_wait=self._ack_wait,
                max_running=None if declared is None else declared.max_running,
                is_declared=declared is not None,
            )
            puller.consumer_created = consumer.created
            self._on_ack_wait(consumer.ack_wait)

        async def repair() -> None:
            self._on_lost()
            try:
                await ensure()
            except BrokerError as error:  # the puller goes on asking, and asks for this again
                _log.warning("the consumer of step %r of %r could not be made again: %s", step, workflow, error)

        puller = Puller(
            session.connection,
            session.names.tasks_stream,
            session.names.consumer(workflow, step),
            fetcher.accept if rank == 0 else partial(fetcher.accept_ranked, rank),
            lambda: self._in_background(repair()),
        )
        await ensure()
        if declared is not None and declared.requires is not None and not declared.requires.fits(self._labels):
            _log.info("step %r of %r is left to others: it requires what this worker has not", step, workflow)
            return
        puller.rank = rank
        await puller.start()
        fetcher.pullers.append(puller)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)
