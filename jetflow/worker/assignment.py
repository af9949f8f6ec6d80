"""One delivery as one object: what a worker was given, what it has found out of it, and how far it has come."""

from __future__ import annotations

from typing import Any

import msgspec

from jetflow.broker.puller import Delivery
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import NULL, Task
from jetflow.worker.body import Body
from jetflow.worker.slots import Slots
from jetflow.workflow import Step, Workflow


class Assignment:
    """One delivery of a task to this worker, from its message to its acknowledgement.

    The executor finds ``graph``, ``workflow`` and ``step``, and counts the ``attempt``. ``body`` runs from ``started``
    (seconds since the epoch) on, and leaves an ``output`` or an ``error``. The slot that was taken for it is its own.
    """

    __slots__ = (
        "_slots",
        "attempt",
        "body",
        "delivery",
        "error",
        "graph",
        "output",
        "started",
        "step",
        "task",
        "workflow",
    )

    def __init__(self, delivery: Delivery, task: Task, graph: Graph | None = None, slots: Slots | None = None) -> None:
        self.delivery: Delivery = delivery
        self.task: Task = task
        self.graph: Graph | None = graph
        self.workflow: Workflow[Any, Any] | None = None
        self.step: Step[..., Any, Any] | None = None
        self.attempt: int = task.tried + delivery.count
        self.body: Body | None = None
        self.started: float = 0.0
        self.output: msgspec.Raw = NULL
        self.error: BaseException | None = None
        self._slots = slots

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
        """Whether it is the step that runs when its run has failed: its run has ended before it began."""
        return self.graph is not None and self.task.step == self.graph.on_failure

    @property
    def has_spawned(self) -> bool:
        """Whether its body has spawned children."""
        return self.body is not None and bool(self.body.spawned())

    @property
    def may_have_spawned(self) -> bool:
        """Whether its body has spawned children, or an earlier attempt may have."""
        if self.step is not None and self.step.context_name is None:
            return False
        return self.has_spawned or self.delivery.again or self.task.turn > 0

    def give_back_slot(self) -> None:
        """Give the slot back, unless that was done, or the body has done it by itself. Safe to call twice."""
        slots, self._slots = self._slots, None
        if slots is not None and (self.body is None or self.body.holds_slot):
            slots.give_back()
