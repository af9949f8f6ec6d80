"""One delivery as one object: what a worker was given, what it has found out of it, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jetflow.broker.puller import Delivery
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import NULL, Task
from jetflow.worker.body import Body
from jetflow.worker.slots import Slots
from jetflow.worker.voice import Voice
from jetflow.workflow import Step, Workflow


class Assignment(msgspec.Struct, eq=False):
    """One delivery of a task to this worker, from its message to its acknowledgement.

    ``size`` is the bytes of its message, and of its output once there is one. The executor finds ``graph``,
    ``workflow`` and ``step``, and counts the ``attempt``; ``is_fresh`` says that no body of this turn can have begun
    before, ``may_run_elsewhere`` that one may not have ended. ``body`` runs from ``started`` (seconds since the epoch)
    on, and leaves an ``output`` or an ``error``; ``refused`` says that the broker has refused for good what it led to.
    ``voice`` is there once the step has said something.
    ``places`` are those of limits that the step has by itself, as `jetflow.engine.limits.written_places` writes them.
    ``has_twin`` says that a twin of it was made here.
    ``slots`` are those of which one was taken for it, until that is given back.
    """

    delivery: Delivery
    task: Task
    attempt: int
    size: int
    slots: Slots | None = None
    graph: Graph | None = None
    workflow: Workflow[Any, Any] | None = None
    step: Step[..., Any, Any] | None = None
    body: Body | None = None
    started: float = 0.0
    output: msgspec.Raw = NULL
    error: BaseException | None = None
    is_fresh: bool = True
    may_run_elsewhere: bool = False
    refused: bool = False
    voice: Voice | None = None
    places: str | None = None
    has_twin: bool = False

    @property
    def queued_at(self) -> float:
        """When its task was stored, in seconds since the epoch."""
        return self.delivery.time

    @property
    def status(self) -> str:
        """How its body has ended."""
        if self.body is not None and self.body.cancelled:
            return "cancelled"
        if self.body is not None and self.body.parked:
            return "parked"
        if self.body is not None and self.body.has_lost:
            return "cancelled"
        return "succeeded" if self.error is None else "failed"

    @property
    def known_graph(self) -> Graph:
        """The graph of the run's version, once it is found."""
        assert self.graph is not None, "the graph is not found yet"
        return self.graph

    @property
    def known_step(self) -> Step[..., Any, Any]:
        """The step, once it is found in this worker's code."""
        assert self.step is not None, "the step is not found yet"
        return self.step

    @property
    def is_sequel(self) -> bool:
        """Whether it is a step that runs when its run has failed, or succeeded: that has ended before it began."""
        return self.graph is not None and self.task.step in self.graph.sequels

    @property
    def may_have_spawned(self) -> bool:
        """Whether its body has spawned children, or an earlier attempt may have."""
        if self.step is not None and self.step.context_name is None:
            return False
        has_spawned = self.body is not None and self.body.has_spawned
        return has_spawned or self.delivery.again or self.task.turn > 0

    def keep_slot(self) -> Callable[[], None]:
        """Keep the slot beyond the pipeline. Returns what gives it back, which is safe to call twice."""
        kept, self.slots = [self.slots], None

        def give_back() -> None:
            slots, kept[0] = kept[0], None
            if slots is not None:
                slots.give_back()

        return give_back

    def give_back_slot(self) -> None:
        """Give the slot back, unless that was done, or the body has done it by itself. Safe to call twice."""
        slots, self.slots = self.slots, None
        if slots is not None and (self.body is None or self.body.holds_slot):
            slots.give_back()
