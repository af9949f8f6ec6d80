"""An execution of a step that is declared idempotent: another may run beside it, so it does all in one go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from jetflow.children import ChildGroup
from jetflow.engine.awaiting import Group, Taken
from jetflow.engine.joins import JoinRecord
from jetflow.engine.sleeping import Sleep
from jetflow.engine.windows import AskedStream
from jetflow.errors import NotInOneGo
from jetflow.wire.metadata import Told
from jetflow.worker.assignment import Assignment
from jetflow.worker.execution import Execution
from jetflow.worker.streams import ChildStream
from jetflow.workflow import Workflow


class Repeatable(Execution):
    """See `Execution`. What would be made twice, or leave the step open, is refused by name."""

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """See `Context.spawn_workflows`."""
        raise NotInOneGo(self.task.step, "spawns no children")

    async def spawn_one(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any,
        key: str | None,
        detached: bool,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """See `Context.spawn_workflow`."""
        raise NotInOneGo(self.task.step, "spawns no children")

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> ChildStream:
        """See `Context.spawn_stream`."""
        raise NotInOneGo(self.task.step, "spawns no children")

    async def sleep(self, sleep: Sleep) -> None:
        """See `Context.sleep`."""
        raise NotInOneGo(self.task.step, "does not sleep")

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """See `Context.wait_for`."""
        raise NotInOneGo(self.task.step, "waits for no event")

    async def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """See `Context.as_completed`."""
        raise NotInOneGo(self.task.step, "has no children")
        yield b""  # which makes it a generator, as is asked for

    def sealing(self, work: Assignment, *, ended: float, worker: str) -> JoinRecord | None:
        """See `Execution.sealing`. A twin has no children, and seals nothing."""
        return None if self.task.twin else super().sealing(work, ended=ended, worker=worker)
