"""Plants bugs one at a time, and expects the model to catch each: ``python -m tests.model.mutants [part of a name]``.

A bug that survives is either one that no configuration meets, or no bug. This says something only while the model
itself finds no violation: run ``python -m tests.model`` first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final

from jetflow.engine import effects, transitions
from jetflow.engine.effects import Effect, Look, Procedure, StoreRun
from jetflow.engine.graph import Graph
from jetflow.engine.joins import SEAL, JoinRecord, LookLedger, Tally
from jetflow.engine.tasks import StepAddress, Task
from tests.model import (
    attempts,
    conditions,
    expiring,
    hedging,
    holding,
    keeping,
    limits,
    loosening,
    schedules,
    sharing,
    waiting,
    windows,
)
from tests.model.broker import Broker
from tests.model.bugs_of_endings import BUGS_OF_ENDINGS
from tests.model.configurations import CONFIGURATIONS, LARGE
from tests.model.explorer import Report, explore, say
from tests.model.model import Rules
from tests.model.planting import Bug, Edit
from tests.model.procedures import Token
from tests.model.reruns import BUGS_OF_RERUNS, RERUNS
from tests.model.scenario import Body
from tests.model.shell import Ack, Delivery, Shell, Spawn
from tests.model.state import Draft

# --- the broker's reads and the performer ------------------------------------------------------------------------


class TrustsTheCounter(Broker):
    def ended(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> int:
        return record.needed


class CountsOneTooMany(Broker):
    def ended(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> int:
        return super().ended(join, record, records) + 1


class LooksAtStaleViews(Broker):
    def ways(self, effect: object) -> tuple[Callable[[Draft], Token], ...]:
        exact = super().ways(effect)
        return (*exact, lambda _: None) if isinstance(effect, Look) else exact


class LooksAtTheFirstTurn(Broker):
    def read_join(self, effect: Look, draft: Draft) -> int | None:
        read = super().read_join(effect, draft)
        if read is None:
            return None
        run, step, _ = self.universe.task_keys[read]
        first = self.universe.task_numbers[run, step, 0]
        return first if draft.records[self.universe.join_slots[first]] else read


class TellsNobodyTheValue(Broker):
    def batched(self, token: Token) -> Token:
        return None


class PromisesBorrowedIncrements(Broker):
    def promises(self, record: JoinRecord) -> bool:
        return True


class RecountsAnyAsManyAsNeeded(Broker):
    def ended(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> int:
        outcomes = self.outcomes(join, records)
        tally = self.tally(record, record.members)
        self.count_in(tally, outcomes, record, records)
        if tally.disputed:
            tally = self.tally(record, self.spawned(join, records))
            self.count_in(tally, outcomes, record, records)
        return tally.stored


class RecountsWithoutTheBorrowed(Broker):
    def ended(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> int:
        outcomes = self.outcomes(join, records)
        tally = self.tally(record, record.members)
        self.count_in(tally, outcomes, record, records)
        if tally.disputed:
            tally = self.tally(record, self.spawned(join, records))
            tally.add(outcomes)
        return tally.stored


class CountsFailures(Broker):
    def failed(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> tuple[tuple[str, int], ...]:
        return () if record.policy.quorum is not None else super().failed(join, record, records)


class OverwritesSpawned(Broker):
    def spawn(self, effect: Spawn, draft: Draft) -> Token:
        draft.records[self.universe.owner_slots[effect.child]] = 0
        super().spawn(effect, draft)
        step = self.universe.steps.index(effect.task.step)
        draft.records[self.universe.owner_slots[effect.child]] = step
        return step


class ForgetsBorrowedFailures(Broker):
    def failed(self, join: StepAddress, record: JoinRecord, records: Sequence[int]) -> tuple[tuple[str, int], ...]:
        borrowed = {child.run for child in record.borrowed}
        return tuple(end for end in super().failed(join, record, records) if end[0] not in borrowed)


# --- the tally and the ledger ------------------------------------------------------------------------------------


class CountsOrphans(Tally):
    def __init__(self, record: JoinRecord, members: bytes | None = None) -> None:
        super().__init__(record)


class NeverDisputes(Tally):
    @property
    def disputed(self) -> bool:
        return False


class OffByOne(LookLedger):
    def missed(self, join: StepAddress, value: int, missing: int) -> None:
        super().missed(join, value, missing + 1)


class NotPerJoin(LookLedger):
    def worth(self, join: StepAddress, value: int) -> bool:
        return super().worth(self._any(join), value)

    def missed(self, join: StepAddress, value: int, missing: int) -> None:
        super().missed(self._any(join), value, missing)

    @staticmethod
    def _any(join: StepAddress) -> StepAddress:
        return StepAddress(join.root, "", "")


class OnlyAtSeal(LookLedger):
    def worth(self, join: StepAddress, value: int) -> bool:
        return value == SEAL


# --- the shell ---------------------------------------------------------------------------------------------------


class AcksBeforeTheIncrement(Shell):
    def deliver(self, task: Task, attempt: int) -> Delivery:
        delivery = super().deliver(task, attempt)
        result: Any = None
        while True:
            try:
                effect = delivery.send(result)
            except StopIteration as stop:
                return stop.value
            result = yield effect
            if isinstance(effect, StoreRun):
                yield Ack(task)


class FinishesWithoutJoining(Shell):
    def may_finish(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> bool:
        return body.ends == "return"


class FinishesARetryWithoutSealing(Shell):
    def may_finish(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> bool:
        return body.ends == "return" and (body.waits or not body.spawns)


class SealsEveryAttemptAsClean(Shell):
    def record(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> JoinRecord:
        record = super().record(task, attempt, body, owners)
        return JoinRecord(
            kind=record.kind,
            turn=record.turn,
            task=record.task,
            needed=record.needed,
            borrowed=record.borrowed,
            attempt=attempt,
            worker=record.worker,
        )


class OwnsWhatItBorrows(Shell):
    def record(self, task: Task, attempt: int, body: Body, owners: dict[str, str]) -> JoinRecord:
        return super().record(task, attempt, body, dict.fromkeys(owners, task.step))


class LeavesRedeliveriesAlone(Shell):
    def go_on(self, task: Task, graph: Graph) -> Generator[Effect, Any, bool]:
        yield effects.ReadEnded(task)
        return True


# --- rules -------------------------------------------------------------------------------------------------------


def wakes_back(task: Task, graph: Graph, *_: object, **__: object) -> Procedure:
    for step in graph.beside[task.step]:
        yield from transitions.settle(StepAddress(task.root, task.run, step))


COUNTS_ALL_NEEDED: Final = property(lambda record: SEAL - record.needed)


RETRIED: Final = "a retry spawns another set, a crash"
ZOMBIE: Final = "a zombie of another set"
CRASHES: Final = "two children, two crashes"
REPEATS: Final = "increments that share a batch, and a crash"
SHARED: Final = "two steps share a child"
GATE: Final = "a gate of two and a batch"
PARKED: Final = "a parked step goes on"

BUGS: Final = (
    Bug("a failure is forgiven", "a child fails", (Edit("settle", "not view.met", "False"),)),
    Bug("a quorum counts failures too", "two of three, one fails", rules=Rules(broker=CountsFailures)),
    Bug(
        "what runs after a failure is not started again",
        "a step runs after a failure",
        (Edit("repeat_end", "ended.status in FAILED", "False"),),
    ),
    Bug("a count is compared with ==", REPEATS, (Edit("count_up", "value >= SEAL", "value == SEAL"),)),
    Bug("a seal's count is compared with ==", REPEATS, (Edit("count_seal", "value >= SEAL", "value == SEAL"),)),
    Bug(
        "an increment goes before its outcome",
        CRASHES,
        (
            Edit(
                "conclude",
                "    stored: Outcome = yield StoreRun(task, outcome)\n    yield from count_up(task, well=stored",
                "    stored = outcome\n    yield from count_up(task, well=outcome",
            ),
        ),
    ),
    Bug(
        "a failed run is not counted",
        "a child fails",
        (
            Edit(
                "conclude",
                'yield from count_up(task, well=stored.status == "succeeded")',
                'yield from count_up(task) if stored.status == "succeeded" else ()',
            ),
        ),
    ),
    Bug(
        "a mark goes after its outcome",
        "a child fails",
        (
            Edit(
                "conclude",
                "yield StoreMark(task, outcome)\n    stored: Outcome = yield StoreRun(task, outcome)",
                "pass\n    stored = yield StoreRun(task, outcome)\n"
                '    if outcome.status != "succeeded":\n        yield StoreMark(task, outcome)',
            ),
        ),
    ),
    Bug("no look after a seal", CRASHES, (Edit("count_seal", "value >= SEAL", "False"),)),
    Bug(
        "a seal is counted before its record is stored",
        CRASHES,
        (
            Edit(
                "seal",
                "    stored: JoinRecord = yield StoreJoin(task, record)\n    yield from await_wakers(task, stored)",
                "    yield from await_wakers(task, record)\n    yield StoreJoin(task, record)",
            ),
        ),
    ),
    Bug(
        "a redelivery does not count",
        CRASHES,
        (Edit("redelivered", "yield from repeat_end(task, graph, ended.run)", "pass"),),
    ),
    Bug(
        "a redelivery does not look",
        CRASHES,
        (
            Edit(
                "redelivered",
                "yield from await_wakers(task, ended.join, graph)",
                "yield Count(task.join, 'join', ended.join.increment)",
            ),
        ),
    ),
    Bug(
        "a redelivery runs again although its join is recorded",
        CRASHES,
        (
            Edit(
                "redelivered",
                "yield from await_wakers(task, ended.join, graph)",
                "yield from await_wakers(task, ended.join, graph)\n        return False",
            ),
        ),
    ),
    Bug(
        "a redelivery does not advance",
        GATE,
        (Edit("redelivered", "yield from advance(task, graph, task.step, ended.step)", "pass"),),
    ),
    Bug(
        "a redelivery does not wake what is beside",
        SHARED,
        (Edit("redelivered", "yield from wake_beside(task, graph)", "pass"),),
    ),
    Bug(
        "an ended step is not counted again",
        "a look of another ends a step with an open child that is shared",
        (Edit("redelivered", 'yield Count(task.join, "join", SEAL)', "pass"),),
    ),
    Bug("a redelivery is just acknowledged", CRASHES, rules=Rules(shell=LeavesRedeliveriesAlone)),
    Bug("the next turn forgets + 1", PARKED, (Edit("wake", "task.turn + 1", "task.turn"),)),
    Bug("a parked step is finished", PARKED, (Edit("settle", 'record.kind == "parked"', "False"),)),
    Bug("a finished step wakes nobody", SHARED, (Edit("finish", "if spawned:", "if False:"),)),
    Bug("woken steps wake back", SHARED, replaced=((transitions, "wake_beside", wakes_back),)),
    Bug(
        "the next step starts before the outcome is stored",
        "a chain, two crashes",
        (
            Edit(
                "finish",
                "stored: Outcome = yield StoreStep(task, outcome)",
                "yield from advance(task, graph, task.step, outcome)\n"
                "        stored: Outcome = yield StoreStep(task, outcome)",
            ),
        ),
    ),
    Bug("a gate is compared with ==", GATE, (Edit("_may_pass", "value >= len(upstream)", "value == len(upstream)"),)),
    Bug(
        "a gate is not verified",
        GATE,
        (
            Edit(
                "_gathered",
                "{name: steps[name] for name in upstream} if steps.keys() >= set(upstream) else None",
                "steps",
            ),
        ),
    ),
    Bug("only one of the first steps starts", GATE, (Edit("begin", "graph.downstream[START]", "graph.roots[:1]"),)),
    Bug(
        "a borrowed child is awaited on the own counter",
        "two steps borrow from each other",
        replaced=((JoinRecord, "increment", COUNTS_ALL_NEEDED),),
    ),
    Bug("the counter is trusted", REPEATS, rules=Rules(broker=TrustsTheCounter)),
    Bug("a look reads a stale view", CRASHES, rules=Rules(broker=LooksAtStaleViews)),
    Bug("a look takes the record of an old turn", PARKED, rules=Rules(broker=LooksAtTheFirstTurn)),
    Bug("nobody of a batch is told the value", REPEATS, rules=Rules(broker=TellsNobodyTheValue)),
    Bug(
        "the ledger takes borrowed children for increments to come",
        "a borrower with children of its own, counted twice",
        rules=Rules(broker=PromisesBorrowedIncrements),
    ),
    Bug("a recount takes any of the spawned", ZOMBIE, rules=Rules(broker=RecountsAnyAsManyAsNeeded)),
    Bug(
        "a recount forgets the borrowed",
        "a forged outcome beside a borrowed child",
        rules=Rules(broker=RecountsWithoutTheBorrowed),
    ),
    Bug("a second spawn replaces the first", SHARED, rules=Rules(broker=OverwritesSpawned)),
    Bug("a borrowed child's failure is not seen", "a shared child fails", rules=Rules(broker=ForgetsBorrowedFailures)),
    Bug("orphans are counted", RETRIED, rules=Rules(tally=CountsOrphans)),
    Bug("a forged outcome is accepted by the count alone", "a forged outcome", rules=Rules(tally=NeverDisputes)),
    Bug("all but one are enough", REPEATS, rules=Rules(broker=CountsOneTooMany)),
    Bug("the ledger is off by one", REPEATS, rules=Rules(ledger=OffByOne)),
    Bug(
        "the ledger is not kept per join",
        "a chain, two crashes",
        rules=Rules(ledger=NotPerJoin),
    ),
    Bug("a look is worth it at SEAL only", REPEATS, rules=Rules(ledger=OnlyAtSeal)),
    Bug("a task is acknowledged before the increment", CRASHES, rules=Rules(shell=AcksBeforeTheIncrement)),
    Bug("a step finishes before its children are verified", CRASHES, rules=Rules(shell=FinishesWithoutJoining)),
    Bug(
        "a retry that spawns nothing is not sealed",
        "the owner of a shared child retries without it",
        rules=Rules(shell=FinishesARetryWithoutSealing),
    ),
    Bug("a second attempt writes a clean record", RETRIED, rules=Rules(shell=SealsEveryAttemptAsClean)),
    Bug("a borrowed child is taken for an own one", SHARED, rules=Rules(shell=OwnsWhatItBorrows)),
)


ALL_BUGS: Final = (*BUGS, *BUGS_OF_ENDINGS, *BUGS_OF_RERUNS)


def hunt(bug: Bug) -> Report | None:
    """Return the search that caught a bug, in the one configuration that has to: there, the right rules hold."""
    configuration = next(one for one in (*CONFIGURATIONS, *LARGE, *RERUNS) if one.name == bug.caught_in)
    with bug.planted() as rules:
        report = explore(configuration, rules, stop_at_first=True)
    return report if report.violations else None


def hunts() -> dict[str, Callable[[], Report | None]]:
    """Return the hunt for each bug by its name, in the rules and in the small models."""
    found: dict[str, Callable[[], Report | None]] = {bug.name: partial(hunt, bug) for bug in ALL_BUGS}
    found |= {f"attempts: {name}": partial(attempts.hunt, bug) for name, bug in attempts.BUGS.items()}
    found |= {f"kept: {name}": partial(keeping.hunt, bug) for name, bug in keeping.BUGS.items()}
    found |= {f"hedged: {name}": partial(hedging.hunt, bug) for name, bug in hedging.BUGS.items()}
    found |= {f"loosened: {name}": partial(loosening.hunt, bug) for name, bug in loosening.BUGS.items()}
    found |= {f"held: {name}": partial(holding.hunt, bug) for name, bug in holding.BUGS.items()}
    found |= {f"waiting: {name}": partial(waiting.hunt, bug) for name, bug in waiting.BUGS.items()}
    found |= {f"conditions: {name}": partial(conditions.hunt, bug) for name, bug in conditions.BUGS.items()}
    found |= {f"schedules: {name}": partial(schedules.hunt, bug) for name, bug in schedules.BUGS.items()}
    found |= {f"pauses: {name}": partial(expiring.hunt, bug) for name, bug in expiring.BUGS.items()}
    found |= {f"limits: {name}": partial(limits.hunt, bug) for name, bug in limits.BUGS.items()}
    found |= {f"windows: {name}": partial(windows.hunt, bug) for name, bug in windows.BUGS.items()}
    return found | {f"shared: {name}": partial(sharing.hunt, bug) for name, bug in sharing.BUGS.items()}


def main(wanted: str = "") -> int:
    """Hunt the bugs whose names contain ``wanted``; return the exit code."""
    began = time.perf_counter()
    bugs = {name: look for name, look in hunts().items() if wanted in name}
    caught = 0
    for name, look in bugs.items():
        report = look()
        seen = report is not None and not report.first.startswith("broken")
        caught += seen
        if report is None or not seen:
            say(f"SURVIVED {name} {report.first if report else ''}")
        else:
            kind = report.first.partition(":")[0]
            say(f"{kind:<8} {name}: {report.name}, {report.states:,} states, {report.seconds:.1f} s")
            for step in report.trace if wanted else ():
                say(f"{'':>12}{step}")
    say(f"engine: {len(bugs)} planted bugs, {caught} caught, in {time.perf_counter() - began:.0f} s")
    return 0 if caught == len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
