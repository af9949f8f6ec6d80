"""A configuration as numbers: every task, record and counter that can ever exist has an index.

A state is then a few tuples of small integers. Records share one table: how runs and steps ended, the marks, the join
records, and which step of the parent spawned a child; 0 is "not stored", and nothing stored ever changes.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from hashlib import blake2b
from typing import Final

import msgspec

from jetflow.engine.graph import END, START, Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import NONE, Outcome, StepAddress, Task
from tests.model.scenario import LEAF, Body, Configuration, RunScript

TIMER: Final = "timer of "
"""Stands before a step in the name of the message that its timer becomes."""


class Interner:
    """Gives values numbers from 1 on: equal values, the same number."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._values: list[Outcome | JoinRecord] = []

    def number(self, value: Outcome | JoinRecord) -> int:
        key = (type(value), msgspec.json.encode(value))
        found = self._numbers.get(key)
        if found is None:
            self._values.append(value)
            found = self._numbers[key] = len(self._values)
        return found

    def value(self, number: int) -> Outcome | JoinRecord:
        assert number
        return self._values[number - 1]

    def outcome(self, number: int) -> Outcome:
        value = self._values[number - 1]
        assert number
        assert isinstance(value, Outcome)
        return value

    def record(self, number: int) -> JoinRecord:
        value = self._values[number - 1]
        assert isinstance(value, JoinRecord)
        return value


class Universe:
    """The names and numbers of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.values = Interner()
        self.names: dict[str, str] = {}
        self.scripts: dict[str, RunScript] = {}
        self.run_slots: dict[str, int] = {}
        self.mark_slots: dict[str, int] = {}
        self.owner_slots: dict[str, int] = {}
        self.adopted_slots: dict[str, int] = {}
        self.step_slots: dict[tuple[str, str], int] = {}
        self.join_slots: dict[int, int] = {}
        self.time_slots: dict[int, int] = {}
        self.counters: dict[tuple[str, str, str], int] = {}
        self.task_numbers: dict[tuple[str, str, int], int] = {}
        self.task_keys: list[tuple[str, str, int]] = []
        self.steps: list[str] = [NONE]
        self.children: dict[str, list[str]] = {}
        self.forged: list[tuple[str, str, str]] = []
        self.record_count = 0
        for name, script in configuration.runs.items():
            self._add_run(name, script)
        for number, (name, step) in enumerate(configuration.forged):
            run = self.run_id(f"forged-{number}")
            self.names[run] = f"forged-{number}"
            self.run_slots[run] = self._slot()
            self.mark_slots[run] = self._slot()
            self.forged.append((run, self.run_id(name), step))
        self.root = self.run_id(configuration.root)
        self.task = cache(self._task)

    def _slot(self) -> int:
        self.record_count += 1
        return self.record_count - 1

    def _add_run(self, name: str, script: RunScript) -> None:
        run = self.run_id(name)
        self.names[run] = name
        self.scripts[run] = script
        self.run_slots[run] = self._slot()
        self.mark_slots[run] = self._slot()
        self.owner_slots[run] = self._slot()
        if script.elder:
            self.adopted_slots[run] = self._slot()
        self.children.setdefault(self.run_id(script.parent), []).append(run)
        if script.graph.first == START:
            self._add_task(run, START, 0)
        for step in self.steps_of(run):
            if step not in self.steps:
                self.steps.append(step)
            self.step_slots[run, step] = self._slot()
            self.counters["join", run, step] = len(self.counters)
            turns = script.bodies.get(step, LEAF)
            for turn, bodies in enumerate(turns):
                self._add_task(run, step, turn)
                if any(body.until for body in bodies):
                    self._add_task(run, TIMER + step, turn)
        for gate in (*self.steps_of(run), END):
            self.counters["gate", run, gate] = len(self.counters)

    def _add_task(self, run: str, step: str, turn: int) -> None:
        number = len(self.task_keys)
        self.task_keys.append((run, step, turn))
        self.task_numbers[run, step, turn] = number
        self.join_slots[number] = self._slot()
        if step.startswith(TIMER):
            self.time_slots[number - 1] = self._slot()

    @staticmethod
    def run_id(name: str) -> str:
        return blake2b(name.encode(), digest_size=16).hexdigest()

    def graph(self, run: str) -> Graph:
        return self.scripts[run].graph

    def steps_of(self, run: str) -> tuple[str, ...]:
        """Return the steps of a run, those behind its end included."""
        graph = self.scripts[run].graph
        return (*graph.upstream, *graph.sequels)

    def bodies(self, number: int) -> tuple[Body, ...]:
        """Return the bodies of a task, by attempt; the start step has none."""
        run, step, turn = self.task_keys[number]
        if step == START or step.startswith(TIMER):
            return ()
        return self.scripts[run].bodies.get(step, LEAF)[turn]

    def attempts(self, number: int) -> int:
        """Return from which attempt on all are the same."""
        return max(2, len(self.bodies(number)))

    def body(self, number: int, attempt: int) -> Body:
        bodies = self.bodies(number)
        return bodies[min(attempt, len(bodies)) - 1]

    def spawned_ids(self, body: Body) -> list[str]:
        return [self.run_id(name) for name in body.spawns]

    def body_of_tag(self, run: str, tag: str) -> Body:
        """Return the body that a join record or outcome names as its ``worker``."""
        step, turn, attempt = tag.rsplit("/", 2)
        return self.body(self.task_numbers[run, step, int(turn)], int(attempt))

    def first_task(self, run: str) -> int:
        return self.task_numbers[run, self.graph(run).first, 0]

    def _task(self, number: int, owner: int) -> Task:
        run, step, turn = self.task_keys[number]
        script = self.scripts[run]
        return Task(
            workflow=script.graph.workflow,
            step=step,
            root=self.root,
            parent=self.run_id(script.parent) if script.parent else NONE,
            run=run,
            turn=turn,
            parent_step=self.steps[owner],
            version=script.graph.version,
            depth=0,
            digest="",
            input=b"null",
            eager=self._eager(script.parent, self.steps[owner]),
        )

    def _eager(self, parent: str, step: str) -> bool:
        """Tell whether the step that owns a child may be decided before all of its children have ended."""
        turns = self.configuration.runs[parent].bodies.get(step, LEAF) if parent else LEAF
        return any(body.policy.early for attempts in turns for body in attempts)

    def timer_of(self, task: Task) -> int:
        """Return the number of the message that wakes a turn when its time has come."""
        return self.task_numbers[task.run, TIMER + task.step, task.turn]

    def task_number(self, task: Task) -> int:
        return self.task_numbers[task.run, task.step, task.turn]

    def address(self, run: str, step: str) -> StepAddress:
        return StepAddress(self.root, run, step)
