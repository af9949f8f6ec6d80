"""One execution of one step: what its context asks for, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from jetflow.broker.session import Session
from jetflow.context import ChildGroup
from jetflow.engine.joins import Borrowed, JoinRecord, id_sum, split_ids
from jetflow.engine.tasks import NULL, Outcome, StepAddress, Task
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import last_token
from jetflow.worker.slots import Slots
from jetflow.worker.spawning import Spawner
from jetflow.worker.waiting import Crowd, Waiting
from jetflow.workflow import Workflow


class Execution:
    """One attempt of one turn of one step; the host of its context.

    ``clean`` says that nothing of this step can have been stored before: the first delivery of the first turn.
    """

    def __init__(
        self,
        session: Session,
        task: Task,
        *,
        attempt: int,
        delivery: int,
        slots: Slots,
        crowd: Crowd,
        max_depth: int,
        cold: bool,
        outputs: Mapping[str, Outcome],
    ) -> None:
        self._session = session
        self._task = task
        self._delivery = delivery
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self.attempt = attempt
        self.clean: bool = task.turn == 0 and delivery == 1
        self.spawner: Spawner = Spawner(session, task, max_depth=max_depth)
        self.waiting: Waiting = Waiting(session, task, slots, crowd, self.spawner.owner_of, cold=cold)

    # --- the host of the context

    @property
    def run_id(self) -> str:
        """See `Context.run_id`."""
        return self._task.run

    @property
    def idempotency_key(self) -> str:
        """See `Context.idempotency_key`."""
        return f"{self._task.run}.{self._task.step}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        """See `Context.metadata`."""
        return MappingProxyType({} if self._task.metadata is None else msgspec.json.decode(self._task.metadata))

    def output(self, step: str) -> msgspec.Raw:
        """See `Context.output`."""
        if step not in self._outputs:
            raise LookupError(f"step {step!r} does not come before step {self._task.step!r}: name it in after=")
        return self._outputs[step].output

    async def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """See `Context.children`."""
        names, store = self._session.names, self._session.store
        outcomes = names.runs_of_join(StepAddress(self._task.root, self._task.run, step))
        async for page in store.pages(names.records_stream, outcomes):
            yield [(last_token(stored.subject), decode_outcome(stored.body)) for stored in page]

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
    ) -> ChildGroup:
        """See `Context.spawn_workflows`."""
        return await self.spawner.spawn(workflow, inputs, key)

    async def spawn_one(self, workflow: Workflow[Any, Any] | str, input: Any, key: str | None) -> ChildGroup:
        """See `Context.spawn_workflow`."""
        return await self.spawner.spawn_one(workflow, input, key)

    def spawned(self) -> list[ChildGroup]:
        """See `Context.spawned`."""
        return self.spawner.groups

    async def wait_for(self, ids: Sequence[bytes]) -> list[Outcome]:
        """See `Context.join`."""
        return await self.waiting.all(ids)

    async def wait_for_some(self, ids: set[bytes]) -> list[bytes]:
        """See `Context.as_completed`."""
        return await self.waiting.some(ids)

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """See `Context.block_on`."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None:
            raise RuntimeError("ctx.block_on is for steps that run in a thread: in an async step, use await")

        async def outcome() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(outcome(), self._loop).result()

    # --- what is left behind

    def seal(self, output: msgspec.Raw, *, started: float, ended: float, worker: str) -> JoinRecord | None:
        """Return the record that seals the children which the step has not waited for; None if there are none."""
        owned = self.spawner.owned()
        borrowed = self._borrowed(self.spawner.borrowed)
        joined = self.waiting.joined
        if all(child in joined for child in split_ids(owned)) and joined.issuperset(self.spawner.borrowed):
            return None
        return JoinRecord(
            kind="sealed",
            turn=self._task.turn,
            task=self._session.names.task_of(self._task),
            needed=len(owned) // 16 + len(borrowed),
            members=None if self.clean else owned,
            chunk_name=self._chunk_name,
            id_sum=f"{id_sum(owned):032x}" if self.clean else "",
            borrowed=borrowed,
            excused=tuple(sorted(self.waiting.excused)),
            output=output,
            attempt=self.attempt,
            started=started,
            ended=ended,
            worker=worker,
        )

    def park(self) -> JoinRecord:
        """Return the record that parks the step at its waits."""
        need = self.waiting.need
        assert need is not None, "only a step that waits is parked"
        borrowed = {child: step for child, step in self.spawner.borrowed.items() if child in need.children}
        owned = self.spawner.owned()
        members = b"".join(child for child in split_ids(owned) if child in need.children)
        everything = self.clean and members == owned and need.at_least == len(need.children)
        return JoinRecord(
            kind="parked",
            turn=self._task.turn,
            task=self._session.names.task_of(self._task),
            needed=need.at_least,
            members=None if everything else members,
            chunk_name=self._chunk_name,
            id_sum=f"{id_sum(owned):032x}" if everything else "",
            borrowed=self._borrowed(borrowed),
            output=NULL,
        )

    @property
    def _chunk_name(self) -> str:
        return f"{self._task.turn}-{self._delivery}"

    @staticmethod
    def _borrowed(children: Mapping[bytes, str]) -> tuple[Borrowed, ...]:
        return tuple(Borrowed(child.hex(), step) for child, step in children.items())
