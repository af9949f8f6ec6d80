"""What each effect does to a state: the modelled NATS, and the reads that the worker's performer makes on it.

Every effect is one atomic step. All reads are reads of the leader, which are exact. The look mirrors
``jetflow.runs.performer``: the record of the latest turn, then the outcomes, and a recount when the tally is disputed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from jetflow.engine.effects import (
    Arm,
    CancelRest,
    CancelRun,
    Count,
    Disarm,
    Ended,
    JoinView,
    Look,
    ReadEnded,
    ReadSteps,
    Start,
    StoreAttempt,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.engine.joins import ID_BYTES, JoinRecord, LookLedger, Tally
from jetflow.engine.tasks import Outcome, StepAddress, Task
from tests.model.checks import Checks, Violation
from tests.model.procedures import Token
from tests.model.shell import ELDER, Ack, Adopt, Await, Due, ReadElder, Spawn
from tests.model.state import DONE, READY, UNPUBLISHED, Draft, Ledgers, State, task_code
from tests.model.universe import Universe

BLOCKED: Final = object()
"""The result of an effect that cannot happen yet."""


class Broker:
    """Performs effects on drafts of states. Mutants override what they get wrong."""

    def __init__(self, universe: Universe, tally: type[Tally] = Tally, ledger: type[LookLedger] = LookLedger) -> None:
        self.universe = universe
        self.checks = Checks(universe)
        self.ledgers = Ledgers(ledger)
        self.tally = tally
        self._perform: dict[type, Callable[[Any, Draft], Token]] = {
            StoreRun: self.store_run,
            StoreMark: self.store_mark,
            StoreStep: self.store_step,
            StoreAttempt: self.nothing,
            StoreJoin: self.store_join,
            Arm: self.arm,
            Disarm: self.nothing,
            Due: self.due,
            CancelRun: self.nothing,
            Count: self.count,
            Look: self.look,
            ReadEnded: self.read_ended,
            ReadSteps: self.read_steps,
            CancelRest: self.nothing,
            Start: self.start,
            Spawn: self.spawn,
            ReadElder: self.read_elder,
            Adopt: self.adopt,
            Await: self.await_children,
            Ack: self.acknowledge,
        }

    def perform(self, effect: object, draft: Draft) -> Token:
        """Do what an effect asks for, and return its result as a token."""
        return self._perform[type(effect)](effect, draft)

    def inert(self, effect: object, state: State) -> bool:
        """Tell whether an effect changes nothing, and has the same result now as at any later time."""
        universe = self.universe
        slot: int | None = None
        task: int | None = None
        match effect:
            case StoreAttempt() | Disarm() | CancelRun() | CancelRest():
                return True
            case StoreRun(of, _):
                slot = universe.run_slots[of.run]
            case ReadEnded(of) if of.step not in universe.graph(of.run).sequels:
                slot = universe.run_slots[of.run]  # how its steps ended makes no difference any more
            case StoreMark(of, _):
                slot = universe.mark_slots[of.run]
            case StoreStep(of, _):
                slot = universe.step_slots[of.run, of.step]
            case StoreJoin(of, _):
                slot = universe.join_slots[universe.task_number(of)]
            case Start(of, step, turn):
                task = universe.task_numbers.get((of.run, step, turn))
            case Spawn(_, child):
                task = universe.first_task(child)
            case _:
                pass
        if slot is not None:
            return state.records[slot] != 0
        return task is not None and state.tasks[task] != UNPUBLISHED

    def ways(self, effect: object) -> tuple[Callable[[Draft], Token], ...]:
        """Return the ways in which an effect may be performed: one, but for a time that may have come already."""
        if isinstance(effect, Arm) and effect.record.until and self.universe.configuration.timers_fire:
            return (lambda draft: self.arm(effect, draft), lambda draft: self.time_has_come(effect.task, draft))
        if isinstance(effect, ReadElder) and self.elder(effect) == "late":
            return (lambda _: True, lambda _: False)
        return (lambda draft: self.perform(effect, draft),)

    def batched(self, token: Token) -> Token:
        """Return what the first of a batch of increments is told."""
        return token

    @cached_property
    def forged_outcome(self) -> int:
        """An outcome of a child that nobody spawned."""
        return self.universe.values.number(Outcome(status="succeeded", step="s", worker="nobody"))

    # --- effects that write

    def store_run(self, effect: StoreRun, draft: Draft) -> Token:
        slot = self.universe.run_slots[effect.task.run]
        if not draft.records[slot]:
            self.checks.run_ending(effect.task, effect.outcome, draft.records)
            draft.store(slot, self.universe.values.number(effect.outcome))
        return draft.records[slot]

    def store_mark(self, effect: StoreMark, draft: Draft) -> Token:
        draft.store(self.universe.mark_slots[effect.task.run], 1)
        return None

    def store_step(self, effect: StoreStep, draft: Draft) -> Token:
        slot = self.universe.step_slots[effect.task.run, effect.task.step]
        if not draft.records[slot]:
            self.checks.step_ending(effect.task, effect.outcome, draft.records)
            draft.store(slot, self.universe.values.number(effect.outcome))
        return draft.records[slot]

    def store_join(self, effect: StoreJoin, draft: Draft) -> Token:
        slot = self.universe.join_slots[self.universe.task_number(effect.task)]
        draft.store(slot, self.universe.values.number(effect.record))
        return draft.records[slot]

    def count(self, effect: Count, draft: Draft) -> Token:
        index = self.universe.counters[effect.kind, effect.address.run, effect.address.step]
        draft.counters[index] += effect.by
        return draft.counters[index]

    def start(self, effect: Start, draft: Draft) -> Token:
        number = self.universe.task_numbers.get((effect.task.run, effect.step, effect.turn))
        self.checks.starting(effect.task, effect.step, effect.turn, draft.records)
        if number is None:
            raise Violation(f"twice: turn {effect.turn} of step {effect.step} was never waited for")
        self.checks.counting_attempts(effect.task, effect.step, effect.turn, effect.tried, draft.records)
        draft.publish(number)
        return None

    def nothing(self, effect: object, draft: Draft) -> Token:
        """What is cancelled is let run: one that is not cancelled in time does the same. So is a timer not removed."""
        return None

    def arm(self, effect: Arm, draft: Draft) -> Token:
        """A timer that is armed may fire at any time: its message is there. Armed again, it fires again."""
        if effect.record.until is None:
            raise Violation(f"wrong: step {effect.task.step} waits for no time, and is armed")
        if not self.universe.configuration.timers_fire:
            return False
        number = self.universe.timer_of(effect.task)
        if not draft.publish(number) and draft.tasks[number] & 3 == DONE:
            draft.tasks[number] = task_code(0, READY)
        return False

    def due(self, effect: Due, draft: Draft) -> Token:
        self.time_has_come(effect.task, draft)
        return None

    def time_has_come(self, task: Task, draft: Draft) -> Token:
        draft.store(self.universe.time_slots[self.universe.task_number(task)], 1)
        return True

    def elder(self, effect: ReadElder) -> str:
        """Return what there is of what a rerun looks for."""
        if effect.child is not None:
            return self.universe.scripts[effect.child].elder
        return self.universe.scripts[effect.task.run].elders.get(effect.task.step, "")

    def read_elder(self, effect: ReadElder, draft: Draft) -> Token:
        return self.elder(effect) == "succeeded"

    def adopt(self, effect: Adopt, draft: Draft) -> Token:
        self.checks.adopting(effect.child)
        slot = self.universe.run_slots[effect.child]
        draft.store(slot, self.universe.values.number(Outcome(status="succeeded", worker=ELDER, adopted=ELDER)))
        draft.store(self.universe.adopted_slots[effect.child], self.universe.steps.index(effect.task.step))
        return None

    def spawn(self, effect: Spawn, draft: Draft) -> Token:
        self.checks.spawning(effect.task, effect.child)
        owner = self.universe.owner_slots[effect.child]
        if draft.publish(self.universe.first_task(effect.child)):
            draft.store(owner, self.universe.steps.index(effect.task.step))
        return draft.records[owner]

    def acknowledge(self, effect: Ack, draft: Draft) -> Token:
        draft.end_delivery(self.universe.task_number(effect.task), DONE)
        return None

    # --- effects that read

    def await_children(self, effect: Await, draft: Draft) -> Token:
        slots = self.universe.run_slots
        return None if all(draft.records[slots[child]] for child in effect.children) else BLOCKED

    def read_ended(self, effect: ReadEnded, draft: Draft) -> Token:
        task, universe, records = effect.task, self.universe, draft.records
        step = universe.step_slots.get((task.run, task.step))
        ended = records[universe.run_slots[task.run]]
        join = records[universe.join_slots[universe.task_number(task)]]
        return ended, 0 if step is None else records[step], join

    def read_steps(self, effect: ReadSteps, draft: Draft) -> Token:
        run = effect.task.run
        stored = [
            (step, draft.records[self.universe.step_slots[run, step]]) for step in self.universe.graph(run).upstream
        ]
        return tuple((step, number) for step, number in stored if number)

    def look(self, effect: Look, draft: Draft) -> Token:
        read = self.read_join(effect, draft)
        return None if read is None else self.verify(effect, read, draft)

    def read_join(self, effect: Look, draft: Draft) -> int | None:
        """The first half of a look: the task whose record is the latest of the step, if the look is worth it."""
        value = effect.value
        if value is not None and not self.ledgers.restore(draft.ledger).worth(effect.join, value):
            return None
        universe, join = self.universe, effect.join
        turns = [
            number
            for number, (run, step, _) in enumerate(universe.task_keys)
            if (run, step) == (join.run, join.step) and draft.records[universe.join_slots[number]]
        ]
        return max(turns, default=None)

    def verify(self, effect: Look, read: int, draft: Draft) -> Token:
        """The second half of a look: whether the join is decided, and how."""
        join, records = effect.join, draft.records
        number = records[self.universe.join_slots[read]]
        record = self.universe.values.record(number)
        if not record.counted:
            return None
        ended = self.ended(join, record, records)
        failed = self.failed(join, record, records)
        missing = record.needed - ended
        if record.total and (missing <= 0 or record.policy.early):
            missing = record.policy.missing(record.total, ended - len(failed), ended)
        ledger = self.ledgers.restore(draft.ledger)
        if missing <= 0:
            ledger.closed(join)
        elif effect.value is not None and self.promises(record):
            ledger.missed(join, effect.value, missing)
        draft.ledger = self.ledgers.freeze(ledger)
        if missing > 0:
            return None
        return number, read, records[self.universe.owner_slots[join.run]], ended, failed

    def promises(self, record: JoinRecord) -> bool:
        """Tell whether each missing outcome will be counted at this join: a borrowed child is counted at its owner."""
        return not record.borrowed

    def ended(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> int:
        """Return how many of the children that a join record names have ended.

        A disputed tally is made again over all children that are stored as spawned under the step. They are at least
        the sealed ones; which of them are not, nobody can tell, so that all of them are needed.
        """
        outcomes = self.outcomes(join, records)
        tally = self.tally(record, record.members)
        borrowed = self.count_in(tally, outcomes, record, records)
        if tally.disputed:
            spawned = self.spawned(join, records)
            tally = self.tally(record, spawned)
            tally.add(outcomes)
            open_ones = len(spawned) // ID_BYTES - tally.stored + len(record.borrowed) - borrowed
            return min(record.needed - open_ones, tally.stored + borrowed)
        return tally.stored

    def count_in(self, tally: Tally, outcomes: bytes, record: JoinRecord, records: Sequence[int]) -> int:
        """Count the stored outcomes of a step, and the borrowed ones; return how many those are."""
        tally.add(outcomes)
        borrowed = sum(1 for child in record.borrowed if records[self.universe.run_slots[child.run]])
        for _ in range(borrowed):
            tally.add_borrowed()
        return borrowed

    def outcomes(self, join: StepAddress, records: Sequence[int]) -> bytes:
        """The ids of the outcomes that are stored under a step, those that nobody spawned included."""
        slots = self.universe.run_slots
        step = self.universe.steps.index(join.step)
        real = [run for run in self.owned(join, records) if records[slots[run]]]
        adopted = self.universe.adopted_slots
        children = self.universe.children.get(join.run, ())
        real += [run for run in children if run in adopted and records[adopted[run]] == step and run not in real]
        forged = [
            run
            for run, parent, step in self.universe.forged
            if (parent, step) == (join.run, join.step) and records[slots[run]]
        ]
        return bytes.fromhex("".join(real + forged))

    def spawned(self, join: StepAddress, records: Sequence[int]) -> bytes:
        """The ids of the children whose tasks are stored as spawned by a step."""
        return bytes.fromhex("".join(self.owned(join, records)))

    def owned(self, join: StepAddress, records: Sequence[int]) -> list[str]:
        universe = self.universe
        step = universe.steps.index(join.step)
        return [run for run in universe.children.get(join.run, ()) if records[universe.owner_slots[run]] == step]

    def failed(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> tuple[tuple[str, int], ...]:
        """The children of a sealed join that did not end well, found by their marks."""
        if record.kind == "parked":
            return ()
        universe = self.universe
        members = set(self.owned(join, records))
        if record.members is not None:
            members = {run for run in members if bytes.fromhex(run) in record.members}
        members.update(child.run for child in record.borrowed)
        marked = [run for run in members - set(record.excused) if records[universe.mark_slots[run]]]
        ends = [(run, records[universe.run_slots[run]]) for run in sorted(marked)]
        return tuple((run, end) for run, end in ends if end and universe.values.outcome(end).status != "succeeded")

    # --- results for the generators

    def decode(self, effect: object, token: Any) -> object:
        """Return the result that a token of a history stands for."""
        values = self.universe.values
        match effect:
            case StoreJoin() | StoreRun() | StoreStep():
                return values.value(token)
            case Spawn():
                return self.universe.steps[token]
            case ReadEnded():
                run, step, join = token
                return Ended(
                    run=values.outcome(run) if run else None,
                    step=values.outcome(step) if step else None,
                    join=values.record(join) if join else None,
                    joined=bool(join),
                )
            case ReadSteps():
                return {step: values.outcome(number) for step, number in token}
            case Look() if token is not None:
                return self.view(*token)
            case _:
                return token

    def view(self, number: int, read: int, owner: int, ended: int, failed: tuple[tuple[str, int], ...]) -> JoinView:
        """Return a decided join."""
        universe = self.universe
        record = universe.values.record(number)
        outcomes = tuple((child, universe.values.outcome(end)) for child, end in failed)
        graph = universe.graph(universe.task_keys[read][0])
        met = not record.total or record.policy.verdict(record.total, ended - len(failed), ended) == "met"
        task = universe.task(read, owner)
        return JoinView(record, task, graph, outcomes, met=met, rest=ended < record.total)
