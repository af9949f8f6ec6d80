"""The transitions of the model: from a state, all the states that may be next.

Reductions, each of which leaves out only what another explored history stands for:

- The workers are alike: `canonical` sorts them, and of workers in the same state only one is given a task.
- A task is taken together with its first effect. What may happen between the two is modelled: a crash there only raises
  the number of deliveries (*is lost on arrival*), and a delivery that stalls there is a zombie (*stalls*).
- An ack is taken together with the last effect before it. A crash between the two leaves the task unacknowledged, which
  the fault *loses its ack* may do at any later time, since only a redelivery can tell the difference. Without a
  crash left, a task that is done is settled, and how often it was delivered is forgotten.
- An effect that changes nothing, and whose result is certain from now on (storing what is stored), goes before all
  else, unless its delivery would end and its ack could still be lost: `Model.eager`. Until it has gone, a crash leads
  where it leads afterwards, and nobody else can tell.
- Deliveries past the last scripted attempt are alike.
- Deliveries with the same future are the same, whatever they have seen: `suspended`.
- When every run that can exist has ended (`checks.Checks.over`), what still runs is only followed to its end, in one
  order and without faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from jetflow.engine.effects import Count, Look
from jetflow.engine.joins import LookLedger, Tally
from tests.model.broker import BLOCKED, Broker
from tests.model.checks import Violation
from tests.model.procedures import Procedures, Token
from tests.model.scenario import Configuration
from tests.model.shell import Shell
from tests.model.state import (
    DONE,
    HELD,
    READY,
    SETTLED,
    UNPUBLISHED,
    Draft,
    State,
    WorkerState,
    task_code,
    task_status,
)
from tests.model.universe import Universe

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """What is explored beside the engine's procedures: the shell, the broker, the tally and the ledger."""

    shell: type[Shell] = Shell
    broker: type[Broker] = Broker
    tally: type[Tally] = Tally
    ledger: type[LookLedger] = LookLedger


class Step(NamedTuple):
    """One transition, as much of it as is needed to describe it. -1 stands for no worker and for no task."""

    what: str
    worker: int = -1
    task: int = -1
    attempt: int = 0
    effect: object = None
    token: Token = None


Successor: TypeAlias = tuple[Step, State | Violation]


class Model:
    """The transition system of one configuration under some rules."""

    def __init__(self, configuration: Configuration, rules: Rules | None = None, *, merge: bool = True) -> None:
        rules = rules or Rules()
        self.configuration = configuration
        self.universe = Universe(configuration)
        self.broker = rules.broker(self.universe, rules.tally, rules.ledger)
        self.checks = self.broker.checks
        self._shell = rules.shell(self.universe)
        self.procedures = Procedures(
            lambda task, owner, attempt: self._shell.deliver(self.universe.task(task, owner), attempt),
            self.broker.decode,
            merge=merge,
        )
        self._attempts = [self.universe.attempts(number) for number in range(len(self.universe.task_keys))]

    def initial(self) -> State:
        """The root's first task is published, and nothing else has happened."""
        universe = self.universe
        tasks = [UNPUBLISHED] * len(universe.task_keys)
        tasks[universe.first_task(universe.root)] = task_code(0, READY)
        return State(
            tuple(tasks),
            (0,) * universe.record_count,
            (0,) * len(universe.counters),
            (WorkerState(),) * self.configuration.workers,
            self.configuration.faults,
        )

    @staticmethod
    def canonical(state: State) -> State:
        """Return the state that stands for all that differ in the order of the workers only."""
        workers = tuple(sorted(state.workers, key=_by_work))
        return state if workers == state.workers else state._replace(workers=workers)

    # --- what needs no fault

    def progress(self, state: State) -> Iterator[Successor]:
        """Yield what may happen next without a fault."""
        for index, worker in enumerate(state.workers):
            if worker not in state.workers[:index]:
                for number in dict.fromkeys(worker.running):
                    yield from self._perform(state, index, number)
        for task, code in enumerate(state.tasks):
            if code > 0 and code & 3 == READY:
                yield from self._deliver(state, task)

    def eager(self, state: State) -> Successor | None:
        """Return a transition that may as well come before all others, if there is one."""
        for index, worker in enumerate(state.workers):
            for number in worker.running:
                effect = self.procedures.effects[number]
                if self.broker.inert(effect, state):
                    for step, after in self._perform(state, index, number):
                        if isinstance(after, Violation) or not self._ends_early(state, after, index):
                            return step, after
        return None

    @staticmethod
    def _ends_early(state: State, after: State, index: int) -> bool:
        ended = len(after.workers[index].running) < len(state.workers[index].running)
        return ended and (state.faults.crashes > 0 or state.faults.zombies > 0)

    def _deliver(self, state: State, task: int, what: str = "") -> Iterator[Successor]:
        deliveries, _ = task_status(state.tasks[task])
        attempt = min(deliveries + 1, self._attempts[task])
        number = self.procedures.begin(task, self._owner(state, task), attempt)
        taken = state._replace(tasks=_put(state.tasks, task, task_code(attempt, HELD)))
        for index, worker in enumerate(state.workers):
            if worker not in state.workers[:index]:
                workers = _put(state.workers, index, _with(worker, number))
                yield from self._perform(taken._replace(workers=workers), index, number, what)

    def _owner(self, state: State, task: int) -> int:
        return state.records[self.universe.owner_slots[self.universe.task_keys[task][0]]]

    def _perform(self, state: State, index: int, number: int, what: str = "") -> Iterator[Successor]:
        effect = self.procedures.effects[number]
        if effect is None:
            yield from self._do(state, index, number, lambda _: None, what or "ends without an effect:")
        elif self.configuration.split_looks and isinstance(effect, Look):
            yield from self._half_look(state, index, number, effect, what)
        else:
            for way in self.broker.ways(effect):
                yield from self._do(state, index, number, way, what)

    def _half_look(self, state: State, index: int, number: int, effect: Look, what: str) -> Iterator[Successor]:
        found = self.procedures.running[number].read
        if found is not None:
            yield from self._do(state, index, number, lambda draft: self.broker.verify(effect, found, draft), what)
            return
        read = self.broker.read_join(effect, Draft(state, state.workers[index].ledger))
        if read is None:
            yield from self._do(state, index, number, lambda _: None, what)
        else:
            worker = _with(_without(state.workers[index], number), self.procedures.between(number, read))
            step = self._step("reads the record", index, number)
            yield step, state._replace(workers=_put(state.workers, index, worker))

    def _do(
        self, state: State, index: int, number: int, perform: Callable[[Draft], Token], what: str
    ) -> Iterator[Successor]:
        """Perform an effect, and give its result to its delivery."""
        draft = Draft(state, state.workers[index].ledger)
        token: Token = None
        try:
            token = perform(draft)
            if token is BLOCKED:
                return
            worker = self._resume(_without(state.workers[index], number), number, draft, token)
        except Violation as violation:
            yield self._step(what, index, number, token), violation
        else:
            yield self._step(what, index, number, token), self._drafted(state, draft, index, worker)

    def _resume(self, worker: WorkerState, number: int, draft: Draft, token: Token) -> WorkerState:
        """Go on with a delivery; if it has ended, acknowledge its task or hand it back."""
        ended = self.procedures.effects[number] is None
        after = number if ended else self.procedures.after(number, token)
        verdict = self.procedures.verdicts[after]
        if verdict is None:
            worker = _with(worker, after)
        else:
            draft.end_delivery(self.procedures.running[after].task, DONE if verdict == "ack" else READY)
        return worker._replace(ledger=draft.ledger)

    def _drafted(self, state: State, draft: Draft, index: int, worker: WorkerState) -> State:
        tasks = draft.tasks
        if not state.faults.crashes:
            tasks = [SETTLED if code > 0 and code & 3 == DONE else code for code in tasks]
        workers = _put(state.workers, index, worker)
        return State(tuple(tasks), tuple(draft.records), tuple(draft.counters), workers, state.faults)

    def _step(self, what: str, index: int, number: int, token: Token = None) -> Step:
        running = self.procedures.running[number]
        return Step(what, index, running.task, running.attempt, self.procedures.effects[number], token)

    # --- faults

    def faults(self, state: State) -> Iterator[Successor]:
        """Yield what may happen next with a fault."""
        left = state.faults
        if left.crashes:
            yield from self._crashes(state._replace(faults=left._replace(crashes=left.crashes - 1)))
        if left.zombies:
            yield from self._zombies(state._replace(faults=left._replace(zombies=left.zombies - 1)))
        if left.repeats:
            yield from self._repeats(state._replace(faults=left._replace(repeats=left.repeats - 1)))
        if left.batches:
            yield from self._batches(state._replace(faults=left._replace(batches=left.batches - 1)))
        if left.forgeries:
            yield from self._forgeries(state._replace(faults=left._replace(forgeries=left.forgeries - 1)))

    def _crashes(self, state: State) -> Iterator[Successor]:
        for index, worker in enumerate(state.workers):
            if worker.running and worker not in state.workers[:index]:
                draft = Draft(state)
                others = _put(state.workers, index, WorkerState())
                for task in {self.procedures.running[number].task for number in worker.running}:
                    self._hand_back(draft, task, others)
                yield Step("crashes", index), self._drafted(state, draft, index, WorkerState())
        for task, code in enumerate(state.tasks):
            if code <= 0:
                continue
            deliveries, status = task_status(code)
            if status == DONE and not self._held(task, state.workers):
                yield self._recoded(state, Step("loses its ack", -1, task), task_code(deliveries, READY))
            elif status == READY and deliveries + 1 < self._attempts[task]:
                more = task_code(deliveries + 1, READY)
                yield self._recoded(state, Step("is lost on arrival", -1, task), more)

    def _hand_back(self, draft: Draft, task: int, workers: tuple[WorkerState, ...]) -> None:
        code = draft.tasks[task]
        if code > 0 and code & 3 == HELD and not self._held(task, workers):
            draft.end_delivery(task, READY)

    def _held(self, task: int, workers: tuple[WorkerState, ...]) -> bool:
        running = self.procedures.running
        return any(running[number].task == task for worker in workers for number in worker.running)

    def _recoded(self, state: State, step: Step, code: int) -> Successor:
        draft = Draft(state)
        draft.tasks[step.task] = code
        return step, self._drafted(state, draft, 0, state.workers[0])

    def _zombies(self, state: State) -> Iterator[Successor]:
        for task, code in enumerate(state.tasks):
            if code > 0 and code & 3 == HELD:
                yield from self._deliver(state, task, "zombie")
            elif code > 0 and code & 3 == READY:
                yield from self._stall(state, task)

    def _stall(self, state: State, task: int) -> Iterator[Successor]:
        """Let a delivery begin, do nothing yet, and lose its task to another."""
        deliveries, _ = task_status(state.tasks[task])
        attempt = min(deliveries + 1, self._attempts[task])
        number = self.procedures.begin(task, self._owner(state, task), attempt)
        tasks = _put(state.tasks, task, task_code(attempt, READY))
        for index, worker in enumerate(state.workers):
            if worker not in state.workers[:index]:
                workers = _put(state.workers, index, _with(worker, number))
                yield Step("stalls", index, task, attempt), state._replace(tasks=tasks, workers=workers)

    def _repeats(self, state: State) -> Iterator[Successor]:
        for index, worker in enumerate(state.workers):
            for number in dict.fromkeys(worker.running):
                effect = self.procedures.effects[number]
                if isinstance(effect, Count) and worker not in state.workers[:index]:
                    yield from self._do(state, index, number, self._twice(effect), "repeats")

    def _twice(self, effect: Count) -> Callable[[Draft], Token]:
        def perform(draft: Draft) -> Token:
            self.broker.perform(effect, draft)
            return self.broker.perform(effect, draft)

        return perform

    def _batches(self, state: State) -> Iterator[Successor]:
        """Let two increments leave as one, of which only the first is told the value."""
        for index, worker in enumerate(state.workers):
            counting = [
                (number, effect)
                for number in worker.running
                if isinstance(effect := self.procedures.effects[number], Count)
            ]
            for one, effect in counting:
                for other, beside in counting:
                    if one != other and (effect.address, effect.kind) == (beside.address, beside.kind):
                        yield self._batch(state, index, one, other)

    def _batch(self, state: State, index: int, one: int, other: int) -> Successor:
        worker = _without(_without(state.workers[index], one), other)
        draft = Draft(state, worker.ledger)
        self.broker.perform(self.procedures.effects[other], draft)
        token = self.broker.batched(self.broker.perform(self.procedures.effects[one], draft))
        worker = self._resume(worker, one, draft, token)
        worker = self._resume(worker, other, draft, None)
        return self._step("batches", index, one, token), self._drafted(state, draft, index, worker)

    def _forgeries(self, state: State) -> Iterator[Successor]:
        for run, _, _ in self.universe.forged:
            slot = self.universe.run_slots[run]
            if not state.records[slot]:
                records = _put(state.records, slot, self.broker.forged_outcome)
                yield Step(f"{self.universe.names[run]} is forged"), state._replace(records=records)


def _put(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _with(worker: WorkerState, number: int) -> WorkerState:
    return WorkerState(worker.ledger, tuple(sorted((*worker.running, number))))


def _without(worker: WorkerState, number: int) -> WorkerState:
    at = worker.running.index(number)
    return WorkerState(worker.ledger, worker.running[:at] + worker.running[at + 1 :])


def _by_work(worker: WorkerState) -> tuple[tuple[int, ...], str]:
    return worker.running, repr(worker.ledger) if worker.ledger else ""
