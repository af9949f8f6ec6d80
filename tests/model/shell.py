"""What a worker does with one delivery, as one generator over the engine's procedures.

This is the model's executor: it decides when a body runs, what its join record says, and when the task is
acknowledged. It yields the engine's effects and two of its own. The rules that it adds to the engine's:

- an attempt that failed and has a next one is parked with a timer; the message that the timer becomes starts that turn;
- a step that failed at last is sealed if it may have spawned children that a step beside it has borrowed;
- a first attempt of a first turn that waits for all its children is *clean*; any other lists its members;
- a body that waits for nothing more may finish without a join record on a clean attempt that has borrowed nothing, or
  if its step is alone. On any other there may be children of an earlier attempt that a step beside has borrowed, and
  only a sealed counter makes somebody look when they end.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jetflow.engine import adopting, transitions
from jetflow.engine.effects import Effect, Ended, ReadEnded
from jetflow.engine.graph import START, Graph
from jetflow.engine.joins import Borrowed, JoinRecord, failed_join, id_sum
from jetflow.engine.tasks import Attempt, Failure, Outcome, Task
from tests.model.checks import Violation
from tests.model.scenario import Body
from tests.model.universe import TIMER, Universe

ELDER: Final = "elder"
"""Stands for the worker of what was adopted."""

Verdict: TypeAlias = Literal["ack", "nak"]


class Spawn(msgspec.Struct, frozen=True):
    """Publish the first task of a child, write-once. Result: the step under which it is stored."""

    task: Task
    child: str


class ReadElder(msgspec.Struct, frozen=True):
    """Read what a rerun may adopt: the end of a step, or of a child. Result: whether there is something."""

    task: Task
    child: str | None = None


class Adopt(msgspec.Struct, frozen=True):
    """Store the outcome of a child as its elder has ended, write-once. Result: None."""

    task: Task
    child: str


class Await(msgspec.Struct, frozen=True):
    """Wait warm until all these children have ended. Result: None."""

    children: tuple[str, ...]


class Due(msgspec.Struct, frozen=True):
    """Note that a timer has fired: the first thing that its message leads to. Result: None."""

    task: Task


class Ack(msgspec.Struct, frozen=True):
    """Acknowledge a task before its delivery ends: only mutants do. Result: None."""

    task: Task


Delivery: TypeAlias = Generator[Effect | Spawn | Await | Due | Ack, Any, Verdict]


class Shell:
    """The pipeline of one delivery. Mutants override its steps."""

    compared_by_identity: Final = True

    def __init__(self, universe: Universe) -> None:
        self.universe = universe

    def deliver(self, task: Task, attempt: int) -> Delivery:
        """Handle one delivery of a task, up to its ack."""
        graph = self.universe.graph(task.run)
        if task.step.startswith(TIMER):
            return (yield from self.due(msgspec.structs.replace(task, step=task.step.removeprefix(TIMER))))
        if attempt > 1 and (yield from self.go_on(task, graph)):
            return "ack"
        if task.step == START:
            yield from transitions.begin(task, graph)
            return "ack"
        if self.may_adopt(task, graph) and (yield from self.adopt(task, graph)):
            return "ack"
        return (yield from self.run(task, graph, attempt))

    def due(self, task: Task) -> Delivery:
        """Handle the message that a timer has become: it names the turn, and how many attempts were made."""
        yield Due(task)
        body = self.universe.body(self.universe.task_number(task), 1)
        yield from transitions.wake(task, self.tried(body))
        return "ack"

    @staticmethod
    def tried(body: Body) -> int:
        """Return how many attempts the next turn of a parked body counts as made: those that failed."""
        return 1 if body.ends == "later" else 0

    def go_on(self, task: Task, graph: Graph) -> Generator[Effect, Any, bool]:
        """Drive `transitions.redelivered`, and check that nothing that is recorded runs again."""
        procedure = transitions.redelivered(task, graph)
        ended, result = Ended(), None
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration as stop:
                over = ended.step or ended.join or (ended.run and task.step not in graph.sequels)
                if over and not stop.value:
                    raise Violation(f"twice: {task.step} runs again although its end is stored") from None
                return stop.value
            result = yield effect
            if isinstance(effect, ReadEnded):
                ended = result

    def may_adopt(self, task: Task, graph: Graph) -> bool:
        """Tell whether a step looks at how its elder has ended: not one that runs behind the end."""
        return bool(self.universe.scripts[task.run].elders.get(task.step)) and task.step not in graph.sequels

    def adopt(self, task: Task, graph: Graph) -> Generator[Any, Any, bool]:
        """End a step as its elder has ended, if that went well."""
        there = yield ReadElder(task)
        if there:
            outcome = Outcome(status="succeeded", step=task.step, worker=ELDER, adopted=ELDER)
            yield from adopting.adopt(task, graph, str(self.universe.task_number(task)), outcome, b"")
        return there

    def adopts(self, task: Task, child: str) -> bool:
        """Tell whether a step looks for the elder of a child: not of one that another step may spawn as well."""
        return bool(self.universe.scripts[child].elder) and task.step in self.universe.graph(task.run).in_line

    def spawn(self, task: Task, body: Body) -> Generator[Any, Any, dict[str, str]]:
        """Spawn children, or adopt how their elders have ended; return the step under which each is stored."""
        owners: dict[str, str] = {}
        number = 0
        for child in self.universe.spawned_ids(body):
            there = False
            if self.adopts(task, child):
                there = yield ReadElder(task, child)
            if there:
                yield Adopt(task, child)
                owners[child] = task.step
                number += 1
            else:
                owners[child] = yield Spawn(task, child)
        if number:
            yield from adopting.count_adopted(task.join, number)
        return owners

    def run(self, task: Task, graph: Graph, attempt: int) -> Delivery:
        """Run the body's script, and record how it ended."""
        body = self.universe.body(self.universe.task_number(task), attempt)
        owners = yield from self.spawn(task, body)
        if body.waits:
            yield Await(tuple(owners))
        if body.ends == "retry":
            return "nak"
        if body.ends == "later":
            tried = Attempt(attempt=1, worker="", started=0.0, ended=0.0)
            yield from transitions.postpone(task, attempt, tried, self.record(task, attempt, body, {}))
        elif body.ends == "fail":
            outcome = self.outcome(task, attempt, failed=True)
            if self.may_have_children(task, attempt, owners):
                record = failed_join(str(self.universe.task_number(task)), task.turn, outcome)
                yield from transitions.seal(task, record)
            else:
                yield from transitions.finish(task, graph, outcome)
        elif self.may_finish(task, attempt, body, owners):
            outcome = self.outcome(task, attempt)
            yield from transitions.finish(task, graph, outcome, spawned=bool(owners))
        else:
            yield from transitions.seal(task, self.record(task, attempt, body, owners))
        return "ack"

    def clean(self, task: Task, attempt: int) -> bool:
        """Tell whether nothing but this attempt can have spawned children before, and each has a task."""
        return attempt == 1 and task.turn == 0 and not self.universe.scripts[task.run].rerun

    def may_finish(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> bool:
        """Tell whether a body that returned is done without a join record."""
        if body.ends != "return" or (body.spawns and not body.waits):
            return False
        borrows = any(step != task.step for step in owners.values())
        alone = len(self.universe.graph(task.run).nodes) == 1
        return alone or (self.clean(task, attempt) and not borrows)

    def may_have_children(self, task: Task, attempt: int, owners: dict[str, str]) -> bool:
        """Tell whether a step beside this one may have borrowed a child of it."""
        alone = len(self.universe.graph(task.run).nodes) == 1
        return not alone and (bool(owners) or not self.clean(task, attempt))

    def record(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> JoinRecord:
        """Return the join record of a body that sealed or parked."""
        own = b"".join(bytes.fromhex(child) for child, step in owners.items() if step == task.step)
        borrowed = tuple(Borrowed(child, step) for child, step in owners.items() if step != task.step)
        total, parks = len(owners), body.ends != "return"
        waited = 0 if body.ends == "sleep" else total if body.needed is None else body.needed
        clean = self.clean(task, attempt) and waited == total and not body.policy.early
        return JoinRecord(
            kind="parked" if parks else "sealed",
            turn=task.turn,
            task=str(self.universe.task_number(task)),
            needed=waited if parks else body.policy.threshold(total),
            total=0 if parks else total,
            policy=body.policy,
            members=None if clean else b"" if body.ends == "sleep" else own,
            id_sum=f"{id_sum(own):032x}" if clean else "",
            borrowed=borrowed,
            excused=tuple(self.universe.run_id(name) for name in body.excused),
            until=body.until,
            tried=self.tried(body),
            attempt=attempt,
            worker=self.tag(task, attempt),
        )

    @staticmethod
    def tag(task: Task, attempt: int) -> str:
        """Return what the checks find a body by."""
        return f"{task.step}/{task.turn}/{attempt}"

    def outcome(self, task: Task, attempt: int, *, failed: bool = False) -> Outcome:
        """Return the outcome of a body that waits for nothing."""
        return Outcome(
            status="failed" if failed else "succeeded",
            error=Failure("ValueError", "scripted", task.step) if failed else None,
            step=task.step,
            attempt=attempt,
            worker=self.tag(task, attempt),
        )
