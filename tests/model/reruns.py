"""Reruns: children and steps that are adopted from the run before, with crashes, zombies, and elders that end late.

What an elder's late end, its deletion or a lagging replica can do is one thing here: whoever looks for it finds it now,
and another does not.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, Final

import msgspec

from jetflow.engine import adopting
from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import Outcome, Task
from tests.model.broker import Broker
from tests.model.configurations import AB, CHAIN, DIAMOND, FAIL, PAIR, RETURN, SEQUEL, A, B
from tests.model.model import Rules
from tests.model.planting import Bug
from tests.model.procedures import Token
from tests.model.scenario import (
    ONE_STEP,
    Body,
    Configuration,
    Elder,
    Faults,
    RunScript,
    leaf,
    leaves,
    parent,
)
from tests.model.shell import Adopt, Delivery, ReadElder, Shell, Spawn
from tests.model.state import Draft


def _again(script: RunScript, **elders: Elder) -> RunScript:
    """Return a run of a rerun, whose steps have elders."""
    return replace(script, rerun=True, elders=elders)


def _child(elder: Elder, script: RunScript | None = None) -> RunScript:
    """Return a child that has an elder: it adopts how that has ended, if it is spawned after all."""
    return replace(script or leaf(), rerun=True, elder=elder, elders={"s": elder})


DONE: Final = _child("succeeded")
LATE: Final = _child("late")
FAILED: Final = _child("failed")

RERUNS: Final = (
    Configuration(
        "a rerun adopts one child, and runs the other",
        {"root": _again(parent((AB,))), "a": DONE, "b": FAILED},
        Faults(crashes=2),
    ),
    Configuration(
        "a rerun adopts one child, with a zombie",
        {"root": _again(parent((AB,))), "a": DONE, "b": FAILED},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "a rerun adopts all children, counted twice",
        {"root": _again(parent((AB,))), "a": DONE, "b": DONE},
        Faults(crashes=1, zombies=1, repeats=1),
    ),
    Configuration(
        "a child of the elder ends late",
        {"root": _again(parent((AB,))), "a": LATE, "b": FAILED},
        Faults(crashes=2),
    ),
    Configuration(
        "a child of the elder ends late, and a zombie",
        {"root": _again(parent((A,))), "a": LATE},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "a rerun spawns another set in its second attempt",
        {"root": _again(parent((Body(("a",), "retry"), B))), "a": LATE, "b": LATE},
        Faults(crashes=1),
    ),
    Configuration(
        "a zombie of another set in a rerun",
        {"root": _again(parent((A, B))), "a": LATE, "b": LATE},
        Faults(zombies=1, repeats=1),
    ),
    Configuration(
        "a rerun parks for what it has adopted",
        {"root": _again(parent((Body(("a", "b"), "park"),), (AB,))), "a": DONE, "b": LATE},
        Faults(crashes=1),
    ),
    Configuration(
        "a rerun waits warm for what it has adopted",
        {"root": _again(parent((Body(("a", "b"), waits=True),))), "a": DONE, "b": FAILED},
        Faults(crashes=1, repeats=1),
    ),
    Configuration(
        "a child that fails again",
        {"root": _again(parent((AB,))), "a": DONE, "b": _child("failed", leaf(ends="fail"))},
        Faults(crashes=2),
    ),
    Configuration(
        "a rerun adopts a step, and runs the next",
        {"root": _again(RunScript(CHAIN, bodies={"x": ((A,),), "y": ((B,),)}), x="succeeded"), **leaves("ab")},
        Faults(crashes=2),
    ),
    Configuration(
        "a step of the elder ends late",
        {"root": _again(RunScript(CHAIN, bodies={"x": ((A,),)}), x="late", y="failed"), "a": LATE},
        Faults(crashes=2),
    ),
    Configuration(
        "a rerun adopts one of two before a gate",
        {"root": _again(RunScript(DIAMOND), x="succeeded", y="failed")},
        Faults(crashes=1),
    ),
    Configuration(
        "a rerun of a run that shares a child",
        {"root": _again(RunScript(PAIR, bodies={"x": ((A,),), "y": ((A,),)})), "a": DONE},
        Faults(crashes=1),
        workers=1,
    ),
    Configuration(
        "a step is adopted beside one that shares its child",
        {"root": _again(RunScript(PAIR, bodies={"x": ((A,),), "y": ((A,),)}), x="late"), "a": LATE},
        Faults(crashes=1),
        workers=1,
    ),
    Configuration(
        "a rerun fails again, and has a step for that",
        {"root": _again(RunScript(SEQUEL, bodies={"s": ((FAIL,),)}), s="failed", mend="succeeded")},
        Faults(crashes=1, zombies=1),
    ),
    Configuration(
        "a rerun that is alone adopts its only step",
        {"root": _again(RunScript(ONE_STEP, bodies={"s": ((RETURN,),)}), s="late")},
        Faults(crashes=2, zombies=1),
    ),
)

ADOPTS, DIES, TWICE = (RERUNS[number].name for number in (0, 3, 2))


class CountsNoAdopted(Shell):
    def spawn(self, task: Task, body: Body) -> Generator[Any, Any, dict[str, str]]:
        owners: dict[str, str] = {}
        for child in self.universe.spawned_ids(body):
            there = False
            if self.adopts(task, child):
                there = yield ReadElder(task, child)
            owners[child] = task.step
            if there:
                yield Adopt(task, child)
            else:
                owners[child] = yield Spawn(task, child)
        return owners


class CountsBehindTheSeal(CountsNoAdopted):
    def run(self, task: Task, graph: Graph, attempt: int) -> Delivery:
        body = self.universe.body(self.universe.task_number(task), attempt)
        adopted = sum(self.universe.scripts[child].elder == "succeeded" for child in self.universe.spawned_ids(body))
        verdict = yield from super().run(task, graph, attempt)
        if adopted:
            yield from adopting.count_adopted(task.join, adopted)
        return verdict


class CountsNewOnesAlone(Broker):
    """The adopted are counted where they were stored by this attempt: one that died in between has counted none."""

    def count(self, effect: Any, draft: Draft) -> Token:
        return super().count(effect, draft)

    def adopt(self, effect: Adopt, draft: Draft) -> Token:
        was_there = bool(draft.records[self.universe.run_slots[effect.child]])
        super().adopt(effect, draft)
        return was_there


class CountsWhatItHasStored(Shell):
    def spawn(self, task: Task, body: Body) -> Generator[Any, Any, dict[str, str]]:
        owners: dict[str, str] = {}
        number = 0
        for child in self.universe.spawned_ids(body):
            there = False
            if self.adopts(task, child):
                there = yield ReadElder(task, child)
            owners[child] = task.step
            if there:
                was_there = yield Adopt(task, child)
                number += not was_there
            else:
                owners[child] = yield Spawn(task, child)
        if number:
            yield from adopting.count_adopted(task.join, number)
        return owners


class StoresNothing(Broker):
    def adopt(self, effect: Adopt, draft: Draft) -> Token:
        return None


class AdoptsWhatHasFailed(Broker):
    def read_elder(self, effect: ReadElder, draft: Draft) -> Token:
        return True


class IsCleanInReruns(Shell):
    def clean(self, task: Task, attempt: int) -> bool:
        return attempt == 1 and task.turn == 0


class RunsAgain(Shell):
    def adopts(self, task: Task, child: str) -> bool:
        return False


class RunsStepsAgain(Shell):
    def may_adopt(self, task: Task, graph: Graph) -> bool:
        return False


class AdoptsSharedOnes(Shell):
    def adopts(self, task: Task, child: str) -> bool:
        return bool(self.universe.scripts[child].elder)


class AdoptsTheSequel(Shell):
    def may_adopt(self, task: Task, graph: Graph) -> bool:
        return bool(self.universe.scripts[task.run].elders.get(task.step))


class StoresAdoptedStepsAlone(Shell):
    def adopt(self, task: Task, graph: Graph) -> Generator[Any, Any, bool]:
        procedure = super().adopt(task, graph)
        result: Any = None
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration as stop:
                return stop.value
            result = yield effect
            if type(effect).__name__ == "StoreJoin":
                procedure.close()
                return True


def _needs_members(task: str, turn: int, outcome: Outcome, members: bytes) -> JoinRecord:
    return msgspec.structs.replace(_adopted_join(task, turn, outcome, members), needed=1)


_adopted_join = adopting.adopted_join

BUGS_OF_RERUNS: Final = (
    Bug("reruns: adopted children are not counted", ADOPTS, rules=Rules(shell=CountsNoAdopted)),
    Bug("reruns: the adopted are counted behind the seal", ADOPTS, rules=Rules(shell=CountsBehindTheSeal)),
    Bug(
        "reruns: an attempt counts only what it has stored itself",
        ADOPTS,
        rules=Rules(shell=CountsWhatItHasStored, broker=CountsNewOnesAlone),
    ),
    Bug("reruns: the outcome of an adopted child is not stored", ADOPTS, rules=Rules(broker=StoresNothing)),
    Bug("reruns: what has failed is adopted", ADOPTS, rules=Rules(broker=AdoptsWhatHasFailed)),
    Bug("reruns: an attempt takes all that is stored for its own", RERUNS[6].name, rules=Rules(shell=IsCleanInReruns)),
    Bug("reruns: children that have succeeded run again", ADOPTS, rules=Rules(shell=RunsAgain)),
    Bug("reruns: steps that have succeeded run again", RERUNS[10].name, rules=Rules(shell=RunsStepsAgain)),
    Bug(
        "reruns: a child that is shared is adopted by its spawner", RERUNS[14].name, rules=Rules(shell=AdoptsSharedOnes)
    ),
    Bug("reruns: the step after a failure is adopted", RERUNS[15].name, rules=Rules(shell=AdoptsTheSequel)),
    Bug(
        "reruns: an adopted step is stored, and nothing follows",
        RERUNS[10].name,
        rules=Rules(shell=StoresAdoptedStepsAlone),
    ),
    Bug(
        "reruns: an adopted step waits for children that nobody counts",
        RERUNS[10].name,
        replaced=((adopting, "adopted_join", _needs_members),),
    ),
)
